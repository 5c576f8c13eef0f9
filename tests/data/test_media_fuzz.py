"""Damaged media: formats x cuts and changed bytes x entry points give a value or a MediaError.

UNITE_FUZZ is the number of damaged files; the normal run takes a short share.
"""

import os
import random
import signal
import warnings
from contextlib import contextmanager

import av
import numpy as np
import pytest
from PIL import Image

from unite_core.curate.media_stats import read_header
from unite_core.curate.validate import MediaCheck
from unite_core.data.items import ItemError
from unite_core.data.media import MediaError, image_shape, load_image
from unite_core.data.videos import clip_header, load_video, read_clip, video_shape
from unite_core.model.config import EmbedConfig
from unite_core.model.embedder import UniteEmbedder
from unite_core.tiny import TINY

CASES = int(os.environ.get("UNITE_FUZZ", 300))
SECONDS = 20  # for one call
VIDEOS = {"a.mp4": ("libx264", None), "b.mp4": ("mpeg4", None), "a.webm": ("libvpx-vp9", None),
          "a.mkv": ("libx264", None), "a.avi": ("mpeg4", None), "a.ts": ("libx264", "mpegts"),
          "a.h264": ("libx264", "h264")}  # fmt: skip
ANIMATIONS = ("a.gif", "b.webp", "b.png")
PICTURES = ("a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.ppm")


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Contents of one good file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    for name in PICTURES:
        extra = {} if name in ("a.bmp", "a.ppm") else {"exif": exif}
        noise(1).save(folder / name, **extra)
    for name in ANIMATIONS:
        frames = [noise(seed) for seed in range(4)]
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=200)
    for name, (codec, form) in VIDEOS.items():
        with av.open(str(folder / name), "w", format=form) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(20):
                pixels = np.full((48, 64, 3), index * 10, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            container.mux(stream.encode())
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def limited_time(what: str):
    def stop(*_):
        raise TimeoutError(f"{what}: more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file that is cut, or some of whose bytes are changed, removed or repeated."""
    place = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(200, len(data)))
    kind = rng.choice(("cut", "cut", "flip", "noise", "remove", "repeat", "zeros"))
    count = rng.choice((1, 2, 4, 40))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(count):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    fill = {"noise": rng.randbytes(count), "zeros": bytes(count), "remove": b""}
    middle = fill.get(kind, data[place : place + count] * 2)
    return data[:place] + middle + data[place + count :]


def lazily(path, root):
    """A picture in memory that is decoded when it is used."""
    try:
        image = Image.open(os.path.join(root, path))
    except Exception:  # this call is not ours
        return
    with image:
        image_shape(image)
        load_image(image)


def faults(path, root):
    """The validator at all depths, and the header statistics of curation, give no error at all."""
    for kind in ("image", "video"):
        for depth in ("file", "header", "decode"):
            record = {"query": {"text": "a"}, "candidate": {kind: path}}
            assert isinstance(MediaCheck(root, depth).fault(record), str)
        read_header(kind, path, root, EmbedConfig())


CALLS = (load_image, image_shape, load_video, read_clip, video_shape, clip_header, lazily, faults)


def attempt(call, *arguments) -> None:
    """Only a MediaError or ItemError may come out, and within the time."""
    what = f"{getattr(call, '__name__', call)}{arguments}"
    with limited_time(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(*arguments)
        except (MediaError, ItemError) as error:
            assert len(str(error)) < 2000, what
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error


def test_no_foreign_exception_leaves_the_media_layer(whole, tmp_path):
    for case in range(CASES):
        rng = random.Random(case)
        name = rng.choice(list(whole))
        (tmp_path / name).write_bytes(damaged(whole[name], rng))
        for call in CALLS:
            attempt(call, name, tmp_path)


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_cut_anywhere(name, whole, tmp_path):
    data = whole[name]
    for end in range(0, len(data), max(1, 40 * len(data) // (CASES * 10))):
        (tmp_path / name).write_bytes(data[:end])
        for call in (load_video, video_shape, load_image, image_shape):
            attempt(call, name, tmp_path)


def test_damaged_media_are_errors_of_embed(whole, tmp_path):
    embedder = UniteEmbedder.load(TINY, device="cpu")
    for case in range(max(CASES // 10, 1)):
        rng = random.Random(-case - 1)
        name = rng.choice(list(whole))
        (tmp_path / name).write_bytes(damaged(whole[name], rng))
        item = {"video" if name in VIDEOS or name in ANIMATIONS else "image": name}
        attempt(lambda item=item: embedder.embed([item], tmp_path, progress=False))
