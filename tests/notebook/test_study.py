"""Tables of a study hold at every state of it, and the notebooks' cells with them."""

import itertools
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from unite_core import notebook
from unite_core.notebook.runs import project_root
from unite_core.study.arms import STUDIES
from unite_core.study.endpoints import STUDY_ENDPOINTS, endpoint_rows
from unite_core.study.rows import StudyTable
from unite_core.study.statistics import blocks_needed, t_interval
from unite_core.study.verdicts import PLANS, Cell, blind_deviation_of, verdicts

MASK, DATA = STUDIES["mask"], STUDIES["data"]
NOTEBOOKS = {"data": "13_which_data", "mask": "14_does_the_mask_help"}
TASKS = sorted({task for endpoint in STUDY_ENDPOINTS.values() for task in endpoint.tasks})
METRICS = ("recall@100", "mrr", "ndcg@10", "target_share@10", "counterpart_recall@10")
FAMILIES = [str(number // 2) for number in range(24)]


def made(study, blocks, seed=0):
    """A table of the first blocks with hits that mean nothing; the oracle finds what others do."""
    draw = np.random.default_rng(seed)
    tasks = [{"name": task, "split": split, "kind": "plain", "families": FAMILIES, "candidates": 50}
             for task in TASKS for split in study.splits]  # fmt: skip
    runs, hits = [], {}
    for block, arm in itertools.product(range(blocks), study.arms):
        name, metrics = f"{arm.name}-{block}", []
        for task in tasks:
            for pool, score in itertools.product(("single", "mixed"), study.scores):
                if score == "router" and "router_weight" not in arm.stage:
                    continue
                if pool == "single" and score not in ("cosine", "centred"):
                    continue
                found = draw.random(len(FAMILIES)) < (0.3 if pool == "mixed" else 0.6)
                found |= score == "oracle"
                hits[name, task["name"], task["split"], pool, score] = found
                place = {"task": task["name"], "split": task["split"], "pool": pool, "score": score}
                metrics.append(place | dict.fromkeys(METRICS, float(found.mean())))
        runs.append({"run": name, "arm": arm.name, "block": block, "commit": "abc",
                     "processor": "cpu", "threads": 1, "version_torch": "2", "metrics": metrics,
                     "config": {"stage": {"max_steps": 3}},
                     "gap": [{"measure": "gap", "task": "text → image", "value": block + 0.5},
                             {"measure": "rmg", "task": "text → image", "value": 9}]})  # fmt: skip
    return StudyTable(runs, hits, tasks)


@pytest.fixture(scope="module")
def table():
    return made(MASK, 2)


def mask_results(table, winner=None):
    return verdicts(endpoint_rows(table, ("P1a", "P1b", "P2", "P3"), ["concept"]), PLANS["mask"],
                    winner)  # fmt: skip


def by(rows, name="arm"):
    return {row[name]: row for row in rows}


def test_without_any_table_it_says_what_makes_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("unite_core.notebook.study.from_root", lambda path: tmp_path / path)
    opened = notebook.open_study("mask")
    assert (opened.runs, opened.hits, opened.tasks) == ([], {}, [])
    assert "unite study mask --size smoke" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="unite study typo"):
        notebook.open_study("mask", "typo")


def test_numbers_of_the_smoke_size_are_said_to_mean_nothing(monkeypatch, tmp_path, capsys, table):
    monkeypatch.setattr("unite_core.notebook.study.read_table", lambda path: table)
    for place in ("mask-smoke", "mask-small"):
        assert notebook.open_study("mask", str(tmp_path / place / "mask")) is table
    said = capsys.readouterr().out
    assert said.count("16 of 48 runs, 2 of 6 blocks complete") == 2
    assert said.count("mean nothing") == 1


def test_a_block_is_complete_with_all_its_arms(table, monkeypatch, tmp_path, capsys):
    (tmp_path / "mask.parquet").touch()
    short = StudyTable(table.runs[:-1], table.hits, table.tasks)
    monkeypatch.setattr("unite_core.notebook.study.read_table", lambda path: short)
    notebook.open_study("mask", str(tmp_path / "mask"))
    said = capsys.readouterr().out
    assert "15 of 48 runs, 1 of 6 blocks complete" in said
    assert "  15 of commit abc, cpu, 1 thread, torch 2, 3 steps\n" in said


def test_arms_say_what_they_set_and_how_many_runs_there_are(table):
    rows = by(notebook.arm_table(MASK, table))
    assert rows["soft_mask"]["sets"] == "loss mamcl, cross_modal_weight 0.1"
    assert rows["one_modality"]["sets"].endswith("batches of one target modality")
    assert rows["router"]["runs"] == "2 of 6"
    rows = by(notebook.arm_table(DATA, made(DATA, 0)))
    assert rows["clean_30"]["sets"] == "50 % image, 50 % video, swapped 0.3, curated"
    assert rows["TV_tokens"]["sets"] == "100 % video, steps 0.5" and rows["TV"]["runs"] == "0 of 5"


def test_means_are_those_of_the_hits_in_percent(table):
    rows = endpoint_rows(table, ["P3"], ["concept"])
    found = by(notebook.mean_table(rows, MASK, {"concept/P3/cosine": "P3",
                                                "concept/P3/router": "head"}))  # fmt: skip
    tasks = STUDY_ENDPOINTS["P3"].tasks
    hits = [table.hits[f"router-{block}", task, "concept", "mixed", "cosine"].mean()
            for block in range(2) for task in tasks]  # fmt: skip
    assert found["MAMCL + router"]["P3"] == f"{100 * np.mean(hits):.1f}"
    assert found["MAMCL + router"]["head"] and found["MAMCL"]["head"] == ""
    mean = notebook.arm_means(rows, "concept/P3/router")
    assert list(mean) == ["router"]
    assert found["MAMCL + router"]["head"] == f"{100 * mean['router']:.1f}"
    wide = by(notebook.mean_table(rows, MASK, {"concept/P3/cosine": "P3"}, interval=True))
    blocks = [row["concept/P3/cosine"] for row in rows if row["arm"] == "router"]
    low, high = 100 * np.array(t_interval(np.array(blocks)))
    assert wide["MAMCL + router"]["P3"] == f"{100 * np.mean(hits):.1f} [{low:.1f}, {high:.1f}]"
    other = by(notebook.metric_table(table, MASK, "P3", "concept", ["mrr"]))
    assert other["MAMCL + router"]["mrr"] == wide["MAMCL + router"]["P3"], "made equal above"
    single = notebook.metric_table(table, MASK, "P3", "concept", ["mrr"], pool="single")
    assert by(single)["MAMCL"] != other["MAMCL"]


def test_the_gap_is_that_of_an_arms_blocks(table):
    row = by(notebook.gap_table(table, MASK, ["gap"]))["MAMCL"]
    assert row == {"arm": "MAMCL", "gap, text → image": "1.00 (0.50 to 1.50)"}
    rows = notebook.with_gap(endpoint_rows(table, ["P3"], ["concept"]), table, "text → image")
    unmeasured = notebook.with_gap(rows, table, "text → sound")  # shapes have too few pairs
    assert all(np.isnan(row["gap"]) for row in unmeasured)
    assert {(row["block"], row["gap"]) for row in rows} == {(0, 0.5), (1, 1.5)}


def test_endpoints_say_their_queries_and_families(table):
    said = notebook.endpoint_caption(table, ["P1a", "P1b"], ["concept"])
    assert said == "On concept: P1a, P1b: 96 queries, 12 families (12 effective)."
    (row,) = notebook.endpoint_table(table, ["P1a"], "concept")
    assert (row["tasks"], row["queries"], row["families"]) == ("4 of 4", 96, 12)
    assert row["effective"] == pytest.approx(12)


def test_differences_are_within_blocks_with_their_interval():
    table = made(DATA, 3)
    rows = endpoint_rows(table, ["still"], ["concept"])
    column = "concept/still/cosine"
    found = by(notebook.difference_table(rows, DATA, "TI_TV", {column: "still"}))
    assert len(found) == len(DATA.arms) - 1
    value = {(row["arm"], row["block"]): row[column] for row in rows}
    mean = np.mean([value["TV", block] - value["TI_TV", block] for block in range(3)])
    words = found["text-video"]["still"]
    assert words.startswith(f"{100 * mean:+.1f} [") and found["text-video"]["blocks"] == 3
    rows[0]["processor"] = "Z80"  # of the first block's TV
    mixed = by(notebook.difference_table(rows, DATA, "TI_TV", {column: "still"}))
    assert mixed["text-video"] == found["text-video"] | {"blocks": "3, 1 across processors"}
    assert mixed["text-image"] == found["text-image"]
    one = notebook.difference_table(rows[: len(DATA.arms)], DATA, "TI_TV", {column: "still"})
    assert "[" not in by(one)["text-video"]["still"], "no interval of one block"


def test_recall_by_task_joins_splits_and_knows_what_is_missing():
    table = made(DATA, 1)
    task = "text → video"
    rows, titles = notebook.task_rows(table, (task, "smell → image"), "concept+development")
    hits = [table.hits["TV-0", task, split, "single", "cosine"] for split in DATA.splits]
    assert by(rows)["TV"][task] == pytest.approx(np.concatenate(hits).mean())
    assert titles[task] == f"{task}\n12 effective families"
    assert np.isnan(rows[0]["smell → image"]) and titles["smell → image"].endswith("not run")


def test_candidates_are_planned_scores_and_the_head_is_the_router_s():
    cells = notebook.winner_candidates(MASK)
    assert {cell.score for cell in cells} == {"cosine", "z-score", "centred", "probe", "router"}
    assert [cell.arm for cell in cells if cell.score == "router"] == ["router"]


def test_the_winner_needs_a_complete_block(table):
    rows = endpoint_rows(table, ("P1b", "P3"), ["development"])
    winner, words = notebook.find_winner(rows, MASK)
    assert winner in notebook.winner_candidates(MASK) and words.endswith("of 2 blocks")
    nobody, words = notebook.find_winner(rows[:3], MASK)
    assert nobody is None and words.startswith("no winner yet: no block has all of")


@pytest.mark.parametrize(("blocks", "words"), [
    (0, "0 of 6 blocks: nothing to test yet"), (1, "1 of 6 blocks: no test of one block"),
    (2, "2 of 6 blocks: verdicts are not final"), (6, "6 of 6 blocks: all that were planned"),
])  # fmt: skip
def test_blocks_say_how_far_tests_can_be_read(blocks, words):
    results = mask_results(made(MASK, blocks))
    assert notebook.blocks_said(results) == words
    rows = notebook.test_table(results)
    assert [row["verdict"] for row in rows] == [row["verdict"] for row in results]
    assert bool(rows[0]["95 % interval"]) == (blocks > 1) == bool(rows[0]["p (Holm)"])
    assert all("nan" not in str(row) for row in rows)


def test_results_are_printed_in_points():
    row = mask_results(made(MASK, 1), Cell("router"))[0] | {
        "effect": 0.0123, "low": -0.01, "high": 0.034, "p": 0.0004, "p_holm": 0.0024,
        "wide_low": -0.2, "wide_high": 0.2, "families": 30, "effective_families": 12.3,
    }  # fmt: skip
    (shown,) = notebook.test_table([row])
    assert (shown["effect"], shown["95 % interval"]) == ("+1.2", "[-1.0, +3.4]")
    assert (shown["p"], shown["p (Holm)"]) == ("< .001", "0.002")
    assert shown["other families, too"] == "[-20.0, +20.0]"
    assert shown["families"] == "30 (12 effective)"


def test_power_is_that_of_the_spread():
    row = mask_results(made(MASK, 6))[0] | {"deviation": 0.02, "blocks": 6}
    (shown,) = notebook.power_table([row], 1)
    assert shown["SD of a block"] == "2.0" and shown["found at 5 %, all blocks"] == "2.9"
    assert 80 < float(shown["power for 3 points"]) < 85, "3 points are a little more than 2.87"
    empty = notebook.power_table(mask_results(made(MASK, 1)), 6)
    assert len(empty) == 6 and all(row["SD of a block"] == "" for row in empty)
    assert "nan" not in str(empty)


def test_the_number_of_blocks_follows_from_the_spread_of_the_first_two(table):
    plan = PLANS["mask"]
    rows = endpoint_rows(made(MASK, 3), ("P1a", "P1b", "P3"), ["concept"])
    spread = blind_deviation_of([row for row in rows if row["block"] < 2], plan)
    said = f"{100 * spread:.1f} points in the first two blocks, so {blocks_needed(spread)} blocks"
    assert notebook.deviation_said(rows, plan) == said
    assert notebook.deviation_said(rows[:7], plan).startswith("not known yet")


def test_a_few_blocks_are_shown_one_by_one():
    opened = made(STUDIES["confirmation"], 2)
    results = verdicts(endpoint_rows(opened, ("P1b", "P3"), ["concept"]), PLANS["confirmation"],
                       Cell("router", "router"))  # fmt: skip
    first = notebook.block_table(results)[0]
    by_block = [float(value) for value in first["by block"].split(", ")]
    assert first["difference"] == "router (router) − info_nce" and len(by_block) == 2
    assert float(first["mean"]) == pytest.approx(np.mean(by_block), abs=0.1)
    unknown = notebook.block_table(verdicts([], PLANS["confirmation"]))
    assert [row["by block"] + row["mean"] for row in unknown] == ["", ""]


@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_holds_with_none_one_or_two_blocks(name, blocks, monkeypatch, tmp_path, capsys):

    def opened(study, *_):
        return made(STUDIES[study], blocks) if blocks else StudyTable([], {}, [])

    monkeypatch.setattr(notebook, "open_study", opened, raising=False)
    path = project_root() / "notebooks" / f"{NOTEBOOKS[name]}.ipynb"
    namespace = {}
    with plt.rc_context():
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                source = "".join(cell["source"]).replace(
                    'output: str = ""', f'output = "{tmp_path}"'
                )
                exec(compile(source, path.stem, "exec"), namespace)
        plt.close("all")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["blocks"] == blocks and (len(results) > 2) == (blocks > 1)
    assert len(list((tmp_path / "figures").glob("*.svg"))) == {"mask": 5, "data": 4}[name]
    planned = PLANS[name].blocks
    said = capsys.readouterr().out
    assert re.search(rf"{blocks} of {planned} blocks: \w", said)
