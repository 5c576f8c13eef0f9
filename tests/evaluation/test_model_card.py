"""Results and gap in a model card agree with the results that they come from."""

import numpy as np
import pytest
from huggingface_hub import ModelCard

from unite_core import gap
from unite_core.evaluation.model_card import add_gap, add_results
from unite_core.evaluation.tasks import RetrievalTask, evaluate
from unite_core.train.model_card import CARD


@pytest.fixture
def model(tmp_path):
    (tmp_path / CARD).write_text(
        "---\nmodel_name: m\n---\n\n# m\n\n## Results\n\nNone.\n\n## Modality gap\n\nNone.\n"
    )
    return tmp_path


def result(quality: float):
    names = [f"thing {n}" for n in range(30)]
    queries, candidates = [{"text": f"a {name}"} for name in names], [{"text": n} for n in names]
    places = [[n] for n in range(30)]
    task = RetrievalTask("text → text", "test", queries, candidates, places, names)
    rng = np.random.default_rng(0)
    target, noise = rng.normal(size=(2, 30, 16))
    vectors = dict(zip(task.candidate_ids, target, strict=True))
    vectors |= zip(task.query_ids, quality * target + noise, strict=True)
    vectors = {name: row / np.linalg.norm(row) for name, row in vectors.items()}
    return evaluate(None, [task], vectors=vectors)


def test_results_are_in_the_table_and_in_the_front_matter(model):
    before, after = result(0.1), result(1.0)
    add_results(model, {"before": before, "after": after})
    card = ModelCard.load(model / CARD)
    score = after.score("text → text", "test")
    (entry,) = card.data.eval_results
    assert entry.metric_value == round(score.value, 4) and entry.metric_type == "recall@10"
    assert f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]" in card.text
    gained = 100 * (score.value - before.score("text → text", "test").value)
    assert f"| {gained:+.1f} [" in card.text and "None.\n\n## Modality gap" not in card.text


def test_one_result_has_no_gain(model):
    add_results(model, {"this model": result(1.0)})
    assert "paired gain" not in (model / CARD).read_text()


def test_the_gap_is_in_its_table(model):
    known = gap.SyntheticGap({"text": (0.5, 0), "image": (-0.5, 0)}, ((16, 1.0),), 0.5)
    table = gap.measure(*known.draw(120, 0).values())
    add_gap(model, {"text and image": table})
    text = (model / CARD).read_text()
    assert f"| text and image | gap | {table['gap'].value:.3g} |" in text
    assert "## Results\n\nNone." in text
