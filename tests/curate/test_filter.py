"""Each rule names what it is for and nothing else, and reasons add up."""

import numpy as np
import pytest
from PIL import Image

from unite_core.corpora.scenes import Scene, draw, draw_clip
from unite_core.curate import media_facts as facts_module
from unite_core.curate.alignment import align
from unite_core.curate.alignment_features import predict_words, visual_features, word_features
from unite_core.curate.config import AlignConfig, CleanConfig, RuleConfig
from unite_core.curate.filter import _repeats, directed_pair_type, filter_records
from unite_core.curate.media_stats import distinct_media, measure_media
from unite_core.curate.perceptual_hash import image_hashes
from unite_core.curate.reasons import REASONS, Reasons
from unite_core.curate.shared_texts import frames, mark_shared, repeated_texts
from unite_core.curate.text_rules import clean, media_faults, text_faults


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    draw(Scene("circle", "red", "small"), 84).save(root / "good.png")
    Image.new("RGB", (84, 84), "grey").save(root / "flat.png")
    draw(Scene("star", "blue"), 84).resize((12, 84)).save(root / "narrow.png")
    draw(Scene("star", "blue"), 84).resize((10, 10)).save(root / "tiny.png")
    (root / "cut.png").write_bytes((root / "good.png").read_bytes()[:200])
    frames = draw_clip(Scene("star", "blue", motion="left"), 84)
    save_clip(root / "good.webp", frames)
    noisy = [frames[0].copy() for _ in range(4)]
    for number, frame in enumerate(noisy):
        frame.putpixel((0, 0), (255 - number, 255, 255))
    save_clip(root / "still.webp", noisy)
    return root


def save_clip(path, frames):
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=250, lossless=True)


MEDIA = {
    "good.png": [], "flat.png": ["constant"], "narrow.png": ["small", "stretched"],
    "tiny.png": ["small"], "cut.png": ["unreadable"], "none.png": ["missing"],
    "good.webp": [], "still.webp": ["static"],
}  # fmt: skip


def media():
    return [("video" if path.endswith("webp") else "image", path) for path in MEDIA]


def test_media_rules_name_the_faulty_media_only(root):
    config = CleanConfig(largest_aspect=5)
    faults = media_faults(measure_media(media(), root), config)
    assert {path: sorted(faults.get((kind, path), [])) for kind, path in media()} == {
        path: sorted(reasons) for path, reasons in MEDIA.items()
    }


def test_a_threshold_of_zero_turns_its_rule_off(root):
    names = ("least_side", "largest_aspect", "least_contrast", "least_motion")
    off = CleanConfig(readable=False, **dict.fromkeys(names, 0))
    assert media_faults(measure_media(media(), root), off) == {}


def test_facts_are_kept_and_only_a_changed_file_is_looked_at_again(root, tmp_path, monkeypatch):
    first = measure_media(media(), root, tmp_path / "stats")
    calls = []
    look = facts_module._measure_one
    monkeypatch.setattr(facts_module, "_measure_one", lambda *a: calls.append(a) or look(*a))
    again = measure_media(media()[::-1], root, tmp_path / "stats")
    assert not calls and again.cause == first.cause[::-1]
    assert all((again[k] == first[k][::-1]).all() for k in range(3, 9))
    image_hashes(["good.png"], root, folder=tmp_path / "stats")
    visual_features([{"image": "good.png"}], root, tmp_path / "stats")
    assert not calls, "one decoding serves every step"
    changed = root / "flat.png"
    before = changed.read_bytes()
    draw(Scene("ring", "pink"), 84).save(changed)
    try:
        measure_media(media(), root, tmp_path / "stats")
    finally:
        changed.write_bytes(before)
    assert [path for _, path, _ in calls] == ["flat.png"]


def test_an_interrupted_pass_goes_on_where_it_was(root, tmp_path, monkeypatch):
    monkeypatch.setattr(facts_module, "_TASK", 1)
    monkeypatch.setattr(facts_module, "_WRITTEN", 2)
    look, calls = facts_module._measure_one, []

    def stopping(*arguments):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(arguments)
        return look(*arguments)

    monkeypatch.setattr(facts_module, "_measure_one", stopping)
    with pytest.raises(KeyboardInterrupt):
        measure_media(media(), root, tmp_path)
    calls.clear()
    monkeypatch.setattr(facts_module, "_measure_one", lambda *a: calls.append(a) or look(*a))
    stats = measure_media(media(), root, tmp_path)
    assert len(calls) == len(MEDIA) - 4, "two transactions of two were whole"
    assert stats.paths == list(MEDIA)


def test_workers_see_the_same(root):
    alone, shared = measure_media(media()[:4], root), measure_media(media()[:4], root, workers=1)
    assert alone.cause == shared.cause and (alone.contrast == shared.contrast).all()


TEXTS = {
    "a red circle": (), "keycap: #": (), "🔥": (), "日本語の説明": (), "<|IMAGE|>": (),
    "...!": ("blank",), "<|IMAGE|>\n?!": ("blank",), "IMG_2041.jpg": ("boilerplate",),
    "IMG": ("boilerplate",), "DSC 0420": ("boilerplate",), "imagine": (),
    "Untitled": ("boilerplate",), "https://a.b/c?d": ("boilerplate",),
    "Click here for more.": ("boilerplate",), "No description available.": ("boilerplate",),
    "Stock photo of nothing": ("boilerplate",), "a photo of a dog": (), "a test of patience": (),
    "photo album on a table": (), "img_0231": ("boilerplate",),
    "photo 12.jpg": ("boilerplate",), "image": (), "video 360": (), "colour theme": (),
    "PXL_20230101_120000.jpg": ("boilerplate",), "P1010023": ("boilerplate",),
    "the theme of the talk": (),
    "富士山": (), "собака": (), "كتاب": (), "हिन्दी": (), "12 monkeys": (),
    "cat, dog, pet, fur, animal, cute, kitten, puppy, home, garden, toy": ("keywords",),
    "cat, dog, pet, fur": (),
}  # fmt: skip


@pytest.mark.parametrize(("text", "reasons"), TEXTS.items())
def test_text_rules(text, reasons):
    assert text_faults(text, CleanConfig()) == reasons


def test_lengths_and_languages_are_rules_on_request():
    german = "ein Hund rennt mit einem roten Ball am Strand entlang"
    assert text_faults("abc", CleanConfig(least_characters=4)) == ("short",)
    assert text_faults("富士", CleanConfig(least_characters=4)) == (), "two ideographs say more"
    assert text_faults("abc", CleanConfig(most_characters=2)) == ("long",)
    assert text_faults(german, CleanConfig(languages=("en",))) == ("language",)
    assert text_faults(german, CleanConfig(languages=("en", "de"))) == ()
    assert text_faults("Hund", CleanConfig(languages=("en",))) == (), "too short to tell"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boilerplate": ["("]}, "boilerplate"),
        ({"boilerplate": "abc"}, "list of texts"),
        ({"least_side": -1}, "least_side"),
        ({"largest_aspect": 0.5}, "largest_aspect"),
    ],
)
def test_impossible_rules_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CleanConfig(**fields)


def test_records_take_the_faults_of_all_their_items(root):
    rows = [
        {"query": {"text": "a red circle"}, "candidate": {"image": "good.png"}},
        {"query": {"text": "Untitled"}, "candidate": {"image": "flat.png"}},
        {"query": {"text": "x", "image": ["good.png", "cut.png"]}, "candidate": {"text": "y"}},
        {
            "query": {"text": "x"},
            "candidate": {"text": "y"},
            "negative": [{"text": "z"}, {"video": "still.webp"}],
        },
    ]
    reasons = Reasons(len(rows))
    clean(reasons, rows, measure_media(distinct_media(rows), root))
    assert [reasons.of(row) for row in range(4)] == [
        [], ["constant", "boilerplate"], ["unreadable"], ["static"]
    ]  # fmt: skip
    with pytest.raises(ValueError, match="4 records but reasons of 3"):
        clean(Reasons(3), rows, measure_media([], root))


def test_reports_add_up_and_show_examples():
    reasons = Reasons(10)
    reasons.mark("blank", np.array([1, 2, 3]))
    reasons.mark("static", np.arange(10) > 2)
    blank, static = sorted(reasons.report(), key=lambda row: row["reason"])
    assert (blank["hits"], blank["first"], blank["only"]) == (3, 2, 2)
    assert (static["hits"], static["first"], static["only"]) == (7, 7, 6)
    assert blank["first"] + static["first"] == (~reasons.kept).sum()
    assert blank["examples"] == [1, 2, 3], "the ones that only this rule names come first"
    assert set(static["examples"]) <= set(range(4, 10))
    assert reasons.of(3) == ["static", "blank"]
    with pytest.raises(ValueError, match="reason"):
        reasons.mark("ugly", np.array([0]))
    assert len(REASONS) <= 32, "reasons are bits of a uint32"


def test_the_first_good_record_of_a_group_stays():
    groups = np.array([0, 0, 1, 0, 1, 2])
    good = np.array([False, True, True, True, True, True])
    assert _repeats(groups, good).tolist() == [False, False, False, True, True, False]


def test_features_tell_colours_and_words(root):
    features = visual_features([{"image": "good.png"}, {"image": "flat.png"}], root)
    assert np.isfinite(features).all() and not np.allclose(features[0], features[1])
    words = word_features(["a red circle", "circle a red", "blue"])
    assert words[0].sum() == 5 and set(np.unique(words)) == {0, 1}
    assert (words[0] * words[1]).sum() >= 3 and (words[0] * words[2]).sum() <= 1


def test_too_few_pairs_are_not_scored(root):
    rows = [{"query": {"text": "a"}, "candidate": {"image": "good.png"}}] * 3
    numbers, predicted, actual = predict_words(rows, root, np.arange(3))
    assert len(numbers) == len(predicted) == len(actual) == 0


def test_rules_are_refused_by_name():
    with pytest.raises(ValueError, match="duplicates is 'some': must be one of"):
        RuleConfig(duplicates="some")
    with pytest.raises(ValueError, match="needs an embedder"):
        filter_records([], ".", config=RuleConfig(alignment="embedder"))
    with pytest.raises(ValueError, match="clean.least_height is no field"):
        RuleConfig(clean={"least_height": 3})


def test_an_embedder_decides_where_it_is_asked(root):
    rows = [
        {"query": {"text": f"text {n}"}, "candidate": {"text": f"other {n}"}} for n in range(40)
    ]
    calls = []

    def embed(items):
        calls.append(len(items))
        vectors = np.eye(40)[[int(item["text"].split()[1]) for item in items]]
        if len(calls) == 2:  # candidates: two are swapped
            vectors[[3, 4]] = vectors[[4, 3]]
        return vectors

    config = RuleConfig(alignment="embedder", duplicates="exact")
    found = filter_records(rows, root, config=config, embed=embed)
    assert np.flatnonzero(found.reasons.has("misaligned")).tolist() == [3, 4]
    assert calls == [40, 40] and directed_pair_type(rows[0]) == "text > text"


def shown(count, text="Part of a set", source=""):
    return [
        {"query": {"text": text.format(n)}, "candidate": {"image": f"{n}.png"}, "source": source}
        for n in range(count)
    ]


def test_a_text_on_very_many_pictures_is_named_and_labels_are_not():
    rows = [*shown(30, "Sketch {:03d}"), *shown(40, "a picture of thing number {} here")]
    rows += [*shown(5, "a red star"), *shown(12, "cat", "labelled")]
    for row in rows[30:70]:
        row["query"] = {"text": row["candidate"]["image"]}
    reasons = Reasons(len(rows))
    rows[30:70] = [
        row | {"query": {"text": " ".join("abcdefgh"[int(d)] for d in f"{n:05o}")}}
        for n, row in enumerate(rows[30:70])
    ]
    assert mark_shared(reasons, rows, most=10) == ["labelled"]
    assert np.flatnonzero(~reasons.kept).tolist() == list(range(30))
    table = repeated_texts(rows, reasons.kept)
    assert table[0] == {"text": "Sketch 000", "records": 30, "media": 30, "kept": 0}
    assert {"text": "a red star", "records": 5, "media": 5, "kept": 5} in table


def test_frames_name_what_many_texts_begin_with():
    rows = shown(30)
    for number, row in enumerate(rows):
        row["query"]["text"] = f"file type {chr(97 + number % 26)}{'x' * number}"
    assert frames(rows)[0] == {"frame": "file type …", "texts": 30}
    assert frames(shown(3)) == []


def test_thin_drawings_are_not_constant_and_white_ones_are_seen(tmp_path):
    thin = Image.new("RGB", (1000, 800), "white")
    thin.paste("black", (100, 100, 101, 900))
    thin.save(tmp_path / "thin.png")
    Image.new("RGB", (1000, 800), "white").save(tmp_path / "page.png")
    white = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    white.paste("white", (10, 10, 40, 40))
    white.save(tmp_path / "white.png")
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save(tmp_path / "nothing.png")
    files = [("image", f"{name}.png") for name in ("thin", "page", "white", "nothing")]
    stats = measure_media(files, tmp_path)
    faults = media_faults(stats, CleanConfig())
    assert [faults.get(file, []) for file in files] == [[], ["constant"], [], ["constant"]]
    assert stats.black_page.tolist() == [False, False, True, False]
    assert 0 < stats.ink[0] < 0.002 and stats.ink[1] == 0


def test_alignment_that_drops_nothing_says_why():
    rng = np.random.default_rng(0)
    query, candidate = rng.standard_normal((2, 300, 8))
    (report,) = align(query, candidate, ["a"] * 300).types
    assert "more than most_mismatched" in report.note
    (report,) = align(query, query, ["a"] * 300).types
    assert report.note == "no pair scores like mismatched ones"
    (report,) = align(query, query, ["a"] * 300, AlignConfig(cost=0)).types
    assert "cost is 0" in report.note


@pytest.mark.parametrize(
    "template", ["Part of the {} collection", "{} theme", "photo {}", "Picture of the {} series."]
)
def test_templates_describe_nothing_where_many_texts_fit(template):
    words = [str(n) if "photo" in template else "ab"[n % 2] + "x" * n for n in range(25)]
    rows = [
        {"query": {"text": template.format(word)}, "candidate": {"text": "a dog"}}
        for word in words
    ]  # fmt: skip
    for count in (25, 9):
        reasons = Reasons(count)
        clean(reasons, rows[:count], measure_media([]))
        assert reasons.has("boilerplate").all() == (count == 25)
