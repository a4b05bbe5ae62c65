"""What a user asks for, once and again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_model import save_tiny

from denoise_se.app.request import Engine, Request

NOISY = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_a_model_is_loaded_once_and_anew_when_another_takes_its_name(tmp_path: Path) -> None:
    model = str(save_tiny(tmp_path / "own.safetensors"))

    def result() -> np.ndarray:
        return Request(model, 25.0, engine=Engine(device="cpu")).denoiser_for(3)(NOISY, 25.0)

    before = result()
    first = Request(model, engine=Engine(device="cpu")).denoiser_for(3)
    assert Request(model, 10.0, engine=Engine(device="cpu")).denoiser_for(1) is first
    save_tiny(tmp_path / "own.safetensors", seed=1)
    assert np.abs(result().astype(int) - before).max() > 0
