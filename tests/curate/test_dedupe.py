"""Duplicates are found, similar items are not taken for them; compared with brute-force search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from unite_core.corpora import scenes
from unite_core.curate.dedupe import (
    DuplicateThresholds,
    exact_duplicates,
    leaks,
    likeness,
    near_duplicates,
    with_groups,
)
from unite_core.curate.item_groups import (
    FileLeaves,
    combine,
    content_classes,
    first_of,
    gather_items,
    group_items,
    renumber,
    stars,
)
from unite_core.curate.minhash import normal_text, text_groups
from unite_core.curate.perceptual_hash import (
    image_hashes,
    near_groups,
    near_links,
    near_pairs,
    video_hashes,
)
from unite_core.data.records import validate_record

labels = st.lists(st.integers(-3, 3), max_size=20)


def same(groups):
    """[N, N]: which rows share a group."""
    return np.equal.outer(groups, groups)


def noise(seed, size=(96, 80)):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@given(labels)
def test_renumbering_keeps_who_is_equal_and_counts_by_appearance(values):
    groups = renumber(np.array(values, np.int64))
    assert np.array_equal(same(groups), same(np.array(values)))
    firsts = [group for row, group in enumerate(groups) if group not in groups[:row]]
    assert firsts == list(range(len(firsts)))
    matrix = np.array([values, values[::-1]], np.int64).T
    assert np.array_equal(
        same(renumber(matrix)), same(np.array(values)) & same(np.array(values[::-1]))
    )
    assert np.array_equal(combine(*matrix.T), renumber(matrix))


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=25))
def test_everyone_resembles_a_centre_and_no_two_centres_are_alike(pairs):
    near = np.eye(12, dtype=bool)
    for left, right in pairs:
        near[left, right] = near[right, left] = True
    blocks = [(np.array([left]), np.array([right])) for left, right in pairs]
    groups = stars(12, blocks)
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    centres = [rows[near[np.ix_(rows, rows)].all(1)] for rows in members]
    assert all(len(found) for found in centres)
    fullest = near.sum(1).argmax()
    assert np.array_equal(groups == groups[fullest], near[fullest])


def blends(count, folder):
    """Pictures that turn into another one step by step; only neighbours look alike."""
    start, end = noise(0, (64, 64)), noise(1, (64, 64))
    for step in range(count):
        Image.blend(start, end, 0.05 * step).save(folder / f"{step}.png")
    return [f"{step}.png" for step in range(count)]


def test_a_crowd_of_neighbours_is_no_group(tmp_path):
    hashes = image_hashes(blends(16, tmp_path), tmp_path)
    equal, links = near_links(hashes, 20)
    pairs = {tuple(sorted(p)) for block in links for p in zip(*block, strict=True)}
    assert {(n, n + 1) for n in range(15)} <= pairs, "each resembles the next"
    groups = near_groups(hashes, 20)
    assert 1 < np.bincount(groups).max() < 6, "none reaches from one end to the other"


@pytest.mark.parametrize(("words", "limit"), [(1, 0), (1, 5), (2, 4), (8, 16), (1, 12)])
def test_multi_index_hashing_finds_all_near_pairs(words, limit):
    rng = np.random.default_rng(words * 100 + limit)
    codes = rng.integers(0, 2**63, (300, words), dtype=np.uint64)
    for row in range(0, 300, 2):  # a neighbour near the limit for every second code
        codes[row + 1] = codes[row]
        for bit in rng.choice(64 * words, limit + rng.integers(-1, 2) if limit else 0, False):
            codes[row + 1, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    wanted = {
        (i, j)
        for i in range(300)
        for j in range(i)
        if np.bitwise_count(codes[i] ^ codes[j]).sum() <= limit
    }
    found = []
    for left, right in near_pairs(codes, limit):
        assert (left != right).all()
        found += [(max(pair), min(pair)) for pair in zip(left, right, strict=True)]
    assert set(found) == wanted and len(found) == len(wanted), "each once"
    assert len(wanted) > 50


def test_codes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="codes must be uint64"):
        list(near_pairs(np.zeros((3, 1), np.int64), 2))
    with pytest.raises(ValueError, match="cannot be -1"):
        list(near_pairs(np.zeros((3, 1), np.uint64), -1))


@pytest.fixture
def root(tmp_path):
    """a, its byte copy b, a JPEG copy, another picture, a file with a large equal head, links."""
    picture = noise(0)
    picture.save(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    picture.save(tmp_path / "a.jpg", quality=80)
    noise(1).save(tmp_path / "c.png")
    head = bytes(100_000)
    for name, end in (("big", b"x"), ("big2", b"y"), ("big3", b"x")):
        (tmp_path / name).write_bytes(head + end)
    return tmp_path


def test_files_are_equal_by_their_bytes(root):
    paths = ["a.png", "sub/b.png", "a.jpg", "c.png", "big", "big2", "big3", "gone", "gone2", "."]
    groups = content_classes(paths, root)
    expected = ["a", "a", "j", "c", "x", "y", "x", "g1", "g2", "dir"]
    assert np.array_equal(same(groups), same(np.array(expected)))


def test_files_outside_the_root_are_not_read(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_bytes((root / "a.png").read_bytes())
    (root / "link").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "inside").symlink_to("a.png")
    paths = ["a.png", "link", "folder/secret", f"../{outside.name}/secret", str(outside / "secret")]
    groups = content_classes([*paths, "inside"], root)
    assert len(set(groups[:5].tolist())) == 5
    assert groups[5] == groups[0]


def row(query, candidate):
    return {"query": query, "candidate": candidate}


def test_exact_rows_have_equal_sides_whatever_the_names(root):
    text = {"text": "a word"}
    rows = [
        row(text, {"image": "a.png"}),
        row(text, {"image": "./sub/../sub/b.png"}) | {"task": "t", "negative": [text]},
        row(text, {"image": "a.jpg"}),
        row({"image": "a.png"}, text),
        row(text, {"image": ["a.png"]}),
        row(text, {"image": ["a.png", "c.png"]}),
        row(text, {"image": ["c.png", "a.png"]}),
        row({"text": "a word "}, {"image": "a.png"}),
        row(text, {"video": ["a.png", "c.png"]}),
        row(text, {"video": [["sub/b.png", "c.png"]]}),
        row(text, {"image": "gone.png"}),
        row(text, {"image": "gone2.png"}),
    ]
    groups = exact_duplicates(iter(rows), root).rows
    expected = ["1", "1", "2", "3", "1", "5", "6", "7", "8", "8", "9", "10"]
    assert np.array_equal(same(groups), same(np.array(expected)))
    assert first_of(groups).sum() == len(set(expected))
    duplicates = exact_duplicates(rows, root)
    assert duplicates.query[3] == duplicates.candidate[0]
    assert exact_duplicates([], root).rows.shape == (0,)


item_lists = st.lists(
    st.dictionaries(st.sampled_from(["text", "image"]), st.sampled_from("ab"), min_size=1),
    max_size=8,
)


@given(item_lists)
def test_items_are_grouped_by_structure_and_leaves(items):
    leaves = FileLeaves()
    gathered = gather_items(items, leaves)
    groups = group_items(gathered, np.arange(len(leaves.numbers)))
    plain = np.array([str(sorted(item.items())) for item in items])
    assert np.array_equal(same(groups), same(plain))
    merged = group_items(gathered, np.zeros(len(leaves.numbers), np.int64))
    plain = np.array([str((item.get("text"), "image" in item)) for item in items])
    assert np.array_equal(same(merged), same(plain))


def save_copies(picture, folder, number):
    """Copies that are near duplicates of a picture."""
    picture.save(folder / f"{number}_a.png")
    picture.save(folder / f"{number}_b.jpg", quality=60)
    width, height = picture.size
    picture.resize((width * 3 // 4, height * 3 // 4)).save(folder / f"{number}_c.png")
    ImageEnhance.Brightness(picture).enhance(0.94).save(folder / f"{number}_d.png")
    return [f"{number}_{end}" for end in ("a.png", "b.jpg", "c.png", "d.png")]


def test_copies_of_pictures_are_near_and_other_pictures_are_not(tmp_path):
    drawn = [scenes.draw(scene, 64) for scene in different_scenes(25)]
    pictures = [*drawn, *(noise(seed) for seed in range(25))]
    paths = [save_copies(picture, tmp_path, n) for n, picture in enumerate(pictures)]
    truth = np.repeat(np.arange(len(pictures)), 4)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [*sum(paths, []), "broken.png", "gone.png"]
    hashes = image_hashes(names, tmp_path)
    assert [bool(cause) for cause in hashes.causes] == [False] * len(truth) + [True] * 2
    groups = near_groups(hashes)
    assert len(set(groups[-3:].tolist())) == 3
    found, wanted = same(groups[:-2]), same(truth)
    assert found[wanted].mean() >= 0.97
    assert wanted[found].mean() >= 0.97
    again = image_hashes(names, tmp_path)
    assert all(np.array_equal(*pair) for pair in zip(hashes, again, strict=True))


def different_scenes(count):
    """Scenes that differ in several attributes."""
    rng = np.random.default_rng(5)
    shapes = [scenes.SHAPES, list(scenes.COLOURS), list(scenes.SIZES), scenes.POSITIONS]
    shapes += [list(scenes.BACKGROUNDS), scenes.STYLES]
    drawn = {tuple(str(rng.choice(values)) for values in shapes) for _ in range(10 * count)}
    kept = []
    for scene in sorted(drawn):
        if all(sum(a != b for a, b in zip(scene, other, strict=True)) > 2 for other in kept):
            kept.append(scene)
    assert len(kept) >= count
    return [scenes.Scene(*scene) for scene in kept[:count]]


def save_clip(frames, path, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)


def test_clips_are_near_when_their_frames_are(tmp_path):
    moving = scenes.Scene("star", "red", motion="left")
    for number, scene in enumerate((moving, scenes.Scene("star", "red", motion="right"))):
        frames = scenes.draw_clip(scene, 48)
        save_clip(frames, tmp_path / f"{number}.webp", lossless=True)
        save_clip(frames[::-1], tmp_path / f"{number}_back.webp", lossless=True)
        save_clip(frames, tmp_path / f"{number}_copy.webp", quality=70)
        for index, frame in enumerate(frames):
            frame.save(tmp_path / f"{number}_{index}.png")
    stills = [f"0_{index}.png" for index in range(8)]
    videos = ["0.webp", "0_copy.webp", stills, "0_back.webp", "1.webp", "1_copy.webp", "none.mp4"]
    hashes = video_hashes(videos, tmp_path)
    assert hashes.codes.shape == (7, 8)
    assert [bool(cause) for cause in hashes.causes] == [False] * 6 + [True]
    groups = near_groups(hashes)
    # what moves left, played backwards, moves right
    assert np.array_equal(same(groups), same(np.array([0, 0, 0, 1, 1, 1, 2])))


def test_workers_hash_alike(tmp_path):
    for seed in range(5):
        noise(seed, (20, 20)).save(tmp_path / f"{seed}.png")
    names = [f"{seed}.png" for seed in range(5)]
    here, there = (image_hashes(names, tmp_path, workers) for workers in (0, 1))
    assert all(np.array_equal(*pair) for pair in zip(here, there, strict=True))
    assert len(image_hashes([], tmp_path).codes) == len(near_groups(image_hashes([]))) == 0


def thin_drawing(seed, size=600):
    """Black lines of one pixel on white: .1 to .3 % of the pixels."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(picture)
    corners = rng.integers(100, size - 100, (4, 2)).ravel().tolist()
    draw.line([*corners, *corners[:2]], fill="black")
    return picture


def test_thin_drawings_are_told_apart_and_their_copies_found(tmp_path):
    names = []
    for seed in range(20):
        picture = thin_drawing(seed)
        inked = (np.asarray(picture) < 128).all(2).mean()
        assert 0.001 < inked < 0.005
        picture.save(tmp_path / f"{seed}.png")
        picture.save(tmp_path / f"{seed}.jpg", quality=85)
        names += [f"{seed}.png", f"{seed}.jpg"]
    groups = near_groups(image_hashes(names, tmp_path))
    found, wanted = same(groups), same(np.repeat(np.arange(20), 2))
    assert found[wanted].mean() >= 0.9
    assert wanted[found].mean() >= 0.97


def test_a_few_marks_on_a_map_make_another_map(tmp_path):
    land = thin_drawing(3)
    ImageDraw.Draw(land).polygon([(80, 90), (500, 70), (520, 480), (200, 540)], fill="#dddddd")
    states = land.copy()
    ImageDraw.Draw(states).polygon([(300, 300), (360, 300), (350, 350)], fill="#bb4444")
    land.save(tmp_path / "land.png")
    land.save(tmp_path / "land.jpg", quality=80)
    states.save(tmp_path / "states.png")
    groups = near_groups(image_hashes(["land.png", "land.jpg", "states.png"], tmp_path))
    assert groups.tolist() == [0, 0, 1]


TEXTS = [
    "A man in a red shirt rides a brown horse along the beach at sunset.",
    "a man in a red shirt rides a brown horse along the beach at sunset",
    "A man in a red shirt rides the brown horse along the beach, at sunset",
    "A woman in a blue dress reads a long book under the old tree in the park.",
    "Ａ  WOMAN in a blue dress reads a long book under the old tree in the park!",
    "Two dogs play in the snow.",
    "!!!",
    "???",
]


def test_texts_are_near_when_they_share_most_of_their_characters():
    groups = text_groups(TEXTS)
    assert np.array_equal(same(groups), same(np.array([0, 0, 0, 1, 1, 2, 3, 4])))
    strict = text_groups(TEXTS, threshold=1)
    assert np.array_equal(same(strict), same(np.array([0, 0, 1, 2, 2, 3, 4, 5])))
    assert text_groups([]).shape == (0,)
    with pytest.raises(ValueError, match="threshold is a share above 0"):
        text_groups(TEXTS, 0)


@given(st.lists(st.text(alphabet="abc ", max_size=12), max_size=12))
@settings(max_examples=50)
def test_text_groups_are_those_of_a_search_pair_by_pair(texts):
    def grams(text):
        padded = f" {normal_text(text)} "
        return {padded[i : i + 4] for i in range(max(len(padded) - 4, 0) + 1)}

    near = [
        (np.array([i]), np.array([j]))
        for i, left in enumerate(texts)
        for j, right in enumerate(texts[:i])
        if len(grams(left) & grams(right)) >= 0.8 * len(grams(left) | grams(right))
    ]
    expected = stars(len(texts), near) if texts else np.zeros(0)
    assert np.array_equal(text_groups(texts), expected)


def test_rows_are_near_with_both_sides_only(tmp_path):
    names = save_copies(noise(3), tmp_path, 0) + save_copies(noise(4), tmp_path, 1)
    rows = [row({"text": TEXTS[0]}, {"image": names[0]}),
            row({"text": TEXTS[2]}, {"image": names[1]}),
            row({"text": TEXTS[3]}, {"image": names[2]}),
            row({"text": TEXTS[0]}, {"image": names[4]}),
            row({"text": TEXTS[0], "image": names[4]}, {"image": names[0]}),
            row({"image": names[5], "text": TEXTS[1]}, {"image": names[3]})]  # fmt: skip
    duplicates = near_duplicates(rows, tmp_path)
    assert np.array_equal(same(duplicates.rows), same(np.array([0, 0, 1, 2, 3, 3])))
    assert len(set(duplicates.candidate[[0, 1, 2, 4, 5]].tolist())) == 1
    assert len(set(duplicates.query.tolist()) & set(duplicates.candidate.tolist())) == 0
    strict = near_duplicates(rows, tmp_path, DuplicateThresholds(text=1, max_distance=0, image=0))
    assert len(set(strict.rows.tolist())) == len(rows)
    memory = [row({"image": noise(n)}, {"text": "a"}) for n in (3, 3, 4)]
    assert np.array_equal(near_duplicates(memory).rows, [0, 0, 1])


def test_groups_are_named_where_there_are_duplicates(root):
    text = {"text": "a word"}
    rows = [row(text, {"image": "a.png"}) | {"query_group": "old"},
            row({"text": "b"}, {"image": "sub/b.png"}),
            row({"text": "c"}, {"image": "c.png"}) | {"candidate_group": "old"},
            row({"image": "c.png"}, text)]  # fmt: skip
    first, second, third, last = with_groups(rows, exact_duplicates(rows, root), "set")
    assert first["candidate_group"] == second["candidate_group"]
    assert first["query_group"] == last["candidate_group"]
    assert third["candidate_group"] == last["query_group"]
    assert len({first["query_group"], first["candidate_group"], last["query_group"]}) == 3
    assert "query_group" not in second | third
    for grouped in (first, second, third, last):
        validate_record(grouped)
        assert all(grouped[key].startswith("set ") for key in grouped if key.endswith("group"))


def test_leaks_name_the_evaluation_row(tmp_path):
    names = [save_copies(noise(seed), tmp_path, seed) for seed in range(4)]
    (tmp_path / "copy.png").write_bytes((tmp_path / names[1][0]).read_bytes())
    test = [row({"text": "a red car"}, {"image": names[0][0]}),
            row({"text": "a blue car"}, {"image": names[1][0]}),
            row({"text": "a label"}, {"text": "red"})]  # fmt: skip
    train = [row({"text": "a blue car"}, {"image": "copy.png"}),
             row({"text": "A red car!"}, {"image": names[0][1]}),
             row({"image": names[0][2]}, {"text": "something else"}),
             row({"text": "a red car"}, {"image": names[2][0]}),
             row({"text": "a label"}, {"text": "red"}),
             row({"text": "a label"}, {"text": "green"})]  # fmt: skip
    found = leaks(train, test, tmp_path)
    assert found.exact.tolist() == [1, -1, -1, -1, 2, -1]
    assert found.near.tolist() == [1, 0, -1, -1, 2, -1]
    assert found.media.tolist() == [1, 0, 0, -1, -1, -1]
    assert leaks(train, [], tmp_path).media.tolist() == [-1] * 6
    assert leaks([], test, tmp_path).near.shape == (0,)


def test_a_leak_is_a_likeness_of_its_own_and_none_by_hearsay(tmp_path):
    """Of four blends the third is a test: the first resembles only the second."""
    names, text = blends(4, tmp_path), {"text": "a blend"}
    train = [row(text, {"image": names[n]}) for n in (0, 1, 3)]
    found = leaks(train, [row(text, {"image": names[2]})], tmp_path, DuplicateThresholds(20))
    assert found.near.tolist() == [-1, 0, 0] and found.media.tolist() == [-1, 0, 0]


def test_vowel_signs_make_other_words():
    assert normal_text("की") != normal_text("कि")
    assert normal_text("क्\u200dष") == normal_text("क्ष")
    assert (
        len(set(text_groups(["की किताब", "कि किताबी", "富士山の絵", "富士川の絵"]).tolist())) == 4
    )


def test_chains_are_kept_whole_where_they_must_not_be_cut(tmp_path):
    rows = [row({"text": f"blend {n}"}, {"image": n}) for n in blends(12, tmp_path)]
    like = likeness(rows, tmp_path, DuplicateThresholds(20))
    assert len(set(like.chained().candidate.tolist())) == 1
    assert len(set(like.groups().candidate.tolist())) > 3
    assert likeness([]).chained().rows.shape == (0,)
