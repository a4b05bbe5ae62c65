"""Short runs of a tiny grey network, as tests of training start them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from denoise_se.fitting import fit
from denoise_se.network import NetworkConfig
from denoise_se.run_folder import RunFolder
from denoise_se.training import DenoisingTask
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair

TINY_GREY = NetworkConfig(channels=1, widths=(4, 8), blocks=1)
CONFIG = TrainingConfig(
    network=TINY_GREY, noise="gaussian:25", steps=8, minutes=0, batch=2, patch=16, learning_rate=3e-3, warmup_steps=2,
    validations=2, precision="fp32",
)  # fmt: skip


def smooth(seed: int, side: int = 32, channels: int = 1) -> torch.Tensor:
    small = np.random.default_rng(seed).integers(30, 220, (4, 4, 3), np.uint8)
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)[..., :channels]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


TRAIN = [Pair(f"t{i}", None, smooth(i)) for i in range(3)]
VALIDATION = [Pair("v", None, smooth(9))]


def train(folder: Path, config: TrainingConfig = CONFIG, **options: object) -> RunFolder:
    options = {"data": "made in a test", "quiet": True, "train": TRAIN, "validation": VALIDATION, **options}
    return fit(folder, config, **options)  # type: ignore[arg-type]


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Weights and their average, as saved."""
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    return {key: value for key, value in saved["state_dict"].items() if key.startswith(("network", "average"))}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: object) -> None:
    """Do `action` in the training step number `step`."""
    original = DenoisingTask.training_step

    def training_step(self: DenoisingTask, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        if self.global_step == step:
            action()  # type: ignore[operator]
        return original(self, batch, index)

    monkeypatch.setattr(DenoisingTask, "training_step", training_step)
