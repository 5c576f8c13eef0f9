"""The generated corpus: what is written is what is drawn, and nothing held out is trained."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unite_core.corpora.scenes import (
    BACKGROUNDS,
    COLOURS,
    FRAMES,
    HELD_OUT_SHAPES,
    HELD_OUT_STYLE,
    MOTIONS,
    POSITIONS,
    SHAPES,
    SIZES,
    SPLITS,
    STYLES,
    Scene,
    caption,
    draw,
    draw_clip,
    paraphrase,
    split_of,
)
from unite_core.corpora.shapes import KINDS, ShapesConfig, build
from unite_core.data.modality import modality_of
from unite_core.data.records import content_id, read_records
from unite_core.evaluation.tasks import read_tasks

SMALL = ShapesConfig(records=60, queries=6, image_size=56)
scenes = st.builds(
    Scene,
    shape=st.sampled_from(SHAPES + HELD_OUT_SHAPES),
    colour=st.sampled_from(list(COLOURS)),
    size=st.sampled_from(list(SIZES)),
    position=st.sampled_from(POSITIONS),
    background=st.sampled_from(list(BACKGROUNDS)),
    style=st.sampled_from([*STYLES, HELD_OUT_STYLE]),
    motion=st.sampled_from(["", *MOTIONS]),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    build(root, SMALL)
    return root


def media_of(item):
    return [item[key] for key in ("image", "video") if key in item]


def ink(image, scene):
    """[H, W] bool: pixels nearer to the shape's colour than to the background's."""
    pixels = np.asarray(image, float)
    colours = (COLOURS[scene.colour], BACKGROUNDS[scene.background])
    near, far = (np.abs(pixels - colour).sum(-1) for colour in colours)
    return near < far


def centre(image, scene):
    rows, columns = np.nonzero(ink(image, scene))
    return columns.mean(), rows.mean()


@given(scenes)
def test_a_path_says_the_whole_scene(scene):
    assert Scene.from_path(scene.path) == scene
    words = caption(scene).split()
    assert {scene.colour, scene.shape, scene.size, scene.background} <= set(words)
    assert scene.style not in words and scene.style not in paraphrase(scene)
    assert (scene.motion in caption(scene, "coarse")) and scene.motion in paraphrase(scene)
    assert caption(scene, "coarse").split()[0] == ("an" if scene.colour == "orange" else "a")


def test_pixels_show_size_position_colour_and_style():
    for shape in SHAPES + HELD_OUT_SHAPES:
        areas = [ink(draw(Scene(shape, "red", size), 84), Scene(shape, "red")).sum()
                 for size in SIZES]  # fmt: skip
        assert areas[0] < areas[1] < areas[2], shape
        styles = [ink(draw(Scene(shape, "red", "large", style=style), 84), Scene(shape, "red"))
                  for style in ("solid", "striped", HELD_OUT_STYLE)]  # fmt: skip
        assert styles[0].sum() > max(styles[1].sum(), styles[2].sum()) > 0, shape
    for position in POSITIONS:
        scene = Scene("square", "blue", "small", position)
        x, y = centre(draw(scene, 84), scene)
        assert (x < 35) == ("left" in position) and (x > 49) == ("right" in position)
        assert (y < 35) == ("top" in position) and (y > 49) == ("bottom" in position)


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_clips_move_the_way_they_say(motion, axis, sign):
    scene = Scene("star", "green", motion=motion)
    path = np.array([centre(frame, scene) for frame in draw_clip(scene, 84)])
    assert (np.diff(path[:, axis]) * sign > 1).all()
    assert np.ptp(path[:, 1 - axis]) < 1


def test_clips_grow_and_shrink():
    for motion, sign in (("growing", 1), ("shrinking", -1)):
        scene = Scene("circle", "pink", motion=motion)
        areas = [ink(frame, scene).sum() for frame in draw_clip(scene, 84)]
        assert (np.diff(areas) * sign > 0).all()


def test_every_trained_shape_and_colour_is_seen_but_not_every_combination():
    trained = {
        (shape, colour)
        for shape in SHAPES
        for colour in COLOURS
        if split_of(Scene(shape, colour)) == "train"
    }
    assert {shape for shape, _ in trained} == set(SHAPES)
    assert {colour for _, colour in trained} == set(COLOURS)
    assert len(trained) == 40
    assert split_of(Scene("ring", "red", style=HELD_OUT_STYLE)) == "style"
    assert split_of(Scene("hexagon", "red", style=HELD_OUT_STYLE)) == "concept"


def test_nothing_held_out_is_in_training(corpus):
    items = [
        record[side]
        for stage in ("stage1", "stage2")
        for record in read_records(corpus / f"{stage}.jsonl", media_root=corpus, check_media=True)
        for side in ("query", "candidate")
    ]
    shown = [Scene.from_path(path) for item in items for path in media_of(item)]
    assert {split_of(scene) for scene in shown} == {"train"}
    texts = " ".join(item.get("text", "") for item in items)
    for word in (*HELD_OUT_SHAPES, HELD_OUT_STYLE):
        assert word not in texts


def test_tasks_ask_for_their_split_and_know_the_answer(corpus):
    tasks = read_tasks(corpus / "tasks.json")
    assert Counter(task.split for task in tasks) == dict.fromkeys(SPLITS, len(KINDS))
    for task in tasks:
        assert len(task.queries) == SMALL.queries
        for query, answers in zip(task.queries, task.positives, strict=True):
            answer = task.candidates[answers[0]]
            pair = [Scene.from_path(path) for side in (query, answer) for path in media_of(side)]
            assert task.name.startswith("text → text") or task.split in map(split_of, pair)
            assert check_answer(task.name, query, answer, *pair), (task.name, query, answer)
            for path in media_of(query) + media_of(answer):
                assert (corpus / path).is_file()
        ids = [content_id(candidate) for candidate in task.candidates]
        assert len(set(ids)) == len(ids)


def test_tasks_say_their_kind_and_concepts(corpus):
    for task in read_tasks(corpus / "tasks.json"):
        fused = any(len(item) > 1 for item in task.queries)
        assert task.kind == ("instructed" if fused else "plain")
        for item, concept in zip(task.candidates, task.candidate_concepts, strict=True):
            if task.name == "image + question → text":
                assert concept == ""
            else:
                shown = [caption(Scene.from_path(path)) for path in media_of(item)]
                assert concept == (shown or [item["text"]])[0]
        for concept, answers in zip(task.query_concepts, task.positives, strict=True):
            assert task.candidate_concepts[answers[0]] in (concept, "")


def test_tasks_of_an_older_version_are_written_anew_and_nothing_else(tmp_path):
    manifest = build(tmp_path, SMALL)
    tasks, old = (tmp_path / "tasks.json").read_bytes(), json.loads(manifest.read_text())
    del old["tasks_format"]
    manifest.write_text(json.dumps(old))
    (tmp_path / "tasks.json").write_text("[]")
    (tmp_path / "stage1.jsonl").write_text("stays")
    picture = next(tmp_path.rglob("*.png"))
    picture.write_bytes(b"stays")
    build(tmp_path, SMALL)
    assert (tmp_path / "tasks.json").read_bytes() == tasks
    assert (tmp_path / "stage1.jsonl").read_text() == "stays" == picture.read_text()


def check_answer(name, query, answer, *shown):
    """Whether the answer is right, told from file names and texts alone."""
    if name in ("text → image", "text → video"):
        return query["text"] == caption(shown[0])
    if name in ("image → text", "video → text"):
        return answer["text"] == caption(shown[0])
    if name == "text → text":
        words = set(query["text"].replace(",", "").replace(":", "").split()) - {"background"}
        return words - {"left", "right", "centre", "top", "bottom"} <= set(answer["text"].split())
    if name == "image → image":
        return caption(shown[0]) == caption(shown[1]) and shown[0].style != shown[1].style
    if name == "image + question → text":
        return answer["text"].removeprefix("in the ").removeprefix("at the ").split(" back")[0] in (
            shown[0].shape, shown[0].colour, shown[0].size, shown[0].position, shown[0].background,
        )  # fmt: skip
    differing = [
        field for field in vars(shown[0]) if vars(shown[0])[field] != vars(shown[1])[field]
    ]
    changed = {"image + colour → image": "colour"}.get(name, "motion")
    return differing == [changed] and vars(shown[1])[changed] in query["text"]


def test_the_same_configuration_gives_the_same_files(corpus, tmp_path, capsys):
    build(tmp_path, SMALL)
    for file in ("stage1.jsonl", "stage2.jsonl", "tasks.json", "manifest.json"):
        assert (tmp_path / file).read_bytes() == (corpus / file).read_bytes()
    media = sorted(path.relative_to(corpus) for path in corpus.rglob("*.*p*g"))
    assert all((tmp_path / path).read_bytes() == (corpus / path).read_bytes() for path in media)
    capsys.readouterr()
    build(tmp_path, SMALL)
    assert "up to date" in capsys.readouterr().out
    build(tmp_path, ShapesConfig(records=60, queries=6, image_size=56, seed=1))
    assert (tmp_path / "stage1.jsonl").read_bytes() != (corpus / "stage1.jsonl").read_bytes()


def test_clips_on_disk_are_lossless(corpus):
    path = next(iter(corpus.rglob("*.webp")))
    scene = Scene.from_path(path.relative_to(corpus).as_posix())
    with Image.open(path) as clip:
        assert clip.n_frames == FRAMES
        for number, frame in enumerate(draw_clip(scene, SMALL.image_size)):
            clip.seek(number)
            assert np.array_equal(np.asarray(clip.convert("RGB")), np.asarray(frame))


def test_knobs_do_what_they_say(tmp_path):
    def rows(name, **knobs):
        build(tmp_path / name, ShapesConfig(records=200, queries=2, image_size=28, **knobs))
        return read_records(tmp_path / name / "stage1.jsonl")

    def wrong(records):
        pairs = [(r["candidate"], r["query"]) for r in records if r["task"] == "text → image"]
        pairs = [(caption(Scene.from_path(c["image"])), q["text"]) for c, q in pairs]
        return np.mean([expected != text for expected, text in pairs])

    fine = rows("fine", granularity="fine")
    assert wrong(fine) == 0
    assert 0.3 < wrong(rows("noise", granularity="fine", noise=0.5)) < 0.7
    assert len({json.dumps(row) for row in fine}) > 190
    assert len({json.dumps(row) for row in rows("again", duplicates=0.5)}) < 140
    texts = rows("texts", text_share=1.0, video_share=0.0)
    assert {modality_of(row[side]).label for row in texts for side in ("query", "candidate")} == {
        "text"
    }
    coarse = rows("coarse", granularity="coarse", text_share=0.0, video_share=1.0)
    assert {row["task"] for row in coarse} == {"text → video", "video → text"}
    assert all(" on " not in json.dumps(row) for row in coarse)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"granularity": "rough"}, "must be one of coarse, fine, mixed"),
        ({"noise": 1.5}, "noise is 1.5: must be a number of at least 0 and at most 1"),
        ({"text_share": 0.7, "video_share": 0.7}, "less than nothing to image-text"),
        ({"records": 0}, "at least 1"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        ShapesConfig(**knobs)
