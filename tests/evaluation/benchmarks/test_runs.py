"""The command from model and data to results: it resumes, records, refuses and compares."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.benchmarks import benchmark_data as data
from unite_core import UniteEmbedder
from unite_core.evaluation.benchmarks import BENCHMARKS, find_tasks, load_task
from unite_core.evaluation.benchmarks import runs as benchmark_runs
from unite_core.evaluation.benchmarks.runs import (
    BenchmarkRun,
    compare_runs,
    format_comparison,
    format_runs,
    read_runs,
    run_benchmarks,
)
from unite_core.files import read_json
from unite_core.search.blocks import model_key
from unite_core.tiny.model import TINY

OWN = ["urban1k", "mmeb/ImageNet-1K", "webvid-covr"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    data.write_urban1k(folder)
    data.write_mmeb(folder, "ImageNet-1K")
    data.write_covr(folder)
    return folder


@pytest.fixture(scope="module")
def embedder():
    return UniteEmbedder.load(TINY, device="cpu")


@pytest.fixture(scope="module")
def finished(root, embedder, tmp_path_factory):
    """A folder with all own tasks done, and the runs."""
    output = tmp_path_factory.mktemp("output")
    runs, failed = run_benchmarks(
        embedder, find_tasks(OWN), root, output, model="tiny", progress=False
    )
    assert not failed
    return output, runs


def test_a_run_is_what_brute_force_gives(root, embedder, finished):
    run = next(run for run in finished[1] if run.task == "webvid-covr")
    task = load_task(BENCHMARKS["webvid-covr"], root).task
    ready = embedder.configured(**BENCHMARKS["webvid-covr"].settings)
    queries, clips = (
        ready.embed(side, root, progress=False) for side in (task.queries, task.candidates)
    )
    cosines = queries @ clips.T
    for row, query in enumerate(task.queries):
        cosines[row, task.candidates.index({"video": query["video"]})] = -2
    hits = cosines.argmax(1) == np.array([right[0] for right in task.positives])
    assert run.main_score.per_query == hits.astype(float).tolist()
    assert (run.main_score.metric, run.main_score.n, run.main_score.candidates) == (
        "recall@1",
        6,
        5,
    )


def test_results_say_how_they_came_about(finished):
    by_name = {run.task: run for run in finished[1]}
    clip, still = by_name["webvid-covr"], by_name["urban1k-t2i"]
    assert (clip.config["min_frames"], clip.config["max_frames"]) == (16, 16)
    assert clip.config["video_max_pixels"] == 360 * 420
    assert still.config["max_frames"] == 4, "the checkpoint's own"
    assert clip.model_key != still.model_key
    user = clip.prompts["query"].split("<|im_start|>user\n")[1]
    assert user.startswith("<|vision_start|><|video_pad|><|vision_end|>\nmake it grow\nSummary")
    assert "Summary above sentence and video in one word:" in user
    assert set(still.versions) == {"torch", "transformers"}
    assert still.source == "hub: BeichenZhang/Urban1k"
    assert read_runs(finished[0]) == sorted(finished[1], key=lambda run: run.task)


class Counting:
    """Stands before `UniteEmbedder.forward`, and counts the items that go through the model."""

    def __init__(self, monkeypatch, stop_after=None):
        self.items, self.stop_after = 0, stop_after
        forward = UniteEmbedder.forward

        def counted(embedder, input_ids, *arguments, **options):
            self.items += len(input_ids)
            if self.stop_after is not None and self.items > self.stop_after:
                raise KeyboardInterrupt
            return forward(embedder, input_ids, *arguments, **options)

        monkeypatch.setattr(UniteEmbedder, "forward", counted)


def test_nothing_is_run_twice(root, embedder, finished, monkeypatch):
    counting = Counting(monkeypatch)
    again, failed = run_benchmarks(
        embedder, find_tasks(OWN), root, finished[0], model="tiny", progress=False
    )
    assert again == finished[1] and not failed and counting.items == 0


def test_a_killed_command_goes_on_with_the_next_task(root, embedder, tmp_path, monkeypatch):
    specs = find_tasks(["urban1k-t2i", "mmeb/ImageNet-1K"])
    counting = Counting(monkeypatch, stop_after=16)  # Urban1K's 8 captions and 8 images
    with pytest.raises(KeyboardInterrupt):
        run_benchmarks(embedder, specs, root, tmp_path, progress=False)
    assert [run.task for run in read_runs(tmp_path)] == ["urban1k-t2i"]
    counting.items, counting.stop_after = 0, None
    runs, _ = run_benchmarks(embedder, specs, root, tmp_path, progress=False)
    assert counting.items == 16, "only MMEB's queries and candidates"
    assert [run.task for run in runs] == ["urban1k-t2i", "mmeb/ImageNet-1K"]


def test_both_directions_share_their_vectors(root, embedder, tmp_path, monkeypatch):
    counting = Counting(monkeypatch)
    run_benchmarks(embedder, find_tasks(["urban1k"]), root, tmp_path, progress=False)
    assert counting.items == 16


def test_other_settings_or_data_are_run_anew(root, embedder, finished, tmp_path):
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    spec = [BENCHMARKS["webvid-covr"]]
    common = {"model": "tiny", "progress": False}
    (default,), _ = run_benchmarks(embedder, spec, root, output, "checkpoint", **common)
    assert default.config["max_frames"] == 4
    (set_,), _ = run_benchmarks(embedder, spec, root, output, embed={"max_frames": 20}, **common)
    assert (set_.config["min_frames"], set_.config["max_frames"]) == (16, 20)
    fewer = tmp_path / "fewer"
    shutil.copytree(root, fewer)
    data.write_covr(fewer, data.covr_rows()[:4])
    (less,), _ = run_benchmarks(embedder, spec, fewer, output, **common)
    assert less.main_score.n == 4


def test_a_task_that_fails_stops_no_other(root, embedder, tmp_path):
    specs = find_tasks(["docci-t2i", "urban1k-t2i", "mmeb/NIGHTS"])
    runs, failed = run_benchmarks(embedder, specs, root, tmp_path, progress=False)
    assert [run.task for run in runs] == ["urban1k-t2i"]
    assert list(failed) == ["docci-t2i", "mmeb/NIGHTS"]
    assert "fetch" in str(failed["docci-t2i"])


def test_an_unreadable_medium_is_no_score(root, embedder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    (broken / "Urban1k" / "image" / "3.jpg").write_bytes(b"no picture")
    runs, failed = run_benchmarks(
        embedder, [BENCHMARKS["urban1k-t2i"]], broken, tmp_path / "output", progress=False
    )
    assert not runs
    assert "1 of 16 items cannot be read" in str(failed["urban1k-t2i"])
    assert "3.jpg" in str(failed["urban1k-t2i"])


def test_an_mteb_task_runs_beside_own_ones(embedder, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from tests.evaluation.benchmarks.test_mteb_model import write_carebench

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_carebench(tmp_path)
    spec = find_tasks(["carebench-t2v"])
    with pytest.warns(UserWarning, match="currently in beta"):
        runs, failed = run_benchmarks(
            embedder, spec, tmp_path, tmp_path / "output", model="tiny", progress=False
        )
    assert not failed
    (run,) = runs
    assert run.config["min_frames"] == 32
    assert (run.main_score.metric, run.main_score.n) == ("recall@1", 6)
    assert run.mteb["test"][0]["recall_at_1"] == pytest.approx(run.main_score.value, abs=2e-5)
    assert "myang333/CaReBench at local" in run.source and "mteb" in run.versions
    assert set(run.prompts) == {"query", "document"} and run.empty == 0
    monkeypatch.setattr(benchmark_runs, "run_mteb_task", None)
    with pytest.warns(UserWarning, match="currently in beta"):
        again, _ = run_benchmarks(
            embedder, spec, tmp_path, tmp_path / "output", model="tiny", progress=False
        )
    assert again == [run]


def test_the_command_writes_results_and_a_table(root, tmp_path, unite, capsys):
    output = tmp_path / "output"
    command = ["evaluate", TINY, "mmeb/ImageNet-1K", "docci", "--data-root", root]
    command += ["--output", output, "--embed", "max_length=600", "--embed", "prompt=raw"]
    assert unite(*command) == 1
    out, err = capsys.readouterr()
    assert "docci-t2i failed: no " in err and "docci-i2t failed" in err
    table = (output / "table.txt").read_text()
    assert table.strip() in out
    assert "precision@1" in table and "mmeb all" in table and "only 1 of 36 tasks" in table
    (task,) = read_json(output / "results.json")["tasks"]
    assert (task["task"], task["model"]) == ("mmeb/ImageNet-1K", str(TINY))
    assert (task["config"]["max_length"], task["config"]["prompt"]) == (600, "raw")
    assert "Summary" not in task["prompts"]["query"]
    assert "per_query" not in task["scores"][0]


def test_the_command_lists_and_refuses(root, unite, capsys):
    assert unite("evaluate", "--list") == 0
    listed = capsys.readouterr().out
    assert "carebench-t2v" in listed and "CaReBenchT2VRetrieval" in listed
    refused = {
        "a model, tasks and --output": [[], [TINY], [TINY, "urban1k"]],
        "write NAME=VALUE": [[TINY, "a", "--output", "b", "--embed", "frames"]],
        "--embed: frames is no field": [
            [TINY, "urban1k", "--output", "never", "--embed", "frames=8"]
        ],
        "no finished task": [["--compare", root, root]],
        "no task 'urban2k'": [[TINY, "urban2k", "--output", "never"]],
    }
    for message, commands in refused.items():
        for command in commands:
            assert unite("evaluate", *command) == 2
            assert message in capsys.readouterr().err


def other_model(runs: list[BenchmarkRun], change) -> list[BenchmarkRun]:
    """Runs as of another model, each query's value through `change(value, number)`."""
    changed = []
    for run in runs:
        scores = [
            replace(score, per_query=[change(v, n) for n, v in enumerate(score.per_query)])
            for score in run.result.scores
        ]
        scores = [replace(score, value=float(np.mean(score.per_query))) for score in scores]
        changed.append(replace(run, model="other", result=replace(run.result, scores=scores)))
    return changed


def test_two_models_are_compared_on_what_both_did(finished, tmp_path, unite, capsys):
    output, runs = finished
    better = other_model(runs[:3], lambda value, number: 1.0)
    rows = compare_runs(runs, better)
    assert [row["task"] for row in rows] == ["urban1k-t2i", "urban1k-i2t", "mmeb/ImageNet-1K"]
    assert [row["metric"] for row in rows] == ["recall@1", "recall@1", "precision@1"]
    for row, run in zip(rows, runs, strict=False):
        missed = run.main_score.n - sum(run.main_score.per_query)
        assert row["gain"] == pytest.approx(missed / run.main_score.n)
        assert row["p"] == pytest.approx(min(1, 2 / 2**missed)), "every miss is a family that wins"
        assert row["p_holm"] >= row["p"]
    text = format_comparison(rows, "tiny", "other")
    assert text.startswith("first: tiny\nsecond: other\ntask ") and "p (Holm)" in text
    assert len(text.splitlines()) == 7 and "8 (8.0) !" in text.splitlines()[5]
    for run in better:
        benchmark_runs.write_json(
            tmp_path / "tasks" / f"{run.task.replace('/', '.')}.json", benchmark_runs.asdict(run)
        )
    assert unite("evaluate", "--compare", output, tmp_path) == 0
    shown = capsys.readouterr().out
    assert sorted(shown.splitlines()) == sorted(text.splitlines())


def test_models_on_other_data_are_not_compared(finished):
    runs = finished[1]
    moved = [replace(run, result=replace(run.result, tasks_hash="x")) for run in runs]
    with pytest.raises(ValueError, match="other tasks"):
        compare_runs(runs, moved)
    with pytest.raises(ValueError, match="share no finished task"):
        compare_runs(runs[:1], runs[1:2])


def test_the_table_has_a_row_for_every_task(finished):
    lines = format_runs(finished[1]).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [run.task for run in finished[1]]
    assert "16-16" in next(line for line in lines if line.startswith("webvid-covr"))


def test_a_damaged_file_is_named(finished, tmp_path):
    shutil.copytree(finished[0] / "tasks", tmp_path / "tasks")
    path = tmp_path / "tasks" / "webvid-covr.json"
    row = json.loads(path.read_text())
    del row["model_key"]
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"webvid-covr\.json: no field model_key"):
        read_runs(tmp_path)


def test_settings_change_what_is_seen_and_nothing_else(embedder):
    ready = embedder.configured(prompt="raw")
    assert ready.backbone is embedder.backbone and embedder.config.prompt == "unite"
    assert model_key(ready) != model_key(embedder)
    same = embedder.configured()
    item = [{"text": "a red circle"}]
    vectors = [model.embed(item, progress=False) for model in (embedder, same, ready)]
    assert np.array_equal(vectors[0], vectors[1]) and not np.allclose(vectors[0], vectors[2])
    with pytest.raises(ValueError, match="settings must be one of"):
        run_benchmarks(embedder, [], ".", ".", settings="mine")
