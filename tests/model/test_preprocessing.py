"""Sizes obey their limits, patches are where the vision tower expects them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unite_core.model.config import EmbedConfig
from unite_core.model.preprocessing import (
    Layout,
    frame_sizes,
    grid_of,
    image_sizes,
    normalised,
    patches_of,
    patchify,
    resized,
    smart_resize,
)

SMALL = EmbedConfig(image_min_pixels=3136, image_max_pixels=12544, video_min_pixels=3136)
side = st.integers(min_value=1, max_value=4000)


@given(height=side, width=side)
def test_smart_resize_gives_multiples_within_the_upper_limit(height, width):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="200 : 1"):
            smart_resize(height, width)
        return
    rows, columns = smart_resize(height, width, 28, 256 * 784, 1280 * 784)
    assert rows % 28 == columns % 28 == 0
    assert rows * columns >= 256 * 784 or rows * columns > 200 * 784
    if max(height, width) < 20 * min(height, width):
        assert 256 * 784 <= rows * columns <= 1280 * 784


@pytest.mark.parametrize("height, width, size", [(720, 1280, (196, 364)), (61, 333, (112, 588))])
def test_video_limits_hold_only_when_effective(height, width, size):
    """720p frames of 240 x 320 pixels: 91 tokens; the released second step makes them 273."""
    config = EmbedConfig(video_pixels="effective")
    assert frame_sizes(height, width, config, Layout(), from_file=True)[-1] == size
    released = frame_sizes(height, width, EmbedConfig(video_pixels="released"), Layout(), True)
    assert released[-1][0] * released[-1][1] >= 256 * 784


@given(height=st.integers(20, 2000), width=st.integers(20, 2000), from_file=st.booleans())
def test_effective_upper_limit_holds_even_below_the_lower_one(height, width, from_file):
    config = EmbedConfig()  # its lower limit of a frame is above the upper one
    assert config.video_min_pixels > config.video_max_pixels
    ((rows, columns),) = frame_sizes(height, width, config, Layout(), from_file)
    assert rows * columns <= max(config.video_max_pixels, 784 * max(rows, columns) // 28)


def test_image_takes_the_authors_two_steps():
    assert image_sizes(61, 333, SMALL, Layout()) == ((56, 336), (28, 252))


def test_patches_keep_every_pixel_in_merge_order():
    layout = Layout(patch=2, merge=2, temporal=2)
    frames = torch.arange(2 * 3 * 4 * 8).reshape(2, 3, 4, 8)
    patches, grid = patchify(frames, layout)
    assert grid == (1, 2, 4) and patches.shape == (8, 3 * 2 * 2 * 2)
    first, second, third = (p.reshape(3, 2, 2, 2) for p in patches[:3])
    assert torch.equal(first, frames[:, :, :2, :2].transpose(0, 1))
    assert torch.equal(second, frames[:, :, :2, 2:4].transpose(0, 1))
    assert torch.equal(third, frames[:, :, 2:4, :2].transpose(0, 1))
    assert sorted(patches.flatten().tolist()) == list(range(frames.numel()))


def test_odd_number_of_frames_repeats_the_last():
    frames = torch.randn(3, 3, 28, 28)
    patches, grid = patchify(frames, Layout())
    assert grid == grid_of(3, (28, 28), Layout()) == (2, 2, 2)
    assert torch.equal(patches, patchify(frames[[0, 1, 2, 2]], Layout())[0])


def test_patchify_refuses_a_size_that_does_not_divide():
    with pytest.raises(ValueError, match="30 x 28 pixels are no multiples of 28"):
        patchify(torch.zeros(1, 3, 28, 30), Layout())


def test_colours_are_normalised_per_channel():
    colour = (255, 0, 51)
    layout = Layout(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.1))
    patches, _ = patches_of(
        torch.from_numpy(resized([Image.new("RGB", (28, 28), colour)], [(28, 28)])), layout
    )
    assert patches.dtype == torch.uint8
    patches = normalised(patches, layout)
    values = patches.reshape(4, 3, -1)
    assert patches.dtype == torch.float32 and normalised(patches, layout) is patches
    np.testing.assert_allclose(values[0, :, 0], [1.0, -1.0, 2.0], atol=1e-6)
    assert (values == values[:1, :, :1]).all()
