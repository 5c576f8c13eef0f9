"""A profile counts every record, samples the rest, and foretells what the loss will see."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from unite_core.corpora.scenes import FRAMES, Scene, draw, draw_clip
from unite_core.curate.media_stats import MediaHeader, media_of, read_header
from unite_core.curate.profile import (
    ProfileConfig,
    _Sample,
    false_negatives,
    label_collisions,
    mask_consequences,
    partners,
    profile,
)
from unite_core.curate.scripts import guess_languages
from unite_core.curate.text_rules import bare_text, granularity, languages, words_of
from unite_core.data.media import MediaError
from unite_core.data.videos import clip_header
from unite_core.model.config import EmbedConfig

SMALL = EmbedConfig(image_min_pixels=56 * 56, image_max_pixels=112 * 112, max_frames=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    draw(Scene("circle", "red"), 84).save(root / "a.png")
    Image.new("RGB", (300, 100), "blue").save(root / "b.jpg")
    first, *rest = draw_clip(Scene("star", "blue", motion="left"), 84)
    first.save(root / "c.webp", save_all=True, append_images=rest, duration=250)
    first.save(root / "c.gif", save_all=True, append_images=rest, duration=200)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n")
    return root


def rows():
    yield {"query": {"text": "a red circle"}, "candidate": {"image": "a.png"}, "task": "t"}
    yield {"query": {"text": "blue, twice as wide as usual"}, "candidate": {"image": "b.jpg"}}
    yield {"query": {"text": "a red circle"}, "candidate": {"image": "a.png"}, "task": "t"}
    yield {"query": {"video": "c.webp"}, "candidate": {"text": "a star moving left"}}
    edit = {"text": "<|IMAGE|>\nthe same in blue", "image": ["a.png", "broken.png"]}
    yield {"query": edit, "candidate": {"image": "b.jpg"}}


def test_every_record_is_counted_and_the_profile_is_json(root):
    found = profile(rows(), root, ProfileConfig(batch_size=4, embed=SMALL))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["records"] == 5 == sum(pair["records"] for pair in found["pairs"])
    kinds = {(pair["query"], pair["candidate"]): pair["records"] for pair in found["pairs"]}
    assert kinds == {
        ("text", "image"): 3, ("video", "text"): 1, ("text+image", "image"): 1
    }  # fmt: skip
    assert found["duplicates"]["pairs"] == pytest.approx(1 / 5)
    assert found["duplicates"]["candidates"] == pytest.approx(2 / 5)
    assert {g["target"]: g["records"] for g in found["masking"]["groups"]} == {
        "image": 4, "text": 1
    }  # fmt: skip


def test_media_are_described_by_their_headers(root):
    found = profile(rows(), root, ProfileConfig(embed=SMALL))["media"]
    by = {(m["query"], m["side"], m["kind"]): m for m in found}
    images = by["text", "candidate", "image"]
    assert images["files"] == 2, "a medium that repeats is one file"
    assert images["width"]["quantiles"][-1] == 300 and images["aspect"]["quantiles"][-1] == 3
    clip = by["video", "query", "video"]
    assert clip["seconds"]["mean"] == FRAMES * 0.25 and clip["frames"]["mean"] == FRAMES
    assert clip["fps"]["mean"] == 4
    assert by["text+image", "query", "image"]["unreadable"] == 1


def test_texts_are_described_for_each_side(root):
    found = profile(rows(), root, count_tokens=lambda texts: [len(words_of(t)) for t in texts])
    by = {(t["query"], t["side"]): t for t in found["texts"]}
    assert set(by) == {("text", "query"), ("video", "candidate"), ("text+image", "query")}
    assert by["text", "query"]["characters"]["n"] == 3
    assert by["text", "query"]["tokens"]["quantiles"][-1] == 6
    assert by["text+image", "query"]["words"] == 4, "placeholders are no words"


def test_no_record_is_an_error():
    with pytest.raises(ValueError, match="no record"):
        profile([])


@pytest.mark.parametrize("field", ["batch_size", "sample"])
def test_profiles_need_positive_sizes(field):
    with pytest.raises(ValueError, match=field):
        ProfileConfig(**{field: 0})


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100, 1000])
def test_samples_are_evenly_spaced(count):
    sample = _Sample(8)
    for row in range(count):
        sample.offer(row)
    assert 4 <= len(sample.rows) <= 8 or count < 4
    assert set(np.diff(sample.rows)) <= {sample.step} and sample.rows[0] == 0
    assert count - sample.rows[-1] <= sample.step


@pytest.mark.slow
def test_visual_tokens_are_those_of_the_processor(root):
    from transformers import AutoTokenizer

    from unite_core.model.processor import Processor
    from unite_core.tiny.model import EMBED_CONFIG, TINY

    processor = Processor(AutoTokenizer.from_pretrained(TINY), EMBED_CONFIG)
    for kind, path in (("image", "a.png"), ("image", "b.jpg"), ("video", "c.webp")):
        header = read_header(kind, path, root, EMBED_CONFIG, processor.layout)
        encoded = processor.encode({kind: path}, root)
        merged = processor.layout.merge**2
        pixels = sum(len(values) for values, _ in encoded.images + encoded.videos)
        assert header.tokens == pixels // merged, path


def test_clip_headers_tell_frames_and_seconds(root):
    assert clip_header("c.webp", root) == (FRAMES, 84, 84, FRAMES * 0.25)
    assert clip_header("c.gif", root) == (FRAMES, 84, 84, pytest.approx(FRAMES * 0.2))
    with pytest.raises(MediaError, match="no such file"):
        clip_header("none.webp", root)


def test_headers_that_cannot_be_read_are_values_not_errors(root):
    assert isinstance(read_header("image", "broken.png", root, SMALL), MediaError)
    assert isinstance(read_header("image", "../a.png", root, SMALL), MediaError)
    assert isinstance(read_header("image", "a.png", root, SMALL), MediaHeader)


def test_frames_of_a_video_are_images():
    item = {"video": [["a.png", "b.png"], "c.webp"], "image": ["d.png"], "text": "x"}
    assert media_of(item) == [
        ("image", "d.png"), ("image", "a.png"), ("image", "b.png"), ("video", "c.webp")
    ]  # fmt: skip


def test_group_sizes_are_those_of_random_batches():
    counts, size = {"text": 420, "image": 400, "video": 160, "text+image": 20}, 64
    told = mask_consequences(counts, size)
    rng = np.random.default_rng(0)
    labels = np.repeat(list(counts), list(counts.values()))
    batches = [Counter(rng.choice(labels, size).tolist()) for _ in range(3000)]
    survived = np.mean([sum(n * n for n in batch.values()) / size**2 for batch in batches])
    lonely = np.mean([sum(n for n in batch.values() if n == 1) / size for batch in batches])
    assert told["surviving_share"] == pytest.approx(survived, rel=0.02)
    assert told["lonely_share"] == pytest.approx(lonely, rel=0.1)
    by = {group["target"]: group for group in told["groups"]}
    assert by["text"]["expected_size"] == pytest.approx(0.42 * 64)
    assert by["text+image"]["too_small"] and not by["video"]["too_small"]


def test_the_paper_s_stage_two_survives_as_the_paper_s_fact_sheet_says():
    shares = {"text": 423, "image": 405, "video": 158, "text+image": 14}
    assert mask_consequences(shares, 4096)["surviving_share"] == pytest.approx(0.369, abs=2e-3)


def test_one_modality_keeps_every_score():
    assert mask_consequences({"text": 5}, 32)["surviving_share"] == 1
    with pytest.raises(ValueError, match="batch_size"):
        mask_consequences({"text": 5}, 0)


def test_collisions_are_those_of_random_batches():
    counts, total, size = np.array([50, 50, 1, 1, 1]), 400, 20
    told = label_collisions(counts, total, size)
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(5), counts), -np.arange(1, 298)])
    seen = []
    for _ in range(4000):
        batch = rng.choice(labels, size, replace=False)
        mine = batch[batch >= 0]
        seen += [(batch == label).sum() - 1 for label in mine.tolist()]
    assert told["shared_candidates"] == pytest.approx(np.mean(seen), rel=0.05)
    assert told["distinct"] == 5 and told["repeated_share"] == pytest.approx(100 / 103)
    assert 2 < told["effective"] < 2.2, "almost a set of two labels"


def test_false_negatives_are_those_of_random_batches_on_either_side():
    rng = np.random.default_rng(0)
    query, candidate = rng.integers(0, 30, 120), rng.integers(0, 60, 120)
    told = false_negatives(partners(query, candidate), total=200, batch_size=25)
    seen = []
    for _ in range(6000):
        batch = rng.choice(200, 25, replace=False)
        mine = batch[batch < 120]
        same = np.equal.outer(query[mine], query[mine])
        same |= np.equal.outer(candidate[mine], candidate[mine])
        seen += (same.sum(1) - 1).tolist()
    assert told["false_negatives"] == pytest.approx(np.mean(seen), rel=0.05)
    alone = np.arange(120)
    assert not partners(alone, alone).any()


def test_groups_count_as_one_item_and_one_title_on_two_pictures_counts():
    rows = [{"query": {"text": f"t{n % 2}"}, "candidate": {"image": f"{n}.png"}} for n in range(4)]
    (by_name,) = profile(rows)["sources"]
    assert by_name["shared_share"] == 1 and by_name["shared_candidates"] == 0
    distinct = [row | {"query": {"text": str(n)}} for n, row in enumerate(rows)]
    assert profile(distinct)["sources"][0]["false_negatives"] == 0
    grouped = [row | {"candidate_group": "m 1"} for row in distinct]
    assert profile(grouped)["sources"][0]["shared_share"] == 1


def test_scripts_are_told_of_short_titles_and_languages_of_sentences_only():
    titles = ["富士山", "собака", "हिन्दी", "كتاب", "a dog"]
    rows = [{"query": {"text": t}, "candidate": {"image": f"{t}.png"}} for t in titles]
    (found,) = profile(rows)["texts"]
    assert set(found["scripts"]) == {"Han", "Cyrillic", "Devanagari", "Arabic", "Latin"}
    assert found["language_known"] == 0 and found["language_probability"] is None
    long = ["a dog is running along the beach with a ball"]
    (guess,) = guess_languages(long)
    assert guess.code == "en" and 0.8 <= guess.probability <= 1
    assert guess_languages(["internationalisation standardisation"])[0].code == "", "two words"


def test_words_leave_placeholders_and_punctuation_out():
    assert words_of("<|IMAGE|>\nThe SAME, in blue!") == ["the", "same", "in", "blue"]
    assert words_of("it's 3-D") == ["it's", "3", "d"]
    assert bare_text(" <|VIDEO|>\n ") == ""


def test_fine_captions_are_told_from_coarse_ones():
    coarse = granularity(["a red circle", "a blue star"])
    fine = granularity(["a large red circle at the top left on white"] * 2)
    assert coarse["fine_share"] == 0 and fine["fine_share"] == 1
    assert fine["attribute_words"] == 5 and coarse["attribute_words"] == 1
    assert coarse["type_token_ratio"] > fine["type_token_ratio"]
    assert granularity([])["words"] == 0


def test_short_texts_have_no_language():
    long = ["a dog is running along the beach with a ball", "ein Hund rennt mit dem Ball am Strand"]
    assert languages([*long, "melon"]) == ["en", "de", ""]
