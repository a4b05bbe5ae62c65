"""`denoise-se` in this process, as the tests call it, and pictures for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest

from denoise_se.checkpoint import CHECKPOINTS

SHIPPED = all(
    Path(str(resources.files("denoise_se.checkpoints").joinpath(entry.file))).is_file()
    for entry in CHECKPOINTS.values()
)
needs_weights = pytest.mark.skipif(not SHIPPED, reason="the shipped weights are not there")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def save(name: str, seed: int = 0, shape: tuple[int, ...] = (20, 28, 3)) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(name)
