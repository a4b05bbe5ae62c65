"""Training on noisy pictures alone: which way to learn from them, by what their measured noise is like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from denoise_se.banding import row_covariance
from denoise_se.checkpoint import Checkpoint
from denoise_se.errors import UsageError
from denoise_se.loaded import centre, to_unit
from denoise_se.noise_measurement import MIN_SIDE, measure_noise
from denoise_se.noise_profile import NoiseProfile
from denoise_se.objectives import Neighbours, Objective, Recorrupted
from denoise_se.profile_noise import ProfileNoise
from denoise_se.removed_noise import IMAGES, excess, removed_noise, removed_profile
from denoise_se.training_images import Pair, thinned
from denoise_se.value_range import WHOLE, full_range

MEASURED_IMAGES = 24  # spread over the set; more say little more
MEASURED_SIDE = 768  # of their centres
HIDDEN = 1.15  # times the measured variance, removed by the start: then the measured one reads too low
BANDED = 0.1  # of the noise's standard deviation; what is less may be the picture's, and does little
WHITE = 0.1  # correlation of neighbouring pixels below which noise counts as independent from pixel to pixel


@dataclass(frozen=True)
class NoisyOnly:
    """How to train: `objective`; `noise`, the measured one; `turns`, whether it looks the same turned; `why`;
    `hidden`, whether there is more noise than the pictures show, which `resynthesis` is for."""

    objective: Objective
    noise: ProfileNoise
    turns: bool
    why: str
    hidden: bool


def plan_noisy_only(images: Sequence[Pair], start: Checkpoint | None) -> NoisyOnly:
    """Measures the noise of noisy images (their `clean` is the noisy image, see `load_pairs` of one folder).

    Raises:
        UsageError: images that are too small, or hold nothing that says what their noise is.
    """
    chosen = [pair.clean for pair in images if min(pair.clean.shape[1:]) >= MIN_SIDE]
    chosen = thinned(chosen, MEASURED_IMAGES)
    if not chosen:
        raise UsageError(f"no image is at least {MIN_SIDE}x{MIN_SIDE} pixels, so their noise cannot be measured")
    pictures = [centre(image, MEASURED_SIDE).permute(1, 2, 0).numpy() for image in chosen]
    profile, hidden = measure_noise(pictures, used=WHOLE).profile, ""
    if start is not None:
        few = thinned(pictures, IMAGES)
        floats = [picture.astype(np.float32) / np.float32(full_range(picture.dtype)) for picture in few]
        removed = removed_noise(floats, start, ProfileNoise(profile))
        times = excess(removed, profile) ** 0.5
        if times**2 > HIDDEN:
            profile = removed_profile(removed)
            hidden = (
                f"in flat parts {start.name} removes {times:.1f} times the noise that shows in the pictures, so it is "
                "measured there, and may still be more (a burst would say); "
            )
    variance = float(np.mean(profile.variance(0.5)))
    if variance <= 0:
        raise UsageError("no noise was found in these images, so there is nothing to learn from them")
    across, down = _correlation(profile)
    least = BANDED * variance**0.5
    banded = [name for name, values in (("row", profile.row), ("column", profile.column)) if max(values) > least]
    found = (
        f"{hidden}sigma {255 * variance**0.5:.1f} at middle brightness (white, as learnt, being 255), correlation "
        f"of neighbouring pixels {across:.2f} across and {down:.2f} down, {' and '.join(banded) or 'no'} banding"
    )
    noise = ProfileNoise(profile)
    if hidden:
        why = f"{found}; so the start's results, at half size, with 1 to 2 times such noise put on them"
        return NoisyOnly(Recorrupted(noise), noise, False, why, True)
    if max(abs(across), abs(down)) < WHITE and not banded:
        why = f"{found}: independent from pixel to pixel, so Neighbor2Neighbor"
        return NoisyOnly(Neighbours(), noise, True, why, False)
    why = f"{found}: not independent from pixel to pixel, so Recorrupted-to-Recorrupted with the measured noise"
    return NoisyOnly(Recorrupted(noise), noise, False, why, False)


def has_banding(pairs: Sequence[Pair]) -> bool:
    """Whether the noise of noisy/clean pairs shifts rows or columns as a whole, so that it must not be turned."""
    differences = []
    for pair in thinned(pairs, MEASURED_IMAGES):
        if pair.noisy is not None:
            noisy, clean = (to_unit(centre(image, MEASURED_SIDE)) for image in (pair.noisy, pair.clean))
            differences.append((noisy - clean).permute(1, 2, 0).numpy())
    if not differences:
        return False
    turned = [difference.swapaxes(0, 1) for difference in differences]
    return bool(row_covariance(differences).any() or row_covariance(turned).any())


def _correlation(profile: NoiseProfile) -> tuple[float, float]:
    """Of the grain at a distance of one pixel (across, down), mean over the channels."""
    across, down = profile.correlation_at(1)
    return float(across.mean()), float(down.mean())
