"""What pip installs works where there is no checkout."""

import json
import subprocess
import sys

import pytest

from unite_core.notebook.runs import project_root

USE = """
import json, sys
from pathlib import Path

import numpy as np
import torch

import unite_core
from unite_core import UniteEmbedder, gap, mamcl, notebook, plots
from unite_core.curate.text_rules import languages
from unite_core.corpora.emoji.catalogue import family_of
from unite_core.evaluation.benchmarks.published import read_published
from unite_core.settings import read_config
from unite_core.tiny import TINY
from unite_core.train import TrainConfig

home = Path(unite_core.__file__).parents[1]
assert str(home) == sys.argv[1], home
embedder = UniteEmbedder.load(TINY)
texts = [{"text": f"thing number {number}"} for number in range(60)]
pictures = [{"image": np.full((40, 40, 3), number * 4, np.uint8)} for number in range(60)]
vectors = [embedder.embed(side, progress=False) for side in (texts, pictures)]
loss = mamcl(*map(torch.from_numpy, vectors), [1] * 60)
table = gap.measure(*vectors)
plots.use_style()
ax = plots.plot_similarity(vectors[0][:4] @ vectors[1][:4].T, texts[:4], texts[4:8])
ax.figure.savefig("figure.png")
recipes = sorted((home / "unite_core/train/recipes").glob("*stage1.json"))
stages = [read_config(TrainConfig, path).stage.name for path in recipes]
print(json.dumps({
    "norms": np.linalg.norm(vectors[0], axis=1).round(4).tolist()[:3],
    "loss": float(loss), "measures": len(table), "stages": stages,
    "published": len(list(read_published())), "root": str(notebook.project_root()),
}))
"""


@pytest.mark.slow
def test_the_wheel_embeds_measures_and_draws_outside_the_checkout(tmp_path):
    root, site, elsewhere = project_root(), tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    copy = tmp_path / "source"
    copy.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "unite_core",
         "pyproject.toml", "README.md", "LICENSE"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, files):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((root / name).read_bytes())
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, copy]
    subprocess.run(list(map(str, build)), check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--target", site, wheel]
    subprocess.run(list(map(str, install)), check=True, capture_output=True)
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(site)], cwd=elsewhere, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["norms"] == [1.0, 1.0, 1.0] and said["loss"] > 0 and said["measures"] > 5
    assert set(said["stages"]) == {"stage1"} and said["published"] > 100
    assert said["root"] == str(elsewhere), "helpers that need no checkout work from anywhere"
    assert (elsewhere / "figure.png").stat().st_size > 1000
    help_text = subprocess.run(
        [sys.executable, "-m", "unite_core", "--help"], cwd=elsewhere, env=environment,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Verbs" in help_text and (site / "bin" / "unite").is_file()
