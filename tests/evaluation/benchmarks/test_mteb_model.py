"""mteb's real tasks run on a UniteEmbedder, on local data in their own layouts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.benchmarks import benchmark_data as data
from unite_core import UniteEmbedder
from unite_core.corpora.scenes import caption, draw
from unite_core.evaluation.benchmarks.mteb_model import MtebEncoder
from unite_core.evaluation.benchmarks.mteb_tasks import local_task, run_mteb_task, score_predictions
from unite_core.model.processor import Processor
from unite_core.tiny.model import TINY

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore:The task '.*' is currently in beta:UserWarning")


@pytest.fixture(scope="module")
def embedder():
    return UniteEmbedder.load(TINY, device="cpu")


@pytest.fixture(autouse=True)
def _cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def write_clips(folder):
    for n, scene in enumerate(data.CLIPS):
        data.write_clip(folder / f"{n}.mp4", scene)
    return [str(folder / f"{n}.mp4") for n in range(len(data.CLIPS))]


def save_parquet(columns, features, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = datasets.Dataset.from_dict(columns)
    for name, feature in features.items():
        dataset = dataset.cast_column(name, feature)
    dataset.to_parquet(str(path))


def write_carebench(root):
    """The hub's layout: one split, a video and its caption in each row."""
    save_parquet(
        {"video": write_clips(root / "clips"), "caption": [caption(s) for s in data.CLIPS]},
        {"video": datasets.Video(decode=False)},
        root / "myang333" / "CaReBench" / "data" / "test-00000-of-00001.parquet",
    )


def write_covr(root, name="deep9539/WebVid-CoVR", as_video=False):
    """Three configurations: references with an edit, target videos, and which answers."""
    folder, clips = root / name, write_clips(root / "clips")
    video, numbers = datasets.Video(decode=False), [str(n) for n in range(len(clips))]
    stills = [draw(scene, 56, 0.5) for scene in data.CLIPS]
    kind = ("video", clips, video) if as_video else ("image", stills, datasets.Image())
    edits = [data.EDITS[scene.motion] for scene in data.CLIPS]
    queries = {"id": [f"q{n}" for n in numbers], kind[0]: kind[1], "text": edits}
    save_parquet(queries, {kind[0]: kind[2]}, folder / "queries" / "test.parquet")
    corpus = {"id": numbers, "video": clips}
    save_parquet(corpus, {"video": video}, folder / "corpus" / "test.parquet")
    answers = [str(int(n) ^ 1) for n in numbers]
    qrels = {"query-id": queries["id"], "corpus-id": answers, "score": [1] * len(clips)}
    save_parquet(qrels, {}, folder / "qrels" / "test.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/*.parquet\n"
        for name in ("queries", "corpus", "qrels")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")


def check_means(result, theirs):
    """Our means of the queries are mteb's own."""
    (means,) = theirs["test"]
    for metric in ("recall@1", "recall@5", "ndcg@10"):
        mean = next(score.value for score in result.scores if score.metric == metric)
        assert mean == pytest.approx(means[metric.replace("@", "_at_")], abs=2e-5)  # they round
    return means


METRICS = ("recall@1", "recall@5", "ndcg@10")


@pytest.mark.parametrize("name", ["CaReBenchT2VRetrieval", "CaReBenchV2TRetrieval"])
def test_a_real_video_task_runs_on_local_data(name, embedder, tmp_path):
    write_carebench(tmp_path)
    model = MtebEncoder(embedder)
    result, theirs = run_mteb_task(model, local_task(name, tmp_path), METRICS, progress=False)
    check_means(result, theirs)
    assert {score.n for score in result.scores} == {6}
    assert result.scores[0].chance == pytest.approx(1 / 6)
    assert {entry.side: entry.modalities for entry in model.log} == {
        "query": ["text"] if "T2V" in name else ["video"],
        "document": ["video"] if "T2V" in name else ["text"],
    }
    video = next(entry for entry in model.log if entry.modalities == ["video"])
    assert "Summary above video in one word" in video.prompt and video.items == 6


def test_what_mteb_ranks_by_are_the_embedder_s_own_vectors(embedder, tmp_path):
    """The clip travels as bytes in parquet; its vector is that of the file."""
    write_carebench(tmp_path)
    task = local_task("CaReBenchT2VRetrieval", tmp_path)
    result, _ = run_mteb_task(MtebEncoder(embedder), task, METRICS, progress=False)
    texts = embedder.embed([{"text": caption(scene)} for scene in data.CLIPS], progress=False)
    clips = [{"video": f"clips/{n}.mp4"} for n in range(len(data.CLIPS))]
    cosines = texts @ embedder.embed(clips, tmp_path, progress=False).T
    expected = (cosines.argmax(1) == np.arange(len(clips))).astype(float)
    assert result.scores[0].per_query == expected.tolist()


def test_a_fused_query_has_its_image_before_its_text(embedder, tmp_path):
    write_covr(tmp_path)
    model = MtebEncoder(embedder, instruct=True)
    task = local_task("WebVidCoVRIT2VRetrieval", tmp_path)
    result, theirs = run_mteb_task(model, task, METRICS, progress=False)
    check_means(result, theirs)
    query = next(entry for entry in model.log if entry.side == "query")
    assert query.modalities == ["text+image"]
    assert query.instruction.startswith("Given the reference image and editing text")
    body = query.prompt.split("<|im_start|>user\n")[1]
    assert body.startswith(
        f"<|vision_start|><|image_pad|><|vision_end|>\n{query.instruction}\nmake it grow\n"
        "Summary above sentence and image in one word:"
    )
    document = next(entry for entry in model.log if entry.side == "document")
    assert document.instruction == "" and document.modalities == ["video"]


def test_a_fused_query_has_its_video_before_its_text(embedder, tmp_path):
    """Read by mteb's own loader of retrieval data sets."""
    write_covr(tmp_path, "nik1995/Dense-WebVid-CoVR", as_video=True)
    model = MtebEncoder(embedder)
    task = local_task("DenseWebVidCoVRVT2VRetrieval", tmp_path)
    result, theirs = run_mteb_task(model, task, METRICS, progress=False)
    check_means(result, theirs)
    query = next(entry for entry in model.log if entry.side == "query")
    assert (query.modalities, query.items, query.instruction) == (["text+video"], 6, "")
    body = query.prompt.split("<|im_start|>user\n")[1]
    assert body.startswith("<|vision_start|><|video_pad|><|vision_end|>\nmake it grow\nSummary")


def rows_of(features, **columns):
    """A loader over a data set, as mteb makes them."""
    from torch.utils.data import DataLoader

    dataset = datasets.Dataset.from_dict(columns)
    for name, feature in features.items():
        dataset = dataset.cast_column(name, feature)
    return DataLoader(dataset, batch_size=2, collate_fn=lambda rows: rows)


class Task:
    """The part of mteb's TaskMetadata that is looked at."""

    name, prompt = "mine", {"query": "Find it."}


def encoded(model, loader, side=None):
    return model.encode(
        loader, task_metadata=Task, hf_split="test", hf_subset="default", prompt_type=side,
        show_progress_bar=False,
    )  # fmt: skip


def test_rows_are_embedded_in_order_over_chunks(embedder, monkeypatch):
    monkeypatch.setattr("unite_core.evaluation.benchmarks.mteb_model._CHUNK", 3)
    texts = [f"number {n} {'long ' * (n % 4)}" for n in range(8)]
    vectors = encoded(MtebEncoder(embedder), rows_of({}, id=list("abcdefgh"), text=texts))
    expected = embedder.embed([{"text": text.strip()} for text in texts], progress=False)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_batches_without_a_data_set_are_taken_as_they_come(embedder):
    pictures = [draw(scene, 56) for scene in data.SCENES[:3]]
    batches = [{"image": pictures[:2], "text": ["a", "b"]}, {"image": pictures[2:], "text": ["c"]}]
    vectors = encoded(MtebEncoder(embedder), batches)
    items = [
        {"text": f"<|IMAGE|>\n{text}", "image": picture}
        for text, picture in zip("abc", pictures, strict=True)
    ]
    np.testing.assert_allclose(vectors, embedder.embed(items, progress=False), atol=1e-5)


def test_empty_rows_are_zero_and_counted(embedder):
    model = MtebEncoder(embedder, instruct=True)
    side = mteb.types.PromptType.query
    vectors = encoded(model, rows_of({}, text=["a circle", "  ", "a ring"]), side)
    assert np.linalg.norm(vectors, axis=1).round(4).tolist() == [1, 0, 1]
    (entry,) = model.log
    assert (entry.items, entry.empty, entry.instruction) == (3, 1, "Find it.")
    assert "\nFind it.\na circle\n" in entry.prompt


def test_rows_of_another_modality_are_refused(embedder):
    with pytest.raises(ValueError, match="rows have id, audio, but none of text, image, video"):
        encoded(MtebEncoder(embedder), rows_of({}, id=["a"], audio=[[0.1]]))
    with pytest.raises(TypeError, match="not as a file"):
        encoded(MtebEncoder(embedder), [{"video": [np.zeros((2, 8, 8, 3), np.uint8)]}])


def test_similarity_is_the_cosine(embedder):
    model = MtebEncoder(embedder)
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 5, 8)).astype(np.float32)
    np.testing.assert_allclose(model.similarity(first, second), first @ second.T, rtol=1e-5)
    pairs = model.similarity_pairwise(first, second)
    np.testing.assert_allclose(pairs, np.diag(first @ second.T), rtol=1e-5)


def test_the_meta_tells_settings_apart(embedder):
    p = embedder.processor
    longer = Processor(p.tokenizer, replace(p.config, max_frames=8), p.layout, p.video_time)
    other = UniteEmbedder(embedder.backbone, longer)
    first, second = (MtebEncoder(model).mteb_model_meta for model in (embedder, other))
    assert first.name == second.name == "tiny/weights"
    assert first.revision != second.revision
    assert first.experiment_kwargs["frames"] == "4-4 at 2"
    assert second.experiment_kwargs["frames"] == "4-8 at 2"
    assert set(first.modalities) == {"text", "image", "video"}
    assert first.embed_dim == embedder.dim
    assert isinstance(MtebEncoder(embedder), mteb.models.EncoderProtocol)
    instructed = MtebEncoder(embedder, instruct=True).mteb_model_meta
    assert instructed.experiment_name != first.experiment_name
    assert max(len(meta.experiment_name) for meta in (first, second, instructed)) < 255


def test_a_result_is_found_again_in_mteb_s_cache(embedder, tmp_path, monkeypatch):
    """Settings are part of the folder's name, so that other frames are not taken for these."""
    write_carebench(tmp_path)
    cache = mteb.ResultCache(tmp_path / "results")
    task = local_task("CaReBenchT2VRetrieval", tmp_path)
    run = {"cache": cache, "co2_tracker": False, "show_progress_bar": False}
    mteb.evaluate(MtebEncoder(embedder), task, **run)
    (stored,) = (tmp_path / "results").rglob("CaReBenchT2VRetrieval.json")
    assert "frames_4-4 at 2" in str(stored)
    assert json.loads(stored.read_text())["task_name"] == "CaReBenchT2VRetrieval"
    monkeypatch.setattr(MtebEncoder, "encode", None)
    mteb.evaluate(MtebEncoder(embedder), task, **run)


def test_tasks_that_mteb_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no task 'Nothing'"):
        local_task("Nothing")
    with pytest.raises(ValueError, match="no retrieval task"):
        local_task("STS12")
    assert local_task("CaReBenchT2VRetrieval", tmp_path).metadata.dataset["revision"], "the hub's"


class Ranked:
    """A task of one subset with its data, as mteb holds them."""

    ignore_identical_ids, skip_first_result = False, 0
    metadata = Task

    def __init__(self, relevant, documents, top_ranked=None):
        corpus, queries = {"id": documents}, {"id": list(relevant)}
        parts = {"corpus": corpus, "queries": queries, "relevant_docs": relevant}
        self.dataset = {"default": {"test": parts | {"top_ranked": top_ranked}}}


def test_predictions_become_scores_of_each_query():
    task = Ranked({"a": {"x": 1, "y": 0}, "b": {"y": 2}, "c": {"x": 0}}, ["a", "x", "y"])
    found = {"a": {"a": 0.9, "x": 0.8, "y": 0.1}, "b": {"y": 0.5, "x": 0.4}}
    predictions = {"default": {"test": found}}
    first, _ = score_predictions(task, predictions, ["recall@1", "recall@5"]).scores
    assert first.per_query == [0, 1] and first.n == 2, "c has no answer"
    task.ignore_identical_ids = True
    assert score_predictions(task, predictions, ["recall@1"]).scores[0].per_query == [1, 1]
    task.ignore_identical_ids, task.skip_first_result = False, 1
    assert score_predictions(task, predictions, ["recall@1"]).scores[0].per_query == [1, 0]


def test_a_reranking_task_s_chance_is_that_of_its_lists():
    task = Ranked({"a": {"x": 1}, "b": {"y": 1}}, list("vwxyz"), {"a": ["x", "y"], "b": ["y", "z"]})
    found = {"default": {"test": {"a": {"x": 1.0}, "b": {"z": 1.0, "y": 0.5}}}}
    (score,) = score_predictions(task, found, ["recall@1"]).scores
    assert (score.per_query, score.chance, score.candidates) == ([1, 0], 0.5, 2)


def test_ranks_that_mteb_does_not_retrieve_are_refused(embedder, tmp_path):
    with pytest.raises(ValueError, match="retrieves 1000 documents"):
        run_mteb_task(MtebEncoder(embedder), local_task("CaReBenchT2VRetrieval"), ["recall@2000"])


def test_pictures_keep_to_the_embedder_s_white_ground(embedder):
    """mteb would make the hidden colours of transparent pixels visible."""
    clear = Image.new("RGBA", (56, 56), (255, 0, 0, 0))
    white = Image.new("RGB", (56, 56), "white")
    loader = rows_of({"image": datasets.Image()}, image=[clear, white])
    first, second = encoded(MtebEncoder(embedder), loader)
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of mteb's stand-ins for data sets, tiny on purpose
def test_mteb_s_own_check_of_models_passes(embedder):
    """Every kind of task that mteb has, on stand-in data: only audio is not for this model."""
    found = mteb.mock_run(MtebEncoder(embedder)).task_results
    failed = {
        name: str(result.exception)
        for name, result in found.items()
        if hasattr(result, "exception")
    }
    assert not failed
    left_out = [name for name, result in found.items() if result is None]
    assert len(found) - len(left_out) >= 40
    assert all("Audio" in name or name[-3:] in ("T2A", "A2T", "A2A") for name in left_out)
    videos = [name for name, result in found.items() if "Video" in name and result is not None]
    assert len(videos) >= 5
