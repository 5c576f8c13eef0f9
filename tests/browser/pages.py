"""A page as its reader meets it: what it shows and says, and what changed."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Error, expect

from tests.browser.server import WAIT, Server, copy_notebook

RED = '[data-mime-type="application/vnd.jupyter.stderr"]'
PICTURE = ".unite-picture"
IDLE = """() =>
  window.jupyterapp?.shell.currentWidget?.sessionContext.session?.kernel?.status == "idle"
"""
# "ran", "died", the first error, or "" while cells run
STATE = """() => {
  if (document.querySelector(".jp-Dialog")) return "died";
  const cells = jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  const code = cells.filter(cell => cell.type == "code");
  const failed = code.flatMap(cell => cell.outputs.toJSON()).find(o => o.output_type == "error");
  if (failed) return `${failed.ename}: ${failed.evalue}\\n${failed.traceback.at(-1)}`;
  return code.length && code.every(cell => cell.executionCount) ? "ran" : "";
}"""
WATCH = """picture => {
  const heights = (window.heights ??= []);
  new ResizeObserver(([entry]) => heights.push(Math.round(entry.contentRect.height)))
    .observe(picture);
}"""
TRIES = 3  # of a kernel to start
SPLASH = "#jupyterlab-splash"  # stands before the page while the theme changes
ALL_CELLS, ANSWER = 400.0, 60.0  # seconds, of a notebook and of a control


class Page:
    """A playwright page with the words of this project's widgets."""

    def __init__(self, page):
        self.page = page
        page.set_default_navigation_timeout(1000 * WAIT)
        page.set_default_timeout(1000 * ANSWER)
        expect.set_options(timeout=1000 * ANSWER)

    def run_notebook(self, lab: Server, name: str) -> None:
        """Open a notebook in JupyterLab and run all its cells; a kernel that dies starts again."""
        file = copy_notebook(name, lab.folder)
        for _ in range(TRIES):
            self.page.goto("about:blank")  # or its page would start the kernel again
            lab.stop_kernels()
            self.page.goto(f"{lab.url}/doc/tree/{file}")
            try:
                self.page.wait_for_function(IDLE, timeout=1000 * WAIT)
            except Error:
                continue
            self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
            state = self.page.wait_for_function(STATE, timeout=1000 * ALL_CELLS).json_value()
            if state != "died":
                break
        else:
            state = f"its kernel did not live, {TRIES} times"
        assert state == "ran", state

    def open_app(self, apps: Server, name: str) -> None:
        """Open an application and wait for its controls."""
        self.page.goto(f"{apps.url}/voila/render/{name}.ipynb")
        self.status.wait_for(state="attached", timeout=1000 * WAIT)

    @property
    def picture(self):
        """The last live picture."""
        return self.page.locator(f"{PICTURE} img").last

    @property
    def status(self):
        """What is spoken of the last live picture."""
        return self.page.locator(f"{PICTURE} [role=status]").last

    def wait_for_picture(self) -> None:
        """Until the picture's pixels are there, and then watch its height."""
        self.picture.scroll_into_view_if_needed()
        expect(self.picture).to_have_js_property("complete", True)
        self.picture.evaluate(WATCH)

    def expect_change(self, action, says: str) -> str:
        """Do something; the picture is another one then, and what is spoken matches `says`."""
        before = self.picture.get_attribute("src")
        action()
        expect(self.status).to_have_text(re.compile(says))
        expect(self.picture).not_to_have_attribute("src", before)
        words = self.status.inner_text()
        expect(self.picture).to_have_attribute("alt", words)
        return words

    def expect_no_flicker(self) -> None:
        """The picture had one height while it was watched."""
        heights = set(self.page.evaluate("window.heights"))
        assert len(heights) == 1 and heights != {0}, heights

    def expect_spoken_as_shown(self, slider) -> str:
        """The words beside a slider are those that are spoken; returns them."""
        words = slider.get_attribute("aria-valuetext")
        assert slider.locator("xpath=following-sibling::span").inner_text() == words
        return words

    def expect_accessible(self) -> None:
        """Pictures have words, controls names, nothing is red."""
        images = self.page.locator(".jp-OutputArea img, .unite-picture img")
        silent = images.evaluate_all("all => all.filter(one => !one.alt.trim()).length")
        assert images.count() and not silent, f"{silent} of {images.count()} pictures have no words"
        controls = self.page.locator(".jp-OutputArea").locator("input, select, [role=slider]")
        for control in controls.all():
            named = control.evaluate(
                "one => one.type == 'file' || one.labels?.length || one.ariaLabel"
            )
            assert named, f"no name: {control.evaluate('one => one.outerHTML')}"
        red = self.page.locator(RED)
        assert red.count() == 0, f"on red: {red.first.inner_text()}"

    def pictures(self, folder: Path, name: str) -> None:
        """Take a picture of the page in light and dark."""
        folder.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            try:
                self.page.emulate_media(color_scheme=scheme)
                self.page.wait_for_timeout(300)
                self.page.wait_for_selector(SPLASH, state="detached")
                self.page.screenshot(path=folder / f"{name}-{scheme}.png", timeout=30_000)
            except Error as error:  # the test has failed already
                print(f"no picture of {name}: {error}")
