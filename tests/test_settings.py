"""Every field of every configuration refuses what it must, in a line that says what is allowed."""

import importlib
import json
import math
import pkgutil
from dataclasses import MISSING, asdict, fields, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unite_core
from unite_core.cli.options import from_options, options_of
from unite_core.settings import (
    DECLARED,
    Count,
    SettingsError,
    Share,
    allowed,
    describe,
    help_of,
    make,
    nested,
    read_config,
    settings,
    write_config,
)
from unite_core.train.config import TrainConfig

for module in pkgutil.walk_packages(unite_core.__path__, "unite_core."):
    if module.name.endswith((".config", ".loading", ".recipe", ".shapes", ".verify")):
        importlib.import_module(module.name)
KINDS = {kind.__name__: kind for kind in DECLARED if kind.__module__.startswith("unite_core.")}
FIELDS = [(kind, field.name) for kind in KINDS.values() for field in fields(kind)]
PART = {"about": "a", "queries": [{"text": "q"}], "candidates": [{"text": "c"}], "cosines": [[0.5]]}
# the least that a configuration without defaults needs
NEEDED = {
    "TrainConfig": {"model": "m", "data": ["d"], "output": "o"},
    "EncodeConfig": {"model": "m", "output": "o"},
    "MineConfig": {"model": "m", "data": ["d"], "output": "o"},
    "ProbeConfig": {"model": "m", "data": ["d"]},
    "ExamplePart": PART,
    "PublishedExample": {
        "model": "m",
        "known_as": "m",
        "dtype": "float32",
        "source": "s",
        "parts": [PART],
    },
    "StageConfig": {"name": "s"},
    "Source": {"name": "s", "path": "p"},
    "Recipe": {"name": "r", "sources": [{"name": "s", "path": "p"}], "output": "o"},
}
WRONG = {
    "boolean": ["false", 0, 1.5, None, [], {}, math.nan],
    "integer": ["3", 2.5, True, None, [], {}, math.nan, math.inf],
    "number": ["1e-4", True, None, [], {}, math.nan, math.inf, -math.inf],
    "string": [2024, True, None, [], {}, math.nan],
    "array": [2024, {}, None, True, [3.5], [[]], math.nan],
    "object": [2024, [], None, True, math.nan],
    "null": [],
}


def kinds_of(schema):
    return {part.get("type", "string") for part in schema.get("anyOf", [schema])}


def wrong_values(schema):
    """Values of another type than the field's, and values beyond its limits."""
    kinds = kinds_of(schema)
    common = set.intersection(*({repr(v) for v in WRONG[kind]} for kind in kinds - {"null"}))
    some = next(iter(kinds - {"null"}))
    yield from (v for v in WRONG[some] if repr(v) in common and not (v is None and "null" in kinds))
    for part in schema.get("anyOf", [schema]):
        if "minimum" in part:
            yield part["minimum"] - 1
        if "exclusiveMinimum" in part:
            yield part["exclusiveMinimum"]
        if "maximum" in part:
            yield part["maximum"] + 1
        if "exclusiveMaximum" in part:
            yield part["exclusiveMaximum"]
        if "enum" in part:
            yield "no such choice"
        if part.get("minLength") and part["type"] == "string":
            yield ""


def test_every_configuration_is_walked():
    others = ("Embed", "Sampling", "Index", "Rule", "Clean", "Align", "Profile", "Shapes")
    assert set(KINDS) >= {*NEEDED, *(f"{name}Config" for name in others)}
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_every_field_refuses_wrong_types_nan_and_what_is_out_of_range(kind, name):
    schema = describe(kind)[name]
    tried = list(wrong_values(schema))
    assert len(tried) >= 3
    for value in tried:
        with pytest.raises(SettingsError) as error:
            make(kind, NEEDED.get(kind.__name__, {}) | {name: value}, "file.json")
        message = str(error.value)
        assert message.startswith("file.json: ") and "\n" not in message
        assert name in message, message
        assert "must be" in message or " is no " in message, message


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_every_field_says_what_it_is(kind, name):
    assert len(help_of(kind, name)) > 10
    assert allowed(describe(kind)[name]) not in ("", "a value")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_a_configuration_survives_json_and_is_frozen(kind, tmp_path):
    config = make(kind, NEEDED.get(kind.__name__, {}), "here")
    write_config(config, tmp_path / "config.json")
    assert read_config(kind, tmp_path / "config.json") == config == replace(config)
    with pytest.raises(AttributeError):
        setattr(config, fields(kind)[0].name, None)
    with pytest.raises(SettingsError, match="file: unknown_field is no field; known: "):
        make(kind, NEEDED.get(kind.__name__, {}) | {"unknown_field": 1}, "file")
    for field in fields(kind):
        if field.default is MISSING and field.default_factory is MISSING:
            values = {k: v for k, v in NEEDED[kind.__name__].items() if k != field.name}
            with pytest.raises(SettingsError, match=f"{field.name} is missing: add it"):
                make(kind, values, "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model": "a", "model": "b"}', "'model' stands twice"),
        ('{"model": NaN}', "NaN is no JSON number"),
        ('{"model": "m"', "not JSON"),
        ("[1, 2]", r"run.json: \[1, 2\]: must be an object"),
        ('"text"', "must be an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"model": "m", "data": "d", "output": 2024}', "output is 2024: must be text"),
        ('{"model": "m", "data": "d", "output": "o", "bf16": "false"}', "must be true or false"),
        ('{"model": "m", "data": "d", "output": "o", "stage": {"name": "stage1", '
         '"learning_rate": "1e-4"}}', "stage.learning_rate is '1e-4': must be a number greater"),
        ('{"model": "m", "data": "d", "output": "o", "sampling": []}',
         "sampling is .*must be an object"),
        ('{"model": "m", "data": "d", "output": "o", "embed": {"max_frames": 2.5}}',
         "embed.max_frames is 2.5: must be a whole number"),
        ('{"model": "m", "data": "d", "output": "o", "weights": {"a": -1}}', "weights.a is -1"),
        ('{"model": "m", "data": "d", "output": "o", "stage": "stage3"}', "one of stage1, stage2"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_with_its_name(tmp_path, text, message):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_config(TrainConfig, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_several_mistakes_are_told_at_once_and_a_rule_between_fields_is_told():
    with pytest.raises(SettingsError) as error:
        TrainConfig("m", "d", 3, bf16="x", workers=-1, cache_mib=1.5)
    assert str(error.value).count(";") == 3 and str(error.value).endswith("and 1 more")
    with pytest.raises(SettingsError, match="cache_vision needs a frozen tower"):
        TrainConfig("m", "d", "o", cache_vision=True, workers=1)


def test_positions_of_arguments_are_told_by_name():
    with pytest.raises(SettingsError, match="TrainConfig: output is 2024"):
        TrainConfig("m", "d", 2024)


@settings
class Inner:
    """A nested configuration."""

    rate: Share = 0.5
    """A share of something."""


@settings
class Outer:
    """A configuration of every kind of field."""

    count: Count = 1
    """A number of things."""
    kind: Literal["a", "b"] = "a"
    """One of two kinds."""
    flag: bool = False
    """Whether it is so."""
    inner: nested(Inner) = Inner()
    """What lies inside."""
    limit: Count | None = None
    """At most so many."""


DECLARED.remove(Inner)
DECLARED.remove(Outer)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "count": st.integers(1, 9),
            "kind": st.sampled_from("ab"),
            "flag": st.booleans(),
            "inner__rate": st.floats(0, 1),
            "limit": st.integers(1, 5),
        },
    )
)
def test_options_and_a_file_make_the_same_configuration(given_options):
    values = {k: v for k, v in given_options.items() if not k.startswith("inner")}
    if "inner__rate" in given_options:
        values["inner"] = {"rate": given_options["inner__rate"]}
    assert from_options(Outer, given_options) == make(Outer, values, "file")


def test_options_are_those_of_the_fields_and_win_over_the_file():
    options = {option.name for option in options_of(TrainConfig)}
    assert {"model", "data", "stage", "stage__learning_rate", "sampling__quotas"} <= options
    names = {field.name for field in fields(TrainConfig)}
    assert names <= options
    file = {"model": "m", "data": ["d"], "output": "o", "stage": "stage2"}
    made = from_options(TrainConfig, {"stage__max_steps": 7, "output": "p"}, file, "run.json")
    assert (made.stage.name, made.stage.max_steps, made.output) == ("stage2", 7, "p")
    assert asdict(made.stage) | {"max_steps": -1} == asdict(
        make(TrainConfig, file, "run.json").stage
    )
    with pytest.raises(SettingsError, match="^run.json: stage.max_steps is 'x'"):
        from_options(TrainConfig, {"stage__max_steps": "x"}, file, "run.json")


def test_a_configuration_is_stored_as_plain_json(tmp_path):
    config = TrainConfig("m", "d", "o", embed={"fps": 2})
    write_config(config, tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["stage"]["name"] == "stage1"
