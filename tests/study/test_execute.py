"""A study end to end on a small corpus: parts, resume, the same row again, the table."""

import json
from dataclasses import replace

import pytest
import torch

from unite_core.corpora.shapes import ShapesConfig, build
from unite_core.study import STUDIES, parts_of, read_table, rows, run_part, runs_of
from unite_core.study import execute as study_execute
from unite_core.study import training as study_training
from unite_core.study.arms import Size, Study

SAME = {"seconds", "commit"}  # what may differ between two makings of a row


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    build(root, ShapesConfig(records=120, queries=12, concepts=12, image_size=56))
    return root


def small(name, arms, root):
    """A study of some arms, one block, two steps."""
    size = Size("", str(root), str(root), steps_1=2, steps_2=2, blocks=1, fit_pairs=100,
                batch_size=8)  # fmt: skip
    whole = STUDIES[name]
    return replace(whole, arms=tuple(whole.arm(arm) for arm in arms), sizes={"smoke": size})


def rows_of(study: Study, folder) -> dict:
    paths = (folder / "runs").glob("*/row.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def budget_by_hand(corpus) -> dict:
    """What two steps of eight pairs show: a picture of 56 pixels has 4 tokens, its clip 8."""
    lines = (corpus / "stage2.jsonl").read_text().splitlines()
    sides = [json.loads(line)[side] for line in lines for side in ("query", "candidate")]
    pictures = [side["image"] for side in sides if "image" in side]
    clips = [side["video"] for side in sides if "video" in side]
    tokens = 16 * (4 * len(pictures) + 8 * len(clips)) / len(lines)
    return {
        "steps": 2, "pairs": 16, "records": len(lines), "visual_tokens": round(tokens),
        "texts": len({side["text"] for side in sides if "text" in side}),
        "media": len({*pictures, *clips}),
    }  # fmt: skip


def test_a_study_goes_on_and_gives_the_same_rows(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    study = small("mask", ["one_modality", "router", "stage_1"], corpus)
    assert parts_of(study, study.sizes["smoke"]) == [
        "prepare", "stage1-0", "run-one_modality-0", "run-router-0", "run-stage_1-0", "table",
    ]  # fmt: skip
    folder = tmp_path / "study" / "mask-smoke"
    for part in ("prepare", "stage1-0", "run-one_modality-0"):
        run_part(study, "smoke", part)
    monkeypatch.setattr(study_training, "embed_stored", lambda *_: 1 / 0)  # dies after training
    with pytest.raises(ZeroDivisionError):
        run_part(study, "smoke", "run-router-0")
    monkeypatch.undo()
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    for part in parts_of(study, study.sizes["smoke"]):
        made = run_part(study, "smoke", part)
    made_rows = rows_of(study, folder)
    assert {len(row["metrics"]) for row in made_rows.values()} == {270, 300}  # with router's score
    shown = {name: row["budget"] for name, row in made_rows.items()}
    assert not any(shown.pop("stage_1-0").values())  # nothing after the shared stage 1
    assert all(budget == budget_by_hand(corpus) for budget in shown.values())
    assert (folder / "stage1" / "0" / "adapter").is_dir(), "it stays where the others start"
    table = read_table(made.with_suffix(""))
    names = ["one_modality-0", "router-0", "stage_1-0"]
    assert [run["run"] for run in table.runs] == names
    home = folder / "runs" / "router-0"
    for path in list(home.iterdir()):
        if path.is_file():
            path.unlink()
    run_part(study, "smoke", "run-router-0")
    again = rows_of(study, folder)["router-0"]
    assert {k: v for k, v in again.items() if k not in SAME} == {
        k: v for k, v in made_rows["router-0"].items() if k not in SAME
    }
    (home / "row.json").unlink()  # lost, but the table has it
    run_part(study, "smoke", "table")
    assert [run["run"] for run in read_table(made.with_suffix("")).runs] == names


def test_rows_made_again_are_equal_or_say_how_they_differ(corpus, tmp_path, monkeypatch, unite,
                                                          capsys):  # fmt: skip
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    study = small("mask", ["mamcl", "router"], corpus)
    monkeypatch.setitem(STUDIES._things, "mask", study)
    for part in parts_of(study, study.sizes["smoke"]):
        table = run_part(study, "smoke", part).with_suffix("")
    again = ["study", "mask", "--size", "smoke", "--again", "2"]
    capsys.readouterr()
    assert unite(*again) == 0
    assert capsys.readouterr().out.count("-0: equal to its row\n") == 2
    stored = rows.rows_of(read_table(table))
    stored["mamcl-0"] |= {"vectors": "other", "processor": "Z80"}
    tasks = study_training.study_tasks(study, study.sizes["smoke"])
    rows.write_table(table, stored.values(), tasks)
    assert unite(*again) == 1
    said = capsys.readouterr().out
    assert "router-0: equal to its row\n" in said
    assert "mamcl-0: differs, recall@10 by 0.0 points (root mean square of " in said
    assert " 0.0 at most, every hit equal; processor was Z80, is " in said
    assert unite(*again[:-1], "1") == 0, "rows of this processor come first"


def test_shared_tokens_do_not_depend_on_the_threads_at_hand(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    used = []
    monkeypatch.setattr(study_training, "build_vision_store",
                        lambda *_: used.append(torch.get_num_threads()))  # fmt: skip
    study, before = small("mask", ["stage_1"], corpus), torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        run_part(study, "smoke", "prepare")
    torch.set_num_threads(before)
    assert used == [2, 2]


def test_a_row_of_the_committed_table_is_never_replaced(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNITE_RUNS", raising=False)
    study = small("mask", ["stage_1"], corpus)
    study = replace(study, sizes={"small": replace(study.sizes["smoke"], blocks=2)})
    committed = tmp_path / "figures" / "study" / "mask"
    for part in ("prepare", "stage1-0", "run-stage_1-0", "table"):
        own = run_part(study, "small", part)
    assert "figures/study/mask: 1 added; 0 of its rows differ" in capsys.readouterr().out
    elsewhere = rows.rows_of(read_table(committed))
    elsewhere["stage_1-0"] |= {"vectors": "other", "processor": "Z80"}
    tasks = study_training.study_tasks(study, study.sizes["small"])
    rows.write_table(committed, elsewhere.values(), tasks)
    for part in ("stage1-1", "run-stage_1-1", "table"):
        run_part(study, "small", part)
    assert "figures/study/mask: 1 added; 1 of its rows differ" in capsys.readouterr().out
    shorter = [replace(tasks[0], queries=tasks[0].queries[1:], families=tasks[0].families[1:],
                       positives=tasks[0].positives[1:], query_concepts=None,
                       candidate_concepts=None), *tasks[1:]]  # fmt: skip
    monkeypatch.setattr(study_execute, "study_tasks", lambda *_: shorter)
    with pytest.raises(ValueError, match="has rows of other tasks than the corpus has now"):
        run_part(study, "small", "table")
    kept = {run["run"]: run["processor"] for run in read_table(committed).runs}
    made = {run["run"]: run["processor"] for run in read_table(own.with_suffix("")).runs}
    assert kept == made | {"stage_1-0": "Z80"} and len(made) == 2


def test_arms_of_data_train_on_their_mixes(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    study = small("data", ["TV_frame", "fine_between"], corpus)
    for part in parts_of(study, study.sizes["smoke"]):
        run_part(study, "smoke", part)
    made = rows_of(study, tmp_path / "study" / "data-smoke")
    configs = {name.rpartition("-")[0]: row["config"] for name, row in made.items()}
    assert configs["TV_frame"]["stage"]["name"] == "stage1"
    assert configs["fine_between"]["stage"]["name"] == "stage2"
    assert {metrics["score"] for row in made.values() for metrics in row["metrics"]} == {"cosine"}
    assert (corpus / "frames").is_dir()


@pytest.mark.parametrize("name", ["mask", "confirmation"])
def test_every_arm_of_the_size_for_gpus_has_a_configuration(name, tmp_path):
    study = STUDIES[name]
    size = study.sizes["full"]
    configs = [study_training.stage_1_config(size, tmp_path, 0)]
    for run in runs_of(study, size):
        configs += study_training.stages_of(study, size, tmp_path, run, tmp_path)
    assert len(configs) == 1 + size.blocks * sum(arm.trained for arm in study.arms)
    for config in configs:
        assert config.bf16 and config.gradient_checkpointing and config.grad_cache
        assert (config.stage.lora_rank, config.stage.batch_size) == (8, 1024)


def test_unknown_parts_and_lacking_files_are_named(corpus, tmp_path, monkeypatch, unite, capsys):
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    study = small("mask", ["mamcl"], tmp_path / "nothing")
    with pytest.raises(ValueError, match="nothing has no tasks.json: this size of study mask need"):
        run_part(study, "smoke", "prepare")
    with pytest.raises(ValueError, match="'run-mamcl-7' is no part of study mask: see --list"):
        run_part(study, "smoke", "run-mamcl-7")
    with pytest.raises(ValueError, match="has no finished run: run the other parts first"):
        run_part(study, "smoke", "table")
    assert unite("study", "mask", "--size", "smoke", "--list") == 0
    assert len(capsys.readouterr().out.split()) == 1 + 2 + 16 + 1
    assert unite("study", "masks") == 2
    assert "did you mean 'mask'" in capsys.readouterr().err
    assert unite("study", "mask", "--size", "huge") == 2
    assert "must be one of smoke, small, full" in capsys.readouterr().err
