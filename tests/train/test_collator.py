"""Pairs, their order and the batches made of them."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import skip_first_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from unite_core.data.bad_media import BadMediaError, BadMediaRow, check_bad_share
from unite_core.data.modality import Modality
from unite_core.data.pairs import PairDataset
from unite_core.data.records import write_records
from unite_core.model.processor import Processor
from unite_core.train.collator import PairCollator, group_sizes
from unite_core.train.config import SamplingConfig
from unite_core.train.sampler import PairSampler

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
TEXT = {"text": "a red thing"}


@pytest.fixture(scope="module")
def processor() -> Processor:
    from unite_core.model.embedder import UniteEmbedder

    return UniteEmbedder.load(CHECKPOINT, max_frames=4).processor


@pytest.fixture
def root(tmp_path):
    """A folder with pictures a.png, b.png (the larger one) and the four frames of a clip."""
    rng = np.random.default_rng(0)
    for name, side in (("a", 56), ("b", 112), ("f0", 56), ("f1", 56), ("f2", 56), ("f3", 56)):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def dataset_of(root, *records, name="toy") -> PairDataset:
    write_records(root / f"{name}.jsonl", records)
    return PairDataset([root / f"{name}.jsonl"], root)


def record(query, candidate, **more) -> dict:
    return {"query": query, "candidate": candidate, **more}


def numbered(root, counts: dict[str, int]) -> PairDataset:
    rows = [
        record({"text": f"{task} {i}"}, {"text": f"{i}"}, task=task)
        for task, count in counts.items()
        for i in range(count)
    ]
    return dataset_of(root, *rows)


def mixed(root) -> PairDataset:
    clip = {"video": [["f0.png", "f1.png", "f2.png", "f3.png"]]}
    return dataset_of(
        root,
        record({"text": "a rather longer text about some red thing"}, {"image": "a.png"}),
        record({"image": "b.png"}, TEXT, negative={"text": "a blue thing"}),
        record({"text": "moving"}, clip, source="clips"),
        record({"text": "<|IMAGE|> in red", "image": "a.png"}, TEXT, negative=[{"image": "b.png"}]),
    )


def test_pixels_travel_as_bytes_and_give_the_same_bits(root):
    from unite_core.model.embedder import UniteEmbedder

    embedder = UniteEmbedder.load(CHECKPOINT, max_frames=4)
    batch = PairCollator(embedder.processor, root)(mixed(root).pairs)
    dtypes = {part.dtype for group in batch["groups"] for name, part in group.items()
              if name.startswith("pixel_values")}  # fmt: skip
    assert dtypes == {torch.uint8}
    pairs = mixed(root).pairs
    items = [p.query for p in pairs] + [p.candidate for p in pairs]
    encoded = [embedder.processor.encode(item, root) for item in items]
    raw = embedder.processor.collate(encoded, raw=True)
    plain = embedder.processor.collate(encoded)
    assert plain["pixel_values"].dtype == torch.float32
    assert raw["pixel_values"].nbytes * 4 == plain["pixel_values"].nbytes
    with torch.no_grad():
        assert torch.equal(embedder(**raw), embedder(**plain))


def rows_of(batch) -> list[list[int]]:
    """Token ids of every item without padding, in the order of queries, candidates, negatives."""
    rows = [
        ids[mask.bool()].tolist()
        for group in batch["groups"]
        for ids, mask in zip(group["input_ids"], group["attention_mask"], strict=True)
    ]
    return [rows[i] for i in batch["order"]]


def test_a_dataset_names_source_task_and_target(root):
    pairs = mixed(root).pairs
    assert [pair.source for pair in pairs] == ["toy", "toy", "clips", "toy"]
    targets = [Modality.IMAGE, Modality.TEXT, Modality.VIDEO, Modality.TEXT]
    assert [pair.target_modality for pair in pairs] == targets
    assert [len(pair.negatives) for pair in pairs] == [0, 1, 0, 1]
    assert pairs[2].where.endswith("toy.jsonl, record 3")


def test_items_of_a_group_count_as_one(root, processor):
    dataset = dataset_of(
        root,
        record({"text": "1"}, {"image": "a.png"}, candidate_group="one"),
        record({"text": "2"}, {"image": "b.png"}, candidate_group="one", query_group="asked"),
        record({"text": "3"}, {"image": "f0.png"}, candidate_group="other"),
        record({"text": "4"}, {"image": "a.png"}, query_group="asked"),
        *(record({"text": f"more {n}"}, {"text": f"{n}"}) for n in range(12)),
    )
    assert dataset.pairs[1].groups[0] == dataset.pairs[3].groups[0] > 0
    collator = PairCollator(processor, root, identities=dataset.identity_of)
    ids = collator([dataset[row] for row in range(4)])["candidate_ids"]
    assert len(set(ids.tolist())) == 2
    assert ids[0] == ids[1] == ids[3]  # equal content is of the group, wherever it stands
    queries, candidates = dataset.identities
    assert ids.tolist() == candidates[:4].tolist()
    assert queries[1] == queries[3]
    assert queries[[0, 2]].tolist() == dataset.contents[0][[0, 2]].tolist()
    sampling = SamplingConfig(distinct=True)
    for batch in PairSampler(dataset, 4, 40, sampling=sampling):
        assert not {0, 1} <= set(batch)
        assert not {1, 3} <= set(batch)


def test_missing_and_empty_files_are_left_out_and_counted(root):
    (root / "empty.png").touch()
    dataset = dataset_of(
        root,
        record(TEXT, {"image": "a.png"}),
        record(TEXT, {"image": "gone.png"}),
        record({"video": [["f0.png", "empty.png"]]}, TEXT),
        record(TEXT, TEXT, negative={"image": "gone.png"}),
    )
    assert len(dataset) == 1
    assert [one.cause for one in dataset.bad] == ["no such file", "empty file", "no such file"]
    with pytest.raises(BadMediaError, match=r"2 x no such file(?s:.)*record 2: gone.png"):
        check_bad_share(dataset.bad, 4, 0.5)
    check_bad_share(dataset.bad, 4, 0.75)


def test_a_dataset_without_any_usable_record_says_why(root):
    with pytest.raises(BadMediaError, match="1 x no such file"):
        dataset_of(root, record(TEXT, {"image": "gone.png"}))


def test_a_record_outside_the_media_root_stops_at_once(root):
    with pytest.raises(ValueError, match="line 1, field candidate.image"):
        dataset_of(root, record(TEXT, {"image": "../a.png"}))


def test_a_long_list_of_bad_media_is_shortened():
    bad = [BadMediaRow(f"r{i}", "no such file", f"r{i}: x") for i in range(30)]
    with pytest.raises(BadMediaError, match="and 10 more"):
        check_bad_share(bad, 100, 0.01)


def test_every_epoch_shows_every_pair_once_and_batches_run_on(root):
    dataset = numbered(root, {"a": 10})
    batches = list(PairSampler(dataset, batch_size=4, steps=5, seed=1))
    shown = [i for batch in batches for i in batch]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]
    assert {len(batch) for batch in batches} == {4}


def test_the_order_depends_on_the_seed_only(root):
    dataset = numbered(root, {"a": 50})
    first, again, other = (list(PairSampler(dataset, 8, 9, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_skipping_batches_gives_exactly_the_rest(root):
    dataset = numbered(root, {"a": 10})
    sampler = PairSampler(dataset, 4, 6, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=list)
    assert list(skip_first_batches(loader, 4)) == list(loader)[4:]


def test_weights_set_how_often_a_pair_comes_per_epoch(root):
    dataset = numbered(root, {"a": 8, "b": 8, "c": 8})
    weights = {"a": 2.0, "b": 0.5, "c": 0.0}
    sampler = PairSampler(dataset, 4, 10, weights, seed=0)
    assert sampler.epoch_size == 20
    shown = [[dataset[i].task for i in batch] for batch in sampler]
    assert Counter(task for batch in shown[:5] for task in batch) == {"a": 16, "b": 4}
    often = Counter(i for batch in list(sampler)[:5] for i in batch)
    assert {often[i] for i in range(8)} == {2}
    halves = [{i for batch in list(sampler)[part] for i in batch if 8 <= i < 16}
              for part in (slice(5), slice(5, 10))]  # fmt: skip
    assert halves[0] != halves[1]


def test_weights_of_source_and_task_multiply(root):
    dataset = numbered(root, {"a": 4, "b": 4})
    assert PairSampler(dataset, 2, 1, {"toy": 2.0, "a": 3.0}).weights.tolist() == [6] * 4 + [2] * 4


def test_unknown_and_empty_weights_are_refused(root):
    dataset = numbered(root, {"a": 4})
    with pytest.raises(ValueError, match="weights name b, but .* a, toy"):
        PairSampler(dataset, 2, 1, {"b": 2.0})
    with pytest.raises(ValueError, match="leave no pair"):
        PairSampler(dataset, 2, 1, {"a": 0.0})


@pytest.mark.parametrize("forward_items", [2, 3, 100])
def test_groups_hold_every_item_once_and_order_finds_it(root, processor, forward_items):
    pairs = mixed(root).pairs
    batch = PairCollator(processor, root, forward_items)(pairs)
    items = [p.query for p in pairs] + [p.candidate for p in pairs]
    items += [negative for p in pairs for negative in p.negatives]
    assert rows_of(batch) == [processor.encode(item, root).input_ids for item in items]
    assert len(batch["groups"]) == -(-len(items) // forward_items)


def splits(count: int):
    """All ways to cut so many items into groups."""
    for cuts in range(2 ** max(0, count - 1)):
        ends = [n + 1 for n in range(count - 1) if cuts >> n & 1] + [count]
        yield np.diff([0, *ends]).tolist()


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=9), items=st.integers(1, 6),
       tokens=st.integers(1, 3000), packed=st.booleans())  # fmt: skip
def test_groups_cost_least_of_all_that_fit(lengths, items, tokens, packed):
    lengths.sort()

    def computed(sizes):
        parts = np.split(np.array(lengths), np.cumsum(sizes)[:-1])
        return [int(part.sum()) if packed else len(part) * int(part[-1]) for part in parts]

    def cost(sizes):
        return sum(computed(sizes)) + 256 * len(sizes)

    def fits(sizes):
        each = zip(sizes, computed(sizes), strict=True)
        return all(size == 1 or (size <= items and cells <= tokens) for size, cells in each)

    found = group_sizes(lengths, items, tokens, packed)
    assert sum(found) == len(lengths) and fits(found)
    assert cost(found) == min(cost(sizes) for sizes in splits(len(lengths)) if fits(sizes))


def test_without_a_budget_groups_are_of_so_many_items():
    assert group_sizes([5] * 8, 3) == [3, 3, 2] and group_sizes([5] * 6, 3) == [3, 3]
    assert group_sizes([], 3) == group_sizes([], 3, 100) == []


def test_groups_waste_less_padding_than_one_forward(root, processor):
    pairs = mixed(root).pairs
    cells = [
        sum(group["input_ids"].numel() for group in collator(pairs)["groups"])
        for collator in (PairCollator(processor, root, 2), PairCollator(processor, root, 100))
    ]
    assert cells[0] < cells[1]


def test_labels_of_a_batch(root, processor):
    batch = PairCollator(processor, root)(mixed(root).pairs)
    ids = batch["candidate_ids"].tolist()
    assert ids[1] == ids[3] and len(set(ids)) == 3  # equal content, equal id
    assert batch["target_modality"].tolist() == [2, 1, 4, 1]
    assert batch["negative_modality"].tolist() == [1, 2]
    assert len(batch["negative_ids"]) == 2
    assert batch["source"] == ["toy", "toy", "clips", "toy"]
    assert {batch[key].dtype for key in ("target_modality", "candidate_ids")} == {torch.int64}


def test_without_hard_negatives_there_are_no_labels_for_them(root, processor):
    batch = PairCollator(processor, root)(numbered(root, {"a": 3}).pairs)
    assert "negative_ids" not in batch and "negative_modality" not in batch


def test_the_cache_changes_no_bit(root, processor):
    pairs = mixed(root).pairs
    collator = PairCollator(processor, root, forward_items=4, cache_mib=8)
    plain = PairCollator(processor, root, forward_items=4)(pairs)
    for batch in (collator(pairs), collator(pairs)):
        for ours, theirs in zip(batch["groups"], plain["groups"], strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    stored = [patches for one in collator.cache.items.values() for patches, _ in one.images]
    assert stored and all(patches.dtype == torch.uint8 for patches in stored)


def test_the_cache_stays_within_its_budget(root, processor):
    collator = PairCollator(processor, root, cache_mib=8)
    collator.cache.left = room = 30_000  # a.png takes 16 x 1176 bytes, b.png four times as much
    collator(mixed(root).pairs)
    images = [one.images[0][0].nbytes for one in collator.cache.items.values() if one.images]
    assert images and sum(images) <= room
    assert collator.cache.left >= 0


def test_the_cache_tells_orders_of_keys_apart(root, processor):
    text = {"text": "<|IMAGE|> red"}
    rows = [record({**text, "image": "a.png"}, TEXT), record({"image": "a.png", **text}, TEXT)]
    batch = PairCollator(processor, root, cache_mib=8)(dataset_of(root, *rows).pairs)
    first, second, *_ = rows_of(batch)
    assert first != second


def test_an_undecodable_medium_takes_its_pair_out_and_is_reported(root, processor):
    data = (root / "b.png").read_bytes()
    (root / "cut.png").write_bytes(data[: len(data) // 2])
    dataset = dataset_of(
        root,
        record(TEXT, {"image": "a.png"}),
        record(TEXT, {"image": "cut.png"}),
        record({"text": "other"}, {"image": "b.png"}),
    )
    batch = PairCollator(processor, root)(dataset.pairs)
    assert len(batch["order"]) == 4 and len(batch["target_modality"]) == 2
    (bad,) = batch["bad"]
    assert bad.cause == "cannot be decoded"
    assert bad.where.endswith("record 2") and "cut.png" in bad.message


def test_a_batch_with_a_single_pair_left_is_an_error(root, processor):
    (root / "text.png").write_text("no picture")
    dataset = dataset_of(
        root, record(TEXT, {"image": "a.png"}), record(TEXT, {"image": "text.png"})
    )
    with pytest.raises(BadMediaError, match="1 pairs are left"):
        PairCollator(processor, root)(dataset.pairs)


def test_an_item_that_does_not_fit_takes_its_pair_out_and_names_its_record(root, processor):
    small = Processor(processor.tokenizer, replace(processor.config, max_length=40))
    short = record({"text": "a"}, {"text": "b"})
    large = {"image": ["b.png"] * 9}
    dataset = dataset_of(root, short, record({"text": "a"}, large), short)
    with pytest.warns(UserWarning, match="text is cut"):
        batch = PairCollator(small, root)(dataset.pairs)
    (bad,) = batch["bad"]
    assert bad.where.endswith("toy.jsonl, record 2")
    assert "tokens without any text, more than max_length 40" in bad.message
    assert len(batch["target_modality"]) == 2


def test_a_hard_negative_has_the_identity_of_equal_candidates_in_groups(root, processor):
    dataset = dataset_of(
        root,
        record({"text": "1"}, {"image": "a.png"}, candidate_group="one"),
        record({"text": "2"}, {"image": "b.png"}, candidate_group="one"),
        record({"text": "3"}, {"image": "f0.png"}, negative=[{"image": "b.png"}, {"text": "x"}]),
        record({"text": "4"}, {"image": "b.png"}),  # its group stands in another record
        record({"text": "5"}, {"image": "f1.png"}, candidate_group="two"),
        record({"text": "6"}, {"image": "f1.png"}, candidate_group="three"),
        record({"text": "7"}, {"image": "f2.png"}, candidate_group="two"),
        record({"text": "8"}, {"image": "f3.png"}, candidate_group="three"),
        record({"text": "9"}, {"text": "alone"}),
    )
    collator = PairCollator(processor, root, identities=dataset.identity_of)
    batch = collator(dataset.pairs)
    ids, negatives = batch["candidate_ids"].tolist(), batch["negative_ids"].tolist()
    assert ids[0] == ids[1] == ids[3] == negatives[0] == dataset.pairs[0].groups[1]
    assert ids[4] == ids[5] == ids[6] == ids[7]  # groups that share an item are one
    assert len({*ids, *negatives}) == 5  # one, f0, two, alone, x
    assert ids == dataset.identities[1].tolist()


def test_records_of_one_group_are_kept_apart_and_are_no_positives(root, processor):
    dataset = dataset_of(
        root,
        record({"text": "1"}, {"image": "a.png"}, group="one", candidate_group="two"),
        record({"text": "2"}, {"image": "b.png"}, group="one"),
        record({"text": "3"}, {"image": "f0.png"}, group="two"),
        record({"text": "4"}, {"image": "f1.png"}, candidate_group="two"),
        record({"text": "5"}, {"image": "f2.png"}),
        *(record({"text": f"more {n}"}, {"text": f"{n}"}) for n in range(9)),
    )
    identities, families = dataset.identities[1].tolist(), dataset.families[1].tolist()
    assert identities[0] == identities[3] and len(set(identities)) == 13
    assert families[0] == families[1] == families[3], "over the group of an item, too"
    assert len(set(families)) == 12, "a group of records is no group of items"
    collator = PairCollator(processor, root, identities=dataset.identity_of)
    assert collator(dataset.pairs)["candidate_ids"].tolist() == identities
    for sampling in (SamplingConfig(), SamplingConfig(distinct=True)):
        sampler = PairSampler(dataset, 3, 30, sampling=sampling)
        for batch in sampler:
            assert len({families[row] for row in batch}) == 3
        assert not sampler.repeats
    with pytest.warns(UserWarning, match="too few different items to fill a batch"):
        drawn = [row for batch in PairSampler(dataset, 13, 8) for row in batch]
    assert min(drawn.count(row) for row in range(14)) >= 5, "none is lost"


def test_without_groups_the_identities_are_the_contents(root):
    dataset = mixed(root)
    assert dataset.identity_of == {} and not dataset.grouped
    assert all(map(np.array_equal, dataset.identities, dataset.contents))
    assert all(map(np.array_equal, dataset.families, dataset.contents))


def test_a_collator_travels_to_another_process(root, processor):
    pairs = mixed(root).pairs
    collator = PairCollator(processor, root, cache_mib=1)
    travelled = pickle.loads(pickle.dumps(collator))
    assert rows_of(travelled(pairs)) == rows_of(collator(pairs))
