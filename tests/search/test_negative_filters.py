"""Filters of hard negatives on planted scores and files."""

import numpy as np

from unite_core.search.config import MineConfig
from unite_core.search.negative_filters import choose_negatives, identical_items


def test_a_ratio_stays_below_a_negative_positive_score():
    scores = np.array([[-0.1, -0.199, -0.201, -0.22, -0.3]])
    config = MineConfig("m", "d", "o", negatives=5, ratio=0.9)
    chosen, removed = choose_negatives(scores, np.array([-0.2]), {}, config)
    assert chosen.tolist() == [[False, False, False, True, True]]
    assert removed == {"skip": 0, "margin": 0, "ratio": 3}


def test_identical_items_by_text_bytes_and_frames(tmp_path):
    for name, data in (("a", b"xx"), ("b", b"xx"), ("c", b"yy"), ("d", b"zzz")):
        (tmp_path / name).write_bytes(data)
    items = [
        {"image": "a"}, {"image": "b"}, {"image": "c"}, {"video": "a"},
        {"image": ["a", "c"]}, {"image": ["b", "c"]}, {"image": ["c", "a"]},
        {"text": "Two  Words"}, {"text": "two words\n"}, {"text": "twowords"},
        {"video": [["a.png", "c"]]}, {"image": "d", "text": "x"}, {"text": "X", "image": "./d"},
    ]  # fmt: skip
    codes = identical_items(items, tmp_path).tolist()
    same = [[0, 1], [4, 5], [7, 8], [11, 12]]
    assert [[n for n, c in enumerate(codes) if c == codes[group[0]]] for group in same] == same
    assert len(set(codes)) == len(items) - len(same)
