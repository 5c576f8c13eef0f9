"""The loss benchmark runs at toy sizes without any peer, and says so."""

import importlib.util
import os
import subprocess
import sys

import pytest

from unite_core.notebook.runs import project_root

SCRIPT = project_root() / "speed" / "loss.py"


def run(output):
    command = [sys.executable, str(SCRIPT), "--compare", "64", "--sizes", "32,48", "--dim", "8"]
    command += ["--repeats", "2", "--tasks", "mamcl", "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(project_root())}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory needs Linux")
def test_the_benchmark_fills_its_section_and_names_missing_peers(tmp_path):
    output = tmp_path / "RESULTS.md"
    output.write_text("# Benchmarks\n\n<!-- loss: begin -->\nold\n<!-- loss: end -->\n\nkept\n")
    run(output)
    text = output.read_text()
    assert "old" not in text and text.count("<!-- loss: begin -->") == 1
    assert text.rstrip().endswith("kept")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    for route in ("ours", "released dense mask", "torch cross_entropy"):
        seconds, ratio, memory = (cell.split() for cell in rows[route].split("|")[2:5])
        assert float(seconds[0]) > 0 and float(ratio[0]) > 0 and float(memory[0]) < 64
    absent = importlib.util.find_spec("sentence_transformers") is None
    assert ("missing" in rows["MNRL"]) == absent == ("sentence-transformers missing" in text)
    assert {"32", "48"} <= set(rows)
