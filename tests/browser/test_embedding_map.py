"""The application of linked maps in a browser: a lasso, colours."""

import re

from playwright.sync_api import expect

from tests.browser.pages import ALL_CELLS


def test_a_lasso_shows_what_it_holds(page, apps):
    page.page.goto(f"{apps.url}/voila/render/maps.ipynb")
    maps = page.page.locator("canvas:visible")
    maps.first.wait_for(timeout=1000 * ALL_CELLS)
    assert page.page.locator(".jp-CodeCell .jp-InputArea:visible").count() == 0
    maps.first.scroll_into_view_if_needed()
    box = maps.first.bounding_box()
    left, top = box["x"] + 4, box["y"] + 4
    right, low = box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
    mouse = page.page.mouse
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
