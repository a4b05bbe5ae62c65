"""The level of the noise and its correlation, estimated from one image."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_scenes import gradient, noisy

from denoise_se.clipping import clip_factor
from denoise_se.errors import UsageError
from denoise_se.noise_estimation import estimate_noise, estimate_sigma
from denoise_se.noise_patches import cut, lag_weights
from denoise_se.scanlines import ArrayScanlines

SIGMAS = [1, 2, 5, 10, 25, 50, 75]


def scene(height: int = 256, width: int = 256) -> np.ndarray:
    """A gradient with edges, stripes of 10 pixels' period and a quarter of rough texture."""
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[:height, :width]
    picture = gradient(height, width)
    picture[(y - 90) ** 2 + (x - 100) ** 2 < 60**2] += 50
    picture[: height // 3, width // 2 :] += 40 * np.sin(2 * np.pi * x / 10)[: height // 3, width // 2 :]
    rough = gaussian_filter(np.random.default_rng(99).normal(0, 60, (height // 2, width // 2)), 0.8)
    picture[height // 2 :, : width // 2] += rough
    return np.clip(picture, 20, 240)


def to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("picture", [gradient, scene])
def test_gaussian_noise_is_found_within_three_percent(picture, sigma):
    assert estimate_sigma(noisy(picture(), sigma)) == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_colour_noise_is_found_within_two_percent(sigma):
    clean = np.stack([scene(), 0.8 * scene(), 250 - scene()], axis=2)
    estimate = estimate_noise(noisy(clean, sigma))
    assert estimate.sigma == pytest.approx(sigma, rel=0.02)
    assert estimate.sigma_channels == pytest.approx([sigma] * 3, rel=0.06)


@pytest.mark.parametrize("sigma", [10, 25, 50, 75])
def test_clipping_to_8_bits_does_not_lower_the_estimate(sigma):
    clean = 255 * (gradient() - 60) / 130  # reaches black and white, where half of the noise is lost
    assert estimate_sigma(to_uint8(noisy(clean, sigma))) == pytest.approx(sigma, rel=0.03)


def test_rounding_to_8_bits_is_not_counted_as_noise():
    # Rounding adds 1/12 to the variance: 0.6 would read as 0.666.
    assert estimate_sigma(to_uint8(noisy(gradient(), 0.6))) == pytest.approx(0.6, rel=0.05)


def test_saturated_areas_and_black_borders_are_left_out():
    image = to_uint8(noisy(gradient(), 10))
    image[:80] = 255
    image[200:] = 0
    image[:, :80] = 37
    assert estimate_sigma(image) == pytest.approx(10, rel=0.05)


def test_a_crushed_shadow_with_a_few_live_pixels_is_left_out():
    image = to_uint8(noisy(gradient(), 10))
    shadow = np.random.default_rng(1).random((180, 256)) < 0.05
    image[:180] = 3 * shadow
    assert estimate_sigma(image) == pytest.approx(10, rel=0.04)


def test_texture_that_looks_like_noise_is_not_taken_for_it_where_flatter_parts_exist():
    # Rougher and rougher from left to right: no single step looks like a jump.
    texture = np.random.default_rng(7).normal(0, 1, (256, 256)) * np.linspace(0, 30, 256)
    assert estimate_sigma(noisy(gradient() + texture, 10)) == pytest.approx(10, rel=0.12)


def test_channels_with_different_noise_are_told_apart():
    sigmas = np.array([5.0, 10.0, 20.0])
    clean = np.stack([gradient()] * 3, axis=2)
    noise = np.random.default_rng(1).normal(0, sigmas, clean.shape)
    estimate = estimate_noise(((clean + noise) / 255).astype(np.float32))
    assert estimate.sigma_channels == pytest.approx(sigmas, rel=0.03)
    assert estimate.sigma == pytest.approx(np.sqrt((sigmas**2).mean()), rel=0.03)


def test_a_grey_picture_stored_as_colour_reads_as_the_grey_one():
    grey = noisy(scene(), 12)
    assert estimate_sigma(np.stack([grey] * 3, axis=2)) == pytest.approx(estimate_sigma(grey), rel=0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0, 0.5, 1])
@pytest.mark.parametrize("shape", [(64, 64), (40, 30, 3), (16, 16, 1)])
def test_a_constant_image_has_no_noise(shape, value, dtype):
    full = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    assert estimate_sigma(np.full(shape, value * full).astype(dtype)) == 0.0


def test_a_clean_gradient_and_a_black_and_white_drawing_have_no_noise():
    assert estimate_sigma((gradient() / 255).astype(np.float32)) < 0.1
    drawing = np.zeros((128, 128), np.uint8)
    drawing[10:20, 30:90] = drawing[50:110, 60:63] = 255
    assert estimate_sigma(drawing) == 0.0


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 5), (1, 31), (5, 6, 3), (0, 7, 3)])
def test_images_under_32_pixels_say_nothing(shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    estimate = estimate_noise(image)
    assert (estimate.sigma, estimate.patches) == (0.0, 0)
    assert len(estimate.sigma_channels) == (shape[2] if len(shape) == 3 else 1)


@pytest.mark.parametrize(("shape", "tolerance"), [((8, 8), 0.6), ((1, 257), 0.35), ((257, 2), 0.3), ((32, 32), 0.15)])
def test_small_images_are_read_roughly_and_without_bias(shape, tolerance):
    found = [estimate_sigma(noisy(np.full(shape, 128.0), 20, seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(20, rel=0.1)
    assert found == pytest.approx([20] * 20, rel=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["uint8", "black and white", "float with garbage"]),
)
def test_any_image_gives_finite_non_negative_numbers(height, width, channels, seed, kind):
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels is None else (height, width, channels)
    image = rng.integers(0, 256, shape).astype(np.uint8)
    if kind == "black and white":
        image = np.where(image > 200, 255, 0).astype(np.uint8)
    elif kind == "float with garbage":
        image = (image / 255).astype(np.float32)
        image[rng.random(shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e38])
    estimate = estimate_noise(image)
    for value in dataclasses.asdict(estimate).values():
        assert np.isfinite(value).all()
    assert 0 <= estimate.sigma <= estimate.level * (1 + 1e-9) and estimate_sigma(image) < 400


@settings(max_examples=15, deadline=None)
@given(st.floats(2, 60), st.integers(0, 1000))
def test_16_bits_and_other_ranges_give_the_same_sigma(sigma, seed):
    image = to_uint8(noisy(scene(96, 96), sigma, seed))
    expected = estimate_sigma(image)
    # Multiples of 257 span the whole 16-bit range; only the smaller rounding step makes a difference.
    assert estimate_sigma(image.astype(np.uint16) * 257) == pytest.approx(expected, abs=1 / 12 / expected)
    assert estimate_sigma(image.astype(np.float32) / 255) == pytest.approx(expected, abs=1 / 12 / expected)
    ten_bit = image.astype(np.uint16) * 4
    assert estimate_sigma(ten_bit, data_range=1020) == pytest.approx(expected, abs=1 / 12 / expected)


@pytest.mark.parametrize(("scale", "offset"), [(1e-5, 0), (4000, 10_000), (4e6, -2e6), (100, 1e6), (1e12, 1e12)])
def test_floats_of_any_scale_and_offset_give_the_same_sigma(scale, offset):
    values = noisy(scene(96, 96), 15)
    expected = estimate_sigma(values.astype(np.float32))
    assert expected == pytest.approx(15, rel=0.15)
    assert estimate_sigma((values * scale + offset).astype(np.float32)) / scale == pytest.approx(expected, rel=0.01)


def cut_off(values: np.ndarray, low: float, high: float, scale: float, offset: float, dtype: type) -> np.ndarray:
    cut = values.clip(low, high) * scale + offset
    return (np.rint(cut) if np.dtype(dtype).kind == "u" else cut).astype(dtype)


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"), [(4095, 0, np.uint16), (4095, 256, np.uint16), (1.0, -0.5, np.float32)]
)
@pytest.mark.parametrize(("low", "high"), [(-9, 0.65), (0.3, 9), (0.3, 0.65)])
def test_noise_that_was_cut_off_elsewhere_than_at_black_and_white_is_found(low, high, scale, offset, dtype):
    values = noisy(scene(), 10).astype(np.float64).clip(0, 1)
    image = cut_off(values, low, high, scale, offset, dtype)  # 12 bits in 16 that are saturated, say
    full = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    assert estimate_sigma(image) * full / scale == pytest.approx(10, rel=0.12)


def test_the_same_image_gives_the_same_estimate_and_stays_unchanged():
    image = noisy(scene(), 15)
    before = image.copy()
    assert estimate_noise(image) == estimate_noise(image.copy(order="F"))
    assert np.array_equal(image, before)
    image.flags.writeable = False
    estimate_noise(image[::-1, ::-1])


def test_a_large_image_is_sampled_fast_and_in_little_memory():
    tile = to_uint8(noisy(scene(512, 512), 8))
    image = np.tile(tile, (8, 12))  # 25 MP
    tracemalloc.start()
    start = time.process_time()
    sigma = estimate_sigma(image)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sigma == pytest.approx(8, rel=0.03)
    assert seconds < 2
    assert peak < 100e6


def test_the_interval_of_sigma_holds_the_truth_in_most_trials():
    intervals = np.array([estimate_noise(noisy(gradient(128, 128), 20, seed)).sigma_interval for seed in range(40)])
    low, high = intervals.T
    assert np.count_nonzero((low <= 20) & (high >= 20)) >= 33  # 38 of 40 expected
    assert (np.ptp(intervals, axis=1) < 2.5).all()


def test_white_noise_is_uncorrelated():
    estimate = estimate_noise(noisy(gradient(), 20))
    assert estimate.correlation == pytest.approx((0, 0), abs=0.05)
    assert estimate.white_sigma == pytest.approx(estimate.sigma)
    assert estimate.level == pytest.approx(estimate.sigma)


@pytest.mark.parametrize("channels", [1, 3])
def test_blurred_noise_is_found_correlated_and_summed_over_all_frequencies(channels):
    from scipy.ndimage import correlate1d

    # Taps 1 3 4 3 1: variance 36/144, covariance at one pixel (1*3 + 3*4) * 2 / 144, their ratio 30/36.
    white = np.random.default_rng(5).normal(0, 40, (256, 256, channels))
    taps = np.array([1, 3, 4, 3, 1]) / 12
    noise = correlate1d(correlate1d(white, taps, axis=1), [0.25, 0.5, 0.25], axis=0)
    truth = 40 * np.sqrt(36 / 144 * 0.375)
    image = ((gradient()[..., None] + noise) / 255).astype(np.float32)
    estimate = estimate_noise(image)
    assert estimate.sigma == pytest.approx(truth, rel=0.25)
    assert estimate.white_sigma < truth / 3
    assert estimate.correlation == pytest.approx((30 / 36, 4 / 6), abs=0.15)
    assert estimate.correlation[0] > estimate.correlation[1]
    # Each axis' share of the noise in the frequencies of 8 pixels; the product of both, where they add up to 1, 2 or 3.
    across, down = (dct_variances(np.correlate(t, t, "full")) for t in (taps, np.array([0.25, 0.5, 0.25])))
    low = [down[v] * across[h] for v in range(8) for h in range(8) if 1 <= v + h <= 3]
    assert estimate.level == pytest.approx(40 * np.mean(low) ** 0.5, rel=0.25)
    assert estimate.level > 1.5 * estimate.sigma


def test_where_detail_is_everywhere_coarse_noise_is_told_as_it_is():
    from scipy.ndimage import gaussian_filter

    grain = gaussian_filter(np.random.default_rng(5).normal(size=(256, 256)), 0.8)
    waves = np.sin(2 * np.pi * np.arange(256) / 24)
    plain, detailed = (
        estimate_noise(((clean + 6 * grain / grain.std()) / 255).astype(np.float32))
        for clean in (gradient(), gradient() + 40 * waves * waves[:, None])
    )
    assert plain.sigma == pytest.approx(6, rel=0.2) and plain.level > 1.5 * plain.sigma
    assert detailed.sigma > 1 and detailed.level == pytest.approx(detailed.sigma)


def test_edges_do_not_take_the_level_below_sigma():
    from scipy.ndimage import gaussian_filter

    ruled = np.full((256, 256), 235.0)
    ruled[::16] = 30
    grain = gaussian_filter(np.random.default_rng(0).normal(size=ruled.shape), 0.8)
    estimate = estimate_noise(((ruled + 3 * grain / grain.std()) / 255).astype(np.float32))
    assert estimate.level >= estimate.sigma > 2


def dct_variances(autocovariance):
    """Variances of the 8 coefficients of an orthonormal DCT, for noise of this autocovariance (2n + 1 lags)."""
    from scipy.fft import dct
    from scipy.linalg import toeplitz

    reach = len(autocovariance) // 2
    basis = dct(np.eye(8), norm="ortho", axis=0)
    return np.diag(basis @ toeplitz(np.pad(autocovariance[reach:], (0, 7 - reach))) @ basis.T)


@pytest.mark.parametrize(("vertical", "horizontal"), [(0, 1), (7, 7), (3, 6), (5, 0)])
def test_a_coefficients_variance_becomes_the_mean_product_of_neighbours(vertical, horizontal):
    wave = np.cos(np.pi * (2 * np.arange(8) + 1) * np.arange(8)[:, None] / 16)
    image = np.outer(wave[vertical], wave[horizontal])
    patches = cut(ArrayScanlines(image[..., None].astype(np.float32)), 1.0)
    covariance = np.tensordot(np.append(0, np.square(patches.dct[0, 0])), lag_weights(patches, 2), 1)
    for down, across in ((0, 0), (0, 1), (1, 0), (2, 1)):
        product = (image[down:, across:] * image[: 8 - down, : 8 - across]).mean()
        assert covariance[2 + down, 2 + across] == pytest.approx(product, abs=1e-6)
        assert covariance[2 - down, 2 - across] == pytest.approx(product, abs=1e-6)


@pytest.mark.parametrize("mean", [10.0, 60.0, 128.0, 250.0])
def test_clip_factor_is_what_a_simulation_gives(mean):
    noise = np.random.default_rng(0).normal(0, 50, 400_000)
    clipped = np.clip(mean + noise, 0, 255)
    factor = clip_factor(np.array([clipped.mean()], np.float32), 50, 0.0, 255.0)
    assert factor[0] == pytest.approx(clipped.var() / 50**2, rel=0.01)


@pytest.mark.parametrize(
    ("image", "data_range", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), None, "C = 1 or 3"),
        (np.zeros(7, np.float32), None, r"\(7,\)"),
        (np.zeros((9, 9), bool), None, "bool"),
        (np.zeros((9, 9), np.int32), None, "int32"),
        (np.zeros((9, 9), np.complex64), None, "complex64"),
        (np.zeros((9, 9), np.float32), 0.0, "data_range"),
        (np.zeros((9, 9), np.float32), float("nan"), "data_range"),
    ],
)
def test_what_cannot_be_an_image_is_refused_with_the_reason(image, data_range, message):
    with pytest.raises(UsageError, match=message):
        estimate_sigma(image, data_range=data_range)
