"""Entities are unescaped, and pictures of too many pixels shrunk to copies; files stay."""

import json

import pytest
from PIL import Image

from unite_core.curate import repair as repair_module
from unite_core.curate.build import build_mix
from unite_core.curate.config import CleanConfig
from unite_core.curate.recipe import Recipe
from unite_core.curate.repair import Repair, shrunk_copy, unescaped
from unite_core.data import media
from unite_core.data.media import MediaError, image_shape


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("&#8220;quoted&#x201d;", "“quoted”"),
        ("twice &amp;quot;escaped&amp;quot;", 'twice "escaped"'),
        ("AT&T, R&D; a &copy b", "AT&T, R&D; a &copy b"),
        ("&lt;|IMAGE|&gt; is no placeholder", "&lt;|IMAGE|&gt; is no placeholder"),
        ("a&nbsp;b", "a b"),
    ],
)
def test_entities_become_what_they_mean(text, plain):
    assert unescaped(text) == plain


def test_templates_are_cut_out_of_texts_and_never_the_whole_text():
    repair = Repair(CleanConfig(remove=[r" \d\d (filled|regular)$", "^file type "], unescape=False))

    def convert(row):
        yield {"query": {"text": row}, "candidate": {"image": "a.png"}}

    texts = ["arrow 24 Filled", "file type cake", "file type ", "A &amp; B", "arrow"]
    cut = [record["query"]["text"] for text in texts for record in repair.texts(convert)(text)]
    assert cut == ["arrow", "cake", "file type ", "A &amp; B", "arrow"]
    assert +repair.done == {"texts cut by `remove`": 2}


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A picture with more pixels than the limit, which is lowered here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    monkeypatch.setattr(media, "MAX_PIXELS", 5000)
    Image.effect_noise((200, 100), 50).convert("RGB").save(tmp_path / "large.png")
    return tmp_path


def test_a_picture_is_shrunk_to_a_copy_once(large):
    with pytest.raises(
        MediaError, match=r"large.png: more than 5000 pixels .0 megapixels.; shrink"
    ):
        image_shape("large.png", large)
    name = shrunk_copy("large.png", large, 80)
    made = (large / name).stat().st_mtime_ns
    assert image_shape(name, large) == (40, 80)
    assert shrunk_copy("large.png", large, 80) == name
    assert (large / name).stat().st_mtime_ns == made
    assert Image.MAX_IMAGE_PIXELS == 5000, "the limit holds again"


def test_a_picture_beyond_all_measure_is_left(large, monkeypatch):
    monkeypatch.setattr(repair_module, "_MOST_PIXELS", 10_000)
    row = {"query": {"text": "a"}, "candidate": {"image": "large.png"}}
    repair = Repair(CleanConfig(shrink_to=80), large)
    assert repair.media(row) == row and repair.done == {"pictures too large to shrink": 1}


@pytest.mark.parametrize("side", [0, 60])
def test_a_mix_says_what_was_put_right_and_why_the_rest_went(large, side):
    rows = [
        {"query": {"text": "salt &amp; pepper"}, "candidate": {"image": "large.png"}},
        {"query": {"text": "another picture"}, "candidate": {"image": "gone.png"}},
        {"query": {"text": "&nbsp;"}, "candidate": {"image": "large.png"}},
    ]
    (large / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = {"query": {"text": "a"}, "candidate": {"text": "b"}}
    (large / "more.jsonl").write_text(json.dumps(text) + "\n")
    recipe = Recipe(
        "m", [{"name": n, "path": f"{n}.jsonl"} for n in ("rows", "more")], "out",
        max_bad_share=0.5, rules={"clean": {"shrink_to": side}, "alignment": "keep"},
    )  # fmt: skip
    card = json.loads((build_mix(recipe, large).parent / "card.json").read_text())
    assert card["repaired"]["texts with HTML entities"] == 2
    assert card["sources"]["rows"]["causes"] == {"blank text": 1}
    reasons = {row["reason"]: row["hits"] for row in card["removed"]}
    if side:
        assert card["repaired"]["pictures shrunk"] == 1 and reasons == {"missing": 1}
    else:
        assert reasons == {"missing": 1, "too large": 1}
        assert card["unreadable"] == {"too many pixels": 1, "no file under the media root": 1}
    words = (large / "out/card.md").read_text()
    assert "Not asked for" in words and "Repaired" in words
    assert (large / ".unite/media_facts.sqlite").is_file()
