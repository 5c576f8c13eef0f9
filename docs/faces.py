"""Sphinx extension: the public face of a package, from its docstrings and settings; the command.

    ```{face} unite_core.loss
    ```

documents every name of `unite_core.loss.__all__`. Classes with `@settings` list their fields with
what is allowed, the default and the help; constants take the text below them where they are
defined.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import pkgutil
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress

from docstrings import to_rst
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from unite_core import settings
from unite_core.cli import VERBS, main

__all__ = ["Command", "Face", "constants", "help_text", "setup"]


class Face(SphinxDirective):
    """A package: its docstring, functions and classes, then its constants."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the directives of autodoc that document the package."""
        package = self.arguments[0]
        lines = ["```{eval-rst}", f".. automodule:: {package}", ""]
        for module, name in constants(package):
            lines += [f".. autodata:: {module}.{name}", "   :no-value:", ""]
        lines.append("```")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=package), 0, node)
        return node.children


class Command(SphinxDirective):
    """The command `unite`: a section with the help of every verb."""

    def run(self) -> list[nodes.Node]:
        """Parse a section and a literal block for each verb."""
        parts = [f"## unite {verb}\n\n```text\n{help_text(verb)}```\n" for verb in VERBS]
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def help_text(verb: str) -> str:
    """What `unite VERB --help` prints, 88 columns wide."""
    printed = io.StringIO()
    width, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "90"
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            main([verb, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return printed.getvalue()


def constants(package: str) -> Iterator[tuple[str, str]]:
    """(module, name) of the face's names that are neither functions, classes nor modules."""
    face = importlib.import_module(package)
    modules = [f"{package}.{found.name}" for found in pkgutil.iter_modules(face.__path__)]
    for name in face.__all__:
        value = getattr(face, name)
        if not (inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value)):
            yield _home(name, modules), name


def _home(name: str, modules: list[str]) -> str:
    """The module that defines a constant: the one that exports it."""
    for module in map(importlib.import_module, modules):
        if name in getattr(module, "__all__", ()):
            return module.__name__
    raise LookupError(f"no module of {', '.join(modules)} has {name} in __all__: add it there")


def _fields(kind: type) -> Iterator[str]:
    """Rows of a settings class: name, what is allowed, default, help."""
    yield "Fields"
    parameters = inspect.signature(kind).parameters
    for name, schema in settings.describe(kind).items():
        if "default" in schema:
            default = f"default `{json.dumps(schema['default'], ensure_ascii=False)}`"
        else:
            required = parameters[name].default is inspect.Parameter.empty
            default = "required" if required else "empty by default"
        words = f"{settings.allowed(schema)}; {default}. {settings.help_of(kind, name)}"
        yield f"    {name}  {words}"


def _docstring(app: Sphinx, what: str, name: str, thing, options, lines: list[str]) -> None:
    text = list(lines)
    if thing in settings.DECLARED:
        text += ["", *_fields(thing)]
    lines[:] = to_rst(text)


def _signature(app: Sphinx, what: str, name: str, thing, options, arguments, returns):
    """None for the signature of settings, whose fields are listed."""
    return ("", None) if what == "class" and thing in settings.DECLARED else None


def _skip(app: Sphinx, what: str, name: str, thing, skip: bool, options) -> bool | None:
    """Leave out the fields of settings as attributes of their own."""
    owner = app.env.current_document.autodoc_class or ""
    kind = next((each for each in settings.DECLARED if each.__name__ == owner), None)
    return True if kind and name in settings.describe(kind) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, and what is done to all that autodoc reads."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("face", Face)
    app.add_directive("verbs", Command)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
