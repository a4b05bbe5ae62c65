"""PSNR without a reference: close to the true one where the model of the noise holds, no number where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from denoise_se.noise_estimation import estimate_noise
from denoise_se.quality import Pixels, QualityEstimate, estimate_psnr, looks_clipped

SIZE = 256


def scene(low: float = 0.35, high: float = 0.65) -> Pixels:
    """Soft shapes from `low` to `high`."""
    shapes = gaussian_filter(np.random.default_rng(1).normal(size=(SIZE, SIZE)), 6)
    shapes = (shapes - shapes.min()) / np.ptp(shapes)
    return (low + (high - low) * shapes).astype(np.float32)


def noisy_scene(clean: Pixels, sigma: float | Pixels, seed: int = 0) -> Pixels:
    """With noise of `sigma` in 8-bit units."""
    noise = np.random.default_rng(seed).normal(size=clean.shape)
    return (clean + noise * sigma / 255).astype(np.float32)


def smooth(pixels: Pixels) -> Pixels:
    return np.asarray(gaussian_filter(pixels, 1.0), np.float32)


def bent(pixels: Pixels) -> Pixels:
    """Not linear: shrinks details, as wavelet methods do."""
    base = gaussian_filter(pixels, 2.0)
    detail = pixels - base
    return np.asarray(base + detail * detail**2 / (detail**2 + 0.02), np.float32)


def truth(clean: Pixels, result: Pixels) -> float:
    return float(-10 * np.log10(np.mean(np.square(clean.astype(np.float64) - result))))


@pytest.mark.parametrize("sigma", [5, 25, 50])
@pytest.mark.parametrize("denoise", [smooth, bent])
def test_the_estimate_for_a_known_level_is_the_true_psnr_within_its_margin(denoise, sigma: float) -> None:
    clean = scene()
    noisy = noisy_scene(clean, sigma)
    found = estimate_psnr(denoise, [noisy], estimate_noise(noisy), sigma=sigma, clipped=False)
    assert found.psnr is not None and found.margin is not None and found.reason == ""
    assert abs(found.psnr - truth(clean, denoise(noisy))) < min(found.margin, 0.4)


def test_the_margin_holds_the_truth_in_about_95_of_100_images() -> None:
    clean = scene()
    inside = 0
    for seed in range(60):
        noisy = noisy_scene(clean, 25, seed)
        noise = replace(estimate_noise(noisy), sigma_interval=(24.0, 26.0))
        found = estimate_psnr(smooth, [noisy], noise, sigma=25, clipped=False)
        assert found.psnr is not None and found.margin is not None
        inside += abs(found.psnr - truth(clean, smooth(noisy))) <= found.margin
    # with 95 of 100, fewer than 52 of 60 come once in 250 times
    assert inside >= 52


def test_the_input_itself_has_the_psnr_of_its_noise() -> None:
    noisy = noisy_scene(scene(), 25)
    found = estimate_psnr(lambda pixels: pixels, [noisy], estimate_noise(noisy), sigma=25, clipped=False)
    # 20 log10(255 / 25)
    assert found.psnr == pytest.approx(20.17, abs=0.02)


def test_an_estimated_level_does_too_with_a_wider_margin() -> None:
    clean = scene()
    noisy = noisy_scene(clean, 25)
    noise = estimate_noise(noisy)
    known = estimate_psnr(smooth, [noisy], noise, sigma=25, clipped=False)
    found = estimate_psnr(smooth, [noisy], noise, clipped=False)
    assert known.margin is not None and found.margin is not None and found.psnr is not None
    assert known.margin < found.margin and abs(found.psnr - truth(clean, smooth(noisy))) < found.margin


def test_of_noise_that_grows_with_brightness_a_level_that_is_given_says_little() -> None:
    clean = scene(0.2, 0.8)
    photons = np.random.default_rng(0).normal(size=clean.shape) * np.sqrt(0.01 * clean)
    noisy = (clean + photons).astype(np.float32)
    noise = estimate_noise(noisy)
    assert noise.gain_interval[0] > 0.005
    given, found = (
        estimate_psnr(lambda pixels: pixels, [noisy], noise, sigma=sigma, clipped=False)
        for sigma in (noise.sigma, None)
    )
    assert given.margin is not None and found.margin is not None
    assert given.margin == pytest.approx(found.margin, rel=0.05)  # what was estimated counts in both


@pytest.mark.parametrize(("gain", "speckle"), [(0.01, 0.0), (0.0, 0.1)])
def test_noise_that_grows_with_brightness_is_weighed_by_brightness(gain: float, speckle: float) -> None:
    clean = scene(0.2, 0.8)
    read = 0.02
    noisy = noisy_scene(clean, 255 * np.sqrt(gain * clean + (speckle * clean) ** 2 + read**2))
    noise = replace(
        estimate_noise(noisy),
        gain=gain,
        gain_interval=(gain, gain),
        speckle=speckle,
        speckle_interval=(speckle, speckle),
        read_noise=read,
    )

    def half_smooth(pixels: Pixels) -> Pixels:
        """Leaves bright pixels alone, where this noise is."""
        return np.where(clean > 0.5, pixels, smooth(pixels)).astype(np.float32)

    found = estimate_psnr(half_smooth, [noisy], noise, clipped=False)
    assert found.psnr == pytest.approx(truth(clean, half_smooth(noisy)), abs=0.15)
    flat = estimate_psnr(
        half_smooth, [noisy], replace(noise, gain_interval=(0.0, 0.02), speckle_interval=(0.0, 0.2)), clipped=False
    )
    assert flat.psnr is not None and abs(flat.psnr - truth(clean, half_smooth(noisy))) > 0.3


def test_several_windows_count_by_their_pixels_and_the_same_seed_gives_the_same_number() -> None:
    noisy = noisy_scene(scene(), 25)
    noise = estimate_noise(noisy)
    parts = [noisy[:100], noisy[100:]]
    first = estimate_psnr(lambda pixels: pixels * 0.9, parts, noise, sigma=25, clipped=False)
    whole = estimate_psnr(lambda pixels: pixels * 0.9, [noisy], noise, sigma=25, clipped=False)
    assert first.psnr == pytest.approx(whole.psnr, abs=1e-4)
    assert first == estimate_psnr(lambda pixels: pixels * 0.9, parts, noise, sigma=25, clipped=False)


def refused(found: QualityEstimate) -> str:
    assert found.psnr is None and found.margin is None
    return found.reason


def test_correlated_noise_gives_a_reason_and_no_number() -> None:
    clean = scene()
    noise = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), 0.8)
    noisy = (clean + noise / noise.std() * 15 / 255).astype(np.float32)
    assert "correlated" in refused(estimate_psnr(smooth, [noisy], estimate_noise(noisy), clipped=False))


@pytest.mark.parametrize("sigma", [5.0, 60.0])
def test_a_given_level_that_the_image_contradicts_gives_a_reason(sigma: float) -> None:
    noisy = noisy_scene(scene(), 25)
    reason = refused(estimate_psnr(smooth, [noisy], estimate_noise(noisy), sigma=sigma, clipped=False))
    assert f"sigma {sigma:g} does not fit" in reason and (" 25." in reason or " 24." in reason)


def test_images_without_noise_or_too_small_for_it_give_a_reason() -> None:
    tiny = np.full((3, 5), 0.5, np.float32)
    assert "too small" in refused(estimate_psnr(smooth, [tiny], estimate_noise(tiny)))
    drawing = np.kron(np.eye(16, dtype=np.float32), np.ones((16, 16), np.float32)) * 0.5 + 0.25
    assert "no noise" in refused(estimate_psnr(smooth, [drawing], estimate_noise(drawing)))


def test_an_image_mostly_near_black_gives_a_reason_when_noise_was_cut_off_there() -> None:
    clean = scene(0.0, 0.2)
    noisy = np.clip(noisy_scene(clean, 25), 0, 1)
    reason = refused(estimate_psnr(smooth, [noisy], estimate_noise(noisy), sigma=25))
    assert "near black or white" in reason and "%" in reason


def test_a_few_clipped_pixels_are_left_out() -> None:
    clean = scene()
    clean[:12] = 0
    noisy = np.clip(noisy_scene(clean, 25), 0, 1)
    found = estimate_psnr(smooth, [noisy], estimate_noise(noisy), sigma=25)
    assert found.psnr == pytest.approx(truth(clean[16:], smooth(noisy)[16:]), abs=0.4)


def test_an_error_too_small_to_tell_gives_a_reason() -> None:
    clean = np.full((SIZE, SIZE), 0.5, np.float32)
    noisy = noisy_scene(clean, 25)
    found = estimate_psnr(lambda pixels: np.full_like(pixels, pixels.mean()), [noisy], estimate_noise(noisy))
    assert "too small to tell" in refused(found)


def test_whole_numbers_are_clipped_and_floats_only_where_they_touch_an_end() -> None:
    assert looks_clipped(np.full((2, 2), 100, np.uint8))
    assert looks_clipped(np.array([0.0, 0.3])) and looks_clipped(np.array([1.0, 0.3]))
    assert not looks_clipped(np.array([-0.2, 1.4]))
