"""Tests run on a CPU, offline, without a display, from the same seeds, and leave the tree alone."""

import atexit
import os
import random
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
# Code of exported folders is copied here before it runs: one folder for as long as a process lives,
# because Python looks for all of `transformers_modules` where it found the first of it.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="unite-modules-")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)
torch.set_num_threads(1)
settings.register_profile(
    "unite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unite")


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums depend on it in their last bit, whatever a test before did


@pytest.fixture(autouse=True)
def _runs_elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def ax():
    """Axes whose figure is drawn when the test is over, so that what cannot be drawn fails."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()
    plt.close(figure)


@pytest.fixture
def unite():
    """Runs the command line in this process and returns its exit code."""
    from unite_core.cli import main

    def run(*arguments) -> int:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return stop.value.code

    return run


def pytest_make_parametrize_id(config, val, argname):
    """Names bytes by their length: what a compressor wrote may hold the time of day.

    The workers of pytest-xdist must collect the same names.
    """
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None
