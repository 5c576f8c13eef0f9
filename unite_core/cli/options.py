"""Command-line options made from declared settings: names, types, help and defaults are read there.

A field `learning_rate` of the nested configuration `stage` is the option `--stage.learning-rate`.
What is given goes through the same checks as a JSON file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, get_type_hints

import click
from click.core import ParameterSource

from ..data.readers import HUB
from ..files import read_json, write_json
from ..settings import DECLARED, allowed, describe, help_of, make, write_config

_NULL = object()  # an option given as null, which is not the same as one that is not given

__all__ = [
    "DataPath", "as_pairs", "config_command", "from_options", "is_config", "load_options",
    "loading", "options_of", "parse", "remembered", "save_option",
]  # fmt: skip


def config_command(
    kind: type, help: str, run: Callable[[Any], Any], example: str,
    fill: Callable[..., Any] | None = None, more: Sequence[click.Parameter] = (),
) -> click.Command:  # fmt: skip
    """A verb that takes a JSON file of `kind`'s fields, options in place of them, or both.

    Args
        run   gets the configuration; what it returns is the exit code, None for 0
        fill  gets (given, values, own) before the configuration is made, and may change `given`:
              the options by name, the file's values, and the options `more` of its own; it
              returns what turns the configuration into that which is run
        more  options that are no fields
    Where `kind` has a field `data`, the argument may also be data, which are that field's first.
    """
    takes_data = "data" in {field.name for field in fields(kind)}

    def callback(**given):
        path, save = given.pop("source"), given.pop("save_config")
        own = {option.name: given.pop(option.name) for option in more}
        values = {}
        if path and (not takes_data or is_config(path)):
            values = read_json(path, strict=True)
        elif path:
            given["data"], path = [path, *(given["data"] or [])], None
        finish = fill(given, values, own) if fill else None
        config = from_options(kind, given, values, path)
        config = finish(config) if finish else config
        if save:
            write_config(config, save)
            click.echo(f"{save}: what is run now, for unite {_verb()} {save}", err=True)
        return run(config)

    name = "[CONFIG.json|DATA]" if takes_data else "[CONFIG.json]"
    data = " The argument may also be the data themselves." if takes_data else ""
    return click.Command(
        None,
        help=f"{help}\n\nSettings come from a JSON file, from options, or both: options win.{data}",
        epilog=f"Example: {example}",
        params=[
            click.Argument(["source"], required=False, type=DataPath(), metavar=name),
            *more,
            *options_of(kind),
            save_option(),
        ],
        callback=callback,
    )


class DataPath(click.Path):
    """An existing file or folder, or a data set on the hub."""

    def __init__(self):
        super().__init__(exists=True)

    def convert(self, value, parameter, context):
        return value if str(value).startswith(HUB) else super().convert(value, parameter, context)


def is_config(path: str) -> bool:
    """Whether a path is a JSON file that holds an object, which data never are."""
    if not str(path).endswith(".json") or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def save_option() -> click.Option:
    """`--save-config FILE`: the configuration that a verb ran, for the next time."""
    return click.Option(
        ["--save-config"], metavar="FILE", type=click.Path(dir_okay=False),
        help="Write the settings of this call to a JSON file, which the verb takes in their place.",
    )  # fmt: skip


def remembered(command: click.Command) -> click.Command:
    """A verb whose call can be written to a file (`--save-config`) and repeated (`--config`).

    For verbs whose settings are their options alone; those of the call win over the file's.
    """
    inner, known = command.callback, [parameter.name for parameter in command.params]

    def load(context, option, path):
        if path:
            values = read_json(path, strict=True)
            if unknown := sorted(set(values) - set(known)):
                raise click.BadParameter(f"{path}: {unknown[0]} is no setting of this verb")
            context.default_map = values

    def callback(save_config, **given):
        context = click.get_current_context()
        if save_config:
            asked = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
            words = {
                name: value for name, value in context.params.items()
                if name != "save_config" and context.get_parameter_source(name) in asked
            }  # fmt: skip
            write_json(save_config, json.loads(json.dumps(words, default=str)), indent=1)
            click.echo(f"{save_config}: this call, for unite {_verb()} --config {save_config}",
                       err=True)  # fmt: skip
        return inner(**given)

    command.callback = callback
    command.params += [
        click.Option(["--config"], type=click.Path(exists=True, dir_okay=False), is_eager=True,
                     expose_value=False, callback=load, metavar="FILE",
                     help="Take what is not given here from a file of --save-config."),
        click.Option(["--save-config"], type=click.Path(dir_okay=False), metavar="FILE",
                     help="Write this call to a JSON file for --config."),
    ]  # fmt: skip
    return command


def _verb() -> str:
    return click.get_current_context().info_name or ""


def from_options(
    kind: type, given: Mapping[str, Any], values: Any = None, path: str | None = None
) -> Any:
    """The configuration that a file's `values` and the options `given` make together."""
    where = path or "options"
    if values and not isinstance(values, Mapping):
        make(kind, values, where)  # says that it is no object
    values = dict(values or {})
    for name, value in sorted(given.items(), key=lambda option: option[0].count("__")):
        if value is None or value == ():
            continue
        target, (*parents, last) = values, name.split("__")
        for parent in parents:
            target[parent] = _as_object(target.get(parent), kind, parent)
            target = target[parent]
        target[last] = None if value is _NULL else value
    return make(kind, values, where)


def loading(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the options `--load.NAME` of a verb say, as keywords of `UniteEmbedder.load`."""
    from ..model.loading import LoadConfig

    prefix = "load__"
    chosen = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    return asdict(from_options(LoadConfig, chosen, path="--load"))


def load_options() -> list[click.Option]:
    """One option `--load.NAME` for each way in which a model is loaded and fed."""
    from ..model.loading import LoadConfig

    return options_of(LoadConfig, ("load",))


def _as_object(value: Any, kind: type, field: str) -> dict:
    """A nested configuration as an object: `{"name": ...}` for its name, or its default's."""
    if value is None:
        value = getattr(getattr(kind, field, None), "name", {})
    return {"name": value} if isinstance(value, str) else dict(value)


def options_of(kind: type, parents: tuple[str, ...] = ()) -> list[click.Option]:
    """One option for each field of a configuration, and of those nested in it."""
    hints = get_type_hints(kind)
    options = []
    for field in fields(kind):
        schema = describe(kind)[field.name]
        if not _is_list_of_objects(schema):
            options.append(_option(kind, field, schema, parents))
        if hints[field.name] in DECLARED:
            options += options_of(hints[field.name], (*parents, field.name))
    return options


def _option(kind: type, field, schema: Mapping, parents: tuple[str, ...]) -> click.Option:
    path = (*parents, field.name)
    flag = "--" + ".".join(path).replace("_", "-")
    declared = {"help": _help(kind, field), "default": None}
    if schema.get("type") == "boolean":
        *before, last = flag.removeprefix("--").split(".")
        off = "--" + ".".join([*before, f"no-{last}"])
        return click.Option(["__".join(path), f"{flag}/{off}"], **declared)
    several = schema.get("type") == "array" or _is_table(schema)

    def read(context, option, text):
        if _is_table(schema):
            return as_pairs(text) or None
        if several:
            return [parse(part, schema.get("items", {})) for part in text] or None
        return _NULL if text == "null" and _may_be_null(schema) else parse(text, schema)

    return click.Option(
        ["__".join(path), flag], multiple=several, metavar=_metavar(schema), callback=read,
        **declared,
    )  # fmt: skip


def parse(text: str | None, schema: Mapping) -> Any:
    """An option's text as the value that a JSON file would hold; what is no JSON stays text."""
    if text is None:
        return None
    kinds = {part.get("type", "string") for part in schema.get("anyOf", [schema])}
    words = {"null"} | ({"true", "false"} if "boolean" in kinds else set())
    if kinds == {"string"} or ("string" in kinds and text not in words):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def as_pairs(texts: Sequence[str]) -> dict[str, Any]:
    """`("max_frames=8", "prompt=raw")` as an object; a JSON object is taken whole."""
    found: dict[str, Any] = {}
    for text in texts:
        if text.startswith("{"):
            try:
                found |= json.loads(text)
            except (ValueError, RecursionError) as error:
                raise click.BadParameter(f"{text[:40]!r}: no JSON object ({error})") from None
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r}: write NAME=VALUE, such as max_frames=8")
        found[name] = parse(value, {"type": "number"})
    return found


def _is_table(schema: Mapping) -> bool:
    """Whether a field is an object of any keys, not a configuration."""
    return schema.get("type") == "object" and "properties" not in schema


def _may_be_null(schema: Mapping) -> bool:
    return any(part.get("type") == "null" for part in schema.get("anyOf", ()))


def _is_list_of_objects(schema: Mapping) -> bool:
    return schema.get("type") == "array" and "properties" in schema.get("items", {})


def _metavar(schema: Mapping) -> str:
    if _is_table(schema):
        return "NAME=VALUE"
    item = schema.get("items", {}) if schema.get("type") == "array" else schema
    if "enum" in item:
        return "[" + "|".join(map(str, item["enum"])) + "]"
    kinds = [part.get("type", "string") for part in item.get("anyOf", [item])]
    known = {"integer": "INTEGER", "number": "NUMBER", "string": "TEXT", "object": "JSON"}
    return next((known[kind] for kind in kinds if kind in known), "VALUE")


def _help(kind: type, field) -> str:
    """A field's help with its range, if it has one, and its default."""
    schema = describe(kind)[field.name]
    words, notes = help_of(kind, field.name), []
    if "properties" in schema:
        return words
    rule = allowed(schema)
    if "least" in rule or "most" in rule or "than" in rule:
        notes.append(rule)
    default = schema.get("default")
    if default not in ((), [], {}, None):
        notes.append(f"default: {json.dumps(default)}")
    return f"{words}  [{'; '.join(notes)}]" if notes else words
