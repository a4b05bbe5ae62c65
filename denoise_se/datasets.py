"""Training and validation images: decoded once, kept in memory as integers, cropped into patches.

A patch is a pure function of the seed and its index: index i of a run is the same patch whatever the number of workers,
and a resumed run goes on with the next index. So the order of the data needs no state of its own.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from denoise_se.errors import DatasetError, ImageError
from denoise_se.image_io import READABLE_SUFFIXES, read

SMALLEST_SIDE = 11  # of a validation image: the window of SSIM (Wang et al. 2004)
VALIDATION_SIDE = 384  # a validation image's centre is cut to this many pixels a side, so that validating stays cheap


class Pair(NamedTuple):
    """`noisy` is None where the noise is to be synthesised. Both [C, H, W], uint8 or uint16."""

    name: str
    noisy: Tensor | None
    clean: Tensor


@dataclass(frozen=True)
class PairedFiles:
    """File names of one training set; `noisy` is None for clean images that get synthetic noise."""

    noisy: Path | None
    clean: Path


def to_unit(image: Tensor) -> Tensor:
    """uint8 or uint16 to float32 in [0, 1]."""
    return image.float() / (255.0 if image.dtype == torch.uint8 else 65535.0)


def image_files(folder: Path) -> list[Path]:
    """All readable image files below `folder` that are not hidden, sorted; DatasetError when there are none."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READABLE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise DatasetError(f"{folder}: holds no image ({', '.join(sorted(READABLE_SUFFIXES))})")
    return files


def match_pairs(noisy: Path, clean: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files of both folders with the same relative path and stem; and a line for each without a partner."""

    def by_stem(folder: Path, problems: list[str]) -> dict[Path, Path]:
        found: dict[Path, Path] = {}
        for file in image_files(folder):
            key = file.relative_to(folder).with_suffix("")
            if key in found:
                problems.append(f"{file}: {found[key].name} has the same stem; rename one of them")
            found.setdefault(key, file)
        return found

    problems: list[str] = []
    noisy_files, clean_files = by_stem(noisy, problems), by_stem(clean, problems)
    problems += [f"{f}: no partner of this name in {clean}" for k, f in noisy_files.items() if k not in clean_files]
    problems += [f"{f}: no partner of this name in {noisy}" for k, f in clean_files.items() if k not in noisy_files]
    return [(noisy_files[key], clean_files[key]) for key in noisy_files if key in clean_files], problems


def load_pixels(path: Path, channels: int) -> Tensor:
    """[channels, H, W], uint8 or uint16; as `channels` asks, colour becomes grey (Rec. 601 luma), grey repeats."""
    pixels = read(path).pixels
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels.clip(0, 1) * 65535).astype(np.uint16)
    if channels == 1 and pixels.shape[2] == 3:
        luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        pixels = np.rint(luma)[..., None].astype(pixels.dtype)
    elif channels == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def load_pairs(files: PairedFiles, channels: int, minimum: int) -> list[Pair]:
    """Decode a whole training set.

    Args:
        files: the folders.
        channels: image channels of the network.
        minimum: the smallest side that is of use (the patch size). Clean images below it are left out as long as
            there are others; a pair below it is a problem.

    Raises:
        DatasetError: listing every file without a partner, unreadable, of another size than its partner, or too small.
    """
    problems: list[str] = []
    if files.noisy is None:
        names: list[tuple[Path | None, Path]] = [(None, path) for path in image_files(files.clean)]
    else:
        matched, problems = match_pairs(files.noisy, files.clean)
        names = list(matched)

    def load(entry: tuple[Path | None, Path]) -> Pair | list[str]:
        images, errors = [], []
        for path in entry:
            try:
                images.append(None if path is None else load_pixels(path, channels))
            except ImageError as error:
                errors.append(str(error))
        if errors:
            return errors
        noisy, clean = images
        assert clean is not None
        if noisy is not None and noisy.shape != clean.shape:
            sizes = [f"{t.shape[2]}x{t.shape[1]}" for t in (noisy, clean)]
            return [f"{entry[0]}: is {sizes[0]}, its clean partner {entry[1]} is {sizes[1]}"]
        return Pair(entry[1].stem, noisy, clean)

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load, names))
    sound = [(path, item) for (_, path), item in zip(names, loaded, strict=True) if isinstance(item, Pair)]
    pairs = [pair for _, pair in sound if min(pair.clean.shape[1:]) >= minimum]
    too_small = [
        f"{path}: is {pair.clean.shape[2]}x{pair.clean.shape[1]}, smaller than {minimum} pixels; take a smaller --patch"
        for path, pair in sound
        if min(pair.clean.shape[1:]) < minimum
    ]
    problems += [line for item in loaded if isinstance(item, list) for line in item]
    if files.noisy is not None or not pairs:
        problems += too_small
    if problems:
        where = files.clean if files.noisy is None else f"{files.noisy} and {files.clean}"
        raise DatasetError(f"{where}: {len(problems)} problem(s); mend or remove these files", sorted(problems))
    return pairs


def split_validation(pairs: Sequence[Pair], fraction: float = 0.1, most: int = 10) -> tuple[list[Pair], list[Pair]]:
    """(train, validation): a fixed choice of whole images, by a hash of their names."""
    if len(pairs) < 2:
        raise DatasetError("one image alone cannot serve training and validation; give --val-pairs or more images")
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    count = min(most, max(1, round(len(pairs) * fraction)))
    return ranked[count:], ranked[:count]


def refuse_shared_images(train: Sequence[Pair], validation: Sequence[Pair]) -> None:
    """DatasetError naming each validation image whose pixels are also in the training set."""

    def digest(pair: Pair) -> bytes:
        return hashlib.sha256(repr(pair.clean.shape).encode() + pair.clean.numpy().tobytes()).digest()

    seen = {digest(pair): pair.name for pair in train}
    shared = [f"{p.name}: the same picture as {seen[digest(p)]} of training" for p in validation if digest(p) in seen]
    if shared:
        raise DatasetError("the same pictures are in training and validation; remove them from one side", shared)


class Patches(Dataset[tuple[Tensor, Tensor]]):
    """Square patches of random images at random places: index i gives (noisy, clean) [C, p, p], uint8 or uint16.

    Images are chosen in proportion to their area. Without noisy images both are the clean patch.
    """

    def __init__(self, pairs: Sequence[Pair], patch: int, seed: int) -> None:
        self.pairs, self.patch, self.seed = pairs, patch, seed
        areas = np.array([pair.clean[0].numel() for pair in pairs], np.float64)
        self.cumulative = np.cumsum(areas / areas.sum())

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        which = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.pairs) - 1)
        _, noisy, clean = self.pairs[which]
        top = int(rng.integers(clean.shape[1] - self.patch + 1))
        left = int(rng.integers(clean.shape[2] - self.patch + 1))
        window = (slice(None), slice(top, top + self.patch), slice(left, left + self.patch))
        return (clean if noisy is None else noisy)[window], clean[window]


class Consecutive(Sampler[int]):
    """The indices from `start` on, without end: the trainer says when a run is over."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Validation images, (noisy, clean) [C, H, W], the centre of at most VALIDATION_SIDE pixels a side."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        _, noisy, clean = self.pairs[index]
        top, left = (max(0, side - VALIDATION_SIDE) // 2 for side in clean.shape[1:])
        window = (slice(None), slice(top, top + VALIDATION_SIDE), slice(left, left + VALIDATION_SIDE))
        return (clean if noisy is None else noisy)[window], clean[window]


class TrainingData(LightningDataModule):
    """Training patches from the trainer's global step on, and the validation images.

    There are no epochs; a resumed run's loader starts at the batch after the last step.
    """

    def __init__(
        self, train: Sequence[Pair], validation: Sequence[Pair], *, patch: int, batch: int, seed: int, workers: int = 0
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.patch, self.batch, self.seed, self.workers = patch, batch, seed, workers

    def keep_on(self, device: torch.device, free_bytes: int) -> None:
        """Move 8-bit training images to `device` when they take at most a quarter of its free memory.

        Patches are then cropped there, without worker processes. 16-bit images stay in main memory, since PyTorch has
        few operations on uint16 outside the CPU.
        """
        tensors = [t for pair in self.train for t in (pair.noisy, pair.clean) if t is not None]
        if sum(t.nbytes for t in tensors) > free_bytes / 4 or any(t.dtype != torch.uint8 for t in tensors):
            return
        self.train = [
            Pair(name, None if noisy is None else noisy.to(device), clean.to(device))
            for name, noisy, clean in self.train
        ]
        self.workers = 0

    def patches(self, first_step: int) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            Patches(self.train, self.patch, self.seed),
            batch_size=self.batch,
            sampler=Consecutive(first_step * self.batch),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        assert self.trainer is not None
        return self.patches(self.trainer.global_step)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(WholeImages(self.validation), batch_size=1)
