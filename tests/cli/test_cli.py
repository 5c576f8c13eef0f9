"""The command: help that loads nothing, options that are the settings, errors in one line."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from PIL import Image

from unite_core import cli
from unite_core.cli import VERBS, options


def command(name):
    """A verb's command and the context that its options are read in."""
    group = cli._commands()
    return group.get_command(click.Context(group), name)


def test_help_lists_every_verb_with_its_help(unite, capsys):
    assert unite("--help") == 0
    text = capsys.readouterr().out
    for name, (_, words) in VERBS.items():
        assert re.search(rf"^  {name} +{words[:20]}", text, re.MULTILINE), name
    assert "_UNITE_COMPLETE=bash_source" in text
    assert unite("--version") == 0 and "unite-workbook" in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name, unite, capsys):
    assert unite(name, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: unite {name}")
    verb = command(name)
    for option in verb.params:
        assert isinstance(option, click.Argument) or option.help, f"{name} {option.name}"


def example(name):
    """The words of a verb's example, without `unite VERB`."""
    words = shlex.split(re.fullmatch("Example: (.*)", command(name).epilog)[1])
    assert words[:2] == ["unite", name]
    return words[2:]


@pytest.mark.parametrize("name", ["verify", "study", "run", "sweep"])
def test_an_example_that_takes_minutes_is_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("notebooks/00_tour.ipynb", "notebooks/04_stage_1.ipynb"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    command(name).make_context(name, example(name))


# in this order one finds what it needs; what follows is added to be quick
EXAMPLES = {
    "corpus": [], "curate": [], "split": [],
    "train": ["--stage.max-steps", "2", "--stage.batch-size", "8"], "evaluate": [], "gap": [],
    "encode": [], "index": [], "search": [], "mine": [], "probe": [], "export": ["--text-only"],
}  # fmt: skip


def test_every_example_is_run_or_understood():
    assert set(VERBS) == {*EXAMPLES, "verify", "study", "run", "sweep", "notebooks"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train list.csv --model tinny --output o", "did you mean tiny?"),
        ("train list.csv --model tiny --output o --image fil", "did you mean file?"),
        ("train list.csv --model tiny --output o", "no file"),
        ("encode list.csv --model tiny --output o --text titel", "no column 'titel' for --text"),
        ("search list.csv --model tiny-stage3 --text a", "did you mean tiny-stage"),
        ("evaluate tiny --data list.csv --text x", "it has file, title"),
        ("gap runs/x/y --data list.csv", "runs/x/y: no such folder"),
        ("curate list.csv --output o --video x", "no column 'x' for --video"),
        ("split list.csv --output o --image x", "no column 'x' for --image"),
    ],
)
def test_a_wrong_name_is_said_before_anything_slow_is_loaded(tmp_path, arguments, message):
    (tmp_path / "list.csv").write_text("file,title\n1.png,one\n2.png,two\n")
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
        f"from unite_core.cli import main; main({arguments.split()!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stdout.strip() == "False", "torch was loaded"
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_examples_in_help_run_one_after_the_other(tmp_path, monkeypatch, unite, capsys):
    monkeypatch.chdir(tmp_path)
    for name, quick in EXAMPLES.items():
        code = unite(name, *example(name), *quick)
        out, err = capsys.readouterr()
        assert code == 0, f"unite {name}: {err}"
        assert out.strip(), name
    assert (tmp_path / "runs/mine/model/config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["train", "--stage.max-step", "3"], "No such option '--stage.max-step'"),
        (["train", "no.json"], "'no.json' does not exist"),
        (["train", "--model", "m"], "options: data is missing: add it; output is missing"),
        (["train", "--model", "m", "--data", "d", "--output", "o", "--workers", "-1"],
         "workers is -1: must be a whole number of at least 0"),
        (["train", "--model", "m", "--data", "d", "--output", "o", "--stage.learning-rate", "x"],
         "stage.learning_rate is 'x': must be a number greater than 0"),
        (["encode", "--model", "m", "--output", "o", "--embed", "fps"], "write NAME=VALUE"),
        (["encode", "--model", "m", "--output", "o", "--embed", "fpss=2"], "did you mean fps?"),
        (["encode", "--model", "m", "--output", "o", "--embed", '{"a":'], "no JSON object"),
        (["encode", "--model", "m", "--output", "o", "--load.workers", "x"],
         "load.workers is 'x': must be a whole number of at least 0"),
        (["encode", "--model", "m", "--output", "o", "--load.workers", "[" * 9999],
         "must be a whole number of at least 0"),
        (["mine", "--model", "m", "--data", "d", "--output", "o", "--load.dtype", "int8"],
         "load.dtype is 'int8': must be one of float32, bfloat16, float16"),
        (["search", ".", "--model", "m", "--text", "a", "--load.quantize", "1bit"],
         "quantize is '1bit'"),
        (["evaluate", "m", "t", "--output", "o", "--load.device-map", "all"],
         "device_map is 'all': must be one of auto, balanced, sequential"),
        (["gap", "m"], "give a model and --data, or two files of vectors"),
        (["gap", "m.npy", "n.npy"], "m.npy: no such file"),
        (["split", "no.csv", "--output", "o"], "'no.csv' does not exist"),
        (["split", ".", "--output", "o"], ".: holds no .json"),
        (["split", ".", "--output", "o", "--test", "1"], "test is 1: must be a number greater"),
        (["export", "tinny", "f"], "tinny: no such folder, and a hub id has the form owner/name "
         "(did you mean tiny?)"),
        (["index", "nowhere", "out"], "'nowhere' does not exist"),
        (["index", ".", "out"], ".: no finished corpus of vectors"),
        (["index", ".", "out", "--neighbours", "1"], "neighbours is 1: must be"),
        (["search", "gone", "--model", "m", "--text", "a"], "gone: no whole index"),
        (["export", "m", "f", "--check"], "f: is no export (no modules.json)"),
        (["search", ".", "--model", "m", "--k", "0", "--text", "a"], "0 is not in the range x>=1"),
        (["search", ".", "--model", "m"], "give one query by --text, --image or --video"),
        (["curate", "no.json"], "'no.json' does not exist"),
        (["evaluate", "m"], "give a model and --data of your own; or a model, tasks"),
        (["export", "m", "f", "--dtype", "int8"], "'int8' is not one of"),
        (["corpus", "flowers"], "'flowers' is no corpus"),
        (["run", "no.ipynb", "out"], "'no.ipynb' does not exist"),
        (["--plugin", "no_such_module", "train"], "no_such_module"),
        (["mine", "--model", "m", "--data", "d.jsonl", "--output", "o"], "m: no such folder"),
    ],
)  # fmt: skip
def test_a_user_s_mistake_is_one_line_and_exit_code_2(unite, capsys, tmp_path, monkeypatch,
                                                      arguments, message):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert unite(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert "Traceback" not in err and not out


def test_a_mistake_in_a_file_names_the_file(unite, capsys, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"model": "m", "data": "d", "output": "o", "bf16": "false"}))
    assert unite("train", path) == 2
    assert capsys.readouterr().err == f"error: {path}: bf16 is 'false': must be true or false\n"


def test_debug_shows_where(tmp_path):
    words = [sys.executable, "-m", "unite_core", "--debug", "train", "--model", "m"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" in done.stderr and "data is missing" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyError("x"), 2, "error: KeyError: 'x' (unite --debug shows where)\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; the same command goes on where it can\n"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
        (ValueError("two\nlines"), 2, "error: two; lines\n"),
    ],
)
def test_any_other_error_is_one_line_too(unite, capsys, monkeypatch, error, code, words):
    def broken(*_):
        raise error

    monkeypatch.setattr(cli._Verbs, "get_command", broken)
    assert unite("train") == code
    assert capsys.readouterr().err.lstrip("\n") == words


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        ("3", ["integer"], 3),
        ("1e-4", ["number"], 1e-4),
        ("x", ["number"], "x"),
        ("2024", ["string"], "2024"),
        ("null", ["integer", "null"], None),
        ("null", ["string", "null"], None),
        ("7", ["string", "null"], "7"),
        ("true", ["string", "boolean"], True),
        ("true", ["string", "null"], "true"),
        ('{"text": 0.03}', ["number", "object"], {"text": 0.03}),
        (None, ["number"], None),
    ],
)
def test_an_option_s_text_is_what_a_file_would_hold(text, kinds, value):
    assert options.parse(text, {"anyOf": [{"type": kind} for kind in kinds]}) == value


def test_a_saved_configuration_runs_the_same(tmp_path, monkeypatch, unite):
    """Of `train`, whose stage and data are completed on the way."""
    import unite_core.train.run as training
    from unite_core.train.config import STAGES

    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(training, "train", lambda config, *_: made.append(config) or "model")
    (tmp_path / "pairs.csv").write_text("question,answer\n" + "".join(
        f"what is {n}?,it is {n}\n" for n in range(20)))  # fmt: skip
    words = ("pairs.csv", "--model", "tiny", "--output", "o", "--save-config", "run.json")
    assert unite("train", *words) == 0
    assert unite("train", "run.json") == 0
    assert made[0] == made[1]
    stage = made[0].stage
    assert (stage.learning_rate, stage.batch_size, stage.max_steps) == (
        STAGES["tiny-stage1"].learning_rate, 10, 20
    )  # fmt: skip
    assert len((tmp_path / made[0].data[0]).read_text().splitlines()) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--stage stage1 --stage.max-steps 100", "warning: learning rate 0.0001 x lora_alpha 16"),
        ("--stage.max-steps 5 --stage tiny-stage1 --stage.lora-alpha 128", ""),
        ("--stage.max-steps 50", "stage tiny-stage1, for a model of this size"),
        ("--stage.max-steps 50", "; 50 steps of 64, 3,200.0 times each of 1 pairs"),
        ("--stage.max-steps 50", "warning: more than 20 epochs"),
    ],
)
def test_the_stage_that_suits_the_model_is_chosen_or_missed(tmp_path, monkeypatch, unite, capsys,
                                                            words, said):  # fmt: skip
    import unite_core.train.run as training

    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(training, "train", lambda config, *_: made.append(config) or "model")
    row = {"query": {"text": "a"}, "candidate": {"text": "b"}}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    assert unite("train", "p.jsonl", "--model", "tiny", "--output", "o", *words.split()) == 0
    err = capsys.readouterr().err
    assert (said in err) if said else ("stage tiny" not in err and "warning: learning" not in err)
    assert made[0].stage.max_steps in (100, 5, 50)


def test_pairs_are_read_with_their_types():
    pairs = options.as_pairs(["max_frames=8", "prompt=raw", '{"fps": 2}', "note=a=b"])
    assert pairs == {"max_frames": 8, "prompt": "raw", "fps": 2, "note": "a=b"}


@pytest.mark.parametrize(
    ("words", "lora"),
    [("", {}), ("--lora null", None), ("--lora '{\"use_dora\": true}'", {"use_dora": True})],
)
def test_null_as_an_option_is_not_the_same_as_no_option(words, lora):
    from click.testing import CliRunner

    from unite_core.train.config import StageConfig

    made = []
    command = options.config_command(StageConfig, "", made.append, "")
    done = CliRunner().invoke(command, ["--name", "x", *shlex.split(words)])
    assert done.exit_code == 0 and made[0].lora == lora


@pytest.mark.slow
def test_completion_is_written_for_a_shell(tmp_path):
    words = [sys.executable, "-c", "from unite_core.cli import main; main()"]
    environment = {"_UNITE_COMPLETE": "zsh_source", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "_unite_completion" in done.stdout, done.stderr


def test_encode_says_what_has_no_vector(tmp_path, unite, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40), "red").save("red.png")
    Path("cut.png").write_bytes(Path("red.png").read_bytes()[:60])
    Path("items.csv").write_text("image,text\nred.png,a red square\ncut.png,a cut one\n")
    words = ("--model", "tiny", "--output", "v", "--max-bad-share", "0.5")
    assert unite("encode", "items.csv", *words) == 0
    said = capsys.readouterr().err
    assert re.search(r"1 cannot be read and have no vector, the first: .*cut\.png", said)
