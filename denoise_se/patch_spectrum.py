"""The spectrum of noise that is not white, from the flattest patches of each brightness.

Demosaicing and JPEG take the high coefficients away; the noise then shows in the middle ones of flat patches. Each
third of the spectrum is measured on patches chosen by the other two, which keeps the choice from biasing the measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denoise_se.noise_patches import DctPatches, lag_weights
from denoise_se.patch_noise import LOW

Float = NDArray[np.float64]

SPECTRUM_BINS = 8
SPECTRUM_SHARE = 0.05  # the flattest patches of a bin of brightness
# From where to where noise goes from white to correlated: middle to high coefficients, as standard deviations. Colour
# has three components to compare and can be stricter. Camera JPEGs: grey 2.2-3.2, colour 1.7-2.6; white noise: 1, and
# up to 2.1 and 1.3 where it is weak and the picture shows through.
CORRELATED_GREY, CORRELATED_COLOR = (2.1, 2.5), (1.45, 1.75)
# Middle coefficients of the flattest fifth over those of the flattest hundredth, as variances: up to 5.4 in grey camera
# JPEGs, whose noise is about the same everywhere; 8 and more in clean grey pictures that are texture throughout.
UNEVEN_GREY = (5.5, 8.5)
CORRELATED_ERROR = 1.6  # of sigma; set so that the interval holds the truth for 9 in 10 of PolyU's camera JPEGs


@dataclass(frozen=True)
class PatchSpectrum:
    """One bin of brightness: covariances [M, M, K] of the DCT coefficients of M mixtures of the channels (8-bit units
    squared), and the channels' mean brightness [C] (8-bit units) there."""

    covariance: Float
    brightness: Float


def spectra(patches: DctPatches, mix: Float) -> list[PatchSpectrum]:
    """One for each bin of brightness that is neither black nor blown out; none where patches are too narrow."""
    order = np.round(patches.order)
    bands = _bands(order)
    if not all(band.any() for band in bands):
        return []
    return list(_bins(patches, mix, bands))


def _bands(order: Float) -> list[NDArray[np.bool_]]:
    return [order <= 3, (order > 3) & (order <= LOW), order > LOW]


def _bins(patches: DctPatches, mix: Float, bands: list[NDArray[np.bool_]]) -> Iterator[PatchSpectrum]:
    for members in np.array_split(np.argsort(patches.means.mean(axis=0), kind="stable"), SPECTRUM_BINS):
        mean = float(patches.means[:, members].mean()) if len(members) else 0.0
        if not 2 < mean < 250:  # black and blown-out areas hold no noise
            continue
        coefficients = np.tensordot(mix, patches.dct[:, members], 1)
        energy = np.square(coefficients).astype(np.float64).sum(axis=0)
        keep = min(len(members), max(30, int(len(members) * SPECTRUM_SHARE)))
        covariance = np.zeros((len(mix), len(mix), energy.shape[1]))
        brightness = []
        for band in bands:
            flattest = np.argsort(energy[:, ~band].sum(axis=1), kind="stable")[:keep]
            chosen = coefficients[:, flattest][..., band].astype(np.float64)
            covariance[..., band] = np.einsum("ank,bnk->abk", chosen, chosen) / keep
            brightness.append(patches.means[:, members[flattest]].mean(axis=1))
        yield PatchSpectrum(covariance, np.mean(brightness, axis=0))


def correlation_weight(found: list[PatchSpectrum], patches: DctPatches) -> float:
    """How far, from 0 to 1, to take the noise for correlated: by the middle over the high coefficients.

    Texture has strong middle coefficients too, but not in all patches alike; in grey, where there are no channels to
    compare, that tells the two apart.
    """
    _, *upper = _bands(np.round(patches.order))
    diagonals = np.array([np.einsum("aak->ak", s.covariance) for s in found])
    middle, high = (diagonals[..., band].mean(axis=2) for band in upper)  # [bins, mixtures]
    ratio = float(np.median(middle / np.maximum(high, 1e-6), axis=0).min() ** 0.5)
    if diagonals.shape[1] > 1:
        return ramp(ratio, CORRELATED_COLOR)
    return ramp(ratio, CORRELATED_GREY) * (1 - ramp(_unevenness(patches), UNEVEN_GREY))


def _unevenness(patches: DctPatches) -> float:
    """The middle coefficients' variance in the flattest fifth of the patches over that in the flattest hundredth."""
    low, middle, _ = _bands(np.round(patches.order))
    energy = np.square(patches.dct[0])
    flattest = np.argsort(energy[:, low].sum(axis=1), kind="stable")
    few, many = (energy[flattest[: max(30, len(flattest) // part)]][:, middle].mean() for part in (100, 5))
    return float(many / max(few, 1e-6))


@dataclass(frozen=True)
class CorrelatedNoise:
    """Noise as its whole spectrum has it: the `variance` over all frequencies and its standard `error`, the `density`
    at low frequencies (the variance of white noise that is as dense there), in 8-bit units squared; `weight` says how
    far it is correlated (`correlation_weight`); `correlation` is that beside and below."""

    variance: float = 0.0
    error: float = 0.0
    density: float = 0.0
    weight: float = 0.0
    correlation: tuple[float, float] = (0.0, 0.0)


def correlated_noise(patches: DctPatches, mix: Float) -> CorrelatedNoise:
    """The noise of an image, over `mix` [M, C] of its channels; nothing where its patches are too narrow."""
    order = np.round(patches.order)
    found = spectra(patches, mix)
    if not found:
        return CorrelatedNoise()
    diagonals = np.array([np.einsum("aak->ak", s.covariance) for s in found])
    grey = np.median(diagonals[:, 0], axis=0)
    completed_rows = [[completed(row, order) for row in s] for s in diagonals]
    # Standard deviations, not variances: a bin full of texture then weighs less.
    levels = [np.mean([(row.sum() + flat) / (len(row) + 1) for row, flat in s]) ** 0.5 for s in completed_rows]
    low = [np.mean([row[order < 4].mean() for row, _ in s]) ** 0.5 for s in completed_rows]
    variance = float(np.mean(levels)) ** 2
    row, flat = completed(grey, order)
    size = len(row) + 1
    total = (row.sum() + flat) / size
    covariance = np.tensordot(np.append(flat, row), lag_weights(patches, 1), 1)
    across, down = (covariance[1, 2] / total, covariance[2, 1] / total) if total > 0 else (0.0, 0.0)
    return CorrelatedNoise(
        variance,
        2 * CORRELATED_ERROR * variance,
        float(np.mean(low)) ** 2,
        correlation_weight(found, patches),
        (float(across), float(down)),
    )


def completed(spectrum: Float, order: Float) -> tuple[Float, float]:
    """The spectrum [K] without the picture's share in the lowest coefficients, and the flat coefficient's variance.

    Correlated noise falls about exponentially with frequency; from the slope at orders 4 and 5 follows the most that
    noise can have below.
    """
    at = [float(spectrum[order == n].mean()) if (order == n).any() else 0.0 for n in (4, 5)]
    fall = float(np.clip(at[0] / at[1], 1, 1.6)) if at[1] > 0 else 1.0
    noise = np.where(order < 4, np.minimum(spectrum, at[0] * fall ** (4 - order)), spectrum)
    return noise, float(at[0] * fall**4 if not (order == 1).any() else noise[order == 1].mean())


def ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1))
