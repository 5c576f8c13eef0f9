"""A split shares no picture, caption or group between its sides."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unite_core.curate.dedupe import DuplicateGroups
from unite_core.curate.split import SplitConfig, linked_groups, split_pairs
from unite_core.curate.split import draw_held_out as choose
from unite_core.settings import make

items = st.lists(st.integers(0, 12), min_size=4, max_size=40)


def duplicates(query, candidate):
    """Groups of items; those of candidates are other items than those of queries."""
    query, candidate = np.array(query), np.array(candidate) + 100
    return DuplicateGroups(query, candidate, np.arange(len(query)))


@given(items, st.data())
def test_linked_pairs_share_a_group_and_others_do_not(query, data):
    count = len(query)
    candidate = data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=count, max_size=count))
    groups = linked_groups(duplicates(query, candidate), labels)
    linked = np.zeros((count, count), bool)
    for i in range(count):
        for j in range(count):
            same_label = labels[i] and labels[i] == labels[j]
            linked[i, j] = query[i] == query[j] or candidate[i] == candidate[j] or same_label
    for _ in range(count):
        linked = linked @ linked
    assert np.array_equal(linked, groups[:, None] == groups)


@given(items, st.floats(0.05, 0.95), st.randoms())
def test_whole_groups_go_to_one_side_within_the_share_in_any_order(groups, share, random):
    groups, keys = np.array(groups), [b"%d" % n for n in range(len(groups))]
    test = choose(groups, keys, share)
    for group in set(groups.tolist()):
        assert len(set(test[groups == group].tolist())) == 1
    assert test.sum() <= round(share * len(groups))
    smallest_left = [n for n in np.bincount(groups).tolist() if n]
    if not test.any():
        assert min(smallest_left) > round(share * len(groups))
    order = list(range(len(groups)))
    random.shuffle(order)
    assert np.array_equal(choose(groups[order], [keys[n] for n in order], share), test[order])


@pytest.fixture
def pairs(tmp_path):
    """Forty drawings of noise with captions; of the first a smaller copy with another caption."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(40):
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{number}.png")
        if number == 0:
            image.resize((64, 64)).save(tmp_path / "copy.jpg", quality=80)
        records.append(
            {"query": {"text": f"drawing {number * 7919}"}, "candidate": {"image": f"{number}.png"}}
        )
    records.append({"query": {"text": "a smaller one"}, "candidate": {"image": "copy.jpg"}})
    records.append({"query": {"text": "Drawing 7919!"}, "candidate": {"image": "2.png"}})
    return records


def test_near_pictures_and_equal_captions_stay_together(pairs, tmp_path):
    for seed in range(5):
        split = split_pairs(pairs, tmp_path, SplitConfig(test=0.4, seed=seed))
        assert split.groups[0] == split.groups[40]  # a picture and its smaller copy
        assert split.groups[1] == split.groups[41] == split.groups[2]  # caption, then picture
        assert len(set(split.groups.tolist())) == 39
        assert 0 < split.test.sum() <= 17
        sides = [{json.dumps(pairs[n][side]) for n in np.flatnonzero(which) for side in
                  ("query", "candidate")} for which in (split.test, ~split.test)]  # fmt: skip
        assert not sides[0] & sides[1]


def test_the_order_of_pairs_does_not_matter_and_the_seed_does(pairs, tmp_path):
    split = split_pairs(pairs, tmp_path)
    back = split_pairs(pairs[::-1], tmp_path)
    assert np.array_equal(back.test[::-1], split.test)
    other = split_pairs(pairs, tmp_path, SplitConfig(seed=1))
    assert not np.array_equal(other.test, split.test)


def test_the_user_s_groups_are_kept_whole(pairs, tmp_path):
    labels = [f"product {n % 10}" for n in range(len(pairs))]
    split = split_pairs(pairs, tmp_path, SplitConfig(test=0.3), labels)
    for label in set(labels):
        rows = [n for n, name in enumerate(labels) if name == label]
        assert len(set(split.test[rows].tolist())) == 1


def test_pairs_that_are_all_linked_cannot_be_split(pairs, tmp_path):
    with pytest.raises(ValueError, match=r"42 pairs in 1 groups .* the largest of 42: 0 fit into"):
        split_pairs(pairs, tmp_path, labels=["same"] * len(pairs))


def test_texts_stay_equal_where_another_threshold_is_given():
    made = make(SplitConfig, {"thresholds": {"image": 0.1}}, "options")
    assert (made.thresholds.text, made.thresholds.image) == (1.0, 0.1)
    assert make(SplitConfig, {"thresholds": {"text": 0.9}}, "options").thresholds.text == 0.9
