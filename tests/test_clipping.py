"""Noise that files cut off at black and white: it is found, told and undone."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patterns import PATTERNS
from tiny_model import save_tiny

from denoise_se import Denoiser
from denoise_se.clipping import PAGE, ClippedNoise, clipped_moments, ends_reached
from denoise_se.errors import UsageError
from denoise_se.image_io import read
from denoise_se.level_grid import UNCUT, LevelGrid, cut_off_by, held, level_in_file, noise_cut_off
from denoise_se.metrics import psnr
from denoise_se.noise_estimation import estimate_noise
from denoise_se.noise_line import NoiseLaw
from denoise_se.scanlines import ArrayScanlines
from denoise_se.tiling import Span

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
SIGMA = 25.0
WHITE_NOISE = NoiseLaw(0.0, (SIGMA / 255) ** 2)


def in_file(clean: np.ndarray, sigma: float = SIGMA, seed: int = 0) -> np.ndarray:
    """A clean image in 8-bit units with noise as an 8-bit file holds it."""
    noisy = clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def page(value: float, *shape: int) -> np.ndarray:
    return np.full(shape or (128, 128), value)


def test_half_of_a_normal_distribution():
    # the half-normal: a mean of 1 / sqrt(2 pi), a mean square of 1 / 2
    mean, variance = clipped_moments(np.array([-1e6]), np.array([0.0]))
    assert mean[0] == pytest.approx(-1 / math.sqrt(2 * math.pi))
    assert variance[0] == pytest.approx(0.5 - 1 / (2 * math.pi))


@pytest.mark.parametrize(
    ("law", "brightness"),
    [
        *((WHITE_NOISE, brightness) for brightness in (0.0, 0.02, 0.1, 0.5, 0.93, 1.0)),
        *((NoiseLaw(0.02, 1e-4), brightness) for brightness in (0.5, 0.93, 1.0)),
        *((NoiseLaw(0.0, 1e-4, 0.3), brightness) for brightness in (0.7, 0.93, 1.0)),
    ],
)
def test_mean_and_variance_are_those_of_pixels_that_were_cut_off(law, brightness):
    sigma = float(law.at(np.float64(brightness))) ** 0.5
    pixels = np.clip(brightness + np.random.default_rng(1).normal(0, sigma, 400_000), 0, 1)
    noise = ClippedNoise(law, black=True, white=True)
    mean = np.array([pixels.mean()], np.float32)
    slope = 3  # of the brightness over the mean, at its steepest, at white
    assert noise.unclipped(mean)[0] == pytest.approx(brightness, abs=slope * 4 * sigma / 400_000**0.5 + 1e-3)
    assert noise.at(mean)[0] == pytest.approx(pixels.var(), rel=0.03)
    assert noise.before(mean)[0] == pytest.approx(sigma**2, rel=0.03)
    shares = np.mean(pixels == 0), np.mean(pixels == 1)
    assert np.ravel(noise.cut_off(mean)) == pytest.approx(shares, abs=0.01)


@given(black=st.booleans(), white=st.booleans(), sigma=st.floats(1, 75))
@settings(deadline=None, max_examples=30)
def test_only_ends_that_cut_something_off_are_mended(black, white, sigma):
    noise = ClippedNoise(NoiseLaw(0.0, (sigma / 255) ** 2), black, white)
    means = np.linspace(-0.2, 1.2, 141, dtype=np.float32)
    mended = noise.unclipped(means)
    assert mended.dtype == np.float32 and (np.diff(mended) >= 0).all()
    reach = 5 * sigma / 255
    far = (means > reach if black else means > -1) & (means < 1 - reach if white else means < 2)
    np.testing.assert_allclose(mended[far], means[far], atol=2e-4)
    assert not black or (mended[means < 0] == 0).all()
    assert not white or (mended[means > 1] == 1).all()


@pytest.mark.parametrize(
    ("pixels", "shares"),
    [
        (np.array([[0, 0, 7, 255]], np.uint8), (0.5, 0.25)),
        (np.array([[0, 255, 7, 65535]], np.uint16), (0.25, 0.25)),
        (np.array([[0, 0.5, 1, 1]], np.float32), (0.25, 0.5)),
        (np.array([[-0.1, 0, 1, 1]], np.float32), (0.0, 0.5)),  # not cut off at black
        (np.array([[0, 0.5, 1, 1.1]], np.float64), (0.25, 0.0)),
    ],
)
def test_values_at_the_ends_are_counted_where_none_lie_beyond(pixels, shares):
    assert ends_reached(ArrayScanlines(pixels[..., None])) == shares


def test_what_is_left_of_the_noise_is_told_place_by_place():
    clean = np.concatenate([page(255), page(128), page(0)], axis=1)
    level = level_in_file(ArrayScanlines(in_file(clean)[..., None]), SIGMA)
    assert isinstance(level, LevelGrid) and isinstance(level.law, ClippedNoise)
    assert (level.law.black, level.law.white) == (True, True)
    left = SIGMA * (0.5 - 1 / (2 * math.pi)) ** 0.5  # of a half-normal
    white, middle, black = (np.asarray(level)[:, start : start + 24].mean() for start in (4, 36, 68))
    # a little more: the means of a few noisy pixels, some of which look less cut off than they are
    assert (white, middle, black) == pytest.approx((left, SIGMA, left), rel=0.08)
    assert level.uncut is not None
    np.testing.assert_allclose(level.uncut, SIGMA, rtol=1e-5)


@pytest.mark.parametrize(
    "pixels",
    [
        in_file(page(128), 10),  # far from both ends
        np.clip(in_file(page(255)), 10, 240),  # of less contrast since
        (page(1) + np.random.default_rng(0).normal(0, 0.1, (128, 128))).astype(np.float32),  # not cut off
    ],
)
def test_noise_that_was_not_cut_off_has_one_level(pixels):
    assert level_in_file(ArrayScanlines(pixels[..., None]), 10.0) == 10.0


def test_counts_of_photons_are_never_below_black():
    """Poisson's zeros are right as they are: their mean is not moved."""
    truth = np.repeat([0.02, 0.05, 0.1, 0.6], 32)[:, None] * np.ones((128, 128))
    counts = np.random.default_rng(0).poisson(10 * truth)
    picture = (25 * counts.clip(0, 10)).astype(np.uint8)[..., None]
    denoiser, means = Denoiser.load("gray"), np.array([0.02, 0.05, 0.1], np.float32)
    level = denoiser.noise_level(ArrayScanlines(picture))
    assert isinstance(level, LevelGrid)
    np.testing.assert_array_equal(cut_off_by(level).unclipped(means), means)
    assert denoiser.noise_level(ArrayScanlines(picture), 30) == 30  # the brightest are far from white


def test_of_a_level_that_is_too_high_no_more_is_undone_than_there_is():
    clean = np.concatenate([page(242), page(235), page(13), page(255)], axis=1)
    noisy = in_file(clean, 5)
    result = Denoiser.load("gray")(noisy, SIGMA)
    for index, value in enumerate((242, 235, 13, 255)):
        assert abs(result[16:-16, 128 * index + 16 : 128 * index + 112].mean() - value) < 1.5


def test_overexposed_sky_is_no_noise_that_was_cut_off():
    sky, cloud = page(255).astype(np.uint8), in_file(page(245), 2)
    picture = np.concatenate([sky, cloud])[..., None]
    assert level_in_file(ArrayScanlines(picture), 15.0) == 15.0  # of such noise much of the cloud would be white


def test_a_frame_that_is_black_without_noise_was_not_cut_off():
    picture = np.pad(in_file(page(230), 3), 8)
    level = level_in_file(ArrayScanlines(picture[..., None]), SIGMA)  # which would be cut off, were it as strong
    assert level == SIGMA


@pytest.mark.parametrize("model", ["gray", "color", "gray-best", "color-best"])
@pytest.mark.parametrize("value", [0, 255])
def test_a_page_that_is_white_or_black_under_noise_comes_out_so(model, value):
    noisy = in_file(page(value, 128, 128, 3) if "color" in model else page(value))
    denoiser = Denoiser.load(model)
    assert abs(noisy.mean() - value) > 9  # the mean of 25 codes of noise, cut off, is 10 codes away
    for sigma in (None, SIGMA):
        found = denoiser.denoise(noisy, sigma)
        assert abs(found.image.mean() - value) < 0.6
        assert found.sigma == (pytest.approx(SIGMA, rel=0.05) if sigma is None else SIGMA)


@pytest.mark.parametrize("value", [0, 255])
def test_photo_which_learnt_some_of_it_leaves_a_page_white_or_black_too(value):
    photo, noisy = Denoiser.load("photo"), in_file(page(value, 128, 128, 3))
    found = photo.denoise(noisy)
    assert abs(found.image.mean() - value) < 1.5  # 8 and 9 without
    assert found.sigma is None
    np.testing.assert_array_equal(photo(noisy, SIGMA), found.image)  # it takes no level
    floats = photo(noisy / np.float32(255))
    assert abs(255 * floats.mean() - value) < 1.5


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.4, 0.4), (0.2, 0.7), (1.0, 1.0)])
def test_what_a_network_leaves_is_put_right_and_no_more(shares):
    noise = ClippedNoise(WHITE_NOISE, black=True, white=True)
    shown = noise.page(3, np.dtype(np.uint8)) / np.float32(255)
    black, white = (share * SIGMA / 255 / math.sqrt(2 * math.pi) for share in shares)  # of a half-normal
    result = np.full_like(shown, black)
    result[:, PAGE:] = 1 - white
    left = noise.as_left(result)
    assert left.left == pytest.approx(shares, abs=1e-3)
    assert left.unclipped(np.float32([black, 1 - white])) == pytest.approx([0, 1], abs=2e-3)
    inner = np.float32([black + 0.05, 0.95 - white])  # less is undone away from the ends
    assert (np.abs(left.unclipped(inner) - inner) <= np.array([black, white]) + 1e-6).all()
    learnt = noise.as_left(np.where(result < 0.5, -0.01, 1.01))  # a network may go beyond
    np.testing.assert_array_equal(learnt.unclipped(np.float32([0.01, 0.5, 0.99])), np.float32([0.01, 0.5, 0.99]))


def test_the_page_that_a_network_is_shown_is_black_and_white_under_the_noise():
    cut, black_only = (ClippedNoise(WHITE_NOISE, black=True, white=white) for white in (True, False))
    for dtype, one in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1)):
        shown = cut.page(3, np.dtype(dtype))
        assert shown.dtype == dtype and shown.shape == (PAGE, 2 * PAGE, 3)
        half = SIGMA / 255 / math.sqrt(2 * math.pi)
        assert shown[:, :PAGE].mean() / one == pytest.approx(half, rel=0.05)
        assert 1 - shown[:, PAGE:].mean() / one == pytest.approx(half, rel=0.05)
    assert black_only.page(1, np.dtype(np.float32)).max() > 1.2


def test_only_what_shows_independent_noise_at_its_ends_is_looked_at_closely(monkeypatch):
    """Photographs as cameras write them cost no estimate, and stay as `photo` makes them."""
    monkeypatch.setattr("denoise_se.level_grid.estimate_noise", lambda source: pytest.fail("estimated"))
    photo = Denoiser.load("photo")
    for name in ("chelsea", "coffee"):
        clean = read(SAMPLES / "clean" / f"{name}.png").pixels
        assert photo.noise_level(ArrayScanlines(clean)) == UNCUT
    overexposed = np.concatenate([page(255), in_file(page(230), 2)]).astype(np.uint8)[..., None]
    assert photo.noise_level(ArrayScanlines(overexposed)) == UNCUT
    for shape in ((1, 1, 3), (1, 50, 3), (3, 5, 1)):
        assert photo.noise_level(ArrayScanlines(np.zeros(shape, np.uint8))) == UNCUT


def test_the_same_is_found_whether_the_noise_was_estimated_before_or_not():
    for sigma in (2, 3, 6, 25):
        source = ArrayScanlines(in_file(np.concatenate([page(255), page(120)], axis=1), sigma)[..., None])
        assert noise_cut_off(source) == noise_cut_off(source, estimate_noise(source))


def test_how_noise_was_cut_off_is_no_level_for_a_network_that_needs_one():
    with pytest.raises(UsageError, match="gray is told a noise level"):
        Denoiser.load("gray")(in_file(page(255)), UNCUT)
    with pytest.raises(UsageError, match="sigma must be a number from 0 to 255"):
        Denoiser.load("photo")(in_file(page(255)), -5.0)


def test_noise_that_hides_in_an_overexposed_picture_is_seen():
    noisy = np.concatenate([page(255, 900, 128), in_file(page(250, 200, 128), 12)]).astype(np.uint8)[..., None]
    noise = noise_cut_off(ArrayScanlines(noisy))
    assert noise.white and not noise.black
    assert float(noise.law.at(np.float64(1))) ** 0.5 * 255 == pytest.approx(12, rel=0.15)


@pytest.mark.parametrize(("model", "name"), [("gray", "camera"), ("color", "chelsea"), ("photo", "chelsea")])
def test_a_file_is_denoised_as_well_as_noise_that_was_not_cut_off(model, name):
    clean = read(SAMPLES / "clean" / f"{name}.png").pixels.astype(np.float32)
    clean = (clean - 60).clip(0, 255)  # much of it at black
    denoiser = Denoiser.load(model)
    whole = clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape).astype(np.float32)
    best = psnr(clean, 255 * denoiser(whole / 255, SIGMA).clip(0, 1), data_range=255)
    assert psnr(clean, denoiser(in_file(clean), SIGMA).astype(np.float32), data_range=255) > best - 0.2


def test_tiles_give_what_the_whole_picture_gives():
    noisy = in_file(np.linspace(-40, 300, 192 * 160).reshape(192, 160).clip(0, 255))
    whole, tiled = (Denoiser.load("gray", backend="torch", tile=tile)(noisy, SIGMA).astype(int) for tile in (0, 64))
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize("noise", ["gaussian:0-55", "gaussian:0-55+quantise:8", "speckle:0.1", None])
def test_a_network_that_learnt_it_is_told_of_the_noise_alone(noise, tmp_path):
    model = save_tiny(tmp_path / "m.safetensors", channels=1, training={"recipe": {"noise": noise}})
    level = Denoiser.load(model).noise_level(ArrayScanlines(in_file(page(255))[..., None]), SIGMA)
    assert isinstance(level, LevelGrid) if noise == "gaussian:0-55" else level == SIGMA


def test_letters_are_no_reason_to_leave_a_page_grey():
    # the picture, not the noise, correlates from pixel to pixel
    clean = PATTERNS["16-pixel letters"]()[..., 0].astype(float)
    denoiser, noisy = Denoiser.load("gray"), in_file(clean)
    for sigma in (None, SIGMA):
        level = denoiser.noise_level(ArrayScanlines(noisy[..., None]), sigma)
        assert isinstance(level, LevelGrid) and isinstance(level.law, ClippedNoise)
    assert psnr(clean, denoiser(noisy, SIGMA).astype(float), data_range=255) > 26.5  # noisy 22.6; 24.9 without


def test_grain_that_is_wider_than_a_pixel_is_left_to_the_estimate():
    from scipy.ndimage import gaussian_filter

    grain = gaussian_filter(np.random.default_rng(0).normal(size=(256, 256)), 0.8)
    picture = (page(240, 256, 256) + 20 * grain / grain.std()).round().clip(0, 255).astype(np.uint8)
    denoiser, source = Denoiser.load("gray"), ArrayScanlines(picture[..., None])
    assert isinstance(denoiser.noise_level(source), float) and denoiser.noise_level(source, 20) == 20


def test_channels_that_are_denoised_one_by_one_are_told_one_level():
    noisy = in_file(np.multiply.outer(np.ones((64, 64)), [255.0, 128.0, 0.0]))
    assert Denoiser.load("gray").noise_level(ArrayScanlines(noisy), SIGMA) == SIGMA
    assert isinstance(Denoiser.load("color").noise_level(ArrayScanlines(noisy), SIGMA), LevelGrid)


@pytest.mark.parametrize("sigma", [25.0, 75.0])  # the second is above that of any training
def test_16_bits_and_floats_come_out_white_too(sigma):
    noisy = in_file(page(255), sigma)
    for picture, top in ((noisy.astype(np.uint16) * 257, 65535), (noisy / np.float32(255), 1)):
        assert abs(Denoiser.load("gray")(picture, sigma).mean() / top - 1) < 0.005


def test_windows_of_a_level_that_is_held_are_not_looked_at_anew():
    source = ArrayScanlines(in_file(np.concatenate([page(255), page(90)], axis=1))[..., None])
    level = Denoiser.load("gray").noise_level(source, SIGMA)
    assert isinstance(level, LevelGrid)
    beyond = ArrayScanlines(source.pixels.astype(np.float32) / 255 * 1.01)  # its ends are no longer those of a file
    again = held(level, beyond)
    assert isinstance(again, LevelGrid) and again.law == level.law
    one = held(12.5, beyond)
    assert isinstance(one, LevelGrid) and one.uncut is None
    np.testing.assert_array_equal(one.window(Span(0, 128), Span(0, 256)), np.full((128, 256), 12.5))


@pytest.mark.parametrize("model", ["gray", "color"])
def test_a_map_that_is_the_same_all_over_counts_as_a_number(model):
    noisy = in_file(page(250, 64, 96) if model == "gray" else page(250, 64, 96, 3))
    denoiser = Denoiser.load(model)
    found = denoiser.denoise(noisy, np.full((64, 96), SIGMA))
    np.testing.assert_array_equal(found.image, denoiser(noisy, SIGMA))
    assert found.sigma == SIGMA
    np.testing.assert_array_equal(denoiser(noisy, np.zeros((64, 96))), noisy)


def test_a_level_travels_to_another_process():
    level = Denoiser.load("gray").noise_level(ArrayScanlines(in_file(page(255))[..., None]), SIGMA)
    assert isinstance(level, LevelGrid)
    copy = pickle.loads(pickle.dumps(level))
    means = np.linspace(0, 1, 50, dtype=np.float32)
    np.testing.assert_array_equal(cut_off_by(copy).unclipped(means), cut_off_by(level).unclipped(means))
    np.testing.assert_array_equal(np.asarray(copy), np.asarray(level))
