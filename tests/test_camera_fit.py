"""The camera model fitted to pairs: known parameters come back, and the spec can be trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from denoise_se.camera_fit import PARAMETERS, CameraFit, fit_camera, measures
from denoise_se.camera_noise import Camera
from denoise_se.errors import UsageError
from denoise_se.loaded import to_unit
from denoise_se.noise import parse_noise_spec
from denoise_se.noise_model import Range
from denoise_se.rehearsal import sample_images
from denoise_se.training_images import Pair

TRUE = {"gain": 0.003, "read": 0.006, "luma": 0.5, "chroma": 1.8}


def noisy_of(clean: torch.Tensor, parameters: dict[str, float], seed: int) -> torch.Tensor:
    camera = Camera(**{name: Range(value, value) for name, value in parameters.items()})
    made = camera(to_unit(clean[None]), torch.Generator().manual_seed(seed)).image[0]
    return (made.clamp(0, 1) * 255).round().to(torch.uint8)


def test_levels_and_correlations_are_those_of_noise_known_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = 0.02 * torch.randn(1, 1, 300, 300, generator=generator)
    grey = (grey + grey.roll(1, -1)).expand(-1, 3, -1, -1)  # half of it shared with the next pixel
    levels, correlations = measures(grey, torch.linspace(0, 1, 300).expand(1, 3, 300, 300))
    assert levels[:4].exp2().tolist() == pytest.approx([0.02 * 2**0.5] * 4, rel=0.02)
    assert levels[4].exp2() < 1e-5, "grey noise has no colour"
    assert correlations[:3].tolist() == pytest.approx([0.25, 0, 0], abs=0.02), "across 0.5, down 0"


@pytest.mark.slow
def test_known_parameters_come_back_from_pairs() -> None:
    clean = [image[:, :144, :144] for image in sample_images(3)[:2]]
    fit = fit_camera(Pair(str(seed), noisy_of(image, TRUE, seed), image) for seed, image in enumerate(clean))
    found = dict(zip(PARAMETERS, np.median(fit.parameters, axis=0), strict=True))
    for name, tolerance in (("gain", 0.3), ("luma", 0.15), ("chroma", 0.2)):
        assert found[name] == pytest.approx(TRUE[name], rel=tolerance), name
    assert found["read"] < 0.02
    assert np.median(fit.misfit) < 0.2, "levels within 15 %"


def test_the_spec_holds_the_range_that_most_pairs_lie_in() -> None:
    values = np.array([[0.001 * (i + 1), 0.002, 0.5, 1.5] for i in range(11)])
    spec = CameraFit(("",) * 11, values, np.zeros(11)).spec()
    assert spec == "camera:gain=0.0020-0.010,read=0.0020-0.0020,luma=0.50-0.50,chroma=1.5-1.5"
    noisy = parse_noise_spec(spec)(torch.rand(2, 3, 32, 32), torch.Generator().manual_seed(0))
    assert noisy.image.shape == (2, 3, 32, 32)


def test_a_pair_without_noise_is_refused_by_name() -> None:
    image = sample_images(3)[0]
    with pytest.raises(UsageError, match=r"scan 7: both sides are equal"):
        fit_camera([Pair("scan 7", image, image)])


def test_a_grey_pair_is_refused_by_name() -> None:
    grey = sample_images(3)[0][:1].expand(3, -1, -1)
    with pytest.raises(UsageError, match=r"scan 8: grey, .* noise profile"):
        fit_camera([Pair("scan 8", grey // 2, grey)])


@pytest.mark.slow
def test_the_command_prints_a_spec_and_nothing_else_on_stdout(tmp_path: Path) -> None:
    clean = sample_images(3)[0][:, :96, :96]
    for name, image in (("noisy", noisy_of(clean, TRUE, 0)), ("clean", clean)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), image.permute(1, 2, 0).numpy()[..., ::-1])
    command = [sys.executable, "-m", "denoise_se.app", "noise", "fit", "--pairs", "noisy", "clean"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    parse_noise_spec(run.stdout.strip())
    assert "1 pairs; the level of the fitted noise is off by" in run.stderr
