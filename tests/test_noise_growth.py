"""How noise grows with brightness, as it is estimated: photons, speckle, black levels, texture."""

from __future__ import annotations

import numpy as np
import pytest
from noisy_scenes import gradient

from denoise_se.noise_estimation import estimate_noise, estimate_sigma
from denoise_se.noise_line import NoiseLaw


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


@pytest.mark.parametrize("offset", [0, 1e4, 1e6])
def test_photons_upon_an_offset_are_counted_as_without(offset):
    light = gradient() / 255 * 400
    counts = np.random.default_rng(0).poisson(light) + offset
    estimate = estimate_noise(counts.astype(np.float32))
    assert estimate.gain == pytest.approx(1, rel=0.15)
    assert estimate.sigma / 255 == pytest.approx(light.mean() ** 0.5, rel=0.05)


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
