"""What a folder of training images holds: pairs, bursts, noisy pictures or clean ones, told by its names and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import DatasetError, ImageError
from denoise_se.file_pairs import PairedFiles, parted, words_of
from denoise_se.image_folder import image_files
from denoise_se.image_io import probe, read
from denoise_se.likeness import alike, thumbnail
from denoise_se.noise_series import quadratic_surface

NOISY_FOLDERS = ("noisy", "noise", "input", "inputs", "lq", "real", "degraded")
CLEAN_FOLDERS = ("clean", "target", "targets", "gt", "hq", "mean", "groundtruth", "ground_truth", "reference")
WORDS = (
    ("noisy", "clean"), ("noisy", "gt"), ("real", "mean"), ("real", "gt"), ("input", "target"), ("input", "gt"),
    ("lq", "hq"), ("lq", "gt"),
)  # fmt: skip
TRAIN_FOLDERS, VALIDATION_FOLDERS = ("train", "training"), ("val", "valid", "validation")
SURELY_CLEAN = ("clean", "gt", "groundtruth")  # words of names that no noisy picture bears

Kind = Literal["pairs", "burst", "noisy", "clean"]
LOOKED_AT = 3  # scenes, and shots of each: enough to tell a burst from an album
# Correlation of what is left of two thumbnails without the surface of their light, and the share of the thumbnail that
# this must be: two fields under a microscope have the same light, and two shots of a plain scene nothing else.
SAME_DETAIL, LEAST_DETAIL = 0.5, 0.1


@dataclass(frozen=True)
class Layout:
    """`kind` and its files: `files` for pairs and clean images, `folder` for bursts and noisy ones; `validation` where
    the folder holds a part for it; `why` in words."""

    kind: Kind
    folder: Path
    files: PairedFiles | None
    why: str
    validation: PairedFiles | None = None


def recognise(folder: Path, *, has_noise: bool) -> Layout:
    """The layout of `folder`; `has_noise` says that a noise spec was given, so that pictures alone are clean ones.

    Raises:
        DatasetError: no images, names that can be read in two ways, or clean pictures whose noisy partners are missing.
    """
    files = image_files(folder)
    parts = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    train, held_out = (
        next((parts[name] for name in names if name in parts), None) for names in (TRAIN_FOLDERS, VALIDATION_FOLDERS)
    )
    if train is not None and (found := _pairs(train)) is not None:
        other = None if held_out is None else _pairs(held_out)
        why = f"in {train.name}/, {_said(found)}"
        why += f"; validation on {held_out.name}/" if held_out is not None and other is not None else ""
        left = [path.name for path in parts.values() if path not in (train, held_out if other is not None else None)]
        why += f"; {', '.join(f'{name}/' for name in left)} left out" if left else ""
        return Layout("pairs", train, found, why, other)
    pairs = _pairs(folder)
    if pairs is not None:
        return Layout("pairs", folder, pairs, _said(pairs))
    if has_noise:
        return Layout("clean", folder, PairedFiles(None, folder), "pictures alone, and --noise says what to add")
    _refuse_clean(folder, files)
    scenes = scene_folders(folder)
    bursts = [_is_burst(files) for files in scenes[:LOOKED_AT]]
    if bursts and all(bursts):
        return Layout("burst", folder, None, f"{len(scenes)} sub-folders of several shots of one scene each")
    why = "pictures without clean partners (with --noise they would count as clean"
    if any(bursts):
        why += f"; {sum(bursts)} of {len(bursts)} sub-folders looked at hold a burst, --burst says what the others lack"
    stacks = any(is_stack(files[0]) for files in scenes)
    return Layout(
        "noisy", folder, None, why + (", with --burst the pages of a file as shots of one scene)" if stacks else ")")
    )


def scene_folders(folder: Path) -> list[list[Path]]:
    """The images of each folder below `folder` that holds any itself, or of `folder`; sorted."""
    scenes: dict[Path, list[Path]] = {}
    for path in image_files(folder):
        scenes.setdefault(path.parent, []).append(path)
    return list(scenes.values())


def is_stack(path: Path) -> bool:
    """Whether a file has several pages."""
    try:
        return probe(path).frames > 1
    except ImageError:
        return False


def _refuse_clean(folder: Path, files: Sequence[Path]) -> None:
    """DatasetError when a name says that a picture is a clean one, which must not be learnt from as a noisy one."""
    for file in files:
        below = [part.lower() for part in file.relative_to(folder).parts[:-1]]
        if any(part in CLEAN_FOLDERS for part in below) or any(word in SURELY_CLEAN for word in words_of(file.stem)):
            raise DatasetError(
                f"{folder}: {file.relative_to(folder)} sounds like a clean picture, but no noisy partners are found by "
                "the names of folders or files; say it with --pairs NOISY CLEAN, --burst or --noisy"
            )


def _pairs(folder: Path) -> PairedFiles | None:
    """Noisy and clean sub-folders, or names of which each holds one of two words."""
    parts = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    noisy, clean = ([parts[name] for name in names if name in parts] for names in (NOISY_FOLDERS, CLEAN_FOLDERS))
    if len(noisy) == len(clean) == 1:
        return PairedFiles(noisy[0], clean[0])
    if noisy and clean:
        names = ", ".join(path.name for path in (*noisy, *clean))
        raise DatasetError(f"{folder}: several of its folders could be pairs ({names}); say it with --pairs")
    stems = [path.stem for path in image_files(folder)]
    for words in WORDS:
        found = [parted(stem, words) for stem in stems]
        if None not in found and {word for word, _ in filter(None, found)} == set(words):
            return PairedFiles(folder, folder, words)
    return None


def _said(pairs: PairedFiles) -> str:
    if pairs.words is None:
        return f"{pairs.noisy.name}/ and {pairs.clean.name}/ hold noisy and clean images"  # type: ignore[union-attr]
    return "names with {} and {} are noisy and clean images".format(*pairs.words)


def _is_burst(files: Sequence[Path]) -> bool:
    if len(files) < 2:
        return False
    try:
        sizes = {(probe(path).width, probe(path).height) for path in files}
        if len(sizes) > 1:
            return False
        first, *others = (thumbnail(read(path).upright().pixels) for path in files[:LOOKED_AT])
    except ImageError:
        return False
    return all(alike(first, other) and _of_same_detail(first, other) for other in others)


def _of_same_detail(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two thumbnails of one light can be of one scene."""
    details = [small - quadratic_surface(small[..., None].astype(np.float32))[..., 0] for small in (one, other)]
    norms = [float(np.linalg.norm(detail)) for detail in details]
    return max(norms) < LEAST_DETAIL or float((details[0] * details[1]).sum()) > SAME_DETAIL * norms[0] * norms[1]
