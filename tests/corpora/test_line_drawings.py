"""The example collection is a CSV whose files are there, made once."""

import csv
import json

from PIL import Image

from unite_core.corpora import line_drawings as module
from unite_core.corpora.line_drawings import line_drawings


def test_a_package_becomes_pictures_and_their_titles(tmp_path, monkeypatch):
    body = '<path d="M4 4h24v24H4z" fill="currentColor"/>'
    icons = {"prefix": "x", "width": 32, "height": 32,
             "icons": {"red-apple": {"body": body}, "dog": {"body": body}}}  # fmt: skip
    package = tmp_path / "package"
    package.mkdir()
    (package / "icons.json").write_text(json.dumps(icons))
    fetched = []

    def fetch(packages, cache):
        fetched.append(cache)
        return {each.name: package for each in packages}

    monkeypatch.setattr(module, "fetch", fetch)
    for _ in range(2):
        table = line_drawings(tmp_path / "own", "cache")
    assert fetched == ["cache"], "a finished collection is not fetched again"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["title"] for row in rows] == ["red apple", "dog"]
    for row in rows:
        with Image.open(table.parent / row["file"]) as picture:
            assert picture.size == (112, 112)
