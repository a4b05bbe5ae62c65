"""The images of a training run: found, matched, decoded, and refused with a list of all that is wrong with them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.errors import DatasetError, ImageError
from denoise_se.image import turned, wrong_range
from denoise_se.image_folder import image_files
from denoise_se.image_io import read

SMALLER_PATCH = "take a smaller --patch"
SMALLEST_SIDE = 11  # of a validation image: the window of SSIM (Wang et al. 2004)


class Pair(NamedTuple):
    """`noisy` is None where the noise is to be synthesised. Both [C, H, W], uint8 or uint16."""

    name: str
    noisy: Tensor | None
    clean: Tensor


@dataclass(frozen=True)
class PairedFiles:
    """The folders of one training set; `noisy` is None for clean images that get synthetic noise.

    `endings`, in lower case, tell noisy from clean names where both lie in one folder: ("_real", "_mean").
    """

    noisy: Path | None
    clean: Path
    endings: tuple[str, str] | None = None


def match_pairs(
    noisy: Path, clean: Path, endings: tuple[str, str] = ("", "")
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Files of both folders with the same relative path and stem; and a line for each without a partner.

    Of each folder those count whose stems end as `endings` say; the rest of the stem is compared.
    """

    def by_stem(folder: Path, problems: list[str], ending: str) -> dict[Path, Path]:
        found: dict[Path, Path] = {}
        for file in image_files(folder):
            if not file.stem.lower().endswith(ending):
                continue
            key = file.relative_to(folder).with_name(file.stem[: len(file.stem) - len(ending)] or file.stem)
            if key in found:
                problems.append(f"{file}: {found[key].name} has the same stem; rename one of them")
            found.setdefault(key, file)
        return found

    problems: list[str] = []
    noisy_files, clean_files = by_stem(noisy, problems, endings[0]), by_stem(clean, problems, endings[1])
    problems += [f"{f}: no partner of this name in {clean}" for k, f in noisy_files.items() if k not in clean_files]
    problems += [f"{f}: no partner of this name in {noisy}" for k, f in clean_files.items() if k not in noisy_files]
    return [(noisy_files[key], clean_files[key]) for key in noisy_files if key in clean_files], problems


def load_pixels(path: Path, channels: int) -> Tensor:
    """[channels, H, W], uint8 or uint16; as `channels` asks, colour becomes grey (Rec. 601 luma), grey repeats."""
    return from_pixels(read(path).pixels, channels)


def from_pixels(pixels: NDArray[np.generic], channels: int) -> Tensor:
    """As `load_pixels`, from an image [H, W, C]; floats become uint16."""
    if pixels.dtype == np.float32:
        pixels = np.rint(pixels.clip(0, 1) * 65535).astype(np.uint16)
    if channels == 1 and pixels.shape[2] == 3:
        luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        pixels = np.rint(luma)[..., None].astype(pixels.dtype)
    elif channels == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


class Loaded(NamedTuple):
    """A decoded file: `pixels` [C, H, W] as the network takes them, as stored, the channels that the file has, and the
    EXIF orientation that its pixels have."""

    path: Path
    pixels: Tensor
    own_channels: int
    orientation: int = 1

    def upright(self) -> Loaded:
        """As EXIF says that it is shown."""
        pixels = turned(self.pixels.permute(1, 2, 0).numpy(), self.orientation)
        return self._replace(pixels=torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), orientation=1)

    @property
    def size(self) -> str:
        return f"{self.pixels.shape[2]}x{self.pixels.shape[1]}"


def load_images(paths: Sequence[Path], channels: int) -> list[Loaded | str]:
    """Every file as `load_pixels` gives it, or a line that says why it cannot be read."""

    def load(path: Path) -> Loaded | str:
        try:
            image = read(path)
        except ImageError as error:
            return str(error)
        if wrong := wrong_range(image.pixels):
            return f"{path}: {wrong}"
        return Loaded(path, from_pixels(image.pixels, channels), image.channels, image.metadata.orientation)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(load, paths))


def of_one_view(images: Sequence[Loaded]) -> list[Loaded]:
    """Images of one scene as stored, which is how a sensor's rows lie and how `denoise` sees them; as shown where some
    are stored turned and some are not."""
    if len({image.orientation for image in images}) == 1:
        return list(images)
    return [image.upright() for image in images]


def mixed_channels(images: Sequence[Loaded]) -> list[str]:
    """A line for each image of the rarer kind when some are grey and some colour: their noise is not the same."""
    kinds = {1: "grey", 3: "colour"}
    counts = Counter(image.own_channels for image in images)
    if len(counts) < 2:
        return []
    (most, _), *_ = counts.most_common()
    return [
        f"{image.path}: is {kinds.get(image.own_channels, 'of another kind')}, most others are {kinds.get(most)}"
        for image in images
        if image.own_channels != most
    ]


def same_depth(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All as uint16 as soon as one of them is, since patches of one batch share a type; 255 becomes 65535."""
    if all(tensor.dtype == torch.uint8 for tensor in tensors):
        return list(tensors)
    return [tensor if tensor.dtype == torch.uint16 else deepened(tensor) for tensor in tensors]


def deepened(image: Tensor) -> Tensor:
    """uint8 to uint16, 255 to 65535."""
    return (image.to(torch.int32) * 257).to(torch.uint16)


def load_pairs(
    files: PairedFiles, channels: int, minimum: int, *, one_kind: bool = False, mend: str = SMALLER_PATCH
) -> list[Pair]:
    """Decode a whole training set.

    Args:
        files: the folders.
        channels: image channels of the network.
        minimum: the smallest side that is of use (the patch size). Clean images below it are left out as long as
            there are others; a pair below it is a problem.
        one_kind: whether grey and colour images may not be mixed where they have no partners; pairs never may.
        mend: what to do about an image that is too small.

    Raises:
        DatasetError: listing every file without a partner, unreadable, of another size or number of channels than its
            partner, or too small.
    """
    if files.noisy is None:
        return _load_alone(files.clean, channels, minimum, one_kind, mend)
    matched, problems = match_pairs(files.noisy, files.clean, files.endings or ("", ""))
    loaded = load_images([path for names in matched for path in names], channels)
    problems += [item for item in loaded if isinstance(item, str)]
    sound: list[tuple[Loaded, Loaded]] = []
    for noisy, clean in zip(loaded[::2], loaded[1::2], strict=True):
        if isinstance(noisy, str) or isinstance(clean, str):
            continue
        noisy, clean = of_one_view([noisy, clean])
        if noisy.pixels.shape != clean.pixels.shape:
            problems.append(f"{noisy.path}: is {noisy.size}, its clean partner {clean.path} is {clean.size}")
        elif noisy.own_channels != clean.own_channels:
            problems.append(
                f"{noisy.path}: has {noisy.own_channels} channel(s), its clean partner {clean.path} has "
                f"{clean.own_channels}"
            )
        elif min(clean.pixels.shape[1:]) < minimum:
            problems.append(too_small(clean, minimum, mend))
        else:
            sound.append((noisy, clean))
    problems += mixed_channels([clean for _, clean in sound])
    if problems:
        folders = " and ".join(dict.fromkeys((str(files.noisy), str(files.clean))))
        raise problems_of(folders, problems)
    names = names_below(files.clean, [clean.path for _, clean in sound])
    noisy_pixels = same_depth([noisy.pixels for noisy, _ in sound])
    clean_pixels = same_depth([clean.pixels for _, clean in sound])
    return [Pair(*entry) for entry in zip(names, noisy_pixels, clean_pixels, strict=True)]


def _load_alone(folder: Path, channels: int, minimum: int, one_kind: bool, mend: str) -> list[Pair]:
    loaded = load_images(image_files(folder), channels)
    problems = [item for item in loaded if isinstance(item, str)]
    sound = [item for item in loaded if not isinstance(item, str)]
    useful = [image for image in sound if min(image.pixels.shape[1:]) >= minimum]
    if not useful:
        problems += [too_small(image, minimum, mend) for image in sound]
    if one_kind:
        problems += mixed_channels(useful)
    if problems:
        raise problems_of(str(folder), problems)
    names = names_below(folder, [image.path for image in useful])
    pixels = same_depth([image.pixels for image in useful])
    return [Pair(name, None, tensor) for name, tensor in zip(names, pixels, strict=True)]


def names_below(folder: Path, files: Sequence[Path]) -> list[str]:
    """The files' stems, or, where some share theirs as in SIDD, their paths below `folder`."""
    stems = [file.stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    return [file.relative_to(folder).with_suffix("").as_posix() for file in files]


def too_small(image: Loaded, minimum: int, mend: str = SMALLER_PATCH) -> str:
    return f"{image.path}: is {image.size}, smaller than {minimum} pixels; {mend}"


def problems_of(where: str, problems: Sequence[str]) -> DatasetError:
    """The error that lists them."""
    return DatasetError(f"{where}: {len(problems)} problem(s); mend or remove these files", sorted(problems))


def split_validation(pairs: Sequence[Pair], fraction: float = 0.1, most: int = 10) -> tuple[list[Pair], list[Pair]]:
    """(train, validation): a fixed choice of whole images, by a hash of their names."""
    if len(pairs) < 2:
        raise DatasetError("one image alone cannot serve training and validation; give --val-pairs or more images")
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())
    count = min(most, max(1, round(len(pairs) * fraction)))
    return ranked[count:], ranked[:count]


def refuse_shared_images(train: Sequence[Pair], validation: Sequence[Pair]) -> None:
    """DatasetError naming each validation image of which either side's pixels are also in the training set."""

    def digests(pair: Pair) -> set[bytes]:
        images = (image for image in (pair.noisy, pair.clean) if image is not None)
        deep = (image if image.dtype == torch.uint16 else deepened(image) for image in images)
        return {hashlib.sha256(repr(image.shape).encode() + image.numpy().tobytes()).digest() for image in deep}

    seen = {digest: pair.name for pair in train for digest in digests(pair)}
    shared = []
    for pair in validation:
        same = [seen[digest] for digest in digests(pair) if digest in seen]
        shared += [f"{pair.name}: the same picture as {same[0]} of training"] if same else []
    if shared:
        raise DatasetError("the same pictures are in training and validation; remove them from one side", shared)
