"""What a folder of training images holds: pairs, bursts, noisy pictures or clean ones, told by its names and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import DatasetError, ImageError
from denoise_se.image_folder import image_files
from denoise_se.image_io import probe, read
from denoise_se.training_images import PairedFiles

NOISY_FOLDERS = ("noisy", "noise", "input", "inputs", "lq", "real", "degraded")
CLEAN_FOLDERS = ("clean", "target", "targets", "gt", "hq", "mean", "groundtruth", "ground_truth", "reference")
ENDINGS = (
    ("_noisy", "_clean"), ("_noisy", "_gt"), ("_real", "_mean"), ("_real", "_gt"), ("_input", "_target"),
    ("_input", "_gt"), ("_lq", "_hq"), ("_lq", "_gt"),
)  # fmt: skip
TRAIN_FOLDERS, VALIDATION_FOLDERS = ("train", "training"), ("val", "valid", "validation")

Kind = Literal["pairs", "burst", "noisy", "clean"]
LOOKED_AT = 3  # scenes, and shots of each: enough to tell a burst from an album
THUMBNAIL = (8, 32)  # least and most blocks a side
BLOCK = 8  # pixels a side at least, where the image has enough of them: averages away the noise
SAME_SCENE = 0.9  # correlation of two thumbnails; different photos stay below


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
        DatasetError: no images, or names that can be read in two ways.
    """
    image_files(folder)
    parts = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    train = next((parts[name] for name in TRAIN_FOLDERS if name in parts), None)
    held_out = next((parts[name] for name in VALIDATION_FOLDERS if name in parts), None)
    if train is not None and held_out is not None:
        found, other = _pairs(train), _pairs(held_out)
        if found is not None and other is not None:
            why = f"{_said(found)}; validation on {held_out.name}/"
            return Layout("pairs", train, found, why, other)
    pairs = _pairs(folder)
    if pairs is not None:
        return Layout("pairs", folder, pairs, _said(pairs))
    if has_noise:
        return Layout("clean", folder, PairedFiles(None, folder), "pictures alone, and --noise says what to add")
    scenes = scene_folders(folder)
    if scenes and all(_is_burst(files) for files in scenes[:LOOKED_AT]):
        return Layout("burst", folder, None, f"{len(scenes)} sub-folders of several shots of one scene each")
    why = "pictures without clean partners (with --noise they would count as clean"
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


def thumbnail(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """[N, N], N from 8 to 32: area means of an image [H, W, C], scaled to mean 0 and norm 1 (0 if constant)."""
    import cv2

    grey = pixels.astype(np.float32).mean(axis=2)
    side = int(np.clip(min(grey.shape) // BLOCK, *THUMBNAIL))
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)


def alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two thumbnails can be of one scene, as those of other sizes cannot; plain ones count as alike."""
    if one.shape != other.shape:
        return False
    plain = not (one.any() and other.any())
    return plain or float((one * other).sum()) > SAME_SCENE


def _pairs(folder: Path) -> PairedFiles | None:
    """Noisy and clean sub-folders, or the two endings of the names in one folder."""
    parts = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    noisy, clean = ([parts[name] for name in names if name in parts] for names in (NOISY_FOLDERS, CLEAN_FOLDERS))
    if len(noisy) == len(clean) == 1:
        return PairedFiles(noisy[0], clean[0])
    if noisy and clean:
        names = ", ".join(path.name for path in (*noisy, *clean))
        raise DatasetError(f"{folder}: several of its folders could be pairs ({names}); say it with --pairs")
    stems = [path.stem.lower() for path in image_files(folder)]
    for ends in ENDINGS:
        counts = [sum(stem.endswith(end) for stem in stems) for end in ends]
        if all(counts) and sum(counts) == len(stems):
            return PairedFiles(folder, folder, ends)
    return None


def _said(pairs: PairedFiles) -> str:
    if pairs.endings is None:
        return f"{pairs.noisy.name}/ and {pairs.clean.name}/ hold noisy and clean images"  # type: ignore[union-attr]
    return "names that end in {} and {} are noisy and clean images".format(*pairs.endings)


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
    return all(alike(first, other) for other in others)
