"""What a screen shows: 8 bits, upright, and maps of differences with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from denoise_se.display import as_shown, difference, residual, shown_range, thumbnail
from denoise_se.errors import UsageError
from denoise_se.image import Image
from denoise_se.scanlines import ArrayScanlines
from denoise_se.value_range import ValueRange


def grey(*values: int, dtype: type = np.uint8) -> Image:
    return Image(np.array([values], dtype)[..., None], None, "png")


def test_sixteen_bits_and_floats_are_shown_in_eight() -> None:
    assert as_shown(grey(0, 257 * 7, 65_535, dtype=np.uint16)).pixels.ravel().tolist() == [0, 7, 255]
    floats = Image(np.array([[[-0.5], [0.2], [1.5]]], np.float32), None, "tiff")
    assert as_shown(floats).pixels.ravel().tolist() == [0, 51, 255]
    # to the nearest: 1999 / 257 = 7.78, and 255 * 0.0999 = 25.47 and 255 * 0.1001 = 25.53
    assert as_shown(grey(1999, dtype=np.uint16)).pixels.ravel().tolist() == [8]
    floats = Image(np.array([[[0.0999], [0.1001]]], np.float32), None, "tiff")
    assert as_shown(floats).pixels.ravel().tolist() == [25, 26]


@pytest.mark.parametrize(
    ("brightest", "dtype", "gain"),
    [(4095, np.uint16, 16), (1100, np.uint16, 32), (20_000, np.uint16, 1), (60, np.uint8, 1), (0, np.uint16, 1)],
)
def test_what_uses_a_small_part_of_its_range_is_shown_brighter(brightest: int, dtype: type, gain: int) -> None:
    image = grey(0, brightest, dtype=dtype)
    seen = shown_range(ArrayScanlines(image.pixels))
    assert seen == ValueRange(0, 1 / gain)
    shown = round(255 * gain * brightest / np.iinfo(dtype).max)
    assert as_shown(image, seen).pixels.ravel().tolist() == [0, shown]
    assert thumbnail(image).pixels.ravel().tolist() == [0, shown]


def test_highlights_of_floats_are_shown_clipped_and_counts_and_tomograms_are_not() -> None:
    ramp = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64, 1)
    highlights = ramp.copy()
    highlights[60:, :40] = 5
    assert shown_range(ArrayScanlines(highlights)) == ValueRange(0, 1)
    for values in (4000 * ramp, 4000 * ramp - 1000, 0.2 * ramp + 0.6):
        shown = as_shown(Image(values, None, "tiff"), shown_range(ArrayScanlines(values))).pixels.astype(int)
        assert shown.min() == 0 and shown.max() > 240 and np.abs(np.diff(shown.ravel())).max() == 1


def test_the_residual_is_grey_where_nothing_changed_and_four_times_the_change_elsewhere() -> None:
    # 127.5 + 4 * 10 = 167.5 and 127.5 - 4 * 5 = 107.5, halves to even; 200 more than it can show
    assert residual(grey(50, 60, 45, 250), grey(50, 50, 50, 50)).pixels.ravel().tolist() == [128, 168, 108, 255]


def test_the_error_map_is_the_largest_channels_difference_times_four() -> None:
    first = Image(np.array([[[10, 20, 30], [0, 0, 0]]], np.uint8), None, "png")
    second = Image(np.array([[[10, 17, 40], [0, 0, 0]]], np.uint8), None, "png")
    assert difference(first, second).pixels.ravel().tolist() == [40, 0]


def test_images_of_different_sizes_are_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match="2x1 and 3x1"):
        residual(grey(1, 2), grey(1, 2, 3))


def test_a_thumbnail_keeps_the_shape_and_averages() -> None:
    image = Image(np.tile(np.array([[0], [200]], np.uint8), (20, 40))[..., None], None, "png")
    small = thumbnail(image, 20)
    assert small.pixels.shape == (20, 20, 1) and set(small.pixels.ravel().tolist()) == {100}
