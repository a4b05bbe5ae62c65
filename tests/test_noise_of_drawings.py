"""What is estimated of lettering, enlarged pictures, white areas and small images."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from denoise_se.noise_estimation import estimate_noise, estimate_sigma


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
