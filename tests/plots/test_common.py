"""Figures draw what they are given into the axes they are given."""

import importlib
import pkgutil
import subprocess
import sys

import matplotlib.pyplot as plt

from unite_core import plots
from unite_core.data.modality import Modality
from unite_core.plots import arm_style, modality_style, model_style, plot_history, use_style


def test_a_modality_has_one_colour_and_marker_under_every_name():
    styles = [modality_style(modality) for modality in (1, 2, 4, 3)]
    assert len({style["color"] for style in styles}) == 4
    assert len({style["marker"] for style in styles}) == 4
    assert modality_style("image") == modality_style(Modality.IMAGE) == styles[1]
    assert modality_style("text+image") == modality_style("image,text") == styles[3]
    assert modality_style(Modality.TEXT | Modality.VIDEO) == styles[3], "all mixtures are fused"


def test_a_model_looks_the_same_whatever_it_stands_beside():
    known = ["base", "stage 1", "stage 2", "InfoNCE", "random mask"]
    assert all(model_style(name, 0) == model_style(name, 5) for name in known)
    arms = {"stage 2": "mamcl", "InfoNCE": "info_nce", "random mask": "random_mask"}
    assert all(model_style(name) == arm_style(arm) for name, arm in arms.items())
    looks = [model_style(name) for name in known] + [model_style("?", n) for n in range(6)]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 11


def test_the_current_axes_are_the_default_and_the_style_is_ours(tmp_path):
    with plt.rc_context():
        use_style()
        figure = plt.figure()
        ax = plot_history([{"step": 0, "loss": 1.0}], {"loss": "loss"})
        assert ax is figure.gca()
        assert not ax.spines["top"].get_visible()
        assert figure.get_facecolor() == (1, 1, 1, 1), "black text is on white on dark pages, too"
        figure.savefig(tmp_path / "figure.png")
        plt.close(figure)
    assert plt.rcParams["svg.hashsalt"] is None


def test_the_face_has_every_figure_and_loads_matplotlib_on_use():
    modules = pkgutil.iter_modules(plots.__path__)
    loaded = [importlib.import_module(f"unite_core.plots.{module.name}") for module in modules]
    public = [name for module in loaded for name in module.__all__ if name.startswith("plot_")]
    assert len(public) == len(set(public)) and set(public) <= set(plots.__all__)
    code = "import sys; from unite_core import plots; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
