"""Which way noisy pictures are learnt from, and noise that hides behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_model import save_tiny
from torch import Tensor, nn

from denoise_se.checkpoint import Checkpoint, load_checkpoint
from denoise_se.errors import UsageError
from denoise_se.noise import parse_noise_spec
from denoise_se.noisy_only import has_banding, plan_noisy_only
from denoise_se.objectives import Neighbours, Recorrupted
from denoise_se.training_images import Pair


def clean_picture(seed: int, side: int = 128) -> Tensor:
    small = np.random.default_rng(seed).uniform(0.25, 0.75, (5, 5, 3))
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1).copy())


def noisy_set(spec: str, count: int = 6) -> list[Pair]:
    noise = parse_noise_spec(spec)
    found = []
    for seed in range(count):
        noisy = noise(clean_picture(seed)[None], torch.Generator().manual_seed(seed)).image[0]
        codes = (noisy * 255).round().clamp(0, 255).to(torch.uint8)
        found.append(Pair(f"{seed}", codes, codes))
    return found


@pytest.mark.parametrize(
    ("spec", "way", "turns"),
    [
        ("gaussian:20", Neighbours, True),
        ("poisson-gaussian:gain=0.01,read=0.01", Neighbours, True),
        ("gaussian:8+banding:row=12", Recorrupted, False),
        ("gaussian:20+banding:row=1", Neighbours, True),  # next to nothing beside the grain
        ("correlated:sigma=15,radius=0.8", Recorrupted, False),
    ],
)
def test_the_way_follows_the_correlation_that_is_measured(spec: str, way: type, turns: bool) -> None:
    plan = plan_noisy_only(noisy_set(spec), None)
    assert isinstance(plan.objective, way) and plan.turns is turns and not plan.hidden, plan.why


def test_noise_that_hides_behind_the_picture_is_measured_on_what_the_start_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Perfect(nn.Module):
        """Knows the clean pictures."""

        def forward(self, noisy: Tensor, level: Tensor) -> Tensor:
            centres = [clean_picture(seed)[None] for seed in range(6)]
            return min(centres, key=lambda clean: float((clean - noisy).square().mean()))

    monkeypatch.setattr(Checkpoint, "network", lambda self: Perfect())
    start = replace(load_checkpoint(save_tiny(tmp_path / "tiny.safetensors")), name="mine")
    coarse = noisy_set("correlated:sigma=12,radius=2.5")
    shown, found = plan_noisy_only(coarse, None), plan_noisy_only(coarse, start)
    before, after = (255 * np.mean(plan.noise.profile.variance(0.5)) ** 0.5 for plan in (shown, found))
    assert before < 9 and after == pytest.approx(12, rel=0.1)
    assert found.hidden and "mine removes" in found.why
    fine = plan_noisy_only(noisy_set("gaussian:15"), start)
    assert not fine.hidden, fine.why


def test_pictures_that_say_nothing_are_refused() -> None:
    small = torch.zeros(3, 32, 32, dtype=torch.uint8)
    with pytest.raises(UsageError, match="at least 64x64"):
        plan_noisy_only([Pair("a", small, small)], None)
    plain = torch.full((3, 80, 80), 100, dtype=torch.uint8)
    with pytest.raises(UsageError, match="noise"):
        plan_noisy_only([Pair("a", plain, plain)], None)


def test_banding_of_pairs_is_seen_in_their_difference() -> None:
    clean = [(clean_picture(s) * 255).round().to(torch.uint8) for s in range(6)]

    def pairs(spec: str) -> list[Pair]:
        return [Pair(p.name, p.noisy, c) for p, c in zip(noisy_set(spec), clean, strict=True)]

    assert has_banding(pairs("gaussian:10+banding:row=8")) and has_banding(pairs("gaussian:10+banding:column=8"))
    assert not has_banding(pairs("gaussian:20")) and not has_banding([Pair("a", None, clean[0])])


def test_noise_is_measured_in_the_units_of_what_is_trained_on() -> None:
    # dim pictures that were not brightened, as a hot pixel outside their middle showed the whole range
    images = []
    for seed in range(4):
        noisy = clean_picture(seed).numpy() / 32 + np.random.default_rng(seed).normal(0, 0.002, (3, 128, 128))
        pixels = torch.from_numpy(np.rint(noisy.clip(0, 1) * 65535).astype(np.uint16))
        images.append(Pair(f"{seed}", pixels, pixels))
    variance = plan_noisy_only(images, None).noise.profile.variance(1 / 64)
    assert np.sqrt(variance) == pytest.approx(0.002, rel=0.1)
