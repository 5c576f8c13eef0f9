"""A browser, a JupyterLab and the applications; pictures of every test lie in runs/browser."""

import os
import shutil

import pytest

from tests.browser.pages import Page
from tests.browser.server import start_apps, start_lab
from unite_core.notebook.corpus import open_corpus
from unite_core.notebook.runs import project_root

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = project_root() / "runs" / "browser"


@pytest.fixture(scope="session")
def chromium():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        why = f"no browser here, none of {', '.join(BROWSERS)}: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, request):
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    opened = Page(context.new_page())
    yield opened
    opened.pictures(PICTURES, request.node.name)
    context.close()


@pytest.fixture(scope="session")
def shapes():
    """The corpus of all of them; a moment's work where it is not there."""
    open_corpus("shapes")


@pytest.fixture(scope="session")
def lab(chromium, shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    server = start_lab(folder)
    server.folder = folder
    yield server
    server.stop()


@pytest.fixture(scope="session")
def apps(chromium, shapes, tmp_path_factory):
    server = start_apps(tmp_path_factory.mktemp("apps"))
    yield server
    server.stop()
