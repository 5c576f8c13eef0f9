"""Clips: what is shown, when, and upright; whatever the container says beside it."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from unite_core.data import animations
from unite_core.data.media import MediaError, image_shape, load_image
from unite_core.data.timeline import choose_by_time, choose_frames
from unite_core.data.videos import clip_header, load_video, read_clip, video_shape
from unite_core.model.config import EmbedConfig
from unite_core.model.preprocessing import Layout, MediaReader, MediaSource
from unite_core.model.processor import Processor

MILLISECOND = Fraction(1, 1000)
VFR = [*(0.03 * index for index in range(9)), 0.3, 10.0]


def shade(index: int) -> np.ndarray:
    return np.full((48, 64, 3), index * 5, np.uint8)


def write_clip(path, frames=40, codec="libx264", form=None, seconds=None, picture=shade):
    """A clip of 12 frames per second, or with frames at `seconds`; frame i has the grey 5 i."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if seconds:
            stream.codec_context.time_base = MILLISECOND
        for index in range(len(seconds) if seconds else frames):
            frame = av.VideoFrame.from_ndarray(picture(index), "rgb24")
            if seconds:
                frame.pts, frame.time_base = round(seconds[index] * 1000), MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def copy_clip(source, target, shift=0, **turn):
    """The same packets, `shift` seconds earlier, with a display matrix."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        if turn:
            copied.set_display_rotation(**turn)
        for packet in old.demux(stream):
            if packet.dts is not None:
                ticks = round(shift / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - ticks, packet.dts - ticks, copied,
                )  # fmt: skip
                new.mux(packet)


def shades(clip) -> list[int]:
    return [round(np.asarray(frame).mean() / 5) for frame in clip.frames]


def test_packets_before_a_cut_are_not_shown_and_do_not_count(tmp_path):
    write_clip(tmp_path / "whole.mp4")
    copy_clip(tmp_path / "whole.mp4", tmp_path / "cut.mp4", shift=20 / 12)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert container.streams.video[0].frames == 40
    clip = read_clip("cut.mp4", tmp_path, fps=12, max_frames=20)
    assert len(clip.frames) == 20
    np.testing.assert_allclose(clip.seconds, np.arange(20) / 12)
    np.testing.assert_allclose(shades(clip), np.arange(20, 40), atol=1)
    assert clip_header("cut.mp4", tmp_path).frames == 20


def test_a_stream_that_cannot_seek_is_opened_again_and_its_missing_stamps_are_told(tmp_path):
    write_clip(tmp_path / "a.h264", form="h264")
    with pytest.warns(UserWarning, match="a.h264: its frames have no time stamps"):
        clip = read_clip("a.h264", tmp_path, fps=10, max_frames=40)
    assert len(clip.frames) >= 12 and clip.seconds == sorted(clip.seconds)
    np.testing.assert_allclose(shades(clip)[-1], 39, atol=1)


TURNS = [
    ({"degrees": 90}, Image.Transpose.ROTATE_90), ({"degrees": 180}, Image.Transpose.ROTATE_180),
    ({"degrees": 270}, Image.Transpose.ROTATE_270),
    ({"degrees": 0, "hflip": True}, Image.Transpose.FLIP_LEFT_RIGHT),
    ({"degrees": 0, "vflip": True}, Image.Transpose.FLIP_TOP_BOTTOM),
]  # fmt: skip


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(("turn", "transpose"), TURNS)
def test_clips_are_turned_as_pictures_are(turn, transpose, suffix, tmp_path):
    picture = np.kron([[0, 90, 160], [60, 200, 250]], np.ones((24, 22)))[:, :64].astype(np.uint8)
    write_clip(tmp_path / "flat.mp4", 8, picture=lambda _: np.stack([picture] * 3, 2))
    copy_clip(tmp_path / "flat.mp4", tmp_path / f"a.{suffix}", **turn)
    flat, turned = load_video("flat.mp4", tmp_path), load_video(f"a.{suffix}", tmp_path)
    for before, after in zip(flat, turned, strict=True):
        assert np.array_equal(np.asarray(before.transpose(transpose)), np.asarray(after))
    shape = (turned[0].height, turned[0].width)
    assert video_shape(f"a.{suffix}", tmp_path) == (None, *shape)
    assert clip_header(f"a.{suffix}", tmp_path)[1:3] == shape
    assert shape == ((64, 48) if turn["degrees"] in (90, 270) else (48, 64))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_are_those_of_the_stamps(name, tmp_path):
    write_clip(tmp_path / name, seconds=VFR)
    clip = read_clip(name, tmp_path, fps=2.0)
    np.testing.assert_allclose(clip.seconds, VFR, atol=1e-9)
    np.testing.assert_allclose(shades(clip), np.arange(11), atol=1)
    few = read_clip(name, tmp_path, fps=2.0, max_frames=4)
    np.testing.assert_allclose(few.seconds, [0, 0.24, 0.3, 10.0], atol=1e-9)


def test_frames_are_chosen_by_time(tmp_path):
    seconds = [*(index / 30 for index in range(30)), *range(1, 10)]
    write_clip(tmp_path / "a.mkv", seconds=seconds)
    clip = read_clip("a.mkv", tmp_path, fps=1.0, max_frames=10)
    np.testing.assert_allclose(clip.seconds, range(10), atol=1e-9)
    assert choose_by_time(range(100), 100, 0.1, 4, 12) == choose_frames(100, 100, 0.1, 4, 12)


def test_animations_are_chosen_by_time(tmp_path):
    frames = [Image.new("RGB", (32, 24), (index * 5,) * 3) for index in range(12)]
    durations = [50] * 8 + [1000] * 4
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=durations)
    clip = read_clip("a.gif", tmp_path, fps=1.0, min_frames=4, max_frames=4)
    np.testing.assert_allclose(clip.seconds, [0, 1.4, 2.4, 3.4])


def test_positions_follow_the_stamps(tmp_path, processor):
    write_clip(tmp_path / "a.mkv", seconds=VFR)
    texts = Processor(processor.tokenizer, EmbedConfig(fps=2.0, max_frames=12), Layout(), "text")
    ids = texts.encode({"video": "a.mkv"}, tmp_path).input_ids
    assert "<10.0 seconds>" in processor.tokenizer.decode(ids)
    encoded = texts.encode({"video": "a.mkv"}, tmp_path)
    assert encoded.video_step == [pytest.approx(2.0)]  # 10 s over 10 gaps, two frames a step


@pytest.fixture(scope="module")
def processor():
    from unite_core.model.embedder import UniteEmbedder
    from unite_core.tiny import TINY

    return UniteEmbedder.load(TINY, device="cpu").processor


def test_a_clip_named_like_a_pattern_opens_no_other_file(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for index in range(4):
        Image.new("RGB", (32, 24), (200, 0, 0)).save(tmp_path / f"{index}.jpg")
        os.symlink(tmp_path / f"{index}.jpg", root / f"f{index}.jpg")
    Image.new("RGB", (32, 24), (0, 0, 200)).save(root / "f%d.jpg")
    red, _, blue = np.asarray(load_video("f%d.jpg", root)[0]).mean((0, 1))
    assert red < 20 and blue > 180
    assert len(load_video("f%d.jpg", root)) == 1
    (root / "f%d.png.txt").write_text("ffconcat version 1.0\nfile '../0.jpg'\n")
    with pytest.raises(MediaError):
        load_video("f%d.png.txt", root)


def test_animations_of_huge_frames_are_refused_in_little_memory(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (200, 200), (index * 20,) * 3) for index in range(8)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    whole = read_clip("a.gif", tmp_path, fps=100, max_frames=4)
    monkeypatch.setattr(animations, "MAX_HELD", 4 * 200 * 200)  # the file is read twice
    again = read_clip("a.gif", tmp_path, fps=100, max_frames=4)
    assert again.seconds == whole.seconds
    for one, other in zip(whole.frames, again.frames, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    with pytest.raises(MediaError, match="8 frames of 200 x 200 pixels are too much"):
        read_clip("a.gif", tmp_path, fps=100, max_frames=8)
    monkeypatch.setattr(animations, "MAX_HELD", 3 * 200 * 200)
    for read in (load_video, video_shape, clip_header):
        with pytest.raises(MediaError, match="too much"):
            read("a.gif", tmp_path)
    load_image("a.gif", tmp_path)


def test_sides_of_more_than_200_to_1_are_refused_by_all(tmp_path):
    reader = MediaReader(EmbedConfig(), Layout())
    Image.new("RGB", (2010, 10)).save(tmp_path / "long.png")
    Image.new("RGB", (2010, 10)).save(tmp_path / "long.gif")
    for read in (load_image, image_shape, load_video, video_shape, clip_header):
        with pytest.raises(MediaError, match=r"long.png: sides of more than 200 : 1 .*; crop it"):
            read("long.png", tmp_path)
    with pytest.raises(MediaError, match="long.gif: sides"):
        video_shape("long.gif", tmp_path)
    Image.new("RGB", (8200, 41)).save(tmp_path / "fits.png")  # its first size is 8204 x 28
    for kind in ("image", "video"):
        read = reader.read(MediaSource(kind, "fits.png"), tmp_path)
        assert read.frames.shape[1:3] == tuple(
            14 * side for side in reader.shape(MediaSource(kind, "fits.png"), tmp_path)[1][1:]
        )


def test_a_page_named_like_a_clip_is_told_from_an_odd_ratio(tmp_path):
    page = "<!DOCTYPE html>\n<html><body><h1>404 Not found</h1></body></html>\n"
    for size in (1, 40, 2000):
        (tmp_path / "a.mp4").write_text(page * size)
        for read in (load_video, video_shape, clip_header):
            with pytest.raises(MediaError, match=r"a.mp4: cannot be decoded|has no video stream"):
                read("a.mp4", tmp_path)


@pytest.mark.parametrize("source", [[], None, 5, {}, set(), [None], object(), np.zeros((0, 4, 4))])
def test_what_is_no_video_is_a_media_error(source):
    for read in (load_video, video_shape):
        with pytest.raises(MediaError, match="in memory"):
            read(source)
