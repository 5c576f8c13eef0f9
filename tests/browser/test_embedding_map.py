"""The application of linked maps in a browser: a lasso, a pointer, colours."""

import re

from playwright.sync_api import expect

from tests.browser.pages import ALL_CELLS


def test_a_lasso_shows_what_it_holds_and_a_pointer_what_it_is_on(page, apps):
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

    shown = page.page.get_by_text(re.compile("^(text|image|video): "))
    rows = 48
    for row in range(rows):  # small steps: the pointer has to come near some point
        height = top + (low - top) * (row + 0.5) / rows
        mouse.move(left, height)
        mouse.move(right, height, steps=60)
        page.page.wait_for_timeout(80)  # the kernel answers
        if shown.count():
            break
    expect(shown.first).to_be_visible()

    page.page.get_by_role("button", name="kind").click()
    page.expect_accessible()
