"""Noise that grows with brightness: what a network is told of it at each place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tiny_model import save_tiny

from denoise_se.denoiser import Denoiser
from denoise_se.level_grid import LevelGrid, level_by_brightness
from denoise_se.noise_estimation import estimate_noise
from denoise_se.noise_line import NoiseLaw
from denoise_se.scanlines import ArrayScanlines
from denoise_se.tiling import Span

GAIN, READ = 0.01, 0.01


def scene(height: int = 256, width: int = 300) -> np.ndarray:
    """A soft picture from 0.05 to 0.95, [H, W, 1]."""
    blurred = gaussian_filter(np.random.default_rng(0).normal(size=(height, width)), 12)
    low, high = np.quantile(blurred, (0.02, 0.98))
    return np.clip(0.05 + 0.9 * (blurred - low) / (high - low), 0.05, 0.95).astype(np.float32)[..., None]


def noisy(clean: np.ndarray, gain: float = GAIN, read: float = READ) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=clean.shape)
    return (clean + np.sqrt(gain * clean + read**2) * noise).astype(np.float32)


def test_the_level_of_photon_noise_follows_the_brightness() -> None:
    clean = scene()
    source = ArrayScanlines(noisy(clean))
    level = level_by_brightness(source, estimate_noise(source))
    assert isinstance(level, LevelGrid)
    truth = 255 * np.sqrt(GAIN * clean[..., 0] + READ**2)
    found = level.window(Span(0, clean.shape[0]), Span(0, clean.shape[1]))
    assert found.shape == truth.shape and np.median(np.abs(found / truth - 1)) < 0.1
    assert float(np.sqrt(np.mean(np.square(np.asarray(level))))) == pytest.approx(
        estimate_noise(source).level, rel=1e-3
    )


def test_the_level_of_photon_noise_on_a_cameras_offset_follows_the_light() -> None:
    """Counts of 16 bits: an offset of 100, 2 counts a photon, 3 counts of read noise."""
    light = 1000 * scene() ** 2
    rng = np.random.default_rng(3)
    counts = 100 + 2 * rng.poisson(light / 2) + rng.normal(0, 3, light.shape)
    source = ArrayScanlines(counts.round().astype(np.uint16))
    level = level_by_brightness(source, estimate_noise(source))
    assert isinstance(level, LevelGrid)
    truth = np.sqrt(2 * light[..., 0] + 9) / 257
    found = level.window(Span(0, light.shape[0]), Span(0, light.shape[1]))
    assert np.median(np.abs(found / truth - 1)) < 0.1


def test_the_level_of_multiplicative_noise_follows_the_brightness() -> None:
    clean = scene()
    source = ArrayScanlines((clean * (1 + 0.15 * np.random.default_rng(2).normal(size=clean.shape))).astype(np.float32))
    level = level_by_brightness(source, estimate_noise(source))
    assert isinstance(level, LevelGrid)
    truth = 255 * 0.15 * clean[..., 0]
    found = level.window(Span(0, clean.shape[0]), Span(0, clean.shape[1]))
    assert np.median(np.abs(found / truth - 1)) < 0.1
    assert float(np.sqrt(np.mean(np.square(np.asarray(level))))) == pytest.approx(
        estimate_noise(source).level, rel=1e-3
    )


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_the_same_noise_everywhere_has_one_level(sigma: float) -> None:
    source = ArrayScanlines(noisy(scene(), 0.0, sigma / 255))
    assert level_by_brightness(source, estimate_noise(source)) == estimate_noise(source).level


def test_a_picture_of_one_brightness_has_one_level() -> None:
    source = ArrayScanlines(noisy(np.full((128, 128, 1), 0.5, np.float32)))
    assert isinstance(level_by_brightness(source, estimate_noise(source)), float)


def test_between_the_centres_of_cells_levels_are_interpolated_whatever_the_window() -> None:
    grid = LevelGrid(np.array([[1, 3], [5, 7]], np.float32), NoiseLaw(0.0, 0.0))
    whole = grid.window(Span(0, 7), Span(0, 8))  # the last cell of the rows is cut by the image's end
    # centres lie at 1.5 and 5.5: half-way, at 3.5, is between pixels 3 and 4
    np.testing.assert_allclose(whole[0], [1, 1, 1.25, 1.75, 2.25, 2.75, 3, 3])
    np.testing.assert_allclose(whole[:, 0], [1, 1, 1.5, 2.5, 3.5, 4.5, 5])
    np.testing.assert_array_equal(grid.window(Span(2, 6), Span(3, 5)), whole[2:6, 3:5])


def test_cells_are_means_over_pixels_and_channels_in_units_of_the_range() -> None:
    pixels = np.zeros((5, 8, 3), np.uint8)
    pixels[:4, :4] = (51, 102, 0)  # a mean of 0.2
    pixels[4, 4:] = 255  # the only row of its cell
    found = LevelGrid(np.zeros((1, 1), np.float32), NoiseLaw(gain=1.0, floor=0.04)).like(ArrayScanlines(pixels))
    expected = 255 * np.sqrt(np.array([[0.2, 0], [0, 1]]) + 0.04)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6)


def test_a_network_of_white_noise_is_told_by_place_and_others_are_told_one_level(tmp_path: Path) -> None:
    source = ArrayScanlines(noisy(scene()))
    told = {}
    for noise in ("gaussian:0-55", "poisson-gaussian:gain=0.01,read=0.01", None):
        model = save_tiny(tmp_path / "m.safetensors", channels=1, training={"recipe": {"noise": noise}})
        told[noise] = Denoiser.load(model).noise_level(source)
    white, *others = told.values()
    assert isinstance(white, LevelGrid)
    assert others == [estimate_noise(source).level] * 2


def test_tiles_give_what_the_whole_picture_gives_and_the_mean_level_is_reported(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "m.safetensors", channels=1, training={"recipe": {"noise": "gaussian:0-55"}})
    picture = noisy(scene())
    whole, tiled = (Denoiser.load(model, backend="torch", tile=tile).denoise(picture) for tile in (0, 64))
    np.testing.assert_allclose(tiled.image, whole.image, atol=1e-4)
    level = Denoiser.load(model).noise_level(ArrayScanlines(picture))
    assert isinstance(level, LevelGrid) and whole.sigma == pytest.approx(float(np.asarray(level).mean()))
    by_hand = level.window(Span(0, picture.shape[0]), Span(0, picture.shape[1]))
    np.testing.assert_allclose(Denoiser.load(model, backend="torch")(picture, by_hand), whole.image, atol=1e-5)
