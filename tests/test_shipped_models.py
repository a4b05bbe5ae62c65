"""The shipped weights: each loads, has its card, and does to the samples what the README says."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from patterns import PATTERNS, before_and_after, in_pure_colours
from scipy.ndimage import gaussian_filter

from denoise_se import Denoiser
from denoise_se.calibration import MOST_LOSS, read_calibration
from denoise_se.checkpoint import ALIASES, CHECKPOINTS, load_checkpoint, open_checkpoint
from denoise_se.image_io import read
from denoise_se.metrics import psnr
from denoise_se.noise_estimation import estimate_noise

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


def sample(name):
    return (read(SAMPLES / folder / f"{name}.png").pixels for folder in ("noisy", "clean"))


@pytest.mark.parametrize("name", [*CHECKPOINTS, *ALIASES])
def test_every_name_of_the_catalogue_loads_and_has_its_record_and_card(name):
    checkpoint = load_checkpoint(name)
    entry = CHECKPOINTS[ALIASES.get(name, name)]
    assert checkpoint.config.channels == entry.channels
    assert {"data", "recipe", "steps", "seconds", "hardware", "commit"} <= set(checkpoint.training)
    card = resources.files("denoise_se.checkpoints").joinpath(entry.file).with_suffix(".md").read_text()
    assert all(word in card for word in ("## Training", "## Measured", "## Limits", "Licence"))


@pytest.mark.parametrize(
    ("model", "name", "gain"),
    [
        ("gray", "camera", 7.5),
        ("color", "chelsea", 9.0),
        ("photo", "astronaut", 1.4),
        ("gray-best", "camera", 7.5),
        ("color-best", "chelsea", 9.0),
    ],
)
def test_a_sample_gets_better_by_this_many_decibels(model, name, gain):
    noisy, clean = sample(name)
    result = Denoiser.load(model)(noisy)
    assert psnr(clean, result, data_range=255) > psnr(clean, noisy, data_range=255) + gain


def test_the_estimated_sigma_serves_as_well_as_the_true_one():
    noisy, clean = sample("chelsea")
    denoiser = Denoiser.load("color")
    told, estimated = (psnr(clean, denoiser(noisy, sigma=s), data_range=255) for s in (25, None))
    assert estimated > told - 0.1


def test_coarse_grain_is_taken_out_at_a_level_above_its_sigma():
    _, clean = sample("coffee")
    grain = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (0.7, 0.7, 0))
    noisy = np.clip(np.rint(clean + 10 * grain / grain.std()), 0, 255).astype(np.uint8)
    denoiser, sigma = Denoiser.load("color"), estimate_noise(noisy).sigma
    told, auto = (psnr(clean, denoiser(noisy, s), data_range=255) for s in (sigma, None))
    assert sigma == pytest.approx(10, rel=0.1) and auto > told + 0.8


@pytest.mark.parametrize("model", ["color", "photo"])
def test_the_result_does_not_depend_on_the_tile_size(model):
    noisy, _ = sample("coffee")
    whole, tiled = (Denoiser.load(model, tile=tile)(noisy, sigma=15).astype(int) for tile in (0, 96))
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("model", list(CHECKPOINTS))
def test_the_result_on_floats_does_not_depend_on_the_tile_size(model):
    noisy, _ = sample("camera" if model.startswith("gray") else "coffee")
    noisy = (noisy[:121, :151] / 255).astype(np.float32)  # odd windows, whose sums bf16 rounds in another order
    whole, *tiled = (Denoiser.load(model, tile=tile)(noisy, sigma=15) for tile in (0, 32, 64))
    assert max(np.abs(whole - other).max() for other in tiled) <= 1e-4


@pytest.mark.parametrize(("best", "name"), [("gray-best", "camera"), ("color-best", "chelsea")])
def test_the_best_tier_is_better_than_the_fast_one(best, name):
    noisy, clean = sample(name)
    fast, slow = (Denoiser.load(model)(noisy, sigma=25) for model in (best.removesuffix("-best"), best))
    assert psnr(clean, slow, data_range=255) > psnr(clean, fast, data_range=255)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gray", "camera"),
        ("color", "chelsea"),
        ("photo", "astronaut"),
        ("gray-best", "camera"),
        ("color-best", "chelsea"),
    ],
)
def test_int8_is_calibrated_for_these_weights_and_costs_next_to_nothing(model, name):
    pytest.importorskip("openvino")
    found = read_calibration(open_checkpoint(model))
    assert found is not None, f"denoise-se quantize {model} --clean FOLDER after shipping new weights"
    noisy, clean = (pixels[64:256, 64:256] for pixels in sample(name))
    engines = {p: Denoiser.load(model, device="cpu", backend="openvino", precision=p, tile=0) for p in ("fp32", "int8")}
    results = {precision: engine(noisy, sigma=25) for precision, engine in engines.items()}
    full, integers = (psnr(clean, results[precision], data_range=255) for precision in ("fp32", "int8"))
    assert found.worst_loss <= MOST_LOSS and integers > full - MOST_LOSS
    tiled = Denoiser(engines["int8"].checkpoint, engines["int8"].backend, tile=64)(noisy, sigma=25)
    assert np.abs(tiled.astype(int) - results["int8"]).max() <= 1


@pytest.mark.parametrize("sigma", [10, 25])
@pytest.mark.parametrize("tint", [(1, 1, 1), (1.07, 0.95, 0.76)])
def test_photo_takes_noise_out_that_is_the_same_in_all_channels(sigma, tint):
    # black and white pictures in RGB, and sepia: generation 5 left all of it
    _, clean = sample("camera")
    grey = clean * np.array(tint)
    noise = sigma * np.random.default_rng(0).normal(size=clean.shape) * np.array(tint)
    clean, noisy = (np.rint(pixels.clip(0, 255)).astype(np.uint8) for pixels in (grey, grey + noise))
    gained = psnr(clean, Denoiser.load("photo")(noisy), data_range=255) - psnr(clean, noisy, data_range=255)
    assert gained > {10: 4, 25: 7}[sigma]


def test_photo_takes_weak_noise_out_of_dark_pictures():
    # generation 5 brought 3 dB
    _, clean = sample("astronaut")
    dark = clean / 4
    noisy = np.rint((dark + 4 * np.random.default_rng(0).normal(size=dark.shape)).clip(0, 255)).astype(np.uint8)
    result = Denoiser.load("photo")(noisy)
    assert psnr(dark, result.astype(float), data_range=255) > psnr(dark, noisy.astype(float), data_range=255) + 5


def test_colour_and_brightness_stay():
    # the mean of each channel moves by less than a code; what clipping added to the noisy dark parts is not counted
    noisy, _ = sample("astronaut")
    result = Denoiser.load("photo")(noisy)
    assert np.abs(result.mean((0, 1)) - noisy.mean((0, 1))).max() < 1.0


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_a_clean_photo_changes_by_less_than_half_a_code_on_average(name):
    _, clean = sample(name)
    assert np.abs(Denoiser.load("photo")(clean).astype(int) - clean).mean() < 0.5


def test_photo_leaves_the_colour_of_clean_letters_as_it_is():
    # generation 4 had 24 dB in the mean and 12 at least: it took pure colours side by side for colour noise
    found = in_pure_colours(Denoiser.load("photo"), 0)
    assert len(found) == 8 * 7 and min(found) > 36


@pytest.mark.parametrize("model", ["photo", "color"])
def test_noisy_letters_in_pure_colours_do_not_break(model):
    found = in_pure_colours(Denoiser.load(model), 10)  # noisy 30.4 to 30.9
    assert min(found) > 25 and np.mean(found) > 29


@pytest.mark.parametrize("name", [name for name in PATTERNS if "letters" in name and "red" not in name])
@pytest.mark.parametrize("model", CHECKPOINTS)
def test_lettering_stays_sharp_and_does_not_get_noisier(model, name):
    denoiser = Denoiser.load(model)
    _, untouched = before_and_after(denoiser, PATTERNS[name](), 0)
    noisy, restored = before_and_after(denoiser, PATTERNS[name](), 10)
    assert untouched > 36 and restored > noisy - 0.5


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_no_pattern_makes_a_network_break(model):
    # with gates that were not held, lines and checks of a pixel came out at 3 dB, red letters on blue at 4
    least = {"checks of 1 pixel": 10, "lines of 1 pixel": 20}  # in float 30 and more
    denoiser = Denoiser.load(model)
    for name, pattern in PATTERNS.items():
        assert before_and_after(denoiser, pattern(), 10)[1] > least.get(name, 24), name


@pytest.mark.parametrize(("model", "name"), [("gray", "camera"), ("color", "chelsea"), ("photo", "chelsea")])
@pytest.mark.parametrize("peak", [16383, 4095, 700])
def test_a_deep_image_that_uses_a_small_part_of_its_range_gets_as_clean_as_one_that_uses_all(model, name, peak):
    # counts of 14 or 12 bits in a 16-bit file, and short exposures of them, as cameras and microscopes write them
    noisy, clean = (image.astype(float) / 255 for image in sample(name))
    errors = []
    for largest in (65535, peak):
        result = Denoiser.load(model)(np.rint(noisy * largest).astype(np.uint16))
        errors.append(np.sqrt(np.mean((result / largest - clean) ** 2)))
    assert errors[1] == pytest.approx(errors[0], rel=0.03)
    floats = Denoiser.load(model)((noisy * peak / 65535).astype(np.float32))
    assert np.sqrt(np.mean((floats * (65535 / peak) - clean) ** 2)) == pytest.approx(errors[0], rel=0.03)
