"""One declaration for every setting: type, range, help and default, checked wherever it comes from.

A configuration is a frozen dataclass with `@settings`. A JSON file (`read_config`), the command
line (`unite_core.cli`) and a notebook (`StageConfig(...)`) all make one and get the same checks: no
text for a number, no NaN, nothing out of range, no unknown field. A mistake is one line that names
the file, the field, the value and what is allowed.

    @settings
    class IndexConfig:
        kind: Literal["flat", "hnsw"] = "flat"
        \"\"\"How candidates are searched.\"\"\"
        probes: Count = 32
        \"\"\"Cells that are looked into.\"\"\"

The string below a field is its help. Checks between fields stand in `__post_init__` and raise
ValueError.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from .files import read_json, write_json

__all__ = [
    "DECLARED", "Count", "Name", "Names", "Natural", "NonNegative", "PathName", "Positive",
    "SettingsError", "Share", "Strings", "allowed", "as_tuple", "describe", "fields_of",
    "help_of", "make", "nested", "one_or_more", "read_config", "settings", "write_config",
]  # fmt: skip

T = TypeVar("T")
_SHOWN = 3  # mistakes that an error names
_RULES = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

DECLARED: list[type] = []
"""Every class with `@settings` that has been imported."""


def as_tuple(value: Any) -> Any:
    """A list as a tuple, other values as they are."""
    return tuple(value) if isinstance(value, list) else value


def one_or_more(value: Any) -> Any:
    """A list as a tuple, a single text or path as a tuple of one; other values as they are."""
    if isinstance(value, str | os.PathLike):
        value = (value,)
    return tuple(map(_path, value)) if isinstance(value, list | tuple) else value


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
PathName = Annotated[str, BeforeValidator(_path), Field(min_length=1)]
"""A path or an id, as text; pathlib's paths are turned into it."""
Strings = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
"""A list of texts, which a single text is not."""
Names = Annotated[tuple[Name, ...], BeforeValidator(one_or_more), Field(min_length=1)]
"""One or more paths or names; a single text is taken as one."""


class SettingsError(ValueError):
    """Settings that are not allowed; `problems` are the mistakes: (field or "", what is wrong)."""

    def __init__(self, problems: list[tuple[str, str]], where: str):
        self.problems = problems
        lines = [_line(*problem) for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"and {len(problems) - _SHOWN} more")
        super().__init__(f"{where}: {'; '.join(lines)}")


@dataclass_transform(frozen_default=True)
def settings(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are checked when it is made."""
    made = dataclass(frozen=True, config=_RULES)(kind)
    checked_init = made.__init__

    @functools.wraps(checked_init)
    def init(self, *args, **values):
        try:
            checked_init(self, *args, **values)
        except ValidationError as error:
            raise SettingsError(_problems(error, made), kind.__name__) from None

    made.__init__ = init
    DECLARED.append(made)
    return made


def nested(kind: type[T], convert: Callable[[Any], Any] | None = None) -> Any:
    """The type of a field that is itself a configuration, or a JSON object of its fields.

    `convert`, if given, sees the value first: to take a name for one of several, say.
    """

    def made(value: Any) -> Any:
        value = convert(value) if convert else value
        return make(kind, value, kind.__name__) if isinstance(value, Mapping) else value

    return Annotated[kind, BeforeValidator(made)]


def fields_of(kind: type) -> Any:
    """The type of a field that holds some of the fields of a configuration, such as {"fps": 2}."""

    def check(values: dict) -> dict:
        make(kind, values, kind.__name__)
        return values

    return Annotated[dict[str, Any], AfterValidator(check)]


def make(kind: type[T], values: Any, where: str) -> T:
    """A configuration `kind` from a JSON object's values.

    SettingsError begins with `where`: the file, or what else the values come from.
    """
    if isinstance(values, kind):
        return values
    if not isinstance(values, Mapping):
        raise SettingsError([("", f"{_shown(values)}: must be an object {{...}} of fields")], where)
    try:
        return kind(**{str(name): value for name, value in values.items()})
    except SettingsError as error:
        raise SettingsError(error.problems, where) from None


def read_config(kind: type[T], path: str | Path) -> T:
    """Read a configuration `kind` from a JSON file; SettingsError names the file and the field."""
    return make(kind, read_json(path, strict=True), str(path))


def write_config(config, path: str | Path) -> None:
    """Save a configuration as JSON, atomically."""
    write_json(path, asdict(config), indent=2)


@functools.cache
def describe(kind: type) -> dict[str, dict]:
    """JSON schema of each field of a configuration, by name, with references resolved."""
    schema = TypeAdapter(kind).json_schema()
    known = schema.get("$defs", {})
    if "$ref" in schema:
        schema = known[schema["$ref"].rsplit("/", 1)[-1]]

    def resolve(part):
        if isinstance(part, Mapping):
            if "$ref" in part:
                part = known[part["$ref"].rsplit("/", 1)[-1]] | {
                    name: value for name, value in part.items() if name != "$ref"
                }
            return {name: resolve(value) for name, value in part.items()}
        return [resolve(value) for value in part] if isinstance(part, list) else part

    return {name: resolve(part) for name, part in schema["properties"].items()}


def help_of(kind: type, name: str) -> str:
    """The help of a field, on one line."""
    return " ".join(describe(kind)[name].get("description", "").split())


def allowed(schema: Mapping) -> str:
    """What a field may be, in words: "a number greater than 0, or null"."""
    if "anyOf" in schema:
        return ", or ".join(allowed(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return f"one of {', '.join(map(str, schema.get('enum', [schema.get('const')])))}"
    kind = schema.get("type")
    if kind == "array":
        least = "one or more" if schema.get("minLength") or schema.get("minItems") else "a list of"
        return f"{least} {_PLURAL.get(schema.get('items', {}).get('type'), 'values')}"
    words = _WORDS.get(kind, "a value")
    limits = [f"{said} {schema[key]:g}" for key, said in _LIMITS.items() if key in schema]
    if schema.get("minLength"):
        words = "text that is not empty"
    return words + (f" {' and '.join(limits)}" if limits else "")


_WORDS = {
    "integer": "a whole number", "number": "a number", "string": "text", "null": "null",
    "boolean": "true or false", "object": "an object {...}",
}  # fmt: skip
_PLURAL = {"string": "texts", "integer": "whole numbers", "number": "numbers", "object": "objects"}
_LIMITS = {
    "minimum": "of at least", "exclusiveMinimum": "greater than", "maximum": "at most",
    "exclusiveMaximum": "less than",
}  # fmt: skip


def _line(place: str, words: str) -> str:
    if not place or words.startswith(place):
        return words
    return f"{place} {words}" if words.startswith("is ") else f"{place}: {words}"


def _problems(error: ValidationError, kind: type) -> list[tuple[str, str]]:
    """The mistakes that pydantic found, the first of each field."""
    problems: dict[str, str] = {}
    for found in error.errors(include_url=False):
        found["loc"] = loc = _by_name(found["loc"], kind)
        place = ".".join(str(part) for part in loc if not _is_branch(part))
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError):
            for inner, words in cause.problems:
                problems.setdefault(f"{place}.{inner}" if inner else place, words)
        else:
            problems.setdefault(place, _words(found, place, kind))
    places = list(problems)  # of a union's branches the one that looked inside knows best
    return [
        (place, words)
        for place, words in problems.items()
        if not any(other.startswith(f"{place}.") for other in places)
    ]


def _by_name(loc: tuple, kind: type) -> tuple:
    """An error's place with the field's name in place of an argument's position."""
    if loc and isinstance(loc[0], int):
        names = [field.name for field in fields(kind)]
        return (*names[loc[0] : loc[0] + 1], *loc[1:])
    return loc


def _is_branch(part: Any) -> bool:
    """Whether a place in pydantic's error is the branch of a union and no field."""
    return isinstance(part, str) and (not part or "[" in part or part in _BRANCHES)


_BRANCHES = {"int", "float", "str", "bool", "none", "constrained-float", "constrained-int"}


def _words(found: Mapping, place: str, kind: type) -> str:
    """What is wrong with a field, from pydantic's error of it."""
    cause = found["type"]
    if cause in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        known = list(describe(kind))
        near = difflib.get_close_matches(place, known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"is no field{hint}; known: {', '.join(sorted(known))}"
    if cause in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "is missing: add it"
    if cause == "value_error":
        return str(found["ctx"]["error"])
    schema = _schema_at(found["loc"], kind)
    rule = f"must be {allowed(schema)}" if schema else found["msg"]
    return f"is {_shown(found['input'])}: {rule}"


def _schema_at(loc: tuple, kind: type) -> Mapping | None:
    """The schema of the field, list item or object value that an error's place names."""
    schema: Mapping = {"properties": describe(kind)}
    for part in (part for part in loc if not _is_branch(part)):
        inner = next(filter(None, (_inside(s, part) for s in schema.get("anyOf", [schema]))), None)
        if not isinstance(inner, Mapping):
            break
        schema = inner
    return schema if loc and loc[0] in describe(kind) else None


def _inside(schema: Mapping, part: Any) -> Any:
    if isinstance(part, int):
        return schema.get("items")
    return schema.get("properties", {}).get(part) or schema.get("additionalProperties")


def _shown(value: Any) -> str:
    """A value as JSON would have it, cut short."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
