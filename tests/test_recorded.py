"""A recorded result gives what the network gave, at every strength, without running it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny

from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.errors import ImageError
from denoise_se.recorded import Recorded, record
from denoise_se.restorer import FULL_STRENGTH
from denoise_se.scanlines import ArrayScanlines


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return Denoiser.load(save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors"), tile=64)


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65_536, (301, 157, 3)).astype(np.uint16)


@pytest.fixture
def recorded(denoiser: Denoiser, noisy: np.ndarray, tmp_path: Path) -> Recorded:
    return record(denoiser, ArrayScanlines(noisy), tmp_path / "restored.npy", sigma=20)


def restored(recorded: Recorded, noisy: np.ndarray, strength: Strength = FULL_STRENGTH) -> np.ndarray:
    return np.concatenate([band.clean for band in recorded.bands(ArrayScanlines(noisy), recorded.level, strength)])


@pytest.mark.parametrize(
    "strength", [Strength(1, 1), Strength(0.5, 0.5), Strength(0, 0), Strength(0.3, 0.9), Strength(1.0, 0.0)]
)
def test_every_strength_equals_a_run_of_the_network_to_the_last_bit(
    denoiser: Denoiser, noisy: np.ndarray, recorded: Recorded, strength: Strength
) -> None:
    assert np.array_equal(restored(recorded, noisy, strength), denoiser(noisy, 20, strength))


def test_the_network_does_not_run_again(
    denoiser: Denoiser, noisy: np.ndarray, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoiser.backend, "denoise", None)
    monkeypatch.setattr(denoiser.backend, "squeeze", None)
    assert restored(recorded, noisy, Strength(0.5, 0.5)).shape == noisy.shape


def test_a_record_that_is_gone_or_of_another_image_is_refused(noisy: np.ndarray, recorded: Recorded) -> None:
    with pytest.raises(ImageError, match="not \\(30, 157, 3\\)"):
        restored(recorded, noisy[:30])
    recorded.path.unlink()
    with pytest.raises(ImageError, match="denoise the image again"):
        restored(recorded, noisy)


def test_what_the_progress_raises_stops_the_run(denoiser: Denoiser, noisy: np.ndarray, tmp_path: Path) -> None:
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(denoiser, ArrayScanlines(noisy), tmp_path / "r.npy", progress=progress)
    assert seen == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system has no way to ask for space ahead")
def test_a_disk_without_space_is_an_error_and_not_the_end_of_the_process(
    denoiser: Denoiser, noisy: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ImageError, match=r"restored\.npy: cannot be written \(No space left on device\)"):
        record(denoiser, ArrayScanlines(noisy), tmp_path / "restored.npy", sigma=20)
    assert not list(tmp_path.iterdir())
