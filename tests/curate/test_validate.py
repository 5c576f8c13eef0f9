"""Whatever comes in becomes a record or a counted reject; nothing outside the root is read."""

import io
import os
import struct
import zipfile
import zlib

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unite_core.curate import validate as check
from unite_core.curate.adapters import adapter
from unite_core.curate.validate import (
    BadRowsError,
    MediaCheck,
    Reject,
    Report,
    cause_of,
    check_bad_share,
    check_rows,
)
from unite_core.data.json_stream import RecordError
from unite_core.data.media import load_image
from unite_core.data.readers import Row


def row(number, image="a.png"):
    return {"query": {"text": f"text {number}"}, "candidate": {"image": image}}


def write_clip(path, frames=20):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(frames):
            pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def png_of_size(width, height):
    """A PNG of a few hundred bytes that says it has so many pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A media root with good and bad files, and a picture outside of it."""
    base = tmp_path_factory.mktemp("media")
    root = base / "root"
    root.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    picture.save(root / "a.png")
    picture.save(base / "outside.png")
    whole = (root / "a.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "noise.png").write_bytes(os.urandom(500))
    (root / "empty.png").touch()
    (root / "bomb.png").write_bytes(png_of_size(100_000, 100_000))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("page.html", "hidden")
    (root / "zip.png").write_bytes(whole + archive.getvalue())
    (root / "only_zip.png").write_bytes(archive.getvalue())
    (root / "link.png").symlink_to(base / "outside.png")
    (root / "inside.png").symlink_to("a.png")
    (root / "up").symlink_to(base)
    (root / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    write_clip(root / "clip.avi")
    clip = (root / "clip.avi").read_bytes()
    (root / "cut.avi").write_bytes(clip[: len(clip) // 2])
    (root / "head.avi").write_bytes(clip[:300])
    Image.new("RGB", (30, 40)).save(root / "b.png")
    Image.new("RGB", (900, 4)).save(root / "long.png")
    (root / "page.mp4").write_text("<html><body>404</body></html>" * 50)
    (root / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    return root


FAULTS = [
    ("a.png", {}),
    ("inside.png", {}),
    ("gone.png", {"file": "no file under the media root"}),
    ("../outside.png", {"name": "no file under the media root"}),
    ("up/outside.png", {"file": "no file under the media root"}),
    ("link.png", {"file": "no file under the media root"}),
    ("loop.png", {"file": "no file under the media root"}),
    ("pipe.png", {"file": "no file under the media root"}),
    ("folder.png", {"file": "no file under the media root"}),
    ("/etc/hostname", {"name": "no file under the media root"}),
    ("a\0.png", {"name": "no file under the media root"}),
    ("https://host/a.png", {"name": "URL instead of a file"}),
    ("empty.png", {"file": "empty file"}),
    ("noise.png", {"header": "cannot be decoded"}),
    ("only_zip.png", {"header": "cannot be decoded"}),
    ("bomb.png", {"header": "too many pixels"}),
    ("cut.png", {"decode": "truncated"}),
    ("zip.png", {"decode": "archive in an image"}),
    ("long.png", {"header": "sides too unequal"}),
    ("a" * 300 + ".png", {"file": "no file under the media root"}),
    ("\ud800.png", {"name": "broken Unicode"}),
]
CLIPS = [
    ("clip.avi", {}),
    ("gone.avi", {"file": "no file under the media root"}),
    ("link.png", {"file": "no file under the media root"}),
    ("list.m3u8", {"header": "cannot be decoded"}),
    ("head.avi", {"header": "cannot be decoded"}),
    ("cut.avi", {"decode": "truncated"}),
    (["a.png", "gone.png"], {"file": "no file under the media root"}),
    (["a.png", "cut.png"], {"decode": "truncated"}),
    (["a.png", "b.png"], {"header": "cannot be decoded"}),
    ("page.mp4", {"header": "cannot be decoded"}),
]


def causes(rows, root, depth, convert=None):
    report = Report()
    rows = [Row(f"row {number}", value) for number, value in enumerate(rows, 1)]
    results = list(check_rows(rows, convert or adapter("native"), MediaCheck(root, depth), report))
    assert report.rows == len(rows)
    assert report.rejects == sum(isinstance(result, Reject) for result in results)
    assert report.records == len(results) - report.rejects
    return [result.cause if isinstance(result, Reject) else "" for result in results]


@pytest.mark.parametrize("depth", check.DEPTHS)
@pytest.mark.parametrize(("kind", "cases"), [("image", FAULTS), ("video", CLIPS)])
def test_bad_media_are_rejects_with_a_cause(media, depth, kind, cases):
    """A defect that one depth finds is found by all deeper ones, and nothing hangs or crashes."""
    level = check.DEPTHS.index(depth)
    rows = [{"query": {"text": "a"}, "candidate": {kind: path}} for path, _ in cases]
    expected = [
        next((cause for least, cause in found.items() if check.DEPTHS.index(least) <= level), "")
        for _, found in cases
    ]
    assert causes(rows, media, depth) == expected


def test_media_of_queries_and_hard_negatives_are_looked_at(media):
    good = row(1)
    rows = [
        good,
        good | {"query": {"image": "gone.png"}},
        good | {"negative": {"image": "gone.png"}},
        good | {"negative": [{"text": "a"}, {"video": ["a.png", "gone.png"]}]},
        good | {"candidate": {"image": ["a.png", "gone.png"]}},
    ]
    assert causes(rows, media, "file") == ["", *["no file under the media root"] * 4]


def test_nothing_outside_the_root_is_opened(media, monkeypatch):
    opened = []
    real = Image.open

    def watch(path, *args, **kwargs):
        opened.append(os.path.realpath(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", watch)
    paths = [path for path, _ in FAULTS]
    causes([row(0, path) for path in paths], media, "decode")
    assert opened
    assert all(path.startswith(str(media) + os.sep) for path in opened)


def test_files_are_looked_at_once(media, monkeypatch):
    calls = []
    monkeypatch.setattr(check, "load_image", lambda *args: calls.append(args) or load_image(*args))
    causes([row(number) for number in range(5)], media, "decode")
    assert len(calls) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
odd_paths = st.sampled_from(["", ".", "..", "/", "//", "a/../../b", "~", "\\\\host\\x", "c:\\x",
                             "a.png/", "a.png/x", "\ud800", "\0", "%2e%2e/x", "x" * 5000,
                             "file:///etc/passwd", "./a.png", "up/../../x"])  # fmt: skip


@given(path=odd_paths | st.text(), text=st.text(), value=json_values)
@settings(max_examples=150)
def test_any_value_is_a_record_or_a_reject_of_a_known_cause(media, path, text, value):
    rows = [
        row(0, path),
        {"query": {"text": text}, "candidate": {"video": path}},
        row(0) | {"negative": value},
        row(0) | {"target_modal": value},
        {"query": value, "candidate": {"text": "a"}},
        value,
    ]
    found = causes(rows, media, "header")
    assert "other" not in found
    assert len(found) == len(rows)


def test_messages_of_the_record_schema_have_causes():
    cases = record_messages()
    assert len(cases) > 20
    assert not [message for message in cases if cause_of(message) == "other"]


def record_messages():
    """Messages that `validate_record` gives for the cases of its own tests."""
    from tests.data import test_records

    mark = next(
        mark for mark in test_records.test_refusals_name_place_field_and_remedy.pytestmark
        if mark.name == "parametrize"
    )  # fmt: skip
    messages = []
    for path, value, _ in mark.args[1]:
        with pytest.raises(RecordError) as caught:
            test_records.validate_record(
                test_records.changed(test_records.FULL, path, value), "here", "media"
            )
        messages.append(str(caught.value))
    return messages


def test_a_bad_share_stops_and_names_causes():
    report = Report(rows=100, records=98)
    report.reject(Reject("row 1", "blank text", "row 1: blank text; write something"))
    check_bad_share(report, 0.01)
    report.reject(Reject("row 2", "blank text", "row 2: blank text; write something"))
    with pytest.raises(BadRowsError, match=r"2 rejects in 100 rows.*1.00%") as caught:
        check_bad_share(report, 0.01)
    assert "2 x blank text" in str(caught.value)
    assert "row 1: blank text; write" in str(caught.value)
    check_bad_share(report, 0.01, least=1000)
