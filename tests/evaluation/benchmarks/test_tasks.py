"""Public benchmarks are read from their own layouts, ranked in their own pools, or refused."""

import json

import numpy as np
import pytest

from tests.evaluation.benchmarks import benchmark_data as data
from unite_core.corpora.scenes import caption
from unite_core.data.records import content_id
from unite_core.evaluation.benchmarks import (
    BENCHMARKS,
    find_tasks,
    load_task,
    mmeb_means,
    score_task,
)
from unite_core.evaluation.benchmarks.mmeb import IN_DISTRIBUTION, META_TASKS
from unite_core.evaluation.benchmarks.task import BenchmarkTask, MissingDataError
from unite_core.evaluation.tasks import RetrievalTask
from unite_core.model.config import EmbedConfig

CAPTIONED = {
    "urban1k": data.write_urban1k,
    "docci": data.write_docci,
    "sharegpt4v": data.write_sharegpt4v,
}


def loaded(name, root):
    return load_task(BENCHMARKS[name], root)


@pytest.mark.parametrize("name", CAPTIONED)
def test_captioned_images_pair_one_to_one_in_both_directions(name, tmp_path):
    CAPTIONED[name](tmp_path)
    to_image, to_text = loaded(f"{name}-t2i", tmp_path), loaded(f"{name}-i2t", tmp_path)
    assert to_image.task.queries == to_text.task.candidates
    assert to_image.task.candidates == to_text.task.queries
    assert to_image.task.positives == [[n] for n in range(8)]
    for scene, text, image in zip(
        data.SCENES, to_image.task.queries, to_image.task.candidates, strict=True
    ):
        assert caption(scene) in text["text"] and "\n" not in text["text"]
        assert (tmp_path / image["image"]).is_file()
    assert len(set(to_image.task.families)) == 8
    assert to_image.metrics[0] == "recall@1"


def test_only_the_caption_is_read_of_each_layout(tmp_path):
    for write in CAPTIONED.values():
        write(tmp_path)
    texts = str([loaded(f"{name}-t2i", tmp_path).task.queries for name in CAPTIONED])
    assert "left over" not in texts and "never read" not in texts and "What is shown" not in texts


def test_urban1k_is_in_the_order_of_its_numbers(tmp_path):
    data.write_images(tmp_path / "Urban1k" / "image", [2, 10, 1])
    (tmp_path / "Urban1k" / "caption").mkdir()
    for number in (2, 10, 1):
        (tmp_path / "Urban1k" / "caption" / f"{number}.txt").write_text(f"number {number}")
    texts = [query["text"] for query in loaded("urban1k-t2i", tmp_path).task.queries]
    assert texts == ["number 1", "number 2", "number 10"]


def test_sharegpt4v_stops_after_its_first_thousand_rows(tmp_path):
    """What follows is never looked at: not its images, not even its JSON."""
    row = {"image": "sam/images/sa_1.jpg", "conversations": [{}, {"value": "again"}]}
    data.write_sharegpt4v(tmp_path, more=[row | {"id": n} for n in range(992)])
    path = tmp_path / "sharegpt4v" / "share-captioner_coco_lcs_sam_1246k_1107.json"
    path.write_text(
        path.read_text().rstrip("]\n") + ',\n {"image": "gone.jpg"}, ' + "x" * 3_000_000
    )
    assert len(loaded("sharegpt4v-t2i", tmp_path).task.queries) == 1000


def test_mmeb_ranks_in_the_candidates_of_each_query(tmp_path):
    data.write_mmeb(tmp_path, "ImageNet-1K")
    benchmark = loaded("mmeb/ImageNet-1K", tmp_path)
    task = benchmark.task
    assert task.queries[0] == {
        "text": "<|IMAGE|>\nName the shape.",
        "image": "MMEB-eval/images/ImageNet-1K/0.jpg",
    }
    assert len(task.candidates) == 8, "a candidate of several queries is one item"
    for row, (pool, right) in enumerate(zip(benchmark.pools, task.positives, strict=True)):
        names = [task.candidates[index]["text"] for index in pool]
        assert sorted(names) == sorted(data.SCENES[(row + step) % 8].shape for step in range(4))
        assert task.candidates[right[0]]["text"] == data.SCENES[row].shape
    assert benchmark.metrics == ("precision@1",)


def test_mmeb_candidates_that_differ_in_text_alone_are_two(tmp_path):
    data.write_mmeb(tmp_path, "RefCOCO-Matching")
    rows = data.mmeb_rows("RefCOCO-Matching")
    rows[0][2][1] = rows[0][2][0] + " not"
    rows[0][3][1] = rows[0][3][0]
    data.write_mmeb(tmp_path, "RefCOCO-Matching", rows)
    benchmark = loaded("mmeb/RefCOCO-Matching", tmp_path)
    assert len(benchmark.task.candidates) == 9
    assert benchmark.task.candidates[0]["image"] == benchmark.task.candidates[1]["image"]
    assert benchmark.task.candidates[0]["text"].startswith("<|IMAGE|>\nRepresent")


def vectors_of(benchmark, scores):
    """Vectors with which query q scores candidate c as `scores[q][c]`."""
    task = benchmark.task
    axes = np.eye(len(task.candidates), dtype=np.float32)
    rows = np.asarray(scores, np.float32)
    return dict(zip(task.candidate_ids, axes, strict=True)) | dict(
        zip(task.query_ids, rows, strict=True)
    )


def test_a_better_candidate_outside_the_pool_does_not_count(tmp_path):
    data.write_mmeb(tmp_path, "ImageNet-1K")
    benchmark = loaded("mmeb/ImageNet-1K", tmp_path)
    scores = np.zeros((8, 8))
    for row, (pool, right) in enumerate(
        zip(benchmark.pools, benchmark.task.positives, strict=True)
    ):
        outside = [index for index in range(8) if index not in pool]
        scores[row, outside] = 9
        scores[row, right] = 1 if row % 2 else -1
    (score,) = score_task(benchmark, vectors_of(benchmark, scores))
    assert score.per_query == [0, 1] * 4
    assert (score.metric, score.value, score.n, score.candidates) == ("precision@1", 0.5, 8, 4)
    assert score.chance == pytest.approx(0.25)
    everyone = BenchmarkTask(benchmark.task, benchmark.metrics)
    assert score_task(everyone, vectors_of(benchmark, scores))[0].value == 0


def test_ties_are_not_counted_as_right(tmp_path):
    """Equal scores everywhere: MMEB lists the answer first, which must not win for that."""
    data.write_mmeb(tmp_path, "ImageNet-1K")
    benchmark = loaded("mmeb/ImageNet-1K", tmp_path)
    (score,) = score_task(benchmark, vectors_of(benchmark, np.ones((8, 8))))
    ids = benchmark.task.candidate_ids
    expected = [
        float(min(pool, key=ids.__getitem__) == right[0])
        for pool, right in zip(benchmark.pools, benchmark.task.positives, strict=True)
    ]
    assert score.per_query == expected and 0 < sum(expected) < 8


def test_covr_never_finds_its_reference(tmp_path):
    data.write_covr(tmp_path)
    benchmark = loaded("webvid-covr", tmp_path)
    task = benchmark.task
    assert task.queries[0] == {
        "text": "<|VIDEO|>\nmake it grow",
        "video": "WebVid/8M/train/000/0.mp4",
    }
    references = [query["video"] for query in task.queries]
    assert [task.candidates[h[0]]["video"] for h in benchmark.hidden] == references
    scores = np.zeros((6, 6))
    for row, (hidden, right) in enumerate(zip(benchmark.hidden, task.positives, strict=True)):
        scores[row, hidden], scores[row, right] = 9, 1
    found = {score.metric: score for score in score_task(benchmark, vectors_of(benchmark, scores))}
    assert list(found) == ["recall@1", "recall@5", "recall@10", "recall@50"]
    assert found["recall@1"].value == 1 and found["recall@1"].chance == pytest.approx(1 / 5)
    assert found["recall@50"].chance == 1
    open_pool = BenchmarkTask(task, benchmark.metrics)
    assert score_task(open_pool, vectors_of(benchmark, scores))[0].value == 0


def test_pools_of_everything_rank_as_no_pools():
    rng = np.random.default_rng(0)
    queries = [{"text": f"q {n}"} for n in range(20)]
    candidates = [{"text": f"c {n}"} for n in range(30)]
    task = RetrievalTask(
        "t", "test", queries, candidates, [[n] for n in range(20)], [str(n) for n in range(20)]
    )
    metrics = ("recall@5", "ndcg@10", "precision@1")
    vectors = {
        content_id(item): rng.standard_normal(16).astype(np.float32)
        for item in queries + candidates
    }
    searched = score_task(BenchmarkTask(task, metrics), vectors)
    pooled = score_task(BenchmarkTask(task, metrics, pools=[list(range(30))] * 20), vectors)
    assert searched == pooled and 0 < searched[0].value < 1


@pytest.mark.parametrize(
    "name, path",
    [
        ("urban1k-t2i", "Urban1k/caption"),
        ("docci-i2t", "docci/docci_descriptions.jsonlines"),
        ("sharegpt4v-t2i", "share-captioner_coco_lcs_sam_1246k_1107.json"),
        ("webvid-covr", "WebVid-CoVR/webvid8m-covr_test.csv"),
        ("mmeb/NIGHTS", "MMEB-eval/NIGHTS has no test"),
    ],
)
def test_missing_data_says_what_and_where_from(name, path, tmp_path):
    with pytest.raises(MissingDataError, match=f"{path}.*(fetch|unpack)"):
        loaded(name, tmp_path)


def test_a_missing_medium_is_no_smaller_benchmark(tmp_path):
    data.write_urban1k(tmp_path)
    (tmp_path / "Urban1k" / "image" / "3.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"1 of 8 images .* Urban1k/image/3\.jpg"):
        loaded("urban1k-i2t", tmp_path)
    data.write_covr(tmp_path)
    (tmp_path / "WebVid" / "8M" / "train" / "001" / "4.mp4").unlink()
    with pytest.raises(MissingDataError, match="1 of 6 videos"):
        loaded("webvid-covr", tmp_path)
    data.write_mmeb(tmp_path, "ImageNet-1K")
    (tmp_path / "MMEB-eval" / "images" / "ImageNet-1K" / "0.jpg").unlink()
    with pytest.raises(MissingDataError, match="1 of 8 images .* unpack images.zip"):
        loaded("mmeb/ImageNet-1K", tmp_path)


def test_files_that_are_something_else_are_refused_by_place(tmp_path):
    data.write_covr(tmp_path, [row | {"pth2": row["pth1"]} for row in data.covr_rows()])
    with pytest.raises(ValueError, match="line 2: needs two different videos"):
        loaded("webvid-covr", tmp_path)
    data.write_covr(tmp_path, [{"pth1": "a", "edit": "b"}])
    with pytest.raises(ValueError, match="no column pth2"):
        loaded("webvid-covr", tmp_path)
    (tmp_path / "docci").mkdir()
    row = json.dumps({"split": "test", "image_file": "a.jpg"})
    (tmp_path / "docci" / "docci_descriptions.jsonlines").write_text(row + "\n")
    with pytest.raises(ValueError, match="line 1: no field description"):
        loaded("docci-t2i", tmp_path)
    data.write_mmeb(tmp_path, "NIGHTS", [("<|image_1|> which?", "", ["a"], [""])] * 2)
    with pytest.raises(ValueError, match="NIGHTS, row 1: a place for an image"):
        loaded("mmeb/NIGHTS", tmp_path)
    data.write_mmeb(tmp_path, "NIGHTS", [("which?", "", ["a", "b"], [""])] * 2)
    with pytest.raises(ValueError, match="row 1: 2 tgt_text, 1 tgt_img_path"):
        loaded("mmeb/NIGHTS", tmp_path)


def test_an_answer_that_cannot_be_found_is_refused():
    task = RetrievalTask(
        "t", "test", [{"text": "a"}, {"text": "b"}], [{"text": "c"}, {"text": "d"}],
        [[0], [1]], ["a", "b"],
    )  # fmt: skip
    with pytest.raises(ValueError, match="query 2: answer 1 is not in its pool"):
        BenchmarkTask(task, ("recall@1",), pools=[[0], [0]])
    with pytest.raises(ValueError, match="query 1: answer 0 .* hidden"):
        BenchmarkTask(task, ("recall@1",), hidden=[[0], []])
    with pytest.raises(ValueError, match="1 pools for 2 queries"):
        BenchmarkTask(task, ("recall@1",), pools=[[0]])


def test_the_registry_holds_the_papers_frames():
    assert len([name for name in BENCHMARKS if name.startswith("mmeb/")]) == 36
    frames = {"msrvtt-t2v": 48, "msvd-v2t": 48, "didemo-t2v": 48, "carebench-v2t": 32}
    for name, count in (frames | {"webvid-covr": 16}).items():
        config = EmbedConfig(**BENCHMARKS[name].settings)
        assert (config.min_frames, config.max_frames) == (count, count)
        assert config.max_length > count / 2 * config.video_max_pixels / 28**2 + 512
    assert BENCHMARKS["urban1k-t2i"].settings == {}, "images as the checkpoint has them"
    assert all(
        bool(spec.read) != bool(spec.mteb) for spec in map(BENCHMARKS.__getitem__, BENCHMARKS)
    )


def test_tasks_are_found_by_name_group_or_in_mteb():
    assert [spec.name for spec in find_tasks(["urban1k"])] == ["urban1k-t2i", "urban1k-i2t"]
    assert len(find_tasks(["mmeb", "mmeb/NIGHTS", "webvid-covr"])) == 37
    assert [spec.name for spec in find_tasks(["mmeb/RefCOCO"])] == ["mmeb/RefCOCO"]
    (spec,) = find_tasks(["mteb:VidoreDocVQARetrieval"])
    assert (spec.mteb, spec.settings) == ("VidoreDocVQARetrieval", {})
    with pytest.raises(ValueError, match="no task 'urban'.*urban1k-t2i"):
        find_tasks(["urban"])
    with pytest.raises(ValueError, match="through run_mteb_task"):
        load_task(BENCHMARKS["msvd-t2v"], ".")


def test_mmeb_means_are_those_of_the_paper_s_groups():
    assert [len(group) for group in META_TASKS.values()] == [10, 10, 12, 4]
    everything = {name for group in META_TASKS.values() for name in group}
    assert len(IN_DISTRIBUTION) == 20 and everything > IN_DISTRIBUTION
    values = {f"mmeb/{name}": float(name in IN_DISTRIBUTION) for name in everything}
    means = mmeb_means(values)
    assert means["mmeb all"] == (pytest.approx(20 / 36), 36, 36)
    assert means["mmeb in distribution"] == (1, 20, 20)
    assert means["mmeb classification"] == (0.5, 10, 10)
    assert mmeb_means({"mmeb/NIGHTS": 0.4, "urban1k-t2i": 1.0}) == {
        "mmeb retrieval": (0.4, 1, 12),
        "mmeb in distribution": (0.4, 1, 20),
        "mmeb all": (0.4, 1, 36),
    }
