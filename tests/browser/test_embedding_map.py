"""The linked maps of notebook 10 in a browser: a lasso, a pointer, colours."""

import re

from playwright.sync_api import expect


def test_a_lasso_shows_what_it_holds_and_a_pointer_what_it_is_on(page, lab):
    page.run_notebook(lab, "10_embedding_map")
    maps = page.page.locator(".jp-OutputArea canvas:visible")
    maps.first.scroll_into_view_if_needed()
    maps.first.wait_for()
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
    for place in range(20 * 20):
        row, column = divmod(place, 20)
        mouse.move(left + (right - left) * column / 20, top + (low - top) * row / 20)
        page.page.wait_for_timeout(80)  # the kernel answers
        if shown.count():
            break
    expect(shown.first).to_be_visible()

    page.page.get_by_role("button", name="kind").click()
    page.expect_accessible()
