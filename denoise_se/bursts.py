"""Training pairs from bursts: each shot with the mean of the other shots of its scene as the target.

The noise of the target is independent of that of the input, so that what is learnt is the scene: Noise2Noise, Lehtinen
et al. 2018, arXiv:1803.04189. With two shots the target is the other one; with more it has less noise of its own, which
learns faster. The scene and the camera must not move; brightness that differs from shot to shot is evened out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.errors import DatasetError
from denoise_se.likeness import COMPARED, of_other_scene, thumbnail
from denoise_se.loaded import Loaded, Reading, as_seen, each, full_scale, grey_centre, mixed_channels, same_depth
from denoise_se.misalignment import MOST_SHIFT, shift_between
from denoise_se.network_psnr import decibels
from denoise_se.training_images import Pair, problems_of, too_small
from denoise_se.training_layout import is_stack, scene_folders

SAME = 0.99  # correlation of the thumbnails of two scenes' means
HELD_OUT_SHOTS = 2  # of each validation scene; more shots of one scene say little more


@dataclass(frozen=True)
class Scene:
    """The shots of one scene: two or more of [C, H, W], uint8 or uint16."""

    name: str
    shots: Sequence[Tensor]

    def pairs(self, most: int | None = None) -> Iterator[Pair]:
        """The first `most` shots, each with the mean of all the others (uint16, at the shot's own brightness, which is
        compared where no shot is black or white; what is white in all of them stays white)."""
        full = full_scale(self.shots[0])
        total = torch.zeros(self.shots[0].shape, dtype=torch.int64)
        whole = torch.ones(self.shots[0].shape, dtype=torch.bool)
        for shot in self.shots:
            values = shot.to(torch.int64)
            total += values
            whole &= (values > 0) & (values < full)
        whole |= ~whole.any(dim=2, keepdim=True).any(dim=1, keepdim=True)  # a channel that is clipped all over
        white, count = total == full * len(self.shots), len(self.shots)
        for index, shot in enumerate(self.shots[:most]):
            others = (total - shot.to(torch.int64)).double() / (count - 1)
            sums = ((image * whole).sum(dim=(1, 2), keepdim=True) for image in (shot.double(), others))
            brightness = next(sums) / next(sums).clamp(1)
            target = torch.where(white, 65535.0, others * brightness / full * 65535)
            target = target.round().clamp(0, 65535).to(torch.uint16)
            yield Pair(f"{self.name}, shot {index + 1}", shot, target)

    def held_out_pairs(self) -> list[Pair]:
        """Those of `pairs` that are enough to validate on."""
        return list(self.pairs(HELD_OUT_SHOTS))

    def target_psnr(self) -> float:
        """PSNR in dB of the targets themselves, from the differences between shots: no result can measure better."""
        variance = float(
            (self.shots[0].double() - self.shots[1].double()).div(full_scale(self.shots[0])).square().mean() / 2
        )
        return float(decibels(torch.tensor(variance / (len(self.shots) - 1))))


def load_bursts(
    folder: Path, channels: int, minimum: int, reading: Reading | None = None
) -> tuple[list[Scene], list[str]]:
    """The scenes below `folder`, one a sub-folder or a file of several pages, and a warning for each shot that moved by
    more than a pixel.

    Args:
        channels, minimum, reading: as for `load_pairs`.

    Raises:
        DatasetError: listing every scene of one shot, shot of another size, scene or kind, and file that is unreadable.
    """
    reading = reading or Reading()
    problems: list[str] = []
    warnings: list[str] = []
    found: list[tuple[str, list[Loaded]]] = []
    for where, files in _scenes(folder):
        broken: list[str] = []
        shots = as_seen(each(reading.decode, files, broken), channels, reading.keep)
        problems += broken
        if len(shots) < 2 and broken:  # perhaps one of the others of its scene
            continue
        if len(shots) < 2:
            problems.append(f"{shots[0].source}: is the only shot of its scene; a burst needs two or more")
        elif wrong := _not_alike(shots, minimum):
            problems += wrong
        else:
            found.append((where.relative_to(folder).as_posix() if where != folder else folder.name, shots))
            warnings += _moved(shots)
    problems += mixed_channels([shot for _, shots in found for shot in shots])
    if problems:
        raise problems_of(str(folder), problems)
    deep = same_depth([shot.pixels for _, shots in found for shot in shots], reading.keep)
    scenes = []
    for name, shots in found:
        scenes.append(Scene(name, deep[: len(shots)]))
        del deep[: len(shots)]
    return scenes, warnings


def _scenes(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """The files of each scene and where it is: a file of several pages, or the other files of a folder together."""
    for files in scene_folders(folder):
        stacks = [file for file in files if is_stack(file)]
        yield from ((file, [file]) for file in stacks)
        if len(stacks) < len(files):
            yield files[0].parent, [file for file in files if file not in stacks]


def split_scenes(scenes: Sequence[Scene], fraction: float = 0.1, most: int = 5) -> tuple[list[Scene], list[Scene]]:
    """(train, validation): a fixed choice of whole scenes, by a hash of their names."""
    if len(scenes) < 2:
        raise DatasetError("one scene alone cannot serve training and validation; give a burst of another scene too")
    ranked = sorted(scenes, key=lambda scene: hashlib.sha256(scene.name.encode()).digest())
    count = min(most, max(1, round(len(scenes) * fraction)))
    return ranked[count:], ranked[:count]


def refuse_shared_scenes(train: Sequence[Scene], validation: Sequence[Scene]) -> None:
    """DatasetError naming each validation scene that looks like one of training: its shots are of the same place."""
    seen = [(scene.name, _thumbnail(scene)) for scene in train]
    shared = []
    for scene in validation:
        own = _thumbnail(scene)
        # stricter than for two shots: the means of two scenes have little noise, and another scene may be similar
        same = [name for name, other in seen if own.shape == other.shape and float((own * other).sum()) > SAME]
        shared += [f"{scene.name}: the same scene as {same[0]} of training"] if same else []
    if shared:
        raise DatasetError("the same scenes are in training and validation; put their shots into one folder", shared)


def _thumbnail(scene: Scene) -> NDArray[np.float64]:
    mean = torch.zeros(scene.shots[0].shape)
    for shot in scene.shots:
        mean += shot.float() / len(scene.shots)
    return thumbnail(mean.permute(1, 2, 0).numpy())


def _not_alike(shots: Sequence[Loaded], minimum: int) -> list[str]:
    first, *others = shots
    if min(first.pixels.shape[1:]) < minimum:
        return [too_small(first, minimum)]
    problems = []
    plane = grey_centre(first.pixels, COMPARED)
    for shot in others:
        if shot.pixels.shape != first.pixels.shape:
            problems.append(f"{shot.source}: is {shot.size}, the scene's first shot {first.source} is {first.size}")
        elif of_other_scene(grey_centre(shot.pixels, COMPARED), plane):
            problems.append(f"{shot.source}: shows another scene than {first.source}; a burst's folder holds one scene")
        elif shot.pixels.dtype == first.pixels.dtype and torch.equal(shot.pixels, first.pixels):
            problems.append(f"{shot.source}: is the same as {first.source}, and a copy shows no noise; remove it")
    return problems


def _moved(shots: Sequence[Loaded]) -> list[str]:
    first, *others = shots
    lines = []
    for shot in others:
        down, right = shift_between(first.pixels, shot.pixels)
        if max(abs(down), abs(right)) > MOST_SHIFT:
            lines.append(
                f"{shot.source}: is shifted by {right:+.1f} pixels across and {down:+.1f} down from {first.source}"
            )
    return lines
