"""The images that denoisers are measured on: clean ones with noise added, and real noisy ones with a clean partner.

The protocol for Gaussian noise: x in [0, 1] plus N(0, (sigma/255)^2), not clipped, the noise of each image drawn by
`torch.Generator().manual_seed(index)`, where index is the image's place in the sorted order of its folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import ImageError, UsageError
from denoise_se.file_pairs import match_pairs
from denoise_se.image_folder import image_files
from denoise_se.page import Source
from denoise_se.remote_files import real_path

if TYPE_CHECKING:
    from denoise_se.image import Probe
    from denoise_se.noise import NoiseChain, NoiseMixture

Pixels = NDArray[np.float32]

PAIRS = "real"


@dataclass(frozen=True)
class Case:
    """One image to measure; `noisy` is its file for a real pair, None where noise is added. `page`, counted from 1, is
    which of a TIFF stack."""

    test_set: str
    image: str
    index: int
    clean: Path
    noisy: Path | None = None
    page: int | None = None


def clean_cases(folders: Sequence[Path]) -> list[Case]:
    """All images of the folders and their subfolders. Raises `UsageError` for a folder that is not one or is empty."""
    return [
        Case(name, key, index, path)
        for folder, name in zip(folders, _labels(folders), strict=True)
        for index, (key, path) in enumerate(_images(folder).items())
    ]


def pair_cases(pairs: Sequence[tuple[Path, Path]]) -> list[Case]:
    """All pairs of the (noisy, clean) folders, matched by relative path without suffix.

    Raises `UsageError` with the list of all files that have no partner, or one name.
    """
    cases = []
    named = [noisy.parent if real_path(noisy).parent == real_path(clean).parent else noisy for noisy, clean in pairs]
    for (noisy_folder, clean_folder), name in zip(pairs, _labels(named), strict=True):
        matched, problems = match_pairs(noisy_folder, clean_folder)
        if problems:
            raise UsageError(
                "\n  - ".join(["--pairs: files are matched by subfolder and name without suffix", *problems])
            )
        for index, (noisy, clean) in enumerate(matched):
            cases.append(Case(name, noisy.relative_to(noisy_folder).with_suffix("").as_posix(), index, clean, noisy))
    return cases


def check_files(cases: Sequence[Case]) -> dict[Path, Probe]:
    """What the beginning of each file says of it; UsageError that lists those that cannot be read, or not compared."""
    from denoise_se.image_io import probe

    problems = []
    found = {}
    for path in dict.fromkeys(path for case in cases for path in (case.clean, case.noisy) if path is not None):
        try:
            found[path] = probe(path)
        except ImageError as error:
            problems.append(str(error))
    for case in cases:
        if case.noisy in found and case.clean in found:
            noisy, clean = (found[path] for path in (case.noisy, case.clean))
            # either may be stored turned
            if {noisy.width, noisy.height} != {clean.width, clean.height}:
                sizes = f"{noisy.width}x{noisy.height}", f"{clean.width}x{clean.height}"
                problems.append(f"{case.noisy}: is {sizes[0]}, but its clean partner {case.clean} is {sizes[1]}")
            if noisy.frames != clean.frames:
                problems.append(
                    f"{case.noisy}: has {noisy.frames} page(s), but its clean partner {case.clean} has {clean.frames}"
                )
    if problems:
        raise UsageError("\n  - ".join([f"{len(problems)} file(s) cannot be measured; mend or remove them", *problems]))
    return found


def by_page(cases: Sequence[Case], found: Mapping[Path, Probe]) -> list[Case]:
    """A case for each page of the TIFF stacks among them; an image's index counts the pages before it."""
    counts: Counter[tuple[str, bool]] = Counter()
    pages = []
    for case in cases:
        of = case.test_set, case.noisy is None
        probed = found[case.clean]
        count = probed.frames if probed.format == "tiff" else 1
        for page in range(1, count + 1):
            named = replace(case, image=f"{case.image}, page {page}", page=page) if count > 1 else case
            pages.append(replace(named, index=counts[of]))
            counts[of] += 1
    return pages


def add_noise(clean: Pixels, model: NoiseChain | NoiseMixture, index: int) -> tuple[Pixels, float | None]:
    """The noisy image, and its sigma in 8-bit units, None where the noise is not plain Gaussian.

    `clean` is `[H, W]` or `[H, W, 3]` float32 in [0, 1]; `index` is the image's place in sorted order.
    """
    import torch

    from denoise_se.noise import is_gaussian

    planes = clean[None] if clean.ndim == 2 else np.moveaxis(clean, -1, 0)
    batch = torch.from_numpy(np.ascontiguousarray(planes))[None]
    generator = torch.Generator().manual_seed(index)
    noisy, level = model(batch, generator)
    # float32 gives sigma with about six digits; rounded, the one that was asked for comes back exactly
    sigma = round(255 * float(level[0, 0, 0, 0]), 4) if is_gaussian(model) else None
    result = noisy[0, 0] if clean.ndim == 2 else noisy[0].movedim(0, -1)
    return np.ascontiguousarray(result.numpy()), sigma


def inputs(
    case: Case,
    model: NoiseChain | NoiseMixture | None,
    modes: Callable[[int], list[int]],
    notices: dict[tuple[object, str], None],
) -> Iterator[tuple[NDArray[Any], Pixels, float | None]]:
    """(clean `[H, W]` or `[H, W, 3]` as the file has it, noisy float32, sigma or None), once for each mode; `notices`
    gets what was converted on the way."""
    clean = _read(case.clean, case.page, notices)
    shot = _read(case.noisy, case.page, notices) if case.noisy else None
    if case.noisy and shot is not None and shot.shape != clean.shape:
        raise ImageError(
            Source(case.noisy, case.page), f"is {_size(shot)}, but its clean partner {case.clean} is {_size(clean)}"
        )
    for channels in modes(clean.shape[2]):
        target = _plane_or_color(clean, channels)
        if shot is not None:
            yield target, unit_range(_plane_or_color(shot, channels)), None
        elif model is not None:
            yield target, *add_noise(unit_range(target), model, case.index)


def unit_range(pixels: NDArray[Any]) -> Pixels:
    """As float32; integers divided by their full range."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _images(folder: Path) -> dict[str, Path]:
    """The images under `folder` in sorted order, by their path in it without the suffix."""
    found: dict[str, Path] = {}
    for path in sorted(image_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise UsageError(f"{found[key]} and {path} have one name; keep one of them")
        found[key] = path
    return found


def _labels(folders: Sequence[Path]) -> list[str]:
    names = [real_path(folder).name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for folder, name in zip(folders, names, strict=True)]


def _read(path: Path, page: int | None, notices: dict[tuple[object, str], None]) -> NDArray[Any]:
    from denoise_se.image_io import read

    image = read(path, page=page)
    notices |= dict.fromkeys((Source(path, page), notice) for notice in image.notices)
    pixels: NDArray[Any] = image.upright().pixels
    return pixels


def _plane_or_color(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """`[H, W]` for one channel (colour by the weights of Rec. 601, as OpenCV does), else `[H, W, 3]`."""
    import cv2

    if channels == 3:
        return pixels
    return pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]} with {pixels.shape[2]} channel(s)"
