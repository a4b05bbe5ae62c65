"""The straight line of variance over brightness: gain and read noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Interval = tuple[float, float]

NORMAL_95 = 1.96


@dataclass(frozen=True)
class NoiseLine:
    """var(x) = gain * x + floor for x in [0, 1], with standard errors."""

    gain: float
    gain_error: float
    floor: float
    floor_error: float
    scatter: float  # chi-square per degree of freedom: about 1 when the variances do lie on a line

    def at(self, brightness: Float) -> Float:
        return self.gain * brightness + self.floor

    def gain_interval(self) -> Interval:
        return interval(self.gain, self.gain_error)


def fit_line(x: Float, v: Float, relative: Float) -> NoiseLine:
    """The line through variances v [N] at brightness x [N], whose standard errors are `relative` [N] times v.

    Neither gain nor floor is below 0. Weights follow the fitted line, not the single variances (those that chance made
    small would weigh most); variances far off it count less (Huber), since texture lifts single ones.
    """
    design = np.stack([x, np.ones_like(x)])
    fit = np.full_like(v, max(float(np.median(v)), 1e-12))
    gain = floor = 0.0
    robust = np.ones_like(v)
    for _ in range(20):
        weight = robust / np.square(relative * fit)
        normal = (design * weight) @ design.T
        moment = (design * weight) @ v
        gain, floor = np.linalg.pinv(normal, hermitian=True) @ moment
        if gain < 0:
            gain, floor = 0.0, moment[1] / normal[1, 1]
        elif floor < 0:
            gain, floor = moment[0] / normal[0, 0], 0.0
        fit = np.maximum(gain * x + floor, 1e-12)
        residual = (v - fit) / (relative * fit)
        robust = 1 / np.maximum(1, np.abs(residual) / 2)
    scatter = float((robust * residual**2).sum() / max(1, len(x) - 2))
    covariance = np.linalg.pinv(normal, hermitian=True) * max(1.0, scatter)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return NoiseLine(float(gain), float(errors[0]), float(floor), float(errors[1]), scatter)


def interval(value: float, error: float) -> Interval:
    """95 %, of what is not below 0."""
    return max(0.0, value - NORMAL_95 * error), max(0.0, value + NORMAL_95 * error)


def roots(variance: float, error: float) -> Interval:
    """The 95 % interval of the standard deviation."""
    low, high = interval(variance, error)
    return low**0.5, high**0.5
