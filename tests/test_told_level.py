"""In training a network is told of noise what `Denoiser` tells it afterwards."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from tiny_model import save_tiny

from denoise_se import Denoiser
from denoise_se.datasets import Patches, TrainingData, WholeImages
from denoise_se.file_pairs import PairedFiles
from denoise_se.network import NetworkConfig
from denoise_se.noise import is_gaussian, parse_noise_spec
from denoise_se.objectives import Supervised, with_noise
from denoise_se.scanlines import ArrayScanlines
from denoise_se.told_level import AsEstimated, Estimated, to_judge, to_learn, with_told
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair
from denoise_se.training_layout import Layout
from denoise_se.training_plan import TrainingPlan, plan_training
from denoise_se.value_range import full_range, white_level

GREY = NetworkConfig(channels=1, widths=(4, 8), blocks=1)
BLIND = NetworkConfig(channels=1, noise_map=False, widths=(4, 8), blocks=1)
CORRELATED = parse_noise_spec("correlated:sigma=12,radius=0.8")


def picture(seed: int, side: int = 192) -> np.ndarray:
    """Soft shapes [side, side], 0 to 255."""
    small = np.random.default_rng(seed).integers(60, 200, (5, 5), np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float64)


def shot(clean: np.ndarray, seed: int, sigma: float = 25, top: int = 255) -> np.ndarray:
    """With noise, as codes of 8 bits, or of 16 where `top` stands for white."""
    noisy = clean + np.random.default_rng(1000 + seed).normal(0, sigma, clean.shape)
    return (noisy.clip(0, 255) / 255 * top).round().astype(np.uint8 if top == 255 else np.uint16)


def saved(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels)
    return path


def told_by_denoiser(path: Path) -> float:
    """What a network that learnt from pairs gets of an image's noise, where white is 1."""
    source = ArrayScanlines(tifffile.imread(path)[..., None])
    level = Denoiser.load(save_tiny(path.with_name("tiny.safetensors"), channels=1)).noise_level(source)
    assert isinstance(level, float)
    return level / 255 * full_range(source.dtype) / white_level(source, level)


def plan(layout: Layout, network: NetworkConfig = GREY, **options: object) -> TrainingPlan:
    config = TrainingConfig(network=network, patch=32, seed=3, noise=options.pop("noise", None))  # type: ignore[arg-type]
    return plan_training(layout, config, None, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("top", [255, 4095])
def test_pairs_are_told_as_denoising_tells_them(tmp_path: Path, top: int) -> None:
    for seed in range(4):
        clean = picture(seed)
        saved(tmp_path / f"noisy/{seed}.tif", shot(clean, seed, 5 + 5 * seed, top))
        saved(tmp_path / f"clean/{seed}.tif", shot(clean, seed, 0, top))
    files = PairedFiles(tmp_path / "noisy", tmp_path / "clean")
    found = plan(Layout("pairs", tmp_path, files, ""))
    assert len(found.validation) == 1
    for pair in (*found.train, *found.validation):
        assert pair.told == pytest.approx(told_by_denoiser(tmp_path / f"noisy/{pair.name}.tif"), rel=0.01)
    blind = plan(Layout("pairs", tmp_path, files, ""), BLIND)
    assert all(pair.told is None for pair in (*blind.train, *blind.validation)), "nobody asks"


def test_shots_are_told_their_own_noise_and_not_that_of_the_target_too(tmp_path: Path) -> None:
    for scene in range(3):
        for number in range(2):
            saved(tmp_path / f"{scene}/{number}.tif", shot(picture(scene), 7 * scene + number))
    found = plan(Layout("burst", tmp_path, None, ""))
    for pair in (*found.train, *found.validation):
        assert pair.told == pytest.approx(25 / 255, rel=0.1), "the difference of two shots is 1.41 times as much"


def test_noisy_pictures_are_told_as_denoising_tells_them(tmp_path: Path) -> None:
    for seed in range(4):
        saved(tmp_path / f"{seed}.tif", shot(picture(seed), seed, 15))
    found = plan(Layout("noisy", tmp_path, None, ""))
    for pair in (*found.train, *found.validation):
        assert pair.told == pytest.approx(told_by_denoiser(tmp_path / f"{pair.name}.tif"))


def test_patches_and_whole_images_carry_what_is_told() -> None:
    clean = torch.zeros(1, 40, 40, dtype=torch.uint8)
    pairs = [Pair("a", clean, clean, 0.25)]
    (batch,) = [next(iter(TrainingData(pairs, [], patch=16, batch=3, seed=0).patches(0)))]
    assert batch.told.shape == (3, 1, 1, 1) and batch.told.unique().tolist() == [0.25]
    assert WholeImages(pairs)[0].told.flatten().tolist() == [0.25]
    level = with_noise(None, batch.in_unit(), torch.Generator()).level
    assert level.shape == (3, 1, 16, 16) and level.unique().tolist() == [0.25]
    assert Patches([Pair("a", None, clean)], 16, 0)[0].told.isnan().all()


def test_what_is_told_already_stays() -> None:
    clean = torch.zeros(1, 40, 40, dtype=torch.uint8)
    known, none = with_told([Pair("a", clean, clean, 0.25), Pair("b", None, clean)], GREY)
    assert known.told == 0.25 and none.told is None


def test_white_gaussian_noise_is_told_as_it_is() -> None:
    for spec, plain in {
        "gaussian:0-55": True,
        "gaussian:25|gaussian:0-30": True,
        "gaussian:25|gaussian:0-30+quantise:8": True,
        "gaussian:25+quantise:7": False,
        "quantise:8": False,
        "quantise:8|gaussian:25": False,
        "gaussian:25+jpeg:90": False,
        "poisson-gaussian:gain=0.01,read=0.002": False,
    }.items():
        noise = parse_noise_spec(spec)
        assert is_gaussian(noise) == plain
        assert (to_learn(noise, GREY, []) is noise) == plain and (to_judge(noise, GREY) is noise) == plain
        assert to_learn(noise, BLIND, []) is noise and to_judge(noise, BLIND) is noise


def test_other_noise_is_told_as_an_estimate_would_say() -> None:
    """Of correlated noise estimates say more than its standard deviation."""
    images = [torch.from_numpy(picture(seed).round().astype(np.uint8))[None] for seed in range(6)]
    learnt = to_learn(CORRELATED, GREY, images)
    assert isinstance(learnt, AsEstimated) and len(learnt.samples) == 12
    multiples = [multiple for _, multiple in learnt.samples]
    assert min(multiples) > 1.2
    clean = torch.stack(images) / 255
    noisy, level = learnt(clean, torch.Generator().manual_seed(5))
    ratios = level.amax((1, 2, 3)) / (noisy - clean).square().mean((1, 2, 3)).sqrt()
    assert all(min(abs(float(ratio) - known) for known in multiples) < 1e-4 for ratio in ratios)
    judged = to_judge(CORRELATED, GREY)
    assert isinstance(judged, Estimated)
    noisy, level = judged(clean, torch.Generator().manual_seed(5))
    for image, own in zip(noisy, level, strict=True):
        expected = Denoiser.load("gray").noise_level(ArrayScanlines(image.permute(1, 2, 0).numpy()))
        assert own.unique().tolist() == pytest.approx([expected / 255])  # type: ignore[operator]


def test_each_kind_and_strength_of_noise_is_told_by_estimates_of_its_own() -> None:
    images = [torch.from_numpy(picture(seed).round().astype(np.uint8))[None] for seed in range(8)]
    mixed = to_learn(parse_noise_spec("gaussian:25|correlated:sigma=12,radius=0.8"), GREY, images)
    clean = torch.stack([images[0]] * 24) / 255
    noisy, level = mixed(clean, torch.Generator().manual_seed(1))
    strength = 255 * (noisy - clean).square().mean((1, 2, 3)).sqrt()
    told = 255 * level.amax((1, 2, 3))
    white = strength > 18
    assert 3 < int(white.sum()) < 21
    assert told[white].tolist() == pytest.approx([25] * int(white.sum()), rel=1e-4) and float(told[~white].min()) > 16
    samples = ((1.0 / 255, 0.2), (2.0 / 255, 0.2), (20.0 / 255, 2.0), (30.0 / 255, 2.0))
    fading = AsEstimated(parse_noise_spec("gaussian:25"), samples * 2)
    _, level = fading(clean, torch.Generator().manual_seed(1))
    assert (255 * level).flatten().tolist() == pytest.approx([50] * level.numel(), rel=0.05), "as the strong ones"


def test_a_plan_learns_and_judges_with_what_an_estimate_says(tmp_path: Path) -> None:
    for seed in range(4):
        saved(tmp_path / f"{seed}.tif", shot(picture(seed), seed, 0))
    layout = Layout("clean", tmp_path, PairedFiles(None, tmp_path), "")
    found = plan(layout, noise="correlated:sigma=12,radius=0.8")
    assert isinstance(found.objective, Supervised) and isinstance(found.objective.noise, AsEstimated)
    assert isinstance(found.report.noise, Estimated)
