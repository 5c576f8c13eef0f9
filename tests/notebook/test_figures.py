"""Figures come with words, in the files and in the notebook's output."""

import xml.etree.ElementTree as ElementTree

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from IPython.testing.globalipapp import get_ipython as start_shell
from IPython.utils.capture import capture_output
from PIL import Image

from unite_core.notebook.figures import show_figure, words_of
from unite_core.notebook.files import clean_notebook
from unite_core.notebook.runs import Run


@pytest.fixture
def figure():
    figure, axes = plt.subplots(1, 2)
    figure.suptitle("Two models")
    axes[0].set_title("recall rises", loc="left")
    axes[1].set(xlabel="step", ylabel="loss")
    yield figure
    plt.close(figure)


def test_titles_and_else_labels_stand_for_a_figure(figure):
    assert words_of(figure) == "Two models; recall rises; loss against step"
    assert words_of(plt.figure()) == ""
    plt.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [("Dots rise <slowly>\n& stay", "Dots rise <slowly> & stay"), ("", "Two models; recall rises")],
)
def test_both_files_say_what_is_to_be_seen(figure, tmp_path, given, said):
    Run("07_test", tmp_path).figure("two", figure, alt=given)
    svg = ElementTree.parse(tmp_path / "figures" / "07_test_two.svg").getroot()
    assert svg.find("{http://www.w3.org/2000/svg}title").text.startswith(said)
    with Image.open(tmp_path / "figures" / "07_test_two.png") as image:
        assert image.info["Description"].startswith(said)


def test_the_output_of_a_notebook_carries_the_words_and_keeps_them_when_cleaned(figure, tmp_path):
    start_shell()
    with capture_output() as captured:
        show_figure(figure, "two dots")
    (shown,) = captured.outputs
    assert shown.metadata["image/png"]["alt"] == "two dots"
    assert not plt.fignum_exists(figure.number), "shown once"
    (copy,) = BeautifulSoup(shown.data["text/html"], "html.parser").find_all("img")
    assert copy["alt"] == "two dots", "JupyterLab shows HTML and no alt of an image"
    assert copy["src"] == f"data:image/png;base64,{shown.data['image/png']}"
    output = nbformat.v4.new_output("display_data", dict(shown.data), metadata=shown.metadata)
    output.metadata["image/png"]["width"] = 3
    cell = nbformat.v4.new_code_cell("show()", outputs=[output])
    file = tmp_path / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), file)
    clean_notebook(file)
    (kept,) = nbformat.read(file, as_version=4).cells[0].outputs
    assert kept.metadata == {"image/png": {"alt": "two dots"}}
    assert set(kept.data) == {"image/png", "text/plain"}, "the picture is stored once"
