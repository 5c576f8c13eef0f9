"""The shipped backbone: small, a real Qwen2-VL, and unable to have seen what is held out."""

import hashlib
import json
import re

import numpy as np
import pytest

from unite_core.corpora.emoji.catalogue import PACKAGES, normalize, read_catalogue, split_of
from unite_core.corpora.packages import FetchError, fetch
from unite_core.model.embedder import UniteEmbedder
from unite_core.notebook.runs import from_root
from unite_core.tiny.model import EMBED_CONFIG, TINY

HELD_OUT = ("concept", "development", "composition")


@pytest.fixture(scope="module")
def manifest():
    return json.loads((TINY / "pretraining.json").read_text(encoding="utf-8"))


def test_it_fits_its_size_budget():
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 16e6


def test_it_is_qwen2_vl_and_embeds_every_modality(tmp_path):
    embedder = UniteEmbedder.load(TINY)
    assert type(embedder.backbone).__name__ == "Qwen2VLModel"
    assert sum(p.numel() for p in embedder.parameters()) < 8.5e6
    assert embedder.config == EMBED_CONFIG
    picture = np.full((112, 112, 3), 200, np.uint8)
    items = [{"text": "a cat"}, picture, np.stack([picture] * 4), {"text": "red", "image": picture}]
    with pytest.warns(UserWarning, match="media are put before"):
        vectors = embedder.embed(items, progress=False)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_every_picture_and_clip_it_saw_is_in_the_training_split(manifest):
    """The split function is the proof: it needs nothing but the code points."""
    seen = [
        (style or "animated", code)
        for path in manifest["media"]
        for style, code in re.findall(r"(?:images/([\w-]+)|videos)/([0-9a-f-]+)\.\w+", path)
    ]
    assert len(seen) == len(manifest["media"]) > 5000
    assert all(code == normalize(code) for _, code in seen)
    assert {split_of(code, style) for style, code in seen} == {"train"}


@pytest.mark.network
def test_it_never_wrote_the_name_of_a_held_out_emoji(manifest):
    try:
        folders = fetch([PACKAGES["labels"]], from_root("data/packages"), progress=False)
    except FetchError as error:
        pytest.skip(str(error))
    catalogue = read_catalogue(folders[PACKAGES["labels"].name])
    kinds = {emoji.subgroup for emoji in catalogue}
    names = {True: set(), False: set()}
    for emoji in catalogue:
        held_out = split_of(emoji.code, "text") in HELD_OUT
        names[held_out] |= {emoji.label} - kinds
    written = set(manifest["texts"])

    def was_written(name):
        return hashlib.sha256(name.encode()).hexdigest()[:16] in written

    assert sum(map(was_written, names[False])) > 1000
    assert not any(map(was_written, names[True]))
