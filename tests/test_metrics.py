"""PSNR and SSIM: against values worked out by hand, against scikit-image, and block by block against the whole."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from denoise_se import metrics
from denoise_se.errors import DenoiseError
from denoise_se.metrics import MetricError, mean_absolute_error, mean_finite, psnr, ssim


def two_images(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        one = rng.random(shape).astype(dtype)
        return one, (one + rng.normal(0, 0.1, shape)).astype(dtype), 1.0
    top = np.iinfo(dtype).max
    one = rng.integers(0, top, shape, endpoint=True)
    other = np.clip(one + rng.normal(0, top / 10, shape), 0, top)
    return one.astype(dtype), other.astype(dtype), float(top)


def skimage_ssim(one, other, data_range, win_size=11):
    return structural_similarity(
        one.astype(np.float64),
        other.astype(np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=win_size,
        channel_axis=-1 if one.ndim == 3 else None,
    )


@pytest.mark.parametrize(("dtype", "data_range"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_mean_absolute_error_is_in_8_bit_units(dtype, data_range):
    reference = np.zeros((4, 5, 3), dtype)
    image = reference.copy()
    image[0, 0] = data_range  # one pixel of twenty is off by the whole range
    assert mean_absolute_error(image, reference, data_range=data_range) == pytest.approx(255 / 20)
    assert mean_absolute_error(reference, reference, data_range=data_range) == 0
    with pytest.raises(MetricError):
        mean_absolute_error(reference, reference[:1], data_range=data_range)


def test_psnr_of_a_known_error_is_the_formula():
    reference = np.zeros((4, 5, 3), np.uint8)
    image = reference.copy()
    image[1, 2, 0] = 30  # mean square error: 900 / 60 = 15
    assert psnr(reference, image, data_range=255) == pytest.approx(10 * math.log10(255**2 / 15), abs=1e-12)
    assert psnr(reference, image, data_range=51) == pytest.approx(10 * math.log10(51**2 / 15), abs=1e-12)


def test_psnr_does_not_wrap_around_in_unsigned_arithmetic():
    assert psnr(np.full((2, 2), 1, np.uint8), np.full((2, 2), 2, np.uint8), data_range=255) == pytest.approx(
        48.1308, abs=1e-4
    )
    assert psnr(np.full((2, 2), 2, np.uint8), np.full((2, 2), 1, np.uint8), data_range=255) == pytest.approx(
        48.1308, abs=1e-4
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (37, 53, 3)])
def test_psnr_equals_scikit_image(shape, dtype):
    one, other, data_range = two_images(shape, dtype)
    expected = peak_signal_noise_ratio(one.astype(np.float64), other.astype(np.float64), data_range=data_range)
    assert psnr(one, other, data_range=data_range) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_identical_images_is_infinite():
    image = two_images((9, 9))[0]
    assert psnr(image, image.copy(), data_range=255) == math.inf


def test_psnr_reads_views_with_any_strides():
    one, other, _ = two_images((20, 30, 3))
    expected = peak_signal_noise_ratio(one[::2, ::-1, 1].copy(), other[::2, ::-1, 1].copy(), data_range=255)
    assert psnr(one[::2, ::-1, 1], other[::2, ::-1, 1], data_range=255) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("measure", "limit", "expected"),
    [(psnr, 40e6, 10 * math.log10(255**2 / 9)), (ssim, 180e6, 2.55**2 / (9 + 2.55**2))],
)
def test_a_large_image_is_measured_without_a_float_copy_of_it(measure, limit, expected):
    one = np.zeros((4000, 3000), np.uint8)  # two float64 copies are 192 MB, SSIM's maps of the whole over 1 GB
    other = np.full_like(one, 3)
    measure(one[:16, :16], other[:16, :16], data_range=255)  # what is imported is not to be counted
    tracemalloc.start()
    value = measure(one, other, data_range=255)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < limit
    assert value == pytest.approx(expected, abs=1e-9)


def test_ssim_of_two_flat_images_is_the_luminance_term():
    a, b, c1 = 100.0, 120.0, (0.01 * 255) ** 2
    value = ssim(np.full((20, 20), a), np.full((20, 20), b), data_range=255)
    assert value == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-12)


def test_ssim_of_an_11x11_image_is_one_gaussian_window():
    x, y, _ = two_images((11, 11), np.float64, seed=3)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(taps, taps) / taps.sum() ** 2
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    vxy = (weights * (x - mx) * (y - my)).sum()
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y, data_range=1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(11, 11), (12, 40), (64, 48), (30, 31, 3), (29, 23, 1)])
def test_ssim_equals_scikit_image(shape, dtype):
    one, other, data_range = two_images(shape, dtype)
    assert ssim(one, other, data_range=data_range) == pytest.approx(skimage_ssim(one, other, data_range), abs=1e-10)


@pytest.mark.parametrize(("side", "win_size"), [(7, 7), (8, 7), (9, 9), (10, 9)])
def test_ssim_of_a_small_image_takes_the_largest_window_that_fits(side, win_size):
    for shape in ((side, side), (side, 40), (40, side, 3)):
        one, other, _ = two_images(shape)
        assert ssim(one, other, data_range=255) == pytest.approx(skimage_ssim(one, other, 255, win_size), abs=1e-10)


@pytest.mark.parametrize("shape", [(6, 6), (1, 1), (6, 100), (100, 6, 3)])
def test_ssim_is_not_defined_under_7_pixels(shape):
    one, other, _ = two_images(shape)
    assert ssim(one, other, data_range=255) is None


@settings(deadline=None, max_examples=25)
@given(height=st.integers(7, 260), width=st.integers(7, 60), block=st.sampled_from([64, 700, 3000]))
def test_ssim_in_blocks_equals_the_whole(height, width, block):
    one, other, _ = two_images((height, width))
    whole = ssim(one, other, data_range=255)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK", block)
        assert ssim(one, other, data_range=255) == pytest.approx(whole, abs=1e-13)


def test_ssim_of_identical_images_is_one():
    image = two_images((20, 20, 3))[0]
    assert ssim(image, image.copy(), data_range=255) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("measure", [psnr, ssim])
@pytest.mark.parametrize(
    ("one", "other", "data_range", "words"),
    [
        (np.zeros((8, 8)), np.zeros((8, 9)), 1.0, "shape"),
        (np.zeros((8, 8)), np.zeros((8, 8, 1)), 1.0, "shape"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint16), 255.0, "uint16"),
        (np.zeros((0, 8)), np.zeros((0, 8)), 1.0, "pixels"),
        (np.zeros((8, 8)), np.zeros((8, 8)), 0.0, "data range"),
        (np.zeros((8, 8), complex), np.zeros((8, 8), complex), 1.0, "complex"),
    ],
)
def test_images_that_cannot_be_compared_are_refused_with_the_reason(measure, one, other, data_range, words):
    with pytest.raises(ValueError, match=words) as caught:
        measure(one, other, data_range=data_range)
    assert isinstance(caught.value, DenoiseError)


def test_means_leave_out_identical_and_undefined():
    assert mean_finite([30.0, math.inf, None, 32.0]) == 31.0
    assert mean_finite([math.inf, None]) is None
    assert mean_finite([]) is None
