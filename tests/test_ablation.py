"""The ablation trains every variant equally and reports what it measured."""

from __future__ import annotations

import math

import pytest
import torch

from denoise_se import ablation
from denoise_se.network import NetworkConfig, build_network
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair

TINY = {
    "small": NetworkConfig(widths=(4, 8), blocks=1),
    "small, BatchNorm": NetworkConfig(widths=(4, 8), blocks=1, norm="batch"),
}
CONFIG = TrainingConfig(steps=6, minutes=0, batch=2, patch=16, warmup_steps=2, precision="fp32")


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 1, 48, 40), generator=generator, dtype=torch.uint8)
    return [Pair(str(i), None, image) for i, image in enumerate(images)]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(ablation, "VARIANTS", TINY)
    monkeypatch.setattr(ablation, "TIMED_SIDE", 32)


def test_every_variant_is_trained_measured_and_tabled(tiny, pairs):
    heard = []
    trials = ablation.run_ablation(list(TINY), pairs[:3], pairs[3:], CONFIG, heard.append)
    assert heard == trials and [t.name for t in trials] == list(TINY)
    for trial in trials:
        assert all(math.isfinite(v) for v in trial.psnr) and trial.psnr[0] > trial.psnr[2]
        assert trial.milliseconds > 0 and trial.training_seconds > 0
    table = ablation.as_markdown(trials)
    assert f"| small | {trials[0].psnr[0]:.2f} |" in table and f"{trials[0].parameters:,}" in table


def test_one_seed_gives_one_result(tiny, pairs):
    first, second = (ablation.run_trial("small", pairs[:3], pairs[3:], CONFIG) for _ in range(2))
    assert first.psnr == second.psnr


def test_the_psnr_of_a_network_that_changes_nothing_is_that_of_the_noise(pairs):
    # a fresh network is the identity, so what is left is the noise: clipped and rounded, seeded by the image's index
    clean = pairs[0].clean.double()[None] / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    result = ((clean + 15 / 255 * noise).clamp(0, 1) * 255).round() / 255
    expected = -10 * math.log10(float((result - clean).square().mean()))
    assert ablation.measure(build_network(TINY["small"]).eval(), pairs[:1], 15) == pytest.approx(expected, abs=0.01)


def test_all_placements_of_the_document_are_variants():
    blocks = {config.block for config in ablation.VARIANTS.values()}
    assert blocks == {"residual", "se_residual", "se_bottleneck", "mobile_se"}
    assert {config.norm for config in ablation.VARIANTS.values()} == {"batch", "none"}
