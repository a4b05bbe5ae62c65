"""Objectives and risks without a clean image: each against what a clean image would have said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denoise_se.datasets import Example, Patches
from denoise_se.held_out_risk import HeldOutRisk, as_psnr
from denoise_se.noise import Gaussian, NoiseChain, Range, parse_noise_spec
from denoise_se.noise_model import Noisy
from denoise_se.noise_profile import NoiseProfile
from denoise_se.objectives import (
    Neighbours,
    Objective,
    Recorrupted,
    Rehearsed,
    Supervised,
    darkened,
    greyed,
    neighbours,
    own_noise,
    pick,
)
from denoise_se.profile_noise import ProfileNoise
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alone(noisy: Tensor) -> Example:
    """Noisy images without clean ones, of noise with sigma 10."""
    return Example(noisy, noisy, torch.full((len(noisy), 1, 1, 1), 10 / 255))


def task(network: nn.Module | None = None, progress: float = 1.0, rank: int = 0, processes: int = 1) -> SimpleNamespace:
    """What objectives need of a task: a network, a squared loss, the progress, its share of a batch."""
    predict = network or (lambda noisy, level: noisy)
    return SimpleNamespace(
        config=TrainingConfig(),
        predict=predict,
        loss=lambda output, target: (output - target).square().mean(),
        progress=progress,
        share=lambda *batches: (batch.chunk(processes)[rank] for batch in batches),
    )


def banded(row: float = 0.05, read: float = 0.04) -> ProfileNoise:
    none, ends = (0.0,), ((0.0, 1.0),)
    return ProfileNoise(NoiseProfile("made", none, ends, (read,), ends, none, ((row**2,),), (none,), ((((1.0,),),),)))


class Shrink(nn.Module):
    """x -> the mean of each row and the image's middle, mixed with x: linear, and far from diagonal."""

    def __init__(self, keep: float, rows: float) -> None:
        super().__init__()
        self.keep, self.rows = keep, rows

    def forward(self, noisy: Tensor, level: Tensor) -> Tensor:
        means = noisy.mean(dim=-1, keepdim=True)
        return self.keep * noisy + self.rows * means + (1 - self.keep - self.rows) * 0.5


def images(count: int = 8, side: int = 64) -> tuple[Tensor, Tensor]:
    generator = seeded(5)
    coarse = torch.rand(count, 1, 4, 4, generator=generator) * 0.3 + 0.35
    clean = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return clean, banded()(clean, generator).image


def test_recorrupting_finds_the_denoiser_that_clean_images_find() -> None:
    clean, noisy = images()
    objective, grid = Recorrupted(banded()), [(k, r) for k in (0.0, 0.2, 0.5, 1.0) for r in (-0.2, 0.0, 0.3)]
    losses, errors = {}, {}
    for keep, rows in grid:
        network = Shrink(keep, rows)
        losses[keep, rows] = sum(float(objective(task(network), alone(noisy), seeded(s))) for s in range(6))
        errors[keep, rows] = float((network(noisy, noisy) - clean).square().mean())
    best = min(losses, key=lambda key: losses[key])
    assert best != (1.0, 0.0) and errors[best] <= min(errors.values()) * 1.1, (best, errors)


def test_recorrupted_input_and_target_have_independent_noise() -> None:
    clean, noisy = torch.full((64, 1, 32, 32), 0.5), torch.empty(0)
    noise = banded()
    noisy = noise(clean, seeded(1)).image
    seen = {}

    def predict(image: Tensor, level: Tensor) -> Tensor:
        seen["input"] = image
        return image

    recording = task()
    recording.predict, recording.loss = predict, lambda output, target: seen.update(target=target)
    Recorrupted(noise)(recording, alone(noisy), seeded(2))
    one, other = (seen["input"] - clean).mean(-1).flatten(), (seen["target"] - clean).mean(-1).flatten()
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.05, "the rows' shifts too"
    assert float(seen["target"].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(one.var()) > 1.05 * float((noisy - clean).mean(-1).var())


def test_the_two_neighbours_are_different_pixels_of_one_cell() -> None:
    image = torch.arange(2 * 36, dtype=torch.float32).reshape(1, 2, 6, 6)
    seen = set()
    for seed in range(20):
        first, second = neighbours(image, seeded(seed))
        one, other = pick(image, first), pick(image, second)
        assert one.shape == (1, 2, 3, 3)
        y, x = (one[0, 0] // 6).long(), (one[0, 0] % 6).long()
        assert torch.equal(y // 2, torch.arange(3)[:, None].expand(3, 3)) and torch.equal(
            x // 2, (x // 2)[:1].expand(3, 3)
        )
        assert torch.equal(one[0, 1], one[0, 0] + 36), "all channels of the same pixel"
        seen |= set((other - one)[0, 0].abs().unique().tolist())
    assert seen == {1.0, 6.0}, "beside or below, never the same and never across"


def test_neighbours_do_not_reward_keeping_independent_noise() -> None:
    clean = torch.full((8, 1, 64, 64), 0.5)
    noise = ProfileNoise(banded(row=0.0).profile)
    noisy = noise(clean, seeded(3)).image
    for keep in (0.0, 0.5, 1.0):

        def predict(image: Tensor, level: Tensor, keep: float = keep) -> Tensor:
            whole = image.shape[-1] == 64  # taken as constant in the second term, here a perfect result
            return torch.full_like(image, 0.5) if whole else Shrink(keep, 0)(image, level)

        own = task()
        own.predict = predict
        loss = float(Neighbours()(own, alone(noisy), seeded(4)))
        # input and target have independent noise, keep * n1 and n2; the weights of the two terms are 1 and 2
        assert loss == pytest.approx((keep**2 + 1) * 0.04**2 * 3, rel=0.05)


def test_rehearsal_takes_its_share_of_the_steps_and_its_own_noise() -> None:
    chain = NoiseChain((Gaussian(Range(51, 51)),))
    clean = torch.full((1, 1, 64, 64), 0.5)
    objective = Rehearsed(Supervised(None), chain, 0.25)
    losses = [float(objective(task(), alone(clean), seeded(s))) for s in range(200)]
    old = [loss for loss in losses if loss > 0]
    assert 30 < len(old) < 70
    assert sum(old) / len(old) == pytest.approx(0.2**2, rel=0.02)


def test_other_pictures_are_rehearsed_each_step_its_own_patches_of_them() -> None:
    pictures = [Pair(str(value), None, torch.full((1, 20, 20), value, dtype=torch.uint8)) for value in (51, 102, 153)]
    seen: list[Tensor] = []

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        seen.append(noisy)
        return noisy

    own, pair = task(), torch.full((4, 1, 16, 16), 0.9)
    own.predict = predict
    objective = Rehearsed(Supervised(None), NoiseChain((Gaussian(Range(0, 0)),)), 0.999, Patches(pictures, 16, seed=3))
    for own.global_step in (0, 1, 0):
        objective(own, alone(pair), seeded(0))
    assert {round(float(value), 3) for value in torch.stack(seen).unique()} <= {0.2, 0.4, 0.6}
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    "objective",
    [
        Supervised(parse_noise_spec("poisson-gaussian:gain=0.01,read=0.02|gaussian:5-50")),
        Recorrupted(banded()),
        Neighbours(),
        Rehearsed(Recorrupted(banded()), NoiseChain((Gaussian(Range(51, 51)),)), 0.5),
    ],
    ids=lambda objective: type(objective).__name__,
)
@pytest.mark.parametrize("step", [0, 1])
def test_the_losses_of_two_processes_average_to_that_of_one(objective: Objective, step: int) -> None:
    _, noisy = images(4, 16)
    whole, *shares = [
        float(objective(task(Shrink(0.3, 0.1), 1.0, rank, count), alone(noisy), seeded(step)))  # type: ignore[arg-type]
        for rank, count in ((0, 1), (0, 2), (1, 2))
    ]
    assert shares[0] != shares[1] and sum(shares) / 2 == pytest.approx(whole, rel=1e-5)


def test_own_noise_has_the_level_of_the_brightness_and_not_of_the_noise() -> None:
    spec = parse_noise_spec("poisson-gaussian:gain=0.02,read=0")
    clean = torch.cat([torch.full((4, 1, 64, 32), 0.2), torch.full((4, 1, 64, 32), 0.8)], dim=3)
    noisy = spec(clean, seeded(1)).image
    added, level = own_noise(spec, noisy, seeded(2))
    for part, brightness in ((slice(4, 28), 0.2), (slice(36, 60), 0.8)):
        assert float(added[..., part].var()) == pytest.approx(0.02 * brightness, rel=0.05)
        assert float(level[..., part].square().mean()) == pytest.approx(0.02 * brightness, rel=0.02)
    products = (added * (noisy - clean))[..., 4:28]
    assert abs(float(products.mean())) < 5 * float(products.std()) / products.numel() ** 0.5


@pytest.mark.parametrize(("keep", "rows"), [(1.0, 0.0), (0.3, 0.0), (0.3, 0.5), (0.0, 1.0), (1.0, -0.8)])
def test_the_risk_is_the_error_to_the_clean_image_for_banded_noise(keep: float, rows: float) -> None:
    clean, noisy = images(count=40)
    risk, network = HeldOutRisk(banded()), Shrink(keep, rows)
    estimates = torch.stack([risk(network, alone(noisy[i : i + 1]), seeded(i)) for i in range(len(noisy))])
    errors = (network(noisy, noisy) - clean).square().mean(dim=(1, 2, 3))
    spread = float((estimates - errors).std()) / len(noisy) ** 0.5
    assert abs(float(estimates.mean() - errors.mean())) < 4 * spread + 1e-5
    assert spread < 0.3 * 0.05**2
    assert float(as_psnr(errors)) == pytest.approx(-10 * torch.log10(errors.mean()).item())
    assert as_psnr(torch.tensor([0.01, -0.02])).isnan(), "no error is below 0: the noise that was measured does not fit"


def test_the_risk_leaves_out_what_is_cut_off_at_black() -> None:
    dark, middle = torch.zeros(1, 1, 64, 32), torch.full((1, 1, 64, 32), 0.5)
    clean = torch.cat([dark, middle], dim=3)
    noise = banded(row=0.0)
    noisy = noise(clean, seeded(1)).image.clamp(0, 1)
    same = Shrink(1.0, 0.0)
    estimate = float(HeldOutRisk(noise)(same, alone(noisy), seeded(2)))
    assert estimate == pytest.approx(0.04**2, rel=0.1), "half the pixels have no noise to speak of, and do not count"


def test_noise_left_in_flat_parts_counts_where_the_measured_noise_is_too_low() -> None:
    _, noisy = images(count=6)
    half = banded(row=0.02, read=0.015)  # of what is there
    better, worse = Shrink(0.0, 0.0), Shrink(1.0, 0.0)
    trusting, wary = HeldOutRisk(half), HeldOutRisk(half, better)

    def risks(risk: HeldOutRisk, network: Shrink) -> np.ndarray:
        return np.array([float(risk(network, alone(noisy[i : i + 1]), seeded(i))) for i in range(len(noisy))])

    start = risks(trusting, better)
    np.testing.assert_allclose(risks(wary, better), start, err_msg="the start itself leaves nothing")
    left = risks(wary, worse) - np.maximum(risks(trusting, worse), start)  # no better than the start
    flat_noise = 6 * float((noisy - 0.5).square().mean())
    assert left.sum() == pytest.approx(flat_noise, rel=0.25)
    nearly = Shrink(0.03, 0.0)  # takes 94 % of the variance, which is near enough: as the estimate has it
    np.testing.assert_allclose(risks(wary, nearly), risks(trusting, nearly), atol=0.1 * flat_noise / 6)


def test_greyed_patches_have_the_luma_of_their_noise_in_all_channels_and_half_are_grey() -> None:
    draw = torch.Generator().manual_seed(0)
    clean = torch.rand(400, 3, 4, 4, generator=draw)
    noise = 0.1 * torch.randn(400, 3, 4, 4, generator=draw)
    level = torch.full((400, 1, 4, 4), 0.1)
    noisy, told, target = greyed(Noisy(clean + noise, level), clean, 0.5, torch.Generator().manual_seed(1))
    left = noisy - target
    in_grey = (left - left[:, :1]).abs().amax((1, 2, 3)) < 1e-6
    grey = (target - target[:, :1]).abs().amax((1, 2, 3)) < 1e-6
    assert 0.4 < in_grey.float().mean() < 0.6 and 0.2 < grey.float().mean() < 0.3 and not (grey & ~in_grey).any()
    luma = 0.299 * noise[:, 0] + 0.587 * noise[:, 1] + 0.114 * noise[:, 2]
    torch.testing.assert_close(left[in_grey], luma[in_grey][:, None].expand(-1, 3, -1, -1))
    torch.testing.assert_close(target[~grey], clean[~grey])
    expected = 0.1 * (luma.square().mean((1, 2)) / noise.square().mean((1, 2, 3))).sqrt()  # near 0.0668
    torch.testing.assert_close(told[in_grey][:, 0, 0, 0], expected[in_grey])
    torch.testing.assert_close((noisy[~in_grey], told[~in_grey]), ((clean + noise)[~in_grey], level[~in_grey]))


def test_darkened_patches_keep_their_ratios_and_are_at_most_eight_times_darker() -> None:
    draw = torch.Generator().manual_seed(0)
    clean, noisy = torch.rand(2, 400, 3, 4, 4, generator=draw) + 0.1
    told = torch.full((400, 1, 1, 1), 0.2)
    dark = darkened(Example(noisy, clean, told), 0.5, torch.Generator().manual_seed(1))
    factor = dark.told / told
    torch.testing.assert_close((dark.noisy, dark.clean), (noisy * factor, clean * factor))
    assert 0.4 < (factor < 1).float().mean() < 0.6 and 1 / 8 <= factor.min() < 0.14 and factor.max() == 1


def test_without_a_share_nothing_is_drawn_so_that_older_runs_repeat() -> None:
    batch = Example(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 1, 1))
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert darkened(batch, 0.0, generator) is batch
    assert greyed(Noisy(batch.noisy, batch.told), batch.clean, 0.0, generator)[2] is batch.clean
    one_channel = batch.clean[:, :1]
    assert greyed(Noisy(one_channel, batch.told), one_channel, 0.5, generator)[0] is one_channel
    assert torch.equal(generator.get_state(), before)
