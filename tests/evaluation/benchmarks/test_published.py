"""Published numbers are whole, sourced, and never mistaken for what was run here."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from unite_core.evaluation.benchmarks import published
from unite_core.evaluation.benchmarks.published import (
    KINDS,
    RUN_HERE,
    Line,
    read_published,
    read_run,
    run_here,
    table_of,
)
from unite_core.plots import plot_published

MMEB = [f"mmeb {part}" for part in ("classification", "vqa", "retrieval", "grounding")]
CARE = [f"carebench{part}-{way}" for part in ("", "-spatial", "-temporal")
        for way in ("t2v", "v2t")]  # fmt: skip


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return read_published()


def value(lines, model, task, kind):
    (line,) = (x for x in lines if (x.model, x.task, x.kind) == (model, task, kind))
    return line.value


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_lines_are_those_of_the_fact_sheet(lines):
    assert value(lines, "UNITE 7B", "mmeb all", "authors") == 70.3
    assert value(lines, "UNITE 2B", "mmeb grounding", "quoted") == 75.6
    assert value(lines, "UNITE 7B", "webvid-covr recall@1", "authors") == 72.5
    assert value(lines, "UNITE 2B", "docci-i2t", "digitised") == 72.4
    assert value(lines, "UNITE 7B", "didemo-v2t", "measured") == 40.3
    assert value(lines, "UNITE 2B", "uvrb MSRVTT-I2V", "measured") == 86.3
    assert len(lines) == 301


def test_means_of_mmeb_are_those_of_its_parts(lines):
    """36 tasks: 10, 10, 12 and 4, of which 20 are in distribution. Catches a slip of the pen."""
    for model in {line.model for line in lines if line.task == "mmeb all"}:
        parts = {x.task.removeprefix("mmeb "): x.value for x in lines
                 if x.model == model and x.benchmark == "MMEB"}  # fmt: skip
        sizes = {"classification": 10, "vqa": 10, "retrieval": 12, "grounding": 4}
        mean = sum(parts[part] * size for part, size in sizes.items()) / 36
        assert mean == pytest.approx(parts["all"], abs=0.2), model
        if "in distribution" in parts and "VLM2Vec 7B" not in model:  # suspect at its source
            mean = (20 * parts["in distribution"] + 16 * parts["out of distribution"]) / 36
            assert mean == pytest.approx(parts["all"], abs=0.2), model


def test_every_line_says_where_it_is_from_and_none_was_run_here(lines):
    assert {line.kind for line in lines} == set(KINDS) - {RUN_HERE}
    assert all(line.source and line.setting and line.is_quoted for line in lines)
    digitised = {line.plus_minus for line in lines if line.kind == "digitised"}
    assert digitised == {0.5}
    assert not any(line.plus_minus for line in lines if line.kind != "digitised")
    ours = {line.checkpoint for line in lines if line.model.startswith("UNITE")}
    assert ours == {f"friedrichor/Unite-{kind}-Qwen2-VL-{size}"
                    for kind in ("Base", "Instruct") for size in ("2B", "7B")}  # fmt: skip


def test_own_runs_are_lines_of_the_same_tasks():
    (line, _) = run_here("mine", {"urban1k-t2i": 40.0, "docci-t2i": 20.0}, "runs/x", "fp32")
    assert not line.is_quoted and line.metric == "recall@1" and line.setting == "fp32"
    with pytest.raises(ValueError, match="no published line has task urban; there are"):
        run_here("mine", {"urban": 40.0}, "runs/x", "")
    with pytest.raises(ValueError, match="no percentage"):
        run_here("mine", {"urban1k-t2i": 140.0}, "runs/x", "")
    with pytest.raises(ValueError, match="no source"):
        run_here("mine", {"urban1k-t2i": 40.0}, "", "")


def test_a_run_of_the_benchmarks_becomes_lines(tmp_path):
    def scores(**values):
        return [
            {"metric": name.replace("_", "@"), "value": v, "n": 40} for name, v in values.items()
        ]

    config = {"positions": "sequential", "max_frames": 16}
    tasks = [
        {"task": "webvid-covr", "config": config, "scores": scores(recall_1=0.25, recall_5=0.5)},
        {"task": "urban1k-t2i", "config": {}, "scores": scores(recall_1=0.125, ndcg_10=0.4)},
        {"task": "flickr30k-t2i", "config": {}, "scores": scores(recall_1=0.5)},
    ]
    means = {"mmeb vqa": [0.5, 10, 10], "mmeb all": [0.4, 10, 36]}
    (tmp_path / "results.json").write_text(json.dumps({"tasks": tasks, "averages": means}))
    found = {line.task: line for line in read_run(tmp_path, "mine")}
    assert {task: line.value for task, line in found.items()} == {
        "webvid-covr recall@1": 25, "webvid-covr recall@5": 50, "urban1k-t2i": 12.5, "mmeb vqa": 50,
    }  # fmt: skip
    line = found["webvid-covr recall@5"]
    assert (line.kind, line.n, line.setting) == (
        RUN_HERE,
        "40",
        "positions sequential, max_frames 16",
    )
    (tmp_path / "results.json").write_text(json.dumps({"tasks": tasks[2:]}))
    with pytest.raises(ValueError, match="none of its tasks and metrics was published"):
        read_run(tmp_path, "mine")


def test_numbers_of_two_sources_stay_in_two_rows(lines):
    rows = [row for row in table_of(lines, CARE) if row["model"] == "UNITE 2B"]
    assert sorted(row["kind"] for row in rows) == ["digitised", "measured", "measured"]
    fine = ["carebench-t2v", "docci-t2i"]  # one chart of the authors over two benchmarks
    (chart,) = table_of([x for x in lines if x.kind == "digitised"], fine, ["UNITE 2B"])
    assert {task: line.value for task, line in chart["values"].items()} == {
        "carebench-t2v": 78.1, "docci-t2i": 81.4,
    }  # fmt: skip
    assert [row["model"] for row in table_of(lines, MMEB, ["GME 7B", "GME 2B"])] == [
        "GME 7B", "GME 2B",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no line has any of the tasks nothing"):
        table_of(lines, ["nothing"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["rows"][0]["values"].pop(), "row 1: 6 values for 7 tasks"),
        (lambda t: t["rows"][1].update(kind="guessed"), "row 2: mmeb .*, kind: 'guessed' is none"),
        (lambda t: t["rows"][0].pop("source"), "row 1: no field source"),
        (lambda t: t["rows"][0]["values"].__setitem__(0, 163.2), "row 1: .* is no percentage"),
        (lambda t: t.pop("metric"), "no field metric"),
    ],
)
def test_broken_tables_are_refused_by_place(tmp_path, change, message):
    table = json.loads((published.FOLDER / "mmeb.json").read_text("utf-8"))
    change(table)
    (tmp_path / "mmeb.json").write_text(json.dumps(table), "utf-8")
    with pytest.raises(ValueError, match=f"mmeb.json.*{message}"):
        read_published(tmp_path)


def test_no_tables_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table of published results"):
        read_published(tmp_path)


def test_bars_tell_runs_from_quotes(lines):
    mine = run_here("mine", dict(zip(MMEB, (10, 20, 30, 40), strict=True)), "runs/x", "fp32")
    _, ax = plt.subplots()
    assert plot_published([*lines, *mine], MMEB, ["UNITE 2B", "mine"], ax, "MMEB") is ax
    quoted, here = [container.lines[0] for container in ax.containers]
    assert list(quoted.get_xdata()) == [63.2, 55.9, 65.4, 75.6]
    assert list(here.get_xdata()) == [10, 20, 30, 40]
    assert (quoted.get_mfc(), here.get_mfc()) == ("white", "#000000")
    assert (quoted.get_ydata() < here.get_ydata()).all(), "no two dots in one place"
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "run here: 1 (black); quoted: 1 (open)"
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["UNITE 2B (quoted)", "mine (run here)"]
    assert [tick.get_text() for tick in ax.get_yticklabels()][0] == "classification"
    assert ax.get_xlabel() == "precision@1 (%)"


def test_without_a_run_the_figure_says_none(lines):
    ax = plot_published(lines, MMEB, ["UNITE 2B"], plt.subplots()[1])
    assert ax.get_legend().get_title().get_text() == "run here: none; quoted: 1 (open)"
    with pytest.raises(ValueError, match="at most 6 can be told apart"):
        plot_published(lines, MMEB, (), ax)
    with pytest.raises(ValueError, match="no line has any of the tasks"):
        plot_published(lines, ["unheard"], (), ax)


def test_values_are_percent_in_the_line_itself(lines):
    with pytest.raises(ValueError, match="no percentage"):
        replace(lines[0], value=-0.1)
