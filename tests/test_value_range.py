"""Which values of an image a network sees as 0 and as 1."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from denoise_se.denoiser import Denoiser
from denoise_se.image_io import read
from denoise_se.scanlines import ArrayScanlines
from denoise_se.value_range import ValueRange, value_range, white_level

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


def floats(highlight: float, share: float) -> ArrayScanlines:
    """100x100 values from 0 to 1, a share of them at `highlight`."""
    values = np.random.default_rng(0).uniform(0, 1, 10_000).astype(np.float32)
    values[: round(share * 10_000)] = highlight
    return ArrayScanlines(values.reshape(100, 100, 1))


@pytest.mark.parametrize(
    ("highlight", "share", "white"),
    [(2.0, 0.1, 1), (2.1, 0.1, 4), (8.0, 0.1, 8), (8.1, 0.1, 16), (-300, 0.1, 512), (255, 1, 256), (1e5, 0.004, 1)],
)
def test_floats_above_white_are_brought_into_the_range_but_for_a_few(highlight: float, share: float, white: float):
    assert white_level(floats(highlight, share)) == white


@pytest.mark.parametrize(
    ("largest", "level", "white"),
    [
        (16_384, 0.0, 65_535),  # more than a quarter of the range
        (4095, 0.0, 65_535 / 16),  # 12 bits: 65535 / 4095 is 16.004
        (4095, 4.0, 65_535 / 8),  # noise of 4 is not to become more than 50: 12.5 times at most
        (4095, 60.0, 65_535),
        (0, 0.0, 65_535),  # black all over
    ],
)
def test_a_dim_deep_image_is_raised_by_a_power_of_two_as_far_as_its_noise_allows(
    largest: int, level: float, white: float
) -> None:
    source = ArrayScanlines(np.full((8, 8, 1), largest, np.uint16))
    assert white_level(source, level) == pytest.approx(white)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_single_hot_pixels_do_not_make_a_dim_image_a_bright_one(dtype: type) -> None:
    full = np.iinfo(dtype).max if dtype == np.uint16 else 1.0
    values = np.random.default_rng(0).uniform(0.005, 0.03, (90, 100, 1))
    dim = (full * values).astype(dtype)
    hot = dim.copy()
    hot[::30, ::25] = full
    assert white_level(ArrayScanlines(hot), 2.0) == white_level(ArrayScanlines(dim), 2.0) < full
    hot[40:42, 40:43] = full  # a bead of 2x3 pixels is part of the picture
    assert white_level(ArrayScanlines(hot), 2.0) == full


@pytest.mark.parametrize("tile", ["auto", 64])
def test_hot_pixels_stay_and_spoil_nothing_else(tile: int | str) -> None:
    rng = np.random.default_rng(1)
    clean = np.tile(np.linspace(200, 1200, 160), (160, 1))
    noisy = (clean + rng.normal(0, 30, clean.shape)).round().astype(np.uint16)
    hot = noisy.copy()
    hot[40, 40], hot[100, 120] = 65535, 30000
    without, result = (Denoiser.load("gray", precision="fp32", tile=tile)(image, 30 / 257) for image in (noisy, hot))
    np.testing.assert_allclose([result[40, 40], result[100, 120]], [65535, 30000], rtol=0.03)
    far = np.ones(clean.shape, bool)
    far[36:45, 36:45] = far[96:105, 116:125] = False
    errors = [float(np.sqrt(np.mean(np.square(image - clean)[far]))) for image in (without, result)]
    assert errors[0] < 6 and errors[1] < 1.1 * errors[0]


def test_weak_noise_of_a_wide_range_is_raised_where_few_values_are_bright() -> None:
    """A field of stars: noise of 20 counts on a sky of 300, a few stars of up to 60,000."""
    rng = np.random.default_rng(2)
    clean = np.full((256, 256), 300.0)
    y, x = np.mgrid[:256, :256]
    for row, column, flux in zip(*rng.uniform(10, 246, (2, 12)), np.geomspace(2e3, 4e5, 12), strict=True):
        clean += flux / (2 * np.pi) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)
    noisy = (clean + rng.normal(0, 20, clean.shape)).round().clip(0, 65535).astype(np.uint16)
    clean = np.minimum(clean, 65535)
    assert white_level(ArrayScanlines(noisy[..., None])) == 65535
    assert white_level(ArrayScanlines(noisy[..., None]), 20 / 257) == 65535 / 16  # which 0.5 % exceed at most
    result = Denoiser.load("gray")(noisy, 20 / 257).astype(float)
    sky = clean < 301
    assert np.std((result - clean)[sky]) < 20 / 4
    bright = clean > 65535 / 16
    assert np.abs(result - noisy)[bright].max() < 5 * 20  # too bright to be seen by the network, and hardly changed


@pytest.mark.parametrize("model", ["gray", "color"])
def test_of_noise_too_weak_for_the_network_nothing_is_made_worse(model: str) -> None:
    rng = np.random.default_rng(3)
    picture = read(sorted((SAMPLES / "clean").iterdir())[0]).pixels[:160, :160] / 255
    clean = picture[..., 0] if model == "gray" else picture
    denoiser = Denoiser.load(model)
    for sigma in (0.05, 0.2, 0.5):
        noisy = (65535 * (clean + rng.normal(0, sigma / 255, clean.shape))).round().clip(0, 65535).astype(np.uint16)
        before, after = (
            np.sqrt(np.mean(np.square(image / 65535 - clean))) for image in (noisy, denoiser(noisy, sigma))
        )
        assert after < 1.02 * before


def test_highlights_of_floats_spoil_neither_themselves_nor_what_is_beside_them() -> None:
    rng = np.random.default_rng(0)
    clean = np.full((96, 96), 0.4, np.float32)
    clean[30:50, 30:50] = 12.0
    noisy = clean + rng.normal(0, 10 / 255, clean.shape).astype(np.float32)
    result = Denoiser.load("gray", precision="fp32")(noisy, 10)
    assert result[32:48, 32:48].mean() == pytest.approx(12.0, rel=0.005)
    assert np.abs(result[5:25] - 0.4).mean() < 0.02


def noisy_sample(sigma: float, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """A sample picture, [H, W, C] of floats in [0, 1], with noise of so many 8-bit units, and without."""
    picture = read(sorted((SAMPLES / "clean").iterdir())[0]).pixels[:160, :160] / 255
    clean = picture if channels == 3 else picture.mean(axis=2, keepdims=True)
    return clean + np.random.default_rng(4).normal(0, sigma / 255, clean.shape), clean


OTHER_RANGES = [
    (1.0, -0.5, np.float32),  # as many below 0 as above
    (4000.0, -1024.0, np.float32),  # a tomogram
    (200.0, 3000.0, np.uint16),  # counts with a large offset
    (0.1 * 65535, 0.6 * 65535, np.uint16),  # little contrast
]


@pytest.mark.parametrize(("model", "channels"), [("gray", 1), ("photo", 3)])
@pytest.mark.parametrize(("contrast", "offset", "dtype"), OTHER_RANGES)
def test_pictures_of_any_range_come_out_as_good_as_those_from_0_to_1(
    model: str, channels: int, contrast: float, offset: float, dtype: type
) -> None:
    noisy, clean = noisy_sample(10, channels)
    usual, other = noisy.astype(np.float32), noisy * contrast + offset
    other = (np.rint(other) if dtype == np.uint16 else other).astype(dtype)
    denoiser = Denoiser.load(model)
    with warnings.catch_warnings(action="ignore"):  # of values far outside of 0 to 1
        results = denoiser(usual), (denoiser(other).astype(float) - offset) / contrast
    errors = [float(np.sqrt(np.mean(np.square(result - clean)))) for result in results]
    assert errors[0] < 0.6 * 10 / 255
    assert errors[1] < 1.03 * errors[0]
    found = denoiser.noise_level(ArrayScanlines(other))
    if isinstance(found, float):  # that a photo was told once may be told again, be it above 255
        assert denoiser.noise_level(ArrayScanlines(other), found) == pytest.approx(found)


@pytest.mark.parametrize(("model", "channels"), [("gray", 1), ("photo", 3)])
@pytest.mark.parametrize("scale", [1e-6, 1e-12, 1e12])
def test_floats_of_any_scale_come_out_as_good(model: str, channels: int, scale: float) -> None:
    noisy, clean = noisy_sample(10, channels)
    denoiser = Denoiser.load(model)
    with warnings.catch_warnings(action="ignore"):  # of values far outside of 0 to 1
        results = [denoiser((noisy * by).astype(np.float32)).astype(float) / by for by in (1.0, scale)]
    errors = [float(np.sqrt(np.mean(np.square(result - clean)))) for result in results]
    assert errors[1] < 1.05 * errors[0]


def test_float64_that_float32_can_hardly_tell_apart_is_warned_of() -> None:
    noisy, _ = noisy_sample(10, 1)
    with pytest.warns(UserWarning, match="subtract an offset first"):
        Denoiser.load("gray")(noisy + 1e7)
    with warnings.catch_warnings(action="error"):
        Denoiser.load("gray")(noisy + 1e3)


@pytest.mark.parametrize(("contrast", "offset", "dtype"), OTHER_RANGES)
def test_the_range_holds_the_picture_and_its_noise(contrast: float, offset: float, dtype: type) -> None:
    noisy, _ = noisy_sample(10, 1)
    values = (noisy * contrast + offset).astype(dtype)
    full = 65535 if dtype == np.uint16 else 1
    seen = value_range(ArrayScanlines(values), 10 * contrast / full)
    inside = (values > seen.black) & (values < seen.black + seen.span)
    assert inside.mean() > 0.998
    assert seen.span < 2 * contrast * (noisy.max() - noisy.min())


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_usual_pictures_are_seen_from_0_on(dtype: type) -> None:
    full = 65535 if dtype == np.uint16 else 1.0
    ramp = np.linspace(0, 1, 96 * 96).reshape(96, 96, 1)
    dark = ramp + np.random.default_rng(0).normal(0, 0.1, ramp.shape)  # of which some is below 0
    for values in (ramp, 0.2 + 0.8 * ramp, dark, np.full((96, 96, 1), 0.7)):
        pixels = (full * (values.clip(0, 1) if dtype == np.uint16 else values)).astype(dtype)
        assert value_range(ArrayScanlines(pixels), 25.5) == ValueRange(0.0, full)
        assert value_range(ArrayScanlines(pixels)) == ValueRange(0.0, full)


def test_the_negative_of_a_dim_picture_comes_out_as_good_as_the_picture() -> None:
    # of 12 bits in 16, as X-ray pictures have it that are stored as 0 = white
    noisy, clean = noisy_sample(10, 1)
    counts = np.rint(4000 * noisy).clip(0, 65535).astype(np.uint16)
    denoiser = Denoiser.load("gray")
    results = denoiser(counts) / 4000, (65535 - denoiser(65535 - counts).astype(float)) / 4000
    errors = [float(np.sqrt(np.mean(np.square(result - clean)))) for result in results]
    assert errors[0] < 0.6 * 10 / 255 and errors[1] < 1.05 * errors[0]
    assert value_range(ArrayScanlines(65535 - counts)).white == 65535


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_few_dark_letters_on_a_bright_page_are_not_lost(dtype: type) -> None:
    page = np.full((240, 320), 217, np.uint8)
    cv2.putText(page, "Text", (40, 120), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 25, 1, cv2.LINE_AA)
    letters = page < 128  # 0.1 % of the page
    noisy = page / 255 + np.random.default_rng(0).normal(0, 8 / 255, page.shape)
    full = 65535 if dtype == np.uint16 else 1.0
    pixels = (np.rint(noisy * full) if dtype == np.uint16 else noisy).astype(dtype)
    restored = 255 / full * Denoiser.load("gray")(pixels).astype(float)
    assert np.sqrt(np.mean(np.square(restored - page)[letters])) < 9 and letters.mean() < 0.005
    assert np.abs(restored - page)[:80].mean() < 0.5
    least = 255 / full * value_range(ArrayScanlines(pixels[..., None]), 0.0).black
    assert least < 60  # and they are seen where the picture is shown


def test_specks_beyond_the_range_stay_and_spoil_nothing_else() -> None:
    rng = np.random.default_rng(1)
    clean = np.tile(np.linspace(30_000, 32_000, 160), (160, 1))
    noisy = (clean + rng.normal(0, 60, clean.shape)).round().astype(np.uint16)
    specks = noisy.copy()
    specks[40, 40], specks[100, 120] = 0, 65535
    denoiser = Denoiser.load("gray", precision="fp32")
    without, result = (denoiser(image, 60 / 257) for image in (noisy, specks))
    np.testing.assert_allclose([result[40, 40], result[100, 120]], [0, 65535], atol=2500)
    far = np.ones(clean.shape, bool)
    far[36:45, 36:45] = far[96:105, 116:125] = False
    errors = [float(np.sqrt(np.mean(np.square(image - clean)[far]))) for image in (without, result)]
    assert errors[0] < 12 and errors[1] < 1.1 * errors[0]
