"""What the card says of a finished run: scores, forgetting, what was removed; and what a start rehearses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_model import save_tiny

from denoise_se.checkpoint import Checkpoint, load_checkpoint
from denoise_se.datasets import Patches
from denoise_se.errors import UsageError
from denoise_se.noise import NoiseChain, parse_noise_spec
from denoise_se.objectives import Rehearsed, Supervised
from denoise_se.rehearsal import old_noise, old_psnr, rehearsed, sample_images
from denoise_se.told_level import AsEstimated
from denoise_se.training_images import Pair
from denoise_se.training_outcome import OutcomeReport


def smooth(seed: int, side: int = 48) -> torch.Tensor:
    small = np.random.default_rng(seed).uniform(60, 190, (4, 4, 3))
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(np.rint(image).clip(0, 255).astype(np.uint8).transpose(2, 0, 1).copy())


def with_noise(clean: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, sigma, clean.shape))
    return (clean + noise).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture
def start(tmp_path: Path) -> Checkpoint:
    """A network that does nothing, trained on Gaussian noise as its record says."""
    loaded = load_checkpoint(save_tiny(tmp_path / "tiny.safetensors"))
    weights = {
        key: torch.zeros_like(value) if key.startswith("tail") else value for key, value in loaded.weights.items()
    }
    return replace(loaded, weights=weights, training={"recipe": {"noise": "gaussian:51"}})


def bent(start: Checkpoint) -> Checkpoint:
    """The same, but everything comes out brighter by 10/255."""
    weights = dict(start.weights) | {"tail.bias": torch.full_like(start.weights["tail.bias"], -10 / 255)}
    return replace(start, weights=weights)


def numbers(line: str) -> list[float]:
    return [float(word.strip(",")) for word in line.split() if word.strip(",").replace(".", "").isdigit()]


def test_scores_are_those_of_the_rounded_images(tmp_path: Path, start: Checkpoint) -> None:
    clean = smooth(1)
    pairs = [Pair("a", with_noise(clean, 20), clean, 20 / 255)]
    lines = OutcomeReport(pairs, start, None, None)(tmp_path, bent(start))
    noisy = pairs[0].noisy
    assert noisy is not None
    for name, image in (("noisy", noisy.double()), ("start", noisy.double()), ("tuned", noisy.double() + 10)):
        error = float((image.clamp(0, 255) - clean).square().mean())
        assert numbers(lines[f"{name} (PSNR, SSIM)"])[0] == pytest.approx(
            20 * np.log10(255) - 10 * np.log10(error), abs=0.02
        )
    assert cv2.imread(str(tmp_path / "samples.png")) is not None
    assert lines["PSNR on the centres (128x128) of 1 of them"].startswith("BM3D")


def test_forgetting_is_measured_on_the_starts_own_noise(tmp_path: Path, start: Checkpoint) -> None:
    clean = smooth(1)
    lines = OutcomeReport([Pair("a", clean, clean, 0.0)], start, None, None)(tmp_path, bent(start))
    before, after = numbers(next(line for key, line in lines.items() if key.endswith(" knew")))
    # sigma 51 is a fifth of the range; a bias of 10 adds its square, as far as nothing is cut off
    assert before == pytest.approx(-20 * np.log10(0.2), abs=0.5)
    assert before - after == pytest.approx(10 * np.log10(1 + (10 / 51) ** 2), abs=0.1)


def test_without_clean_images_what_was_removed_is_set_beside_the_noise(tmp_path: Path, start: Checkpoint) -> None:
    noisy = with_noise(smooth(1), 20)
    lines = OutcomeReport([Pair("a", noisy, noisy, 20 / 255)], start, None, parse_noise_spec("gaussian:20"))(
        tmp_path, bent(start)
    )
    assert numbers(lines["the measured noise"])[0] == pytest.approx(20, rel=0.05)
    assert lines["what start removes"].startswith("sigma 0.00")
    assert numbers(lines["what tuned removes"])[0] == pytest.approx(10, abs=0.3)
    assert "sample pictures" in next(key for key in lines if key.startswith("on the noise that"))


def test_the_old_noise_is_the_one_of_the_record(start: Checkpoint) -> None:
    assert old_noise(start, 16) == parse_noise_spec("gaussian:51")
    practised = {"recipe": {"noise": None}, "rehearsed": "gaussian:20"}
    assert old_noise(replace(start, training=practised), 16) == parse_noise_spec("gaussian:20"), "trained on pairs"
    for training in ({}, {"recipe": {}}, {"recipe": {"noise": None}}, {"recipe": {"noise": "profile:gone.json"}}):
        assert old_noise(replace(start, training=training), 16) is None
    assert old_noise(None, 16) is None


def test_old_noise_that_the_run_cannot_put_on_its_patches_is_let_go(start: Checkpoint) -> None:
    camera = "gaussian:5|camera:gain=0.004,read=0.01,luma=0.5,chroma=2"
    photo = replace(start, training={"recipe": {"noise": camera}})
    assert old_noise(photo, 16) == parse_noise_spec(camera)
    assert old_noise(photo, 6) is None, "the chroma's blur reaches 6 pixels"
    grey = replace(photo, config=replace(photo.config, channels=1))
    assert old_noise(grey, 16) is None, "a camera's noise has colours"


def test_what_is_trained_anyway_is_not_rehearsed(start: Checkpoint) -> None:
    def rehearse(objective: Supervised, start: Checkpoint | None, share: float, other: Patches | None = None) -> object:
        return rehearsed(objective, start, share, 16, network, [], other)

    network, plain = start.config, Supervised(None)
    again = rehearse(plain, start, 0.2)
    assert isinstance(again, Rehearsed) and again.share == 0.2 and again.objective is plain
    assert rehearse(plain, start, 0.0) is plain and rehearse(plain, None, 0.2) is plain
    same = Supervised(parse_noise_spec("gaussian:51"))
    assert rehearse(same, start, 0.2) is same
    other = Patches([Pair("a", None, torch.zeros(3, 20, 20, dtype=torch.uint8))], 16, 0)
    assert isinstance(rehearse(same, start, 0.2, other), Rehearsed), "but on other pictures it is"
    for unknown, share in ((None, 0.2), (start, 0.0)):
        with pytest.raises(UsageError, match="--rehearse needs a start"):
            rehearse(plain, unknown, share, other)


def test_old_noise_is_told_as_the_network_that_is_trained_will_be(start: Checkpoint) -> None:
    camera = replace(start, training={"recipe": {"noise": "correlated:sigma=20,radius=0.8"}})
    blind = replace(start.config, noise_map=False)
    for network, kind in ((start.config, AsEstimated), (blind, NoiseChain)):
        again = rehearsed(Supervised(None), camera, 0.2, 16, network, [])
        assert isinstance(again, Rehearsed) and isinstance(again.old, kind)


def test_the_programs_samples_serve_where_there_are_no_clean_images(start: Checkpoint) -> None:
    images = sample_images(3)
    assert len(images) >= 3 and all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in images)
    noise = old_noise(start, 16)
    assert noise is not None
    # what lies outside the range is cut off, so it is a little better than the noise alone
    assert -20 * np.log10(0.2) < old_psnr(start, noise, images) < -20 * np.log10(0.2) + 2
