"""What is wrong with noisy/clean pairs that a network would learn from all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.errors import DatasetError
from denoise_se.likeness import COMPARED, of_other_scene
from denoise_se.loaded import grey_centre
from denoise_se.misalignment import MOST_SHIFT, shift_between
from denoise_se.training_images import Pair, thinned

MOST_PAIRS = 200  # spread evenly over a larger set
SAME_EXPOSURE = 0.8  # of the mean brightness of two sides, either by the other
ROUGHER = 1.25  # times; a clean side may well be a little sharper
DARK = 4 / 255  # mean brightness that a darker one is taken for


def checked(pairs: Sequence[Pair]) -> list[str]:
    """A line for each pair whose sides do not go together, of at most MOST_PAIRS that are looked at: they are equal,
    show two scenes or lie shifted by more than a pixel; and one on differences of exposure, and when the clean sides
    are noisier.

    Raises:
        DatasetError: most that were looked at show two scenes.
    """
    looked_at = [pair for pair in thinned(pairs, MOST_PAIRS) if pair.noisy is not None]
    equal, strangers, shifted = [], [], []
    times: dict[str, float] = {}
    rougher = 0
    for pair in looked_at:
        assert pair.noisy is not None
        noisy, clean = grey_centre(pair.noisy, COMPARED), grey_centre(pair.clean, COMPARED)
        if torch.equal(pair.noisy, pair.clean):
            equal.append(f"{pair.name}: both sides are equal, so it holds no noise to learn")
        elif of_other_scene(noisy, clean):
            strangers.append(f"{pair.name}: the two sides show different scenes")
        else:
            shifted += _shifted(pair, pair.noisy)
            bright, dark = (max(float(plane.mean()), DARK) for plane in (noisy, clean))
            times[pair.name] = bright / dark
            rougher += _roughness(clean) > ROUGHER * _roughness(noisy)
    if equal and len(equal) == len(looked_at):
        equal = ["the noisy images are the clean ones, so nothing but leaving them is learnt; give noisy ones"]
    if 2 * len(strangers) > len(looked_at):
        name = strangers[0].partition(":")[0]
        raise DatasetError(
            f"{len(strangers)} of {len(looked_at)} pairs show different scenes, such as {name}; they are matched by "
            "name: give each noisy image the name of its clean one"
        )
    swapped = ["most clean sides are noisier than the noisy ones; the noisy folder comes first"]
    return equal + strangers + shifted + _exposures(times) + swapped * (2 * rougher > len(looked_at))


def _shifted(pair: Pair, noisy: Tensor) -> list[str]:
    down, right = shift_between(pair.clean, noisy)
    if max(abs(down), abs(right)) <= MOST_SHIFT:
        return []
    return [f"{pair.name}: the noisy image is shifted by {right:+.1f} pixels across and {down:+.1f} down"]


def _exposures(times: Mapping[str, float]) -> list[str]:
    """A line on the pairs whose noisy side is so many times as bright as the clean one, where that is not once."""
    other = {name: value for name, value in times.items() if not SAME_EXPOSURE < value < 1 / SAME_EXPOSURE}
    if not other:
        return []
    name = next(iter(other))
    return [
        f"{len(other)} of {len(times)} noisy images are brighter or darker than their clean partners, such as {name} "
        f"({other[name]:.2g} times), and a network learns that, too; give both sides one exposure and one range"
    ]


def _roughness(plane: NDArray[np.float64]) -> float:
    """The median size of a pixel's difference from the mean of the four around it: of noise more than of the scene."""
    around = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    return float(np.median(np.abs(plane[1:-1, 1:-1] - around / 4))) if min(plane.shape) > 2 else 0.0
