"""The book builds without warnings and offline, its links lead somewhere, its examples are true."""

import doctest
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from bs4 import BeautifulSoup

import unite_core
from unite_core.notebook.runs import project_root

ROOT = project_root()
DOCS = ROOT / "docs"
CONCEPTS = sorted(DOCS.glob("concepts/*.md"))
PAGES = [page for page in CONCEPTS if page.stem != "glossary"]
FACES = sorted(
    ".".join(file.parent.relative_to(ROOT).parts)
    for file in (ROOT / "unite_core").rglob("__init__.py")
    if file.parent.name not in ("unite_core", "cli") and "__all__" in file.read_text("utf-8")
)
ASSETS = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}


def load(name: str) -> ModuleType:
    """A module of the book, which no package holds."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(folder: Path, *options: str, **environment: str) -> Path:
    """Build the book, or a part of it, outside the tree; returns the folder of its pages."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--keep-going", "-c", str(DOCS), *options]
    done = subprocess.run(
        [*command, str(ROOT), str(folder / "html")],
        env=os.environ | {"UNITE_BOOK_REPOSITORY": ""} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """{path: parsed page} of all pages, from a build in which warnings are errors."""
    html = build(tmp_path_factory.mktemp("book"), "--fail-on-warning")
    paths = [path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in paths}


def page_of(book, name: str) -> BeautifulSoup:
    return next(page for path, page in book.items() if path.as_posix().endswith(name))


def root_of(book) -> Path:
    return next(path.parent for path in book if path.name == "genindex.html")


@pytest.mark.slow
def test_every_internal_link_and_its_anchor_exist(book):
    ids = {path: {tag["id"] for tag in page.select("[id]")} for path, page in book.items()}
    dead, checked = [], 0
    for path, page in book.items():
        for tag in page.select("a[href], img[src], link[href], script[src]"):
            address = tag.get("href") or tag.get("src")
            if re.match(r"[a-z]+:", address):
                continue
            target, anchor = urldefrag(address)
            # the theme adds a hash to its own files
            file = (path.parent / unquote(target.split("?")[0])).resolve() if target else path
            checked += 1
            if not file.exists() or (anchor and file in ids and unquote(anchor) not in ids[file]):
                dead.append(f"{path.name}: {address}")
    assert not dead
    assert checked > 1000


@pytest.mark.slow
def test_no_page_needs_the_network(book):
    for path, page in book.items():
        for tag, attribute in ASSETS.items():
            for found in page.select(f"{tag}[{attribute}]"):
                assert "//" not in found[attribute], f"{path.name} loads {found[attribute]}"
    static = root_of(book) / "_static"
    styles = list(static.rglob("*.css"))
    assert styles
    for style in styles:
        text = style.read_text("utf-8")
        assert not re.search(r"""(url\(|@import)\s*['"]?(https?:)?//""", text), style
    assert (static / "tex-svg-full.js").is_file()
    math = page_of(book, "concepts/mamcl.html")
    assert [tag for tag in math.select("script[src]") if "tex-svg-full.js" in tag["src"]]


@pytest.mark.slow
def test_every_picture_says_what_it_shows(book):
    pictures = [(path, tag) for path, page in book.items() for tag in page.select("article img")]
    assert len(pictures) > 20
    for path, picture in pictures:
        words = picture.get("alt", "")
        assert words.strip() and "_images/" not in words, f"{path.name}: {picture['src']}"


@pytest.mark.slow
def test_the_front_page_leads_to_everything(book):
    front = page_of(book, "docs/index.html")
    listed = {link["href"].rpartition("/")[2] for link in front.select("nav.bd-links a[href]")}
    files = [*(ROOT / "notebooks").glob("*.ipynb"), *DOCS.glob("*.md"), *CONCEPTS]
    for file in files:
        name = file.with_suffix(".html").name
        assert name in listed or name == "index.html", f"{file} is not in the book"
    assert front.select("article img"), "the result in one figure"
    start = page_of(book, "html/index.html")
    assert "docs/index.html" in start.select_one("meta[http-equiv]")["content"]


@pytest.mark.slow
@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_documented(book, face):
    name = face.removeprefix("unite_core.").replace(".", "_")
    ids = {tag["id"] for tag in page_of(book, f"api/{name}.html").select("dt[id]")}
    package = importlib.import_module(face)
    assert package.__all__
    for public in package.__all__:
        if not isinstance(getattr(package, public), ModuleType):
            assert any(re.fullmatch(rf"{face}(\.\w+)?\.{public}", each) for each in ids), public


@pytest.mark.slow
def test_settings_are_listed_with_range_and_default(book):
    stage = page_of(book, "api/train.html").find(id="unite_core.train.StageConfig").parent
    rows = {
        row.get_text(): row.find_next_sibling("dd").get_text(" ")
        for row in stage.select("dl.simple dt")
    }
    assert "a whole number of at least 1; default  8" in rows["lora_rank"]
    assert "required" in rows["name"]
    verbs = page_of(book, "api/cli.html").get_text()
    assert "Usage: unite train" in verbs and "--stage.lora-rank" in verbs


@pytest.mark.slow
def test_search_knows_the_terms(book):
    index = (root_of(book) / "searchindex.js").read_text("utf-8")
    assert {"mamcl", "lora", "temperatur"} <= set(re.findall(r'"?(\w+)"?:', index))


@pytest.mark.slow
def test_a_repository_adds_links_to_run_a_notebook_elsewhere(tmp_path):
    part = ("-D", "root_doc=notebooks/00_tour", "-D", "include_patterns=notebooks/00_tour.ipynb",
            "-D", "suppress_warnings=myst.xref_missing")  # fmt: skip
    plain = build(tmp_path / "plain", *part)
    linked = build(tmp_path / "linked", *part, UNITE_BOOK_REPOSITORY="https://github.com/me/fork")
    pages = [(html / "notebooks" / "00_tour.html").read_text("utf-8") for html in (plain, linked)]
    wanted = "https://colab.research.google.com/github/me/fork/blob/main/notebooks/00_tour.ipynb"
    assert wanted not in pages[0] and "mybinder" not in pages[0]
    assert wanted in pages[1] and "https://mybinder.org/v2/gh/me/fork/main" in pages[1]
    assert all("_sources/notebooks/00_tour.ipynb" in page for page in pages), "to download"


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_the_toys_of_a_page_are_true(page):
    text = re.sub(r"^```.*$", "", page.read_text("utf-8"), flags=re.MULTILINE)
    toys = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner()
    runner.run(toys)
    assert runner.summarize(verbose=False).failed == 0
    assert toys.examples or page.stem == "glossary"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_a_drawing_a_question_and_ways_on(page):
    text = page.read_text("utf-8")
    drawings = re.findall(r"!\[(.+)\]\(concept_(\w+)\.svg\)", text)
    assert drawings and all(len(words.split()) > 7 for words, _ in drawings)
    assert {name for _, name in drawings} <= set(load("drawings").DRAWINGS)
    assert "?\n" in text and "{dropdown} Answer" in text
    assert "../../notebooks/" in text and "../api/" in text


def test_drawings_are_what_the_code_draws(tmp_path):
    drawings = load("drawings")
    drawings.draw_all(tmp_path)
    assert {file.name for file in DOCS.glob("concepts/*.svg")} == {
        file.name for file in tmp_path.iterdir()
    }
    for file in tmp_path.iterdir():
        new, stored = (path.read_text("utf-8") for path in (file, DOCS / "concepts" / file.name))
        assert words_of(new) == words_of(stored), "python docs/drawings.py"
        assert len(numbers_of(new)) == len(numbers_of(stored)), "python docs/drawings.py"
        assert numbers_of(new) == pytest.approx(numbers_of(stored), abs=0.01), file.name


def words_of(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)", svg)


def numbers_of(svg: str) -> list[float]:
    """Coordinates, which processors may round differently."""
    return [float(each) for each in re.findall(r"(?<![#\w.-])-?\d+\.\d+", svg)]


def test_the_glossary_is_in_order_and_has_the_terms_of_the_field():
    text = (DOCS / "concepts" / "glossary.md").read_text("utf-8")
    block = re.search(r"```\{glossary\}\n(.*?)```", text, re.DOTALL)[1]
    terms = re.findall(r"^(\S.*)$", block, re.MULTILINE)
    assert terms == sorted(terms, key=lambda term: term.lower().replace("-", ""))
    assert set(terms) >= {
        "LoRA", "recall@k", "nDCG", "temperature", "MRR", "in-batch negative", "hard negative",
        "target modality", "family", "effective families", "modality gap", "GradCache",
        "RMG", "probe", "router", "factorised search", "HNSW",
    }  # fmt: skip


def test_names_beside_the_paper_s_symbols_exist():
    text = (DOCS / "concepts" / "glossary.md").read_text("utf-8")
    rows = re.findall(r"^\| .* \| .* \| (`.*) \|$", text, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(rows) > 12
    for name in names:
        owner, argument = re.fullmatch(r"([\w.]+)(?:\((\w+)\))?", name).groups()
        found = find(owner)
        assert not argument or argument in inspect.signature(found).parameters, name


def find(name: str):
    """A public name of any package, or a field of a settings class: "StageConfig.seed"."""
    first, *rest = name.split(".")
    packages = [unite_core, *map(importlib.import_module, FACES)]
    found = next(getattr(package, first) for package in packages if first in dir(package))
    for each in rest:
        known = getattr(found, "__dataclass_fields__", {})
        found = known[each] if each in known else getattr(found, each)
    return found


def test_stored_figures_keep_the_words_of_their_notebook():
    cell = nbformat.v4.new_code_cell(
        outputs=[
            nbformat.v4.new_output(
                "display_data", {"image/png": ""}, metadata={"image/png": {"alt": "two dots"}}
            ),
            nbformat.v4.new_output("display_data", {"text/plain": "x"}),
            nbformat.v4.new_output("display_data", {"image/png": ""}),
        ]
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("x"), cell])
    assert list(load("figure_texts").stored_texts(notebook)) == ["two dots", ""]


def test_docstrings_become_markup_that_shows_the_same_words():
    to_rst = load("docstrings").to_rst
    text = """First of `x`.

Args
    a, b  [N] ids*
        of _all_
Returns
    a
Raises ValueError.

    s = a b

    t"""
    assert [line for line in to_rst(text.splitlines()) if line] == [
        "First of ``x``.",
        "**Args**",
        "``a, b``",
        "    [N] ids\\*",
        "    of \\_all\\_",
        "**Returns**",
        "a",
        "Raises ValueError.",
        ".. code-block:: text",
        "    s = a b",
        "    t",
    ]
    assert not doctest.testmod(load("docstrings")).failed
