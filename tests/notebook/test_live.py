"""In a live notebook bars are not on the red ground of stderr; elsewhere they are as before."""

import os
import subprocess
import sys

import pytest

DRAW = """
import sys
if {kernel}:
    sys.modules["ipykernel"] = sys
from unite_core.notebook.runs import open_run
open_run("00_test", {{"output": {output!r}}})
from tqdm import tqdm
with tqdm(total=2, desc="seven") as bar:
    bar.update(2)
"""


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("session", ["notebook.ipynb", None])
def test_bars_are_on_stdout_only_where_somebody_looks_on(tmp_path, kernel, session):
    environment = {key: value for key, value in os.environ.items() if key != "JPY_SESSION_NAME"}
    done = subprocess.run(
        [sys.executable, "-c", DRAW.format(kernel=kernel, output=str(tmp_path))],
        env=environment | ({"JPY_SESSION_NAME": session} if session else {}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    live = kernel and session is not None
    assert ("seven" in done.stdout) == live and ("seven" in done.stderr) != live
    assert "2/2" in done.stdout + done.stderr
