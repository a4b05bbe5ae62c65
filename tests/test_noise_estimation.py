"""The noise that was added is the noise that is found."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc

import cv2
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from denoise_se.clipping import clip_factor
from denoise_se.errors import UsageError
from denoise_se.noise_estimation import estimate_noise, estimate_sigma
from denoise_se.noise_line import NoiseLaw
from denoise_se.noise_patches import cut, lag_weights
from denoise_se.scanlines import ArrayScanlines

SIGMAS = [1, 2, 5, 10, 25, 50, 75]


def gradient(height: int = 256, width: int = 256) -> np.ndarray:
    """Brightness 60 to 190, a slow diagonal."""
    y, x = np.mgrid[:height, :width]
    return 60 + 130 * (y / height + x / width) / 2


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


def noisy(clean: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    """Float image, range [0, 1], not clipped."""
    return ((clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)) / 255).astype(np.float32)


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


@pytest.mark.parametrize(("gain", "read_noise"), [(0.01, 0.002), (0.002, 0.02), (0.0, 0.04), (0.02, 0.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gain_and_read_noise_are_recovered_and_their_intervals_hold(gain, read_noise, channels):
    x = np.stack([0.15 + 0.7 * (gradient() - 60) / 130] * channels, axis=2)
    hits = np.zeros(2)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counts = gain * rng.poisson(x / gain) if gain else x
        image = (counts + rng.normal(0, 1, x.shape) * read_noise).astype(np.float32)
        estimate = estimate_noise(image)
        assert estimate.gain == pytest.approx(gain, rel=0.15, abs=3e-4)
        variance = estimate.gain * 0.5 + estimate.read_noise**2
        assert variance == pytest.approx(gain * 0.5 + read_noise**2, rel=0.05)
        assert estimate.sigma == pytest.approx(255 * np.sqrt((gain * x + read_noise**2).mean()), rel=0.04)
        hits += [
            estimate.gain_interval[0] <= gain <= estimate.gain_interval[1],
            estimate.read_noise_interval[0] <= read_noise <= estimate.read_noise_interval[1],
        ]
    assert (hits >= 16).all(), hits  # 19 of 20 expected


@pytest.mark.parametrize("speckle", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
def test_multiplicative_noise_is_told_from_that_of_photons_and_measured(speckle, channels):
    x = np.stack([0.05 + 0.7 * (gradient() - 60) / 130] * channels, axis=2)
    image = x * (1 + speckle * np.random.default_rng(4).normal(0, 1, x.shape))
    estimate = estimate_noise(image.astype(np.float32))
    assert estimate.speckle == pytest.approx(speckle, rel=0.03)
    assert estimate.speckle_interval[0] <= speckle <= estimate.speckle_interval[1]
    assert estimate.gain == 0 and estimate.gain_interval == (0, 0)
    assert estimate.sigma == pytest.approx(255 * speckle * np.sqrt(np.square(x).mean()), rel=0.03)
    np.testing.assert_allclose(estimate.law.at(np.array([0.2, 0.7])), np.square([0.2 * speckle, 0.7 * speckle]), 0.1)


def test_dark_parts_which_speckle_spares_do_not_bound_the_level():
    x = np.full((256, 256), 0.02)
    x[:, 64:] = 0.2 + 0.7 * (gradient() - 60)[:, 64:] / 130
    image = x * (1 + 0.2 * np.random.default_rng(5).normal(0, 1, x.shape))
    truth = 255 * 0.2 * np.sqrt(np.square(x).mean())
    assert estimate_sigma(image.astype(np.float32)) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize(
    "law",
    [
        NoiseLaw(0.01, 0.0004),
        NoiseLaw(0.0, 0.0004, 0.3),
        NoiseLaw(0.004, 0.001, 0.2),
        NoiseLaw(0.01, 0.0004, black=0.3),
    ],
)
def test_the_variance_read_off_noisy_pixels_has_the_right_mean(law):
    x = np.full(2_000_000, 0.6)
    variance = law.gain * (0.6 - law.black) + (law.speckle * 0.6) ** 2 + law.floor
    assert law.at(x[:1])[0] == pytest.approx(variance)
    noisy = x + np.random.default_rng(6).normal(0, variance**0.5, x.shape)
    assert law.unbiased(noisy).mean() == pytest.approx(variance, rel=3e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_that_begins_above_0_is_found_as_black(channels):
    """As the counts of scientific cameras do: var = gain * (x - 0.2) + read^2."""
    light = 0.7 * np.stack([(gradient() - 60) / 130] * channels, axis=2) ** 2
    for seed in range(5):
        rng = np.random.default_rng(seed)
        image = 0.2 + 0.01 * rng.poisson(light / 0.01) + rng.normal(0, 0.004, light.shape)
        estimate = estimate_noise(image.astype(np.float32))
        assert estimate.gain == pytest.approx(0.01, rel=0.1)
        assert estimate.black == pytest.approx(0.2, abs=0.02)
        np.testing.assert_allclose(estimate.law.at(np.array([0.3, 0.8])), 0.01 * np.array([0.1, 0.6]), rtol=0.15)
        assert estimate.sigma == pytest.approx(255 * np.sqrt((0.01 * light + 0.004**2).mean()), rel=0.05)


@pytest.mark.parametrize("black", [0.0, 0.2])
def test_texture_in_bright_parts_does_not_hide_the_noise_of_photons(black):
    """The flattest patches lie in the dark, where there is next to no noise."""
    rng = np.random.default_rng(7)
    light = 0.7 * np.tile(np.linspace(0, 1, 256), (256, 1)) ** 2
    light[:, 100:164] = np.abs(light[:, 100:164] + rng.normal(0, 0.05, (256, 64)))
    image = black + 0.002 * rng.poisson(light / 0.002) + rng.normal(0, 0.002, light.shape)
    truth = 255 * np.sqrt((0.002 * light + 0.002**2).mean())
    assert estimate_sigma(image.astype(np.float32)) == pytest.approx(truth, rel=0.1)


def test_texture_at_some_brightness_does_not_bend_the_gain():
    x = 0.15 + 0.7 * np.tile(np.linspace(0, 1, 256), (256, 1))
    rng = np.random.default_rng(2)
    texture = np.zeros_like(x)
    texture[:, 100:164] = rng.normal(0, 0.12, (256, 64))
    image = 0.01 * rng.poisson(np.clip(x + texture, 0, 1) / 0.01)
    assert estimate_noise(image.astype(np.float32)).gain == pytest.approx(0.01, rel=0.12)


def test_noise_that_falls_with_brightness_gives_no_negative_gain():
    x = 0.15 + 0.7 * (gradient() - 60) / 130
    image = x + np.random.default_rng(0).normal(0, 1, x.shape) * 0.08 * (1 - x)
    estimate = estimate_noise(image.astype(np.float32))
    assert estimate.gain == 0 and estimate.gain_interval[0] == 0
    assert 0.08 * 0.15 < estimate.read_noise < 0.08 * 0.85


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


def page(size: int, paper: int, ink: int, sigma: float) -> np.ndarray:
    """A page of text with margins, 8-bit."""
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSerif.ttf", size)
    image = Image.new("L", (700, 800), paper)
    words = "All human beings are born free and equal in dignity and rights. " * 100
    per_line = 580 * 2 // size
    for line in range(int(680 / (1.4 * size))):
        text = words[line * per_line : (line + 1) * per_line]
        ImageDraw.Draw(image).text((60, 60 + 1.4 * size * line), text, fill=ink, font=font)
    noise = np.random.default_rng(0).normal(0, sigma, (800, 700))
    return np.rint(np.asarray(image) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [10, 16, 32])
@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (230, 40)])
@pytest.mark.parametrize("sigma", [0, 3, 10])
def test_lettering_is_not_taken_for_noise(size, paper, ink, sigma, channels):
    noisy = page(size, paper, ink, sigma)
    found = estimate_sigma(noisy if channels == 1 else np.repeat(noisy[..., None], 3, axis=2))
    assert found == pytest.approx(sigma, rel=0.1, abs=0)


@pytest.mark.parametrize("size", [6, 8])
@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 200)])
def test_a_page_without_margins_full_of_tiny_letters_has_no_noise(size, paper, ink):
    assert estimate_sigma(page(size, paper, ink, 0)[70:470, 70:370]) == 0


@pytest.mark.parametrize("size", [28, 40])
@pytest.mark.parametrize("quality", [60, 85])
def test_pages_of_large_letters_in_jpeg_have_the_noise_of_jpeg_at_most(size, quality):
    _, encoded = cv2.imencode(".jpg", page(size, 255, 0, 0), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert estimate_sigma(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)) < 16


@pytest.mark.parametrize("sigma", [5, 10, 25])
@pytest.mark.parametrize("sky", [-0.5, -0.7, -1])
def test_dark_pictures_mostly_clipped_to_black_have_noise(sky, sigma):
    stars = np.zeros((320, 320))
    rng = np.random.default_rng(1)
    stars[rng.integers(320, size=50), rng.integers(320, size=50)] = rng.uniform(50, 250, 50)
    noisy = np.rint(stars + rng.normal(sky * sigma, sigma, stars.shape)).clip(0, 255).astype(np.uint8)
    assert sigma < estimate_sigma(noisy) < 2.5 * sigma  # of the largest values, which are all that is left


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("times", [2, 3])
def test_noisy_pictures_enlarged_by_repeating_pixels_are_no_drawings(axes, times):
    noisy = np.rint(np.random.default_rng(0).normal(128, 15, (120, 130))).clip(0, 255).astype(np.uint8)
    for axis in axes:
        noisy = noisy.repeat(times, axis)
    assert 5 < estimate_sigma(noisy) < 17


def test_photographs_with_white_areas_keep_their_noise():
    rng = np.random.default_rng(0)
    # a product on white: the paper is blown out, the product is not
    picture = cv2.resize(rng.uniform(60, 180, (8, 8)), (300, 300), interpolation=cv2.INTER_CUBIC)
    picture = np.pad(picture, 150, constant_values=400)
    noisy = np.rint(picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    assert estimate_sigma(noisy) == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize("side", [12, 16, 24, 48])
def test_small_images_are_read_without_bias(side):
    found = [
        estimate_noise(np.random.default_rng(seed).normal(0.5, 25 / 255, (side, side)).astype(np.float32)).sigma
        for seed in range(40)
    ]
    # the mean of 40, each within some 15 % at the smallest
    assert np.mean(found) == pytest.approx(25, rel=0.05)
