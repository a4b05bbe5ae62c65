"""Variance over brightness: the line of gain and read noise, or the parabola of multiplicative noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Interval = tuple[float, float]

NORMAL_95 = 1.96
BEGINS = 2.5  # standard errors that a line lies below 0 at brightness 0, for black not to be there
KEPT, KEPT_MEAN = 0.75, 0.3685  # the smallest squares of standard normal numbers, as a share, and their mean
MAX_SCATTER = 4.0  # above, brightness alone does not explain the variances
# Multiplicative noise is told by how far the variances scatter about a line, how many times less they do so about a
# parabola, and how many of its own standard errors this rises. Of 62 training pictures in grey and in colour, clean, as
# JPEG 50, with white, correlated and photon noise (that of linear light and with an offset, too) 17 of 2,604 pass;
# with speckle of 0.1 and 0.2 47 to 61 of 62 do.
SCATTERED, CLEARER, CERTAIN = 1.0, 1.6, 15.0


@dataclass(frozen=True)
class NoiseLaw:
    """var(x) = gain * max(0, x - black) + (speckle * x)**2 + floor for x in [0, 1]: photons, multiplicative noise, and
    the rest. `black` is what a camera adds to its counts, so that read noise does not go below 0."""

    gain: float
    floor: float
    speckle: float = 0.0
    black: float = 0.0

    def at(self, brightness: NDArray[np.floating]) -> NDArray[np.floating]:
        return self.gain * np.maximum(0, brightness - self.black) + np.square(self.speckle * brightness) + self.floor

    def unbiased(self, noisy: NDArray[np.floating]) -> NDArray[np.floating]:
        """What has the mean `at(x)` where `noisy` is x with such noise, x not below black."""
        photons = self.gain * (noisy - self.black)
        square = np.square(noisy) - photons - self.floor  # has the mean (1 + speckle**2) * x**2
        return photons + self.speckle**2 / (1 + self.speckle**2) * square + self.floor


@dataclass(frozen=True)
class NoiseLine:
    """var(x) = gain * max(0, x - black)**power + floor for x in [0, 1], with standard errors; power is 1, or 2 for
    speckle."""

    gain: float
    gain_error: float
    floor: float
    floor_error: float
    scatter: float  # chi-square per degree of freedom: about 1 when the variances do lie on a line
    power: int = 1
    black: float = 0.0

    def at(self, brightness: Float) -> Float:
        return self.gain * np.maximum(0, brightness - self.black) ** self.power + self.floor

    def gain_interval(self) -> Interval:
        return interval(self.gain, self.gain_error)


def fit_line(x: Float, v: Float, relative: Float) -> NoiseLine:
    """The line through variances v [N] at brightness x [N], whose standard errors are `relative` [N] times v.

    Neither gain nor floor is below 0. Where the line surely reaches 0 before brightness does, black is not at 0; the
    darkest of x is taken for it, and the floor is the variance there.
    """
    line = _fit(x, v, relative)
    if line.floor > 0 or line.gain == 0:
        return line
    black = float(x.min())
    above = _fit(x - black, v, relative)
    reached = above.gain * black - above.floor  # by so much the line is below 0 at brightness 0
    sure = reached > BEGINS * float(np.hypot(above.gain_error * black, above.floor_error))
    return replace(above, black=black) if sure else line


def _fit(x: Float, v: Float, relative: Float) -> NoiseLine:
    """Weights follow the fitted line, not the single variances (those that chance made small would weigh most).
    Variances far off it count less, most of all those above it, as texture lifts them: the line is a lower bound. The
    quarter farthest off says nothing of the scatter, and those above nothing of the errors."""
    middle, width = float(x.mean()), float(np.ptp(x)) or 1.0  # an offset is not to cost the digits of the slope
    design = np.stack([(x - middle) / width, np.ones_like(x)])
    usual = float(np.median(v))
    least = min(1e-12, 1e-6 * usual) if usual > 1e-100 else 1e-12  # of a variance, whatever the scale
    fit = np.full_like(v, max(usual, least))
    gain = floor = 0.0
    robust = np.ones_like(v)
    for _ in range(20):
        weight = robust / np.square(relative * fit)
        normal = (design * weight) @ design.T
        moment = (design * weight) @ v
        rise, level = np.linalg.pinv(normal, hermitian=True) @ moment
        gain, floor = rise / width, level - rise * middle / width
        if gain < 0:
            gain, floor = 0.0, moment[1] / normal[1, 1]
        elif floor < 0:
            gain, floor = float((weight * x) @ v) / float((weight * x) @ x), 0.0
        fit = np.maximum(gain * x + floor, least)
        residual = (v - fit) / (relative * fit)
        huber = 1 / np.maximum(1, np.abs(residual) / 2)
        robust = np.where(residual > 0, huber**2, huber)
    squares = huber * residual**2
    scatter = float(np.sort(squares)[: math.ceil(KEPT * len(x))].mean()) / KEPT_MEAN
    below = 2 * float(squares[residual < 0].sum()) / max(1, len(x) - 2)
    of_both = np.array([[1 / width, 0], [-middle / width, 1]])
    covariance = of_both @ np.linalg.pinv(normal, hermitian=True) @ of_both.T * max(1.0, below)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return NoiseLine(float(gain), float(errors[0]), float(floor), float(errors[1]), scatter)


def fit_law(x: Float, v: Float, relative: Float) -> NoiseLine:
    """The line through the variances, or that through them over x squared where these clearly lie on it alone."""
    line, square = fit_line(x, v, relative), _fit(x**2, v, relative)
    clear = line.scatter > SCATTERED and square.scatter < min(MAX_SCATTER, line.scatter / CLEARER)
    return replace(square, power=2) if clear and square.gain > CERTAIN * square.gain_error else line


def interval(value: float, error: float) -> Interval:
    """95 %, of what is not below 0."""
    return max(0.0, value - NORMAL_95 * error), max(0.0, value + NORMAL_95 * error)


def roots(variance: float, error: float) -> Interval:
    """The 95 % interval of the standard deviation."""
    low, high = interval(variance, error)
    return low**0.5, high**0.5
