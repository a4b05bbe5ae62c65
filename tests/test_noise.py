"""Noise models: their moments, their generator, and ranges of their parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from noise_fields import CAMERA, constant, one, scene, seeded

from denoise_se.noise import (
    Banding,
    Correlated,
    NoiseModel,
    Quantise,
    Range,
    parse_noise_spec,
)


@pytest.mark.parametrize(
    ("spec", "x", "variance"),
    [
        ("gaussian:25", 0.5, (25 / 255) ** 2),
        ("poisson-gaussian:gain=0.02,read=0.05", 0.4, 0.02 * 0.4 + 0.05**2),
        ("poisson-gaussian:gain=0.02,read=0.05", 0.0, 0.05**2),
        ("poisson-gaussian:gain=0.02,read=0.05,black=0.1", 0.4, 0.02 * 0.3 + 0.05**2),
        ("poisson-gaussian:gain=0.02,read=0.05,black=0.1", 0.05, 0.05**2),
        ("speckle:0.3", 0.5, (0.3 * 0.5) ** 2),
        ("gaussian:15+gaussian:20", 0.5, (25 / 255) ** 2),
    ],
)
def test_white_noise_has_its_mean_and_variance_and_tells_its_level(spec, x, variance):
    clean = constant(x, 1, 1, 300, 300)
    noisy, level = parse_noise_spec(spec)(clean, seeded())
    noise = noisy - clean
    # the standard errors are sigma / 300 and sigma^2 * sqrt(2) / 300; four of them
    assert abs(float(noise.mean())) < 4 * math.sqrt(variance) / 300
    assert float(noise.var()) == pytest.approx(variance, rel=4 * math.sqrt(2) / 300)
    assert level.shape == (1, 1, 300, 300)
    torch.testing.assert_close(level, constant(math.sqrt(variance), 1, 1, 300, 300))


def test_channels_get_noise_of_their_own():
    noise = parse_noise_spec("gaussian:25")(constant(0.5, 1, 3, 200, 200), seeded()).image[0].flatten(1)
    assert np.abs(np.corrcoef(noise.numpy()) - np.eye(3)).max() < 4 / 200


@pytest.mark.parametrize("spec", ["poisson-gaussian:gain=0.05,read=0.01", "speckle:0.5", "salt-pepper:0.2"])
def test_the_level_follows_the_brightness(spec):
    clean = torch.cat([constant(0.1, 1, 1, 200, 200), constant(0.9, 1, 1, 200, 200)], dim=3)
    noisy, level = parse_noise_spec(spec)(clean, seeded())
    for half in (slice(0, 200), slice(200, 400)):
        rms = float((noisy - clean)[..., half].square().mean().sqrt())
        assert float(level[..., half].mean()) == pytest.approx(rms, rel=0.05)
        assert float(level[..., half].std()) < 1e-6
    if spec != "salt-pepper:0.2":  # whose level is the same for x and 1 - x
        assert level[..., -1].mean() > 1.5 * level[..., 0].mean()


def test_the_level_of_a_colour_pixel_is_the_rms_over_its_channels():
    clean = torch.tensor([0.0, 0.2, 0.7])[None, :, None, None].expand(1, 3, 2, 2)
    level = parse_noise_spec("poisson-gaussian:gain=0.1,read=0")(clean, seeded()).level
    torch.testing.assert_close(level, constant(math.sqrt(0.1 * (0 + 0.2 + 0.7) / 3), 1, 1, 2, 2))


def test_salt_and_pepper_hits_its_share_of_the_pixels_with_all_their_channels():
    clean, amount = constant(0.3, 1, 3, 300, 300), 0.2
    noisy, level = parse_noise_spec(f"salt-pepper:{amount}")(clean, seeded())
    deviation = math.sqrt(amount / 2) / 300
    for extreme in (0.0, 1.0):
        hit = noisy == extreme
        assert torch.equal(hit.all(dim=1), hit.any(dim=1))
        assert float(hit.float().mean()) == pytest.approx(amount / 2, abs=4 * deviation)
    assert torch.isin(noisy, torch.tensor([0.0, 0.3, 1.0])).all()
    assert float(level[0, 0, 0, 0]) == pytest.approx(math.sqrt(amount * (0.7**2 + 0.3**2) / 2))


@pytest.mark.parametrize("radius", [0.6, 1.5])
def test_correlated_noise_has_the_autocorrelation_of_its_gaussian(radius):
    sigma = 25 / 255
    noise, level = Correlated(Range(25, 25), Range(radius, radius))(constant(0, 1, 2, 400, 400), seeded())
    offsets = np.arange(-round(3 * radius), round(3 * radius) + 1)
    kernel = np.exp(-0.5 * (offsets / radius) ** 2)
    noise = noise.numpy() / sigma
    assert noise.std() == pytest.approx(1, rel=0.03)
    for lag in (1, 2, 3):
        theory = (kernel[lag:] * kernel[:-lag]).sum() / (kernel**2).sum()
        assert (noise[..., lag:] * noise[..., :-lag]).mean() == pytest.approx(theory, abs=0.03)
        assert (noise[..., lag:, :] * noise[..., :-lag, :]).mean() == pytest.approx(theory, abs=0.03)
    assert (noise[:, 0] * noise[:, 1]).mean() == pytest.approx(0, abs=0.03)
    torch.testing.assert_close(level, constant(sigma, 1, 1, 400, 400))


@pytest.mark.parametrize(("row", "column"), [(6, 0), (0, 3), (6, 3)])
def test_banding_shifts_whole_rows_and_columns_by_their_deviations(row, column):
    clean = constant(0.5, 1, 3, 900, 900)
    noisy, level = Banding(Range(row, row), Range(column, column))(clean, seeded())
    noise = 255 * (noisy - clean)[0]
    assert torch.equal(noise[0], noise[1]) and torch.equal(noise[0], noise[2])
    rows, columns = noise[0].mean(dim=1), noise[0].mean(dim=0)
    # of 900 numbers, the standard error of a deviation is its 1 / sqrt(1800): four of them are 9.4 %
    assert float(rows.std()) == pytest.approx(row, rel=0.094, abs=1e-4)
    assert float(columns.std()) == pytest.approx(column, rel=0.094, abs=1e-4)
    torch.testing.assert_close(noise[0], rows[:, None] + columns[None] - noise[0].mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(level, constant(math.hypot(row, column) / 255, 1, 1, 900, 900))
    assert parse_noise_spec(f"banding:column={column},row={row}") == one(
        Banding(Range(row, row), Range(column, column))
    )


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_quantising_leaves_two_to_the_bits_values_and_an_error_uniform_in_a_step(bits):
    clean = torch.linspace(0, 1, 100_000).reshape(1, 1, 250, 400)
    noisy, level = Quantise(Range(bits, bits))(clean, seeded())
    assert noisy.unique().numel() == 2**bits and noisy.min() == 0 and noisy.max() == 1
    step = 1 / (2**bits - 1)
    assert float((noisy - clean).abs().max()) == pytest.approx(step / 2, rel=0.01)
    assert float((noisy - clean).square().mean().sqrt()) == pytest.approx(step / math.sqrt(12), rel=0.01)
    torch.testing.assert_close(level, constant(step / math.sqrt(12), 1, 1, 250, 400))


def test_models_are_torch_modules_that_can_be_hashed_and_compared():
    model = parse_noise_spec("gaussian:5-50+jpeg:40|raw:gain=0.01,read=0.01")
    assert isinstance(model, torch.nn.Module) and isinstance(model.models[0].models[0], NoiseModel)
    assert model == parse_noise_spec("gaussian:5-50+jpeg:40|raw:gain=0.01,read=0.01")
    assert hash(model) != hash(parse_noise_spec("gaussian:5-50"))
    holder = torch.nn.Sequential(model).eval().to("cpu")  # as a trainer does
    assert not list(holder.parameters()) and not holder.state_dict()


def test_noise_is_not_clipped():
    noisy = parse_noise_spec("gaussian:100")(constant(0.5, 1, 1, 64, 64), seeded()).image
    assert noisy.min() < 0 and noisy.max() > 1


@pytest.mark.parametrize(
    "spec",
    [
        "gaussian:5-50",
        "poisson-gaussian:gain=0.01,read=0.01-0.02",
        "speckle:0.1",
        "salt-pepper:0.1",
        CAMERA,
        "raw:gain=0.001-0.01,read=0.01,red=1-2,jpeg=50-90",
        "banding:row=1-5",
        "gaussian:5+quantise:4-8",
        "correlated:sigma=25,radius=1-2",
        "jpeg:20-90",
        "gaussian:5-10+jpeg:50-60|speckle:0.1-0.3",
    ],
)
def test_noise_is_fixed_by_its_generator_and_leaves_the_clean_image_alone(spec):
    clean = torch.from_numpy(scene(24, 24)).movedim(2, 0)[None].repeat(2, 1, 1, 1)
    before = clean.clone()
    first, again, other = (parse_noise_spec(spec)(clean, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first.image, again.image) and torch.equal(first.level, again.level)
    assert not torch.equal(first.image, other.image)
    assert torch.equal(clean, before)


@pytest.mark.parametrize("shape", [(1, 1, 9, 7), (1, 3, 8, 8)])
@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_gaussian_noise_of_one_sigma_is_the_generators_first_numbers(shape, sigma):
    clean = torch.rand(shape, generator=seeded(1))
    noisy = parse_noise_spec(f"gaussian:{sigma}")(clean, seeded(4)).image
    assert torch.equal(noisy, clean + sigma / 255 * torch.randn(shape, generator=seeded(4)))


def test_a_range_is_drawn_uniformly_and_once_per_image():
    level = 255 * parse_noise_spec("gaussian:10-50")(constant(0, 600, 1, 2, 2), seeded()).level
    assert (level == level[:, :, :1, :1]).all()
    drawn = level[:, 0, 0, 0]
    assert drawn.min() >= 10 and drawn.max() <= 50 and drawn.unique().numel() > 590
    width = 40 / math.sqrt(12)
    assert float(drawn.mean()) == pytest.approx(30, abs=4 * width / math.sqrt(600))
    assert float(drawn.std()) == pytest.approx(width, rel=0.1)


def test_alternatives_have_equal_chances_and_each_image_gets_one():
    clean = constant(0.5, 400, 1, 3, 3)
    noisy, level = parse_noise_spec("gaussian:10|gaussian:40|salt-pepper:1")(clean, seeded())
    kinds = [(255 * level[:, 0, 0, 0]).round() == value for value in (10, 40, 128)]
    assert sum(int(kind.sum()) for kind in kinds) == 400
    for kind in kinds:
        assert int(kind.sum()) == pytest.approx(400 / 3, abs=4 * math.sqrt(400 * 2 / 9))
    assert torch.isin(noisy[kinds[2]], torch.tensor([0.0, 1.0])).all()
    assert float((noisy - clean)[kinds[1]].std()) == pytest.approx(40 / 255, rel=0.1)
