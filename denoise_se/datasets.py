"""Patches of training images, and whole validation images, as Lightning takes them.

A patch is a pure function of the seed and its index: index i of a run is the same patch whatever the number of workers,
and a resumed run goes on with the next index. So the order of the data needs no state of its own.
"""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from denoise_se.drawings import drawn, sheet
from denoise_se.loaded import deepened, middle, to_unit
from denoise_se.stop import HANG_UP, SIGNALS
from denoise_se.training_images import Pair

VALIDATION_SIDE = 384  # a validation image's centre is cut to this many pixels a side, so that validating stays cheap
SHEET, MOST_SHEETS = 192, 16  # pixels a side, and number, of the sheets of drawings that are validated on


def generator_of(seed: int, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator of its own for each `key` of a run's seed: (0, step) in training, (1, image) in validation,
    (2, batch) for the bounds of gates, (3, image) where an outcome is measured."""
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (1 << 62)
    return torch.Generator(device).manual_seed(seed)


class Example(NamedTuple):
    """What is learnt from or judged by: `noisy` and `clean` [C, h, w], in a batch [B, C, h, w]; `told`, [1, 1, 1] or
    [B, 1, 1, 1], is what a network is told of the noise (see `Pair.told`), nan where it is not known."""

    noisy: Tensor
    clean: Tensor
    told: Tensor

    def in_unit(self) -> Example:
        """uint8 or uint16 as float32 in [0, 1]."""
        return Example(to_unit(self.noisy), to_unit(self.clean), self.told)


def example(pair: Pair, window: tuple[slice, ...], clean: Tensor | None = None) -> Example:
    """A window of a pair; without a noisy side that is the clean one. `clean` stands for that of the window."""
    clean = pair.clean[window] if clean is None else clean
    told = torch.full((1, 1, 1), math.nan if pair.told is None else pair.told)
    return Example(clean if pair.noisy is None else pair.noisy[window], clean, told)


class Patches(Dataset[Example]):
    """Square patches of random images at random places: index i gives one [C, p, p], uint8 or uint16.

    Images are chosen in proportion to their area. Without noisy images both are the clean patch, and a share of
    `drawings` has a drawing on it, see `denoise_se.drawings`.
    """

    def __init__(self, pairs: Sequence[Pair], patch: int, seed: int, drawings: float = 0) -> None:
        self.pairs, self.patch, self.seed, self.drawings = pairs, patch, seed, drawings
        areas = np.array([pair.clean[0].numel() for pair in pairs], np.float64)
        self.cumulative = np.cumsum(areas / areas.sum())

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, index))
        which = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.pairs) - 1)
        pair = self.pairs[which]
        top = int(rng.integers(pair.clean.shape[1] - self.patch + 1))
        left = int(rng.integers(pair.clean.shape[2] - self.patch + 1))
        window = (slice(None), slice(top, top + self.patch), slice(left, left + self.patch))
        if pair.noisy is None and self.drawings and rng.random() < self.drawings:
            return example(pair, window, with_drawing(pair.clean[window], rng))
        return example(pair, window)


def with_drawing(
    patch: Tensor, rng: np.random.Generator, draw: Callable[[NDArray[np.uint8], np.random.Generator], Any] = drawn
) -> Tensor:
    """A drawing [C, p, p] of a patch's kind, mostly in its place."""
    codes = patch.cpu() if patch.dtype == torch.uint8 else ((patch.to(torch.int32) + 128) // 257).to(torch.uint8)
    drawing = torch.from_numpy(draw(codes.permute(1, 2, 0).numpy(), rng)).permute(2, 0, 1).contiguous()
    return (drawing if patch.dtype == torch.uint8 else deepened(drawing)).to(patch.device)


def sheets(images: Sequence[Pair], seed: int) -> list[Pair]:
    """A sheet of drawings for each of the first MOST_SHEETS images, at most SHEET pixels wide and high.

    Many small ones, as the PSNR of a single one goes up and down by a decibel while a network trains.
    """
    found = []
    for index, pair in enumerate(images[:MOST_SHEETS]):
        photo = WholeImages([pair])[0].clean[:, :SHEET, :SHEET]
        page = with_drawing(photo, np.random.default_rng((seed, index)), sheet)
        found.append(Pair(f"drawings {index + 1}", None, page))
    return found


class Consecutive(Sampler[int]):
    """The indices from `start` on, without end: the trainer says when a run is over."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def image_index(position: int, rank: int, world_size: int, images: int) -> int:
    """Which of the validation images a rank looks at in its turn `position`: they take turns, and all as many."""
    return (position * world_size + rank) % images


class Turns(Sampler[int]):
    """One rank's share of `images` validation images, see `image_index`; the last may be another rank's too."""

    def __init__(self, images: int, rank: int, world_size: int) -> None:
        self.indices = [image_index(i, rank, world_size, images) for i in range(-(-images // world_size))]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class WholeImages(Dataset[Example]):
    """Validation images [C, H, W], the centre of at most VALIDATION_SIDE pixels a side."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        pair = self.pairs[index]
        return example(pair, (slice(None), *middle(pair.clean.shape[1:], VALIDATION_SIDE)))


def leave_signals(worker: int) -> None:
    """A signal to all of a run's processes is for the first to answer, which still needs the patches of its step."""
    for number in (*SIGNALS, *HANG_UP):
        signal.signal(number, signal.SIG_IGN)


class TrainingData(LightningDataModule):
    """Training patches from the trainer's global step on, and the validation images.

    There are no epochs; a resumed run's loader starts at the batch after the last step.
    """

    def __init__(
        self,
        train: Sequence[Pair],
        validation: Sequence[Pair],
        *,
        patch: int,
        batch: int,
        seed: int,
        drawings: float = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.patch, self.batch, self.seed, self.drawings, self.workers = patch, batch, seed, drawings, workers

    def keep_on(self, device: torch.device, free_bytes: int) -> None:
        """Move 8-bit training images to `device` when they take at most a quarter of its free memory.

        Patches are then cropped there, without worker processes. 16-bit images stay in main memory, since PyTorch has
        few operations on uint16 outside the CPU.
        """
        tensors = [t for pair in self.train for t in (pair.noisy, pair.clean) if t is not None]
        if sum(t.nbytes for t in tensors) > free_bytes / 4 or any(t.dtype != torch.uint8 for t in tensors):
            return
        self.train = [
            pair._replace(noisy=None if pair.noisy is None else pair.noisy.to(device), clean=pair.clean.to(device))
            for pair in self.train
        ]
        self.workers = 0

    def patches(self, first_step: int) -> DataLoader[Example]:
        return DataLoader(
            Patches(self.train, self.patch, self.seed, self.drawings),
            batch_size=self.batch,
            sampler=Consecutive(first_step * self.batch),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=leave_signals if self.workers else None,
        )

    def first_patches(self, count: int, drawings: float) -> Iterator[Example]:
        """The first `count` patches in batches, at this share of drawings, without worker processes."""
        patches = Patches(self.train, self.patch, self.seed, drawings)
        return iter(DataLoader(Subset(patches, range(count)), batch_size=self.batch))

    def train_dataloader(self) -> DataLoader[Example]:
        assert self.trainer is not None
        return self.patches(self.trainer.global_step)

    def val_dataloader(self) -> DataLoader[Example]:
        assert self.trainer is not None
        turns = Turns(len(self.validation), self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(WholeImages(self.validation), batch_size=1, sampler=turns)
