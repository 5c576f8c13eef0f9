"""Video files of all kinds that FFmpeg reads, through PyAV.

FFmpeg gets the open file without its name, and may open no other: a name can be a pattern such as
`f%d.jpg`, and a playlist names files anywhere.
"""

# Shapes: T frames.

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .media import MAX_PIXELS, MediaError, check_sides, naming_file
from .timeline import choose_by_time

__all__ = ["container_header", "read_container"]


MAX_HELD = 2**29  # pixels in frames that are held at once, 1.6 GB
_PASSES = 3  # what is decoded must agree with what was planned
_PROBED = 64  # packets in which the first frame must be
_MOOV = 2**26  # bytes of an MP4's header that are looked at
_FLAT = struct.pack(">5i", 1 << 16, 0, 0, 0, 1 << 16)  # how a matrix [a b . c d . . . .] begins
_NESTED = {"hls", "concat", "dash", "webvtt", "sdp", "rtsp", "imf"}  # formats that open others
_TURNS = {  # how a display matrix [a b . c d .] moves pixels, y downwards
    (0, 1, -1, 0): Image.Transpose.ROTATE_270, (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90, (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM, (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}  # fmt: skip
_QUARTER = {Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.TRANSPOSE,
            Image.Transpose.TRANSVERSE}  # fmt: skip


class _Times(NamedTuple):
    """When the frames of a video are shown, from the first one on."""

    seconds: Sequence[float]  # [T], ascending
    duration: float
    stamped: bool  # the frames have time stamps; otherwise their rate is taken to be constant


def read_container(path: Path, fps: float, min_frames: int, max_frames: int) -> tuple:
    """Frames, the seconds when they are shown, and whether these are from time stamps.

    Packets that are not shown (before a cut) do not count. What the packets announce decides which
    frames are taken; where decoding gives other frames, the file is opened and decoded again.
    """
    packets = None
    for _ in range(_PASSES):
        with _opened(path) as (container, stream):
            rate = _rate(stream)
            if packets is None:
                packets = _packet_stamps(container, stream, rate, path)
                times = _times(packets, rate, stream.time_base)
                if not _rewinds(container):
                    continue
            chosen = choose_by_time(times.seconds, times.duration, fps, min_frames, max_frames)
            if len(chosen) * stream.width * stream.height > MAX_HELD:
                raise MediaError(
                    f"{path}: {len(chosen)} frames of {stream.width} x {stream.height} pixels are "
                    "too much; shrink it"
                )
            frames, stamps = _decode(container, stream, chosen)
            found = _times(stamps, rate, stream.time_base) if stamps else _no_frames(path)
            if len(stamps) == len(times.seconds) and found.stamped <= times.stamped:
                return frames, [times.seconds[index] for index in chosen], times.stamped
            times = found
    raise MediaError(f"{path}: decodes to another number of frames each time; replace it")


def container_header(path: Path) -> tuple[int, int, int, float]:
    """Number of frames, height, width and seconds.

    At most the first frame is decoded, for its turn, and none of an MP4 that states no turn.

    Where a container states no number of frames, or also counts some that a cut hides, it is
    duration x rate.
    """
    with _opened(path) as (container, stream):
        seconds = (container.duration or 0) / 1e6
        expected = round(seconds * _rate(stream))
        frames = min(stream.frames or expected, expected) or stream.frames
        height, width = stream.height, stream.width
        is_flat = "mov" in container.format.name.split(",") and not _states_turn(path)
        if not is_flat and _first_turn(container, stream) in _QUARTER:
            height, width = width, height
        return frames, height, width, seconds


class _Unnamed:
    """An open file as FFmpeg may see it."""

    def __init__(self, file):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    import av

    alone = {"protocol_whitelist": "none"}
    with naming_file(path), path.open("rb") as file, av.open(_Unnamed(file), options=alone) as it:
        if _NESTED.intersection(it.format.name.split(",")):
            raise MediaError(f"{path}: a playlist may name other files; give the video file itself")
        if not it.streams.video:
            raise MediaError(f"{path}: has no video stream; leave its row out")
        stream = it.streams.video[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise MediaError(f"{path}: more than {MAX_PIXELS} pixels per frame; shrink it")
        check_sides(stream.height, stream.width, path)
        yield it, stream


def _rate(stream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 1)


def _rewinds(container) -> bool:
    import av

    try:
        container.seek(0)
    except av.error.FFmpegError:  # a stream without index: it is opened again instead
        return False
    return True


def _packet_stamps(container, stream, rate: float, path: Path) -> list[int | None]:
    """Stamps of the packets that are shown, in order of time; a MediaError for a truncated file."""
    count, end, stamps = 0, 0.0, []
    for packet in container.demux():
        if packet.size > 0 and packet.stream.index == stream.index:
            count += 1
            if not packet.is_discard:
                stamps.append(packet.pts)
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    announced = (container.duration or 0) / 1e6
    if stream.frames > count or end < 0.98 * announced - 2 / rate:
        raise MediaError(
            f"{path}: ends after {count} frames ({end:.1f} of {announced:.1f} s); "
            "it is truncated: replace it, or leave its row out"
        )
    return stamps if None in stamps else sorted(stamps) or _no_frames(path)


def _times(stamps: Sequence[int | None], rate: float, time_base) -> _Times:
    """Times by stamps. Stamps that only round a constant rate, or none, give index / rate."""
    even = np.arange(len(stamps)) / rate
    constant = _Times(even.tolist(), len(stamps) / rate, True)
    if None in stamps or not time_base:
        return constant._replace(stamped=False)
    ticks = np.array(stamps, dtype=np.int64)
    if (np.diff(ticks) <= 0).any():
        return constant._replace(stamped=False)
    seconds = [float((stamp - stamps[0]) * time_base) for stamp in stamps]
    if np.abs(seconds - even).max() <= float(time_base):
        return constant
    return _Times(seconds, seconds[-1] + float(np.median(np.diff(seconds))), True)


def _decode(container, stream, chosen: Sequence[int]) -> tuple[list[Image.Image], list]:
    """The chosen frames, upright, and the stamps of all."""
    stream.thread_type = "AUTO"
    wanted, frames, stamps = set(chosen), [], []
    for index, frame in enumerate(container.decode(stream)):
        stamps.append(frame.pts)
        if index in wanted:
            turn = _turn(frame)
            image = frame.to_image()
            frames.append(image if turn is None else image.transpose(turn))
    return frames, stamps


def _states_turn(path: Path) -> bool:
    """Whether an MP4 or a track of it has another display matrix than the usual one."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4])
            if size == 1:
                size = int.from_bytes(file.read(8)) - 8
            if head[4:] == b"moov":
                movie = file.read(min(size, _MOOV))
                return any(
                    header[place : place + 20] != _FLAT
                    for name, place in ((b"mvhd", 36), (b"tkhd", 40))
                    for header in movie.split(name)[1:]
                    for place in [place + 12 * (header[:1] == b"\1")]
                )
            if size < 8:
                break
            file.seek(size - 8, os.SEEK_CUR)
    return True


def _first_turn(container, stream) -> Image.Transpose | None:
    import av

    try:
        for number, packet in enumerate(container.demux(stream)):
            for frame in packet.decode():
                return _turn(frame)
            if number > _PROBED:
                break
    except av.error.FFmpegError:  # `read_container` will say so
        pass
    return None


def _turn(frame) -> Image.Transpose | None:
    """How the display matrix turns or mirrors a frame, by right angles."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX" and memoryview(data).nbytes >= 36:
            a, b, _, c, d, *_ = struct.unpack("9i", memoryview(data)[:36])
            largest = max(map(abs, (a, b, c, d))) or 1
            return _TURNS.get(tuple(round(value / largest) for value in (a, b, c, d)))
    return None


def _no_frames(path: Path):
    raise MediaError(f"{path}: has no frames; leave its row out")
