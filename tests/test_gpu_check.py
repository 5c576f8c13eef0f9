"""The GPU check at toy sizes on a CPU: every part runs, and what breaks one leaves the others."""

import json
import os
import resource
import subprocess
import sys
import zipfile
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from unite_core.notebook.runs import project_root

SPEED = project_root() / "speed"
sys.path.insert(0, str(SPEED))
import gpu_check  # noqa: E402
from gpu.tables import Part, write_results  # noqa: E402

sys.path.remove(str(SPEED))
PARTS = ["kernels", "losses", "encoding", "steps", "resuming", "attention"]


def check(output, *arguments):
    """Run the command; gives its exit code and the parts of its JSON by name."""
    command = [sys.executable, str(SPEED / "gpu_check.py"), "--tiny", "--device", "cpu"]
    done = subprocess.run([*command, "--output", str(output), *arguments], capture_output=True,
                          text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    whole = json.loads((output / "gpu_check.json").read_text())
    assert (output / "gpu_check.txt").read_text().rstrip() == done.stdout.rstrip()
    return done.returncode, {part["name"]: part for part in whole["parts"]}


def rows_of(part):
    return {row["name"]: row for row in part["rows"]}


def numbers(row):
    return [value for value in row.values() if isinstance(value, int | float)]


def test_the_plan_leaves_a_margin_in_eight_minutes():
    assert list(gpu_check.PLAN) == PARTS
    assert gpu_check.TOTAL == 480
    assert sum(gpu_check.PLAN.values()) + gpu_check.MARGIN == gpu_check.TOTAL
    assert gpu_check.MARGIN >= 30
    assert all(seconds > 2 * gpu_check.GRACE for seconds in gpu_check.PLAN.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Exit code, parts, and the processor's seconds, which a busy machine does not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, parts = check(tmp_path_factory.mktemp("whole"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, parts, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_every_part_runs_and_all_numbers_are_finite(whole):
    code, parts, seconds = whole
    assert list(parts) == PARTS
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(PARTS, "ran")
    assert code == 0 and all(part["good"] for part in parts.values())
    for part in parts.values():
        assert len(part["rows"]) == len(rows_of(part)) > 3  # no name twice
        values = torch.tensor([float(value) for row in part["rows"] for value in numbers(row)])
        assert values.isfinite().all() and len(values) > 10
        assert part["seconds"] > 0
    assert seconds < 180


@pytest.mark.slow
def test_results_that_must_be_equal_are(whole):
    parts = whole[1]
    bounds = {"kernels": 8e-3, "losses": 0.2, "encoding": 0.05, "steps": 0.02, "resuming": 0.0,
              "attention": 0.05}  # fmt: skip
    for name, part in parts.items():
        compared = [row for row in part["rows"] if "allowed" in row]
        assert compared, name
        for row in compared:
            assert row["apart"] <= row["allowed"] <= bounds[name] and row["ok"], row
    options = [row for row in parts["kernels"]["rows"] if "loss" in row]
    assert len(options) >= 19
    for row in options:
        assert row["loss"] > 0 and row["apart"] < (8e-3 if "bfloat16" in row["name"] else 1e-5)
    values = {row["name"]: row["loss"] for row in options}
    for name in ("shared negatives", "temperatures", "cross_modal_weight", "random_mask", "margin"):
        base = "mamcl" if name == "shared negatives" else "mamcl symmetric"
        assert abs(values[f"mamcl {name}"] - values[base]) > 1e-4, name  # the option does something
    losses = rows_of(parts["losses"])
    for task in ("info_nce", "mamcl"):
        for route in ("ours", "torch cross_entropy", "dense mask (released)"):
            row = losses[f"{task} N=96 {route}"]
            assert row["apart"] < 1e-5 and row["ms"] > 0 and row["peak_share"] > 0
    assert "GPU" in losses["Liger"]["note"] or "not installed" in losses["Liger"]["note"]


@pytest.mark.slow
def test_the_parts_measure_what_they_say(whole):
    encoding, steps, resuming, attention = (
        rows_of(whole[1][name]) for name in ("encoding", "steps", "resuming", "attention")
    )
    assert 0 < encoding["corpus"]["padding_ours"] < encoding["corpus"]["padding_fixed"] < 1
    exact = encoding["float32, ours against plain one by one"]
    assert exact["apart"] < 1e-5 < exact["cosine_of_different_items"] < 0.9  # vectors that differ
    rates = [row for row in encoding.values() if "items_s" in row]
    assert len(rates) >= 3 and all(row["items_s"] > 1 for row in rates)
    for stage in ("stage1", "stage2"):
        plain, cached = (steps[f"{stage} recipe, {way}"] for way in ("all at once", "GradCache"))
        assert plain["loss"] == pytest.approx(cached["loss"], rel=1e-3)
        assert plain["tflop"] == pytest.approx(cached["tflop"])
        assert 0 < plain["mfu"] < 1 and plain["s"] > 0 and plain["groups"] > 1
    assert resuming["killed"]["last_checkpoint"] < resuming["killed"]["at_step"]
    assert resuming["exit codes"]["killed"] == -9 and resuming["exit codes"]["resumed"] == 0
    assert resuming["resumed against untouched, weights"]["apart"] == 0
    assert resuming["untouched runs, weights"]["largest_update"] > 1e-4
    assert resuming["losses"]["apart"] == 0
    kinds = {row["attention"] for row in attention.values() if "attention" in row}
    assert len(kinds) > 1 and "none" not in kinds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status"), [("raise", "failed: RuntimeError: broken on request"), ("exit", "failed")]
)
def test_a_part_that_fails_leaves_its_first_row_and_the_other_parts(tmp_path, how, status):
    parts = ("--parts", "kernels", "losses", "attention")
    code, found = check(tmp_path, *parts, "--break", f"losses={how}")
    assert code == 1
    assert found["losses"]["status"].startswith(status) and not found["losses"]["good"]
    assert [row["name"] for row in found["losses"]["rows"]] == ["matrix-product peaks, TFLOP/s"]
    for name in ("kernels", "attention"):
        assert found[name]["status"] == "ran" and found[name]["good"] and found[name]["rows"]
    text = (tmp_path / "gpu_check.txt").read_text()
    assert f"== losses: {status}" in text and "look here" in text


@pytest.mark.slow
def test_a_part_that_hangs_is_killed_at_its_limit(tmp_path):
    arguments = ("--parts", "losses", "kernels", "--break", "losses=hang", "--limit", "losses=15")
    code, found = check(tmp_path, *arguments)
    assert code == 1
    assert found["losses"]["status"] == "killed at its limit of 15 s"
    assert 15 <= found["losses"]["seconds"] < 25 and len(found["losses"]["rows"]) == 1
    assert found["kernels"]["good"] and len(found["kernels"]["rows"]) > 19


@pytest.mark.slow
def test_a_missing_package_skips_the_part_and_wheels_are_on_the_path(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "liger_kernel-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("liger_kernel/__init__.py", "")
    with zipfile.ZipFile(wheels / "transformers-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("transformers/__init__.py", "import a_package_that_is_missing")
    arguments = ("--parts", "losses", "attention", "--wheels", str(wheels))
    code, found = check(tmp_path / "out", *arguments)
    assert code == 0
    assert rows_of(found["losses"])["Liger"]["note"] == "skipped: liger_kernel needs a GPU"
    status = found["attention"]["status"]
    assert status.startswith("skipped: needs a_package_that_is_missing") and "--wheels" in status


def test_results_are_readable_with_any_rows(tmp_path):
    part = Part("kernels", 60, 1.5, "ran")
    part.rows = [
        {"name": "a", "ms": 0.12345, "ok": True},
        {"name": "longer", "ms": None, "ok": False},
        {"name": "b", "note": "skipped"},
    ]
    write_results([part, Part("losses", 60)], tmp_path, {"when": "now"})
    text = (tmp_path / "gpu_check.txt").read_text()
    assert "0.123" in text and "b: skipped" in text and "NO" in text
    assert json.loads((tmp_path / "gpu_check.json").read_text())["parts"][0]["good"] is False
    assert not part.good and not Part("losses", 60).good
    half = tmp_path / "rows.jsonl"
    half.write_text('{"name": "whole", "x": 1}\n{"name": "cut", "x"')
    part.rows = []
    part.read(half)
    assert part.rows == [{"name": "whole", "x": 1}] and part.good


def test_the_model_has_the_real_sizes_and_can_be_made_anywhere(monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED))
    from gpu.model import random_embedder
    from gpu.part import Setup

    setup = Setup(False, torch.device("meta"), 0.0, SPEED)
    embedder = random_embedder(setup)
    assert sum(weight.numel() for weight in embedder.parameters()) == 2_208_985_600
    assert {weight.dtype for weight in embedder.parameters()} == {torch.bfloat16}
    assert embedder.dim == 1536 and embedder.processor.config.max_frames == 12
    config = embedder.base.config
    assert config.image_token_id == embedder.processor.image_id
    assert config.video_token_id == embedder.processor.video_id


def test_the_branches_for_a_gpu_call_torch_as_it_is(monkeypatch):
    """On a pretended GPU: what only runs on one, but for the kernels themselves."""
    monkeypatch.syspath_prepend(str(SPEED))
    from gpu import devices, part, steps

    card = mock.Mock(name="card", total_memory=80 * 2**30, major=9, minor=0)
    card.name = "H100"
    allocated = {"memory_allocated": 2**30, "max_memory_allocated": 3 * 2**30}
    calls = {name: mock.create_autospec(getattr(torch.cuda, name), return_value=value)
             for name, value in {**allocated, "synchronize": None, "empty_cache": None,
                                 "reset_peak_memory_stats": None,
                                 "get_device_properties": card}.items()}  # fmt: skip
    setup = part.Setup(True, torch.device("cuda"), 0.0, SPEED)
    with mock.patch.multiple(torch.cuda, **calls):
        assert setup.cuda and "H100, 80 GiB, compute 9.0" in devices.describe(setup)["card"]
        result, seconds, gib = devices.measured(lambda: 5, setup.device)
        assert result == 5 and seconds > 0 and gib == 2.0
        clock = steps.Clock(setup.device)
        clock.on_step_begin()
        clock.on_step_end()
    assert clock.gib == [3.0] and clock.seconds[0] > 0
    assert calls["synchronize"].call_count == 4
    assert calls["reset_peak_memory_stats"].call_count == 2


@pytest.mark.parametrize(("resumed", "ok"), [(0.0, True), (2.0, True), (5.0, False)])
def test_a_resumed_run_may_differ_as_much_as_an_untouched_one(tmp_path, monkeypatch, resumed, ok):
    monkeypatch.syspath_prepend(str(SPEED))
    from gpu import part, resuming

    configs = {}
    for name, shift in (("first", 0.0), ("second", 1.0), ("killed", resumed)):
        folder = tmp_path / name
        (folder / "adapter").mkdir(parents=True)
        save_file(
            {"a.lora_B": torch.ones(2, 2) + shift}, folder / "adapter/adapter_model.safetensors"
        )
        (folder / "history.json").write_text(json.dumps([{"loss": 1.0}, {"loss": 0.5 + shift}]))
        configs[name] = mock.Mock(output=str(folder))
    rows = tmp_path / "rows.jsonl"
    resuming.compare(part.Report(rows), configs)
    found = {row["name"]: row for row in map(json.loads, rows.read_text().splitlines())}
    assert found["untouched runs, weights"]["apart"] == 1.0
    assert not found["untouched runs, weights"]["repeats_to_the_bit"]
    row = found["resumed against untouched, weights"]
    assert (row["apart"], row["allowed"], row["ok"]) == (resumed, 4.0, ok)
