"""Mixes of the study of data: equal in what they should be equal in."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unite_core.corpora.concepts import Concept, read_concepts, write_concepts
from unite_core.study.arms import STUDIES
from unite_core.study.mixes import Mix, draw_records, frame_path, swap_texts


def concepts(count=40, with_clip=30):
    return [
        Concept(f"c{n}", f"f{n // 3}", [f"{n} coarse", f"{n} fine", f"{n} tags"],
                [f"images/{n}a.png", f"images/{n}b.png"], f"videos/{n}.webp" * (n < with_clip))
        for n in range(count)
    ]  # fmt: skip


def text_of(record):
    side = "query" if set(record["query"]) == {"text"} else "candidate"
    return record[side]["text"]


def kind_of(record):
    return record["task"].removeprefix("text-")


@pytest.mark.parametrize("arm", [arm for arm in STUDIES["data"].arms if not arm.mix.fine])
def test_arms_have_equally_many_pairs_about_the_same_concepts(arm):
    records = draw_records(concepts(), arm.mix, 3)
    assert len(records) == 90
    shares = Counter(map(kind_of, records))
    for kind, share in arm.mix.shares.items():
        wrong = shares[kind] + shares["swapped"] * share - 90 * share
        assert abs(wrong) <= 90 * arm.mix.swapped + 0.5
    texts = {text_of(record) for record in records}
    if arm.mix.wide:
        assert len({text.split()[0] for text in texts}) > 30
    elif "text" not in arm.mix.shares:  # of two texts the query may be either
        assert texts == {text for concept in concepts()[:30] for text in concept.texts}


def test_a_frame_takes_the_place_of_its_clip():
    clips = draw_records(concepts(), Mix({"video": 1.0}), 0)
    frames = draw_records(concepts(), Mix({"frame": 1.0}), 0)
    for clip, frame in zip(clips, frames, strict=True):
        for side in ("query", "candidate"):
            expected = clip[side]
            if "video" in expected:
                expected = {"image": frame_path(expected["video"])}
            assert frame[side] == expected


@given(st.integers(0, 20), st.floats(0.05, 0.95))
def test_a_small_share_is_among_a_larger_one(seed, share):
    def pictures(share):
        records = draw_records(concepts(), Mix({"image": share, "video": 1 - share}), seed)
        return {str(record) for record in records if kind_of(record) == "image"}

    assert pictures(share * 0.5) <= pictures(share)


@given(st.integers(0, 20), st.sampled_from([0.1, 0.3, 0.5]))
def test_swapped_texts_are_of_other_families(seed, share):
    plain = draw_records(concepts(), Mix({"image": 1.0}), seed)
    family = {text: concept.family for concept in concepts() for text in concept.texts}
    families = [family[text_of(record)] for record in plain]
    swapped = swap_texts(plain, families, share, seed)
    changed = [n for n, pair in enumerate(zip(plain, swapped, strict=True)) if pair[0] != pair[1]]
    assert len(changed) == round(share * len(plain))
    for row in changed:
        assert family[text_of(swapped[row])] != families[row]
        other = "candidate" if set(plain[row]["query"]) == {"text"} else "query"
        assert swapped[row][other] == plain[row][other]  # the picture stays


def test_shares_and_names_are_checked(tmp_path):
    for shares in ({"image": 0.5}, {"sound": 1.0}):
        with pytest.raises(ValueError, match="shares must add up to 1 and name"):
            Mix(shares)
    with pytest.raises(FileNotFoundError, match="concepts.json is missing: build the corpus again"):
        read_concepts(tmp_path)
    write_concepts(tmp_path, concepts())
    assert read_concepts(tmp_path) == concepts()
    with pytest.raises(ValueError, match="study data has no arm 'TX': it has TV, TV_frame"):
        STUDIES["data"].arm("TX")
