"""Questions of a corpus are answered from an index of their own answers."""

import numpy as np
import pytest

from unite_core.corpora.shapes import ShapesConfig, build
from unite_core.data.modality import modality_of
from unite_core.data.records import content_id
from unite_core.notebook.questions import caption_pairs, first_of_each_shape, question_kinds


class Oracle:
    """An embedder that gives a query the vector of its first positive."""

    def __init__(self, kinds, names):
        self.axes = dict(zip(names, np.eye(len(names)), strict=True))
        self.of = {
            content_id(query): sorted(right)[0]
            for kind in kinds
            for query, right in zip(kind.queries, kind.positives, strict=True)
        }

    def embed(self, items, root, progress):
        return np.stack([self.axes[self.of[content_id(item)]] for item in items])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    build(folder, ShapesConfig(records=4, queries=6))
    return folder


def test_an_oracle_answers_every_kind_in_the_modality_asked_for(corpus):
    kinds = question_kinds(corpus, "composition", 3, seed=0)
    pool = {name: item for kind in kinds for name, item in kind.answers.items()}
    oracle = Oracle(kinds, list(pool))
    for kind in kinds:
        found = kind.search(oracle, pool, oracle.axes, corpus, k=2)
        assert found.first == 1 and len(found.queries) == 3
        assert {modality_of(item).label for row in found.results for item in row} == {kind.modality}
        query, results, hits = found.one_right()
        assert query == kind.queries[0] and hits[0]
        assert content_id(results[0]) in kind.positives[0]
        assert 0 < found.chance <= 1 / 3 * found.positives
    places = first_of_each_shape(kinds)
    shapes = [(modality_of(kinds[p].queries[0]), kinds[p].modality) for p in places]
    assert places[0] == 0 and len(shapes) == len(set(shapes))


def test_captions_come_with_pictures_then_with_clips(corpus):
    pairs = caption_pairs(corpus, "composition", 2, seed=1)
    assert [set(medium) for _, medium in pairs] == [{"image"}, {"image"}, {"video"}, {"video"}]
    assert all(set(text) == {"text"} for text, _ in pairs)
