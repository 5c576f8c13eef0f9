"""Media are read as they are, or refused with the file, the cause and the remedy."""

import contextlib
import io
import os
import struct
import warnings
import zlib

import av
import numpy as np
import pytest
from PIL import Image, ImageFile

from unite_core.curate.validate import MediaCheck, cause_of
from unite_core.data import animations, containers
from unite_core.data.bad_media import BadMediaRow
from unite_core.data.items import ItemError, as_item
from unite_core.data.media import MediaError, image_shape, load_image
from unite_core.data.records import RecordError, validate_record
from unite_core.data.videos import choose_frames, clip_header, load_video, read_clip, video_shape


def picture(shade: int, size=(32, 24)) -> Image.Image:
    return Image.new("RGB", size, (shade, shade, shade))


def noise(size=(64, 48)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_video(path, frames: int, codec="mpeg4", rate=12, options=None) -> None:
    """Frame i has the grey value 5 i."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        for index in range(frames):
            pixels = np.full((48, 64, 3), index * 5, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def write_animation(path, frames: int, duration) -> None:
    pictures = [picture(index * 20) for index in range(frames)]
    extra = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, **extra)


def refuse(pattern: str, source, root, load=load_image):
    with pytest.raises(MediaError, match=pattern) as caught:
        load(source, root)
    return str(caught.value)


def test_missing_file(tmp_path):
    assert "check the name and media_root" in refuse("gone.png: no such file", "gone.png", tmp_path)
    refuse("gone.mp4: no such file", "gone.mp4", tmp_path, load_video)


@pytest.mark.parametrize("address", ["https://example.org/a.png", "file:///a.png", "data:image/x"])
def test_remote_addresses_are_refused(address, tmp_path):
    assert "download it" in refuse("remote media are refused", address, tmp_path)
    refuse("remote media are refused", address, tmp_path, load_video)


def test_files_outside_the_root_are_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    picture(1).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", root / "link.png")
    for source in ("../secret.png", "link.png", tmp_path / "secret.png"):
        refuse("lies outside the media root", source, root)
    picture(2).save(root / "own.png")
    assert load_image(root / "own.png", root).getpixel((0, 0)) == (2, 2, 2)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp"])
@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_images_are_refused_not_padded(kind, lenient, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    noise().save(whole)
    cut.write_bytes(whole.read_bytes()[:-200])
    assert load_image(whole, tmp_path).size == (64, 48)
    assert "replace it" in refuse(f"cut.{kind}: cannot be decoded", cut, tmp_path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    refuse("a.png: cannot be decoded", "a.png", tmp_path)
    (tmp_path / "empty.png").touch()
    refuse("empty.png: empty file; fetch", "empty.png", tmp_path)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    noise().save(tmp_path / "big.png")
    for limit in (3000, 1000):  # Pillow only warns up to twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "shrink it" in refuse("big.png: more than", "big.png", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(animations, "MAX_ANIMATION", 1000)
    write_animation(tmp_path / "long.gif", 5, 40)
    refuse("5 frames of 32 x 24 pixels", "long.gif", tmp_path, load_video)
    monkeypatch.setattr(containers, "MAX_PIXELS", 1000)
    write_video(tmp_path / "big.mp4", 4)
    refuse("big.mp4: more than 1000 pixels per frame", "big.mp4", tmp_path, load_video)


def test_transparency_becomes_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    clear.save(tmp_path / "a.png")
    assert load_image("a.png", tmp_path).getpixel((0, 0)) == (255, 255, 255)
    clear.putalpha(255)
    assert load_image(clear).getpixel((0, 0)) == (200, 0, 0)


def test_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(9, (32, 24)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image("a.jpg", tmp_path).size == (24, 32)
    assert image_shape("a.jpg", tmp_path) == (32, 24)
    picture(9, (32, 24)).save(tmp_path / "a.tif", exif=exif)
    assert load_image("a.tif", tmp_path).size == (24, 32)
    assert image_shape("a.tif", tmp_path) == (32, 24)


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


@pytest.mark.parametrize("kind", ["jpg", "webp", "png"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II", b"Exif\0\0" + b"z" * 50]
)
def test_unreadable_orientation_means_no_turn(kind, exif, tmp_path):
    path = tmp_path / f"a.{kind}"
    noise().save(path, exif=exif)
    assert load_image(path, tmp_path).size == (64, 48) and image_shape(path, tmp_path) == (48, 64)


BOMB = zlib.compress(b"a" * (80 << 20))
BAD_CHUNKS = [
    chunk(b"zTXt", b"k\0\0" + BOMB), chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB),
    chunk(b"iCCP", b"k\0\0" + BOMB), chunk(b"zTXt", b"k\0\0garbage"), chunk(b"tEXt", b"x", 1),
    chunk(b"gAMA", b"z"), chunk(b"pHYs", b"z"), chunk(b"eXIf", b"zz"), chunk(b"eXIf", b"zz", 1),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n zz\nzz"),
]  # fmt: skip
BAD_SEGMENTS = [
    segment(0xE0, b"JFIF\0\1"), segment(0xEE, b"Adobe"), segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1"),
    segment(0xE2, b"ICC_PROFILE\0\1\5xxx"), segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0"),
]  # fmt: skip


def test_bad_metadata_are_no_reason_to_drop_a_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, bad in (("png", BAD_CHUNKS), ("jpg", BAD_SEGMENTS)):
        path = tmp_path / f"a.{kind}"
        noise().save(path, exif=exif)
        good, data = load_image(path, tmp_path), path.read_bytes()
        places = (33, len(data) - 12) if kind == "png" else (2,)
        for part in bad:
            for place in places:
                path.write_bytes(data[:place] + part + data[place:])
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    turned, shape = load_image(path, tmp_path), image_shape(path, tmp_path)
                if part[4:8] == b"eXIf":  # of two orientations either may count
                    continue
                assert np.array_equal(np.asarray(turned), np.asarray(good)), part[:20]
                assert shape == (64, 48)
            path.write_bytes(data[: places[0]] + part + data[places[0] : -len(data) // 3])
            refuse("cannot be decoded", path, tmp_path)


def test_a_picture_in_memory_that_is_decoded_late_is_a_media_error(tmp_path):
    for kind in ("png", "jpg", "gif", "webp"):
        path = tmp_path / f"a.{kind}"
        noise().save(path)
        path.write_bytes(path.read_bytes()[:-200])
        try:
            image = Image.open(path)
        except OSError:
            continue
        with image:
            refuse("image in memory: cannot be decoded", image, ".")


def test_a_cut_gif_is_a_media_error_wherever_it_is_cut(tmp_path):
    whole = tmp_path / "whole.gif"
    write_animation(whole, 4, 100)
    data = whole.read_bytes()
    for end in range(len(data)):
        (tmp_path / "a.gif").write_bytes(data[:end])
        for load in (load_image, load_video, image_shape, video_shape, clip_header):
            with contextlib.suppress(MediaError):
                load("a.gif", tmp_path)


def test_links_of_a_hub_cache_lead_to_its_blobs_only(tmp_path):
    cache = tmp_path / "datasets--a--b"
    snapshot = cache / "snapshots" / "0123"
    (snapshot / "data").mkdir(parents=True)
    (cache / "blobs").mkdir()
    picture(3).save(cache / "blobs" / "abcd", "PNG")
    picture(4).save(tmp_path / "secret.png")
    (snapshot / "data" / "a.png").symlink_to("../../../blobs/abcd")
    (snapshot / "data" / "secret.png").symlink_to(tmp_path / "secret.png")
    (snapshot / "data" / "other.png").symlink_to("../../../refs")
    (cache / "refs").write_text("0123")
    checks = MediaCheck(snapshot, "decode")
    for root in (snapshot, snapshot / "data"):
        assert load_image(root / "data" / "a.png" if root is snapshot else "a.png", root)
    assert not checks.fault(record("data/a.png"))
    outside = (
        "data/secret.png",
        "data/other.png",
        "../../blobs/abcd",
        str(cache / "blobs" / "abcd"),
    )
    for name in outside:
        refuse("outside the media root", name, snapshot)
        assert checks.fault(record(name))


def record(path: str) -> dict:
    return {"query": {"text": "a"}, "candidate": {"image": path}}


def test_names_that_no_file_can_have_are_media_errors(tmp_path):
    os.symlink("loop.png", tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    check = MediaCheck(tmp_path, "file")
    for name in ("a" * 300 + ".png", "a/" * 3000 + "a.png", "loop.png", "pipe.png", "."):
        refuse("no such file", name, tmp_path)
        refuse("no such file", name, tmp_path, load_video)
        assert cause_of(check.fault(record(name))) == "no file under the media root"
    for name, fault in (("a\0.png", "is no path"), ("", "is no path"), ("\ud800.png", "surrogate")):
        refuse(fault, name, tmp_path)
        with pytest.raises(ItemError, match=fault):
            as_item({"image": name})
        with pytest.raises(RecordError, match=fault):
            validate_record(record(name))
    refuse("must be a string", PathOfBytes(), tmp_path)


class PathOfBytes(os.PathLike):
    def __fspath__(self):
        return b"a.png"


def test_texts_that_no_prompt_can_hold_are_refused_by_model_and_records():
    for text, fault in (
        ("a <|image_pad|>", r"reserved token <\|image_pad"),
        ("\ud800", "surrogate"),
    ):
        with pytest.raises(ItemError, match=fault):
            as_item({"text": text})
        with pytest.raises(RecordError, match=fault):
            validate_record({"query": {"text": text}, "candidate": {"text": "b"}})


def test_causes_of_bad_rows_are_the_same_words_for_the_same_defect(tmp_path):
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (900, 3)).save(tmp_path / "long.png")
    (tmp_path / "page.mp4").write_text("<html><body>404</body></html>" * 50)
    causes = {"empty.png": "empty file", "long.png": "sides of more than 200 : 1",
              "page.mp4": "cannot be decoded"}  # fmt: skip
    for name, cause in causes.items():
        with pytest.raises(MediaError) as caught:
            (load_video if name.endswith("4") else load_image)(name, tmp_path)
        row = BadMediaRow.from_error("row 3", caught.value)
        assert row.cause == cause and name in row.message and row.message.startswith("row 3: ")
    error = ItemError("999 tokens without any text, more than max_length 20: raise max_length")
    assert (
        BadMediaRow.from_error("a", error).cause
        == "tokens without any text, more than max_length 20"
    )


def test_arrays_are_checked():
    pixels = np.full((4, 6, 3), 7, np.uint8)
    assert load_image(pixels).size == (6, 4) and image_shape(pixels) == (4, 6)
    assert load_image(pixels[:, :, 0]).getpixel((0, 0)) == (7, 7, 7)
    for bad in (pixels / 255, pixels[:, :, :2], np.zeros((0, 4, 3), np.uint8)):
        refuse("must be uint8", bad, ".")
    refuse("not dict", {}, ".")
    refuse("8-bit pixels", Image.new("I;16", (4, 4)), ".")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_spread_their_frames_evenly(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    write_animation(path, 9, 500)
    clip = read_clip(path, tmp_path, fps=1.0, min_frames=2, max_frames=12)
    assert [frame.getpixel((0, 0))[0] for frame in clip.frames] == [0, 60, 100, 160]
    assert clip.seconds == [0.0, 1.5, 2.5, 4.0]
    assert video_shape(path, tmp_path) == (9, 24, 32)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[:-30])
    refuse(f"cut.{suffix}: cannot be decoded", cut, tmp_path, load_video)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "mpeg4", {"movflags": "faststart"}), ("a.webm", "libvpx-vp9", {}),
     ("a.avi", "mpeg4", {})],
)  # fmt: skip
def test_videos_spread_their_frames_evenly(name, codec, options, tmp_path):
    write_video(tmp_path / name, 48, codec, options=options)
    clip = read_clip(name, tmp_path, fps=2.0, min_frames=4, max_frames=6)
    shades = np.array([np.asarray(frame).mean() for frame in clip.frames])
    np.testing.assert_allclose(shades, [0, 45, 95, 140, 190, 235], atol=4)
    np.testing.assert_allclose(clip.seconds, np.array([0, 9, 19, 28, 38, 47]) / 12)
    assert video_shape(name, tmp_path) == (None, 48, 64)
    content = (tmp_path / name).read_bytes()
    for share in (0.67, 0.9):
        (tmp_path / f"cut.{name}").write_bytes(content[: int(len(content) * share)])
        assert "leave its row out" in refuse(f"cut.{name}", f"cut.{name}", tmp_path, load_video)


def test_undecodable_and_empty_videos(tmp_path):
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    refuse("noise.mp4: cannot be decoded", "noise.mp4", tmp_path, load_video)
    write_video(tmp_path / "empty.avi", 0)
    refuse("empty.avi: has no frames", "empty.avi", tmp_path, load_video)
    write_video(tmp_path / "empty.mkv", 0)
    refuse("empty.mkv: cannot be decoded", "empty.mkv", tmp_path, load_video)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    refuse("sound.wav: has no video stream", "sound.wav", tmp_path, load_video)


def test_playlists_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", 8)
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:4", "#EXTINF:4,", "a.mp4", "#EXT-X-ENDLIST", ""]
    (tmp_path / "list.m3u8").write_text("\n".join(lines))
    refuse("list.m3u8", "list.m3u8", tmp_path, load_video)


def test_frames_given_one_by_one_are_all_taken(tmp_path):
    for index in range(5):
        picture(index).save(tmp_path / f"{index}.png")
    names = [f"{index}.png" for index in range(5)]
    clip = read_clip(names, tmp_path, fps=2.0, max_frames=4)
    assert [frame.getpixel((0, 0))[0] for frame in clip.frames] == [0, 1, 2, 3, 4]
    assert clip.seconds == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert video_shape(names, tmp_path) == (5, 24, 32)
    assert len(load_video(np.zeros((3, 8, 8, 3), np.uint8))) == 3
    refuse("must have one size", [picture(0), picture(0, (8, 8))], tmp_path, load_video)


@pytest.mark.parametrize(
    ("total", "duration", "fps", "least", "most", "expected"),
    [
        (100, 10.0, 1.0, 4, 12, [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]),
        (100, 60.0, 1.0, 4, 4, [0, 33, 66, 99]),
        (100, 1.0, 1.0, 3, 12, [0, 33, 66, 99]),
        (3, 0.1, 1.0, 4, 12, [0, 1, 2]),
        (1, 0.0, 1.0, 4, 12, [0]),
        (50, 5.0, 1.0, 1, 1, [0]),
    ],
)
def test_choose_frames(total, duration, fps, least, most, expected):
    assert choose_frames(total, duration, fps, least, most) == expected


def test_memory_files_are_not_paths():
    refuse("give a path", io.BytesIO(b"x"), ".")
