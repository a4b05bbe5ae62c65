"""The images of a training run: found, matched, decoded, and refused with a list of all that is wrong with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from denoise_se.errors import DatasetError, ImageError
from denoise_se.file_pairs import PairedFiles, match_pairs
from denoise_se.image_folder import image_files
from denoise_se.loaded import Loaded, Reading, as_seen, deepened, each, mixed_channels, same_depth
from denoise_se.page import Source

Item = TypeVar("Item")
SMALLER_PATCH = "take a smaller --patch"
SMALLEST_SIDE = 11  # of a validation image: the window of SSIM (Wang et al. 2004)


class Pair(NamedTuple):
    """`noisy` is None where the noise is to be synthesised. Both [C, H, W], uint8 or uint16. `told`, in [0, 1], is the
    standard deviation that a network is told of the noise of `noisy`, see `told_level`; None where it is not known."""

    name: str
    noisy: Tensor | None
    clean: Tensor
    told: float | None = None

    @property
    def file(self) -> str:
        """What the pages of one file share."""
        return re.sub(r", page \d+$", "", self.name)


def load_pairs(
    files: PairedFiles,
    channels: int,
    minimum: int,
    *,
    one_kind: bool = False,
    mend: str = SMALLER_PATCH,
    most: int | None = None,
    reading: Reading | None = None,
) -> list[Pair]:
    """Decode a whole training set; each page of a file is an image.

    Args:
        files: the folders.
        channels: image channels of the network.
        minimum: the smallest side that is of use (the patch size). Clean images below it are left out as long as
            there are others; a pair below it is a problem.
        one_kind: whether grey and colour images may not be mixed where they have no partners; pairs never may.
        mend: what to do about an image that is too small.
        most: pairs that are wanted: the others, evenly spread, are not read.
        reading: how they are read; by default all pixels are in memory.

    Raises:
        DatasetError: listing every file without a partner, unreadable, of another size or number of channels or pages
            than its partner, or too small.
    """
    reading = reading or Reading()
    if files.noisy is None:
        return _load_alone(files.clean, channels, minimum, one_kind, mend, reading)
    matched, problems = match_pairs(files.noisy, files.clean, files.words)

    def load(paths: tuple[Path, Path]) -> list[list[Loaded]]:
        noisy, clean = map(reading.decode, paths)
        if len(noisy) != len(clean):
            raise ImageError(
                paths[0], f"has {len(noisy)} page(s), its clean partner {paths[1]} has {len(clean)}: they are paired"
            )
        return [as_seen(both, channels, reading.keep) for both in zip(noisy, clean, strict=True)]

    sound: list[list[Loaded]] = []
    for noisy, clean in each(load, spread(matched, most), problems):
        if noisy.pixels.shape != clean.pixels.shape:
            problems.append(f"{noisy.source}: is {noisy.size}, its clean partner {clean.source} is {clean.size}")
        elif noisy.own_channels != clean.own_channels:
            problems.append(
                f"{noisy.source}: has {noisy.own_channels} channel(s), its clean partner {clean.source} has "
                f"{clean.own_channels}"
            )
        elif min(clean.pixels.shape[1:]) < minimum:
            problems.append(too_small(clean, minimum, mend))
        else:
            sound.append([noisy, clean])
    problems += mixed_channels([clean for _, clean in sound])
    if problems:
        folders = " and ".join(dict.fromkeys((str(files.noisy), str(files.clean))))
        raise problems_of(folders, problems)
    names = names_below(files.clean, [clean.source for _, clean in sound])
    sides = (same_depth([image.pixels for image in side], reading.keep) for side in zip(*sound, strict=True))
    return spread([Pair(*entry) for entry in zip(names, *sides, strict=True)], most)


def spread(items: Sequence[Item], most: int | None) -> list[Item]:
    """At most so many of the items, evenly spread; None takes all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, most).round().astype(int)]


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items: all, or every second, third and so on from the first."""
    return list(items[:: -(-len(items) // most) or 1])


def _load_alone(folder: Path, channels: int, minimum: int, one_kind: bool, mend: str, reading: Reading) -> list[Pair]:
    def load(path: Path) -> list[list[Loaded]]:
        return [as_seen([page], channels, reading.keep) for page in reading.decode(path)]

    problems: list[str] = []
    sound = [image for (image,) in each(load, image_files(folder), problems)]
    useful = [image for image in sound if min(image.pixels.shape[1:]) >= minimum]
    if not useful:
        problems += [too_small(image, minimum, mend) for image in sound]
    if one_kind:
        problems += mixed_channels(useful)
    if problems:
        raise problems_of(str(folder), problems)
    names = names_below(folder, [image.source for image in useful])
    pixels = same_depth([image.pixels for image in useful], reading.keep)
    return [Pair(name, None, tensor) for name, tensor in zip(names, pixels, strict=True)]


def names_below(folder: Path, sources: Sequence[Source]) -> list[str]:
    """The files' stems, or, where some share theirs as in SIDD, their paths below `folder`; and the pages."""
    files = {source.path for source in sources}
    alone = len({file.stem for file in files}) == len(files)
    names = []
    for path, page in sources:
        name = path.stem if alone else path.relative_to(folder).with_suffix("").as_posix()
        names.append(name if page is None else f"{name}, page {page}")
    return names


def too_small(image: Loaded, minimum: int, mend: str = SMALLER_PATCH) -> str:
    return f"{image.source}: is {image.size}, smaller than {minimum} pixels; {mend}"


def problems_of(where: str, problems: Sequence[str]) -> DatasetError:
    """The error that lists them."""
    return DatasetError(f"{where}: {len(problems)} problem(s); mend or remove these files", sorted(problems))


def split_validation(pairs: Sequence[Pair], fraction: float = 0.1, most: int = 10) -> tuple[list[Pair], list[Pair]]:
    """(train, validation): a fixed choice of whole files, by a hash of their names; of one file its last pages. Files
    of the same clean image, as of several shots with their mean, are on one side.

    Of the files kept for validation at most `most` pages, evenly spread, are used.

    Raises:
        DatasetError: too few images, or all of one scene.
    """
    if len(pairs) < 2:
        raise DatasetError("one image alone cannot serve training and validation; give --val-pairs or more images")
    files = _by_scene(pairs)
    if len(files) == 1:
        if len({pair.file for pair in pairs}) > 1:
            raise DatasetError("all images have the same clean one; give some of another scene too, or --val-pairs")
        count = _share(len(pairs), fraction, most)
        return list(pairs[:-count]), list(pairs[-count:])
    ranked = sorted(files, key=lambda file: hashlib.sha256(file.encode()).digest())
    count, pages = _share(len(files), fraction, most), 0
    kept: set[str] = set()
    for file in ranked:
        if len(kept) < count and pages + len(files[file]) <= len(pairs) / 2:  # however long some of the stacks are
            kept.add(file)
            pages += len(files[file])
    train = [pair for file in ranked if file not in kept for pair in files[file]]
    validation = [pair for file in ranked if file in kept for pair in files[file]]
    return train, thinned(validation, most)


def _by_scene(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each file, or of several files that have a clean image in common, by the name of the first."""
    heads: dict[str, str] = {}  # of each file, the one before it that it goes with

    def head(file: str) -> str:
        while heads.setdefault(file, file) != file:
            file = heads[file]
        return file

    seen: dict[bytes, str] = {}
    for pair in pairs:
        digest = _digest(pair.clean)
        if digest is not None:
            heads[head(pair.file)] = head(seen.setdefault(digest, pair.file))
    scenes: dict[str, list[Pair]] = {}
    for pair in pairs:
        scenes.setdefault(head(pair.file), []).append(pair)
    return scenes


def _digest(image: Tensor) -> bytes | None:
    """What tells pictures apart, whatever their depth; None for blank ones, which are all alike."""
    deep = (image if image.dtype == torch.uint16 else deepened(image)).numpy()
    if deep.min() == deep.max():
        return None
    return hashlib.sha256(repr(deep.shape).encode() + deep.tobytes()).digest()


def _share(count: int, fraction: float, most: int) -> int:
    return min(most, max(1, round(count * fraction)))


def refuse_shared_images(train: Iterable[Pair], validation: Sequence[Pair]) -> None:
    """DatasetError naming each validation image of which either side's pixels are also in the training set."""

    def digests(pair: Pair) -> set[bytes]:
        found = (_digest(image) for image in (pair.noisy, pair.clean) if image is not None)
        return {digest for digest in found if digest is not None}

    seen = {digest: pair.name for pair in train for digest in digests(pair)}
    shared = []
    for pair in validation:
        same = [seen[digest] for digest in digests(pair) if digest in seen]
        shared += [f"{pair.name}: the same picture as {same[0]} of training"] if same else []
    if shared:
        raise DatasetError("the same pictures are in training and validation; remove them from one side", shared)
