"""The application of linked maps in a browser: a pointer, a lasso, colours."""

import io
import re

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from playwright.sync_api import expect

from tests.browser.pages import ALL_CELLS
from unite_core.plots.common import label_style

LEGEND = 120  # pixels at the left of a map that hold tools and legend


def place_of_a_text(canvas) -> tuple[int, int]:
    """A dot of a text in the picture of a canvas, (x, y) in its pixels."""
    pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)
    colour = 255 * np.array(to_rgb(label_style("text")["color"]))
    distance = np.abs(pixels - colour).sum(2)
    distance[:, :LEGEND] = np.inf
    y, x = np.unravel_index(distance.argmin(), distance.shape)
    assert distance[y, x] < 90, "no dot of a text on the map"
    return int(x), int(y)


def test_a_pointer_shows_what_it_is_on_and_a_lasso_what_it_holds(page, apps):
    page.page.goto(f"{apps.url}/voila/render/maps.ipynb")
    maps = page.page.locator("canvas:visible")
    maps.first.wait_for(timeout=1000 * ALL_CELLS)
    assert page.page.locator(".jp-CodeCell .jp-InputArea:visible").count() == 0
    maps.first.scroll_into_view_if_needed()
    box = maps.first.bounding_box()
    mouse = page.page.mouse
    page.page.wait_for_timeout(1000)  # the maps are drawn
    x, y = place_of_a_text(maps.first)
    mouse.move(box["x"] + x - 30, box["y"] + y + 30)
    mouse.move(box["x"] + x, box["y"] + y, steps=10)
    expect(page.page.get_by_text(re.compile("^text: "))).to_be_visible()

    left, top = box["x"] + 4, box["y"] + 4
    right, low = box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
    mouse.move(left, top)
    mouse.down()
    for corner in ((right, top), (right, low), (left, low), (left, top)):
        mouse.move(*corner, steps=12)
    mouse.up()
    said = page.page.get_by_text(re.compile(r"\d+ selected: "))
    expect(said).to_be_visible()
    assert "image" in said.inner_text() and "text" in said.inner_text()
    sheet = page.page.locator("figure img")
    assert sheet.count() and all(image.get_attribute("alt") for image in sheet.all())

    page.page.get_by_role("button", name="kind").click()
    page.expect_accessible()
