"""The noise of one image, from the image alone: its level, its growth with brightness, its correlation.

In the DCT of 8x8 patches, white noise fills all coefficients alike, a picture mostly the low ones. So patches with
little energy in the low coefficients are nearly flat, and their high coefficients hold nearly nothing but noise.
Choosing by the low and measuring on the high ones keeps the choice from biasing the measure, the two being
independent for white Gaussian noise (Ponomarenko et al. 2007; Colom and Buades, IPOL 2013,
doi:10.5201/ipol.2013.45). How many patches count as flat follows from the chi-square law that noise alone obeys, as
Liu, Tanaka and Okutomi do with gradients (doi:10.1109/TIP.2013.2283400).

Demosaicing and JPEG take the high coefficients away, and such noise would read as none. It shows in the middle
coefficients of flat patches, which then stand far above the high ones; the level is then summed over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import UsageError
from denoise_se.noise_patches import Array, Patches, clip_factor, cut, lag_products
from denoise_se.scanlines import ArrayScanlines, Scanlines

Float = NDArray[np.float64]
Interval = tuple[float, float]

LOW, HIGH = 6, 9  # orders: flatness is judged up to the first, noise measured from the second on
FLAT_QUANTILE = 0.9  # share of the truly flat patches that the test of flatness lets pass
MIN_FLAT = 100  # patches used even when none is flat
MIN_CLIP_FACTOR = 0.5  # patches that lost more of their variance to clipping say little
MAX_SCATTER = 4.0  # above, brightness alone does not explain the variances
BINS = 24  # of brightness, over all channels, for the gain
SPECTRUM_BINS = 8
SPECTRUM_SHARE = 0.05  # the flattest patches of a bin of brightness, for the spectrum
# From where to where noise goes from white to correlated: middle to high coefficients, as standard deviations. Colour
# has three components to compare and can be stricter. Camera JPEGs: grey 2.2-3.2, colour 1.7-2.6; white noise: 1, and
# up to 2.1 and 1.3 where it is weak and the picture shows through.
CORRELATED_GREY, CORRELATED_COLOR = (2.1, 2.5), (1.45, 1.75)
CORRELATED_ERROR = 1.6  # of sigma; set so that the interval holds the truth for 9 in 10 of PolyU's camera JPEGs
# Grey noise in a colour image: how far, as standard deviations, the first component must stand above the other two.
GREY_NOISE = (1.5, 2.5)
NORMAL_95 = 1.96
# Grey and two colour differences, orthonormal: the mean of the three variances is the mean of the channels'.
# A picture lies mostly in the first, so the other two see nearly pure noise.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


@dataclass(frozen=True)
class NoiseEstimate:
    """The noise of one image.

    `sigma` (over all channels) and `sigma_channels` are standard deviations in 8-bit units: 25 means 25/255 of the
    range. `gain` and `read_noise` are for a range of [0, 1]: var(x) = gain * x + read_noise**2 at brightness x. The
    95 % intervals are statistical for white noise (texture taken for noise is not in them) and wide for correlated
    noise, which reads low: camera JPEGs at about 0.6 of the truth. `correlation` is the autocorrelation at a distance
    of one pixel, (horizontal, vertical): about 0 for white noise, 0.4 and more after demosaicing or JPEG; where noise
    is weak the picture's texture raises it too.
    `white_sigma` is what the highest frequencies alone say: equal to sigma for white noise, far lower for correlated
    noise. `patches` counts those that were measured; 0 means that nothing could be said.
    """

    sigma: float
    sigma_interval: Interval
    sigma_channels: tuple[float, ...]
    white_sigma: float
    gain: float
    gain_interval: Interval
    read_noise: float
    read_noise_interval: Interval
    correlation: tuple[float, float]
    patches: int


@dataclass(frozen=True)
class _Variance:
    value: float
    error: float
    patches: int


@dataclass(frozen=True)
class _Line:
    """var(x) = gain * x + floor, with standard errors."""

    gain: float
    gain_error: float
    floor: float
    floor_error: float
    scatter: float  # chi-square per degree of freedom: about 1 when the bins do lie on a line


def estimate_sigma(image: NDArray[np.generic] | Scanlines, *, data_range: float | None = None) -> float:
    """Standard deviation of the noise in 8-bit units (25 means 25/255 of the range), over all channels.

    image: [H, W] or [H, W, C] with C = 1 or 3, an array or scanlines; data_range None means 255 for uint8, 65535 for
    uint16, 1 for floats.
    Constant images and images of fewer than 32 pixels give 0. Raises UsageError for other shapes and types.

    >>> noisy = np.random.default_rng(0).normal(0.5, 0.1, (64, 64)).astype(np.float32)
    >>> round(estimate_sigma(noisy))
    25
    """
    return estimate_noise(image, data_range=data_range).sigma


def estimate_noise(image: NDArray[np.generic] | Scanlines, *, data_range: float | None = None) -> NoiseEstimate:
    """Level, brightness dependence and correlation of the noise; arguments and errors as for estimate_sigma."""
    pixels, span, step = _checked(image, data_range)
    channels = pixels.shape[2]
    patches = cut(pixels, 255 / span)
    if patches is None:
        return _nothing(channels)
    mix = OPPONENT if channels == 3 else np.eye(1)
    components = [_variance(patches, row) for row in mix]
    singles = components if channels == 1 else [_variance(patches, row) for row in np.eye(channels)]
    rounding = (255 * step / span) ** 2 / 12
    white, error = _combined(components)
    line = _line(patches)
    brightness = float(patches.means.mean()) / 255
    spread = float(np.ptp(np.percentile(patches.means, [10, 90]))) / 255
    sure = line.scatter < MAX_SCATTER and line.gain > 8 * line.gain_error
    if sure and line.gain * spread > 0.5 * white / 255**2:
        # The flattest patches need not be of mean brightness: the line says what the others have.
        white = max(white, 255**2 * (line.gain * brightness + line.floor))
    total, total_error, weight, correlation = _correlated(patches, mix)
    variance = white + weight * max(0.0, total - white)
    error = float(np.hypot((1 - weight) * error, weight * total_error))
    grow = variance / white if white > 0 else 1.0
    parts = np.array([s.value for s in singles])
    parts = parts * (variance / parts.mean()) if parts.mean() > 0 else np.full(channels, variance)
    return NoiseEstimate(
        sigma=_root(variance - rounding),
        sigma_interval=_roots(variance - rounding, error),
        sigma_channels=tuple(_root(p - rounding) for p in parts),
        white_sigma=_root(white - rounding),
        gain=line.gain * grow,
        gain_interval=_interval(line.gain * grow, line.gain_error * grow),
        read_noise=_root(line.floor * grow - rounding / 255**2),
        read_noise_interval=_roots(line.floor * grow - rounding / 255**2, line.floor_error * grow),
        correlation=correlation,
        patches=sum(c.patches for c in components),
    )


def _checked(image: NDArray[np.generic] | Scanlines, data_range: float | None) -> tuple[Scanlines, float, float]:
    """The image as scanlines, its range, and its quantisation step."""
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3):
            raise UsageError(f"noise estimation takes images [H, W] or [H, W, C] with C = 1 or 3, not {image.shape}")
        source: Scanlines = ArrayScanlines(image[..., None] if image.ndim == 2 else image)
    else:
        source = image
    if source.shape[2] not in (1, 3):
        raise UsageError(f"noise estimation takes images [H, W] or [H, W, C] with C = 1 or 3, not {source.shape}")
    kind = source.dtype.kind
    if kind not in "uif" or (kind == "i" and data_range is None):
        raise UsageError(f"noise estimation takes uint8, uint16 or float images, not {source.dtype}; convert it first")
    span = data_range if data_range is not None else 1.0 if kind == "f" else float(np.iinfo(source.dtype).max)
    if not (np.isfinite(span) and span > 0):
        raise UsageError(f"data_range must be a positive number, not {data_range}")
    return source, float(span), 0.0 if kind == "f" else 1.0


def _nothing(channels: int) -> NoiseEstimate:
    none = (0.0, 0.0)
    return NoiseEstimate(0.0, none, (0.0,) * channels, 0.0, 0.0, none, 0.0, none, none, 0)


def _variance(patches: Patches, mix: Float) -> _Variance:
    """Variance of the noise in one mixture [C] of the channels, as it was before clipping."""
    energy = np.square(np.tensordot(mix, patches.dct, 1))
    # Not the lowest two: a slope is no reason to leave a patch out.
    low = energy[:, (patches.order >= 2) & (patches.order <= LOW)]
    high = energy[:, patches.order >= HIGH]
    found = _flat_variance(low, high, np.ones(len(low)), patches.overlap)
    if np.isinf(patches.low) and np.isinf(patches.high):
        return found
    for _ in range(12):  # the factor depends on sigma
        before = found.value
        factors = [clip_factor(m, before**0.5, patches.low, patches.high) for m in patches.means]
        factor = np.square(mix) @ np.array(factors)
        usable = factor >= MIN_CLIP_FACTOR
        if not usable.any():
            break
        found = _flat_variance(low[usable], high[usable], factor[usable], patches.overlap)
        if abs(found.value - before) <= 0.004 * before:
            break
    return found


def _flat_variance(low: Array, high: Array, factor: Float, overlap: float) -> _Variance:
    """Variance of the noise from squared coefficients low [N, L] and high [N, K] and what clipping left of it [N]."""
    from scipy.special import chdtri

    score = low.sum(axis=1, dtype=np.float64) / factor
    ranks = np.argsort(score, kind="stable")
    ordered = score[ranks]
    limit = float(chdtri(low.shape[1], 1 - FLAT_QUANTILE))
    bound = np.inf
    best = _Variance(0.0, 0.0, 0)
    more = min(len(score), max(MIN_FLAT, len(score) // 200))
    # Upwards from the flattest: from above, an image full of texture may take its texture for noise.
    while more > best.patches:
        kept = ranks[:more]
        each = np.sort(high[kept].sum(axis=0, dtype=np.float64) / factor[kept].sum())
        # The middle half of the coefficients: what is left of the picture sits in a few of them.
        middle = each[len(each) // 4 : len(each) - len(each) // 4]
        samples = max(1.0, more / overlap)
        value = float(middle.mean()) / (1 - 0.45 / samples)  # the middle of the skewed chi-square law is under its mean
        if value > bound:  # more than chance: the patches added last are not flat
            break
        error = 1.2 * value * (2 / (samples * len(each))) ** 0.5  # 1.2: the price of the middle half
        best = _Variance(value, error, more)
        bound = min(bound, value + 2 * error)
        more = min(2 * more, int(np.searchsorted(ordered, value * limit)))
    return best


def _combined(components: list[_Variance]) -> tuple[float, float]:
    """The variance over all channels, and its error, from those of the components."""
    grey, differences = components[0], components[1:]
    if not differences:
        return grey.value, grey.error
    chroma = float(np.mean([c.value for c in differences]))
    excess = (grey.value / chroma) ** 0.5 if chroma > 0 else np.inf
    share = _ramp(excess, GREY_NOISE) / 3
    error = float(np.hypot(differences[0].error, differences[1].error)) / 2
    return chroma + share * (grey.value - chroma), float(np.hypot((1 - share) * error, share * grey.error))


def _line(patches: Patches) -> _Line:
    """Fits var(x) = gain * x + floor, x and var for a range of 1, to the variances of bins of brightness."""
    points = []
    for channel, mix in enumerate(np.eye(len(patches.means))):
        for members in np.array_split(np.argsort(patches.means[channel], kind="stable"), BINS // len(patches.means)):
            if len(members):
                found = _variance(patches.select(members), mix)
                points.append((patches.means[channel, members].mean() * 255, found.value, found.error))
    x, v, error = np.array(points).T / 255**2
    relative = np.divide(error, v, out=np.ones_like(v), where=v > 0)
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
        robust = 1 / np.maximum(1, np.abs(residual) / 2)  # Huber: texture lifts single bins far off the line
    scatter = float((robust * residual**2).sum() / max(1, len(x) - 2))
    covariance = np.linalg.pinv(normal, hermitian=True) * max(1.0, scatter)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return _Line(float(gain), float(errors[0]), float(floor), float(errors[1]), scatter)


def _correlated(patches: Patches, mix: Float) -> tuple[float, float, float, tuple[float, float]]:
    """The variance over all frequencies, its error, how far (0 to 1) to trust it over white noise, the correlation.

    The flattest patches of each bin of brightness give the variance of every coefficient; each third of the spectrum
    is measured on patches chosen by the other two.
    """
    order = np.round(patches.order)
    bands = [order <= 3, (order > 3) & (order <= LOW), order > LOW]
    spectra = []
    bins = np.array_split(np.argsort(patches.means.mean(axis=0), kind="stable"), SPECTRUM_BINS)
    for members in bins:
        mean = float(patches.means[:, members].mean()) if len(members) else 0.0
        if not 2 < mean < 250:  # black and blown-out areas hold no noise
            continue
        energy = np.square(np.tensordot(mix, patches.dct[:, members], 1)).astype(np.float64)
        keep = min(len(members), max(30, int(len(members) * SPECTRUM_SHARE)))
        spectrum = np.zeros((len(mix), len(order)))
        for band in bands:
            flattest = np.argsort(energy[..., ~band].sum(axis=(0, 2)), kind="stable")[:keep]
            spectrum[:, band] = energy[:, flattest][..., band].mean(axis=1)
        spectra.append(spectrum)
    if not spectra or not all(band.any() for band in bands):
        return 0.0, 0.0, 0.0, (0.0, 0.0)
    middle, high = (np.array(spectra)[..., band].mean(axis=2) for band in bands[1:])  # [bins, components]
    ratio = float(np.median(middle / np.maximum(high, 1e-6), axis=0).min() ** 0.5)
    weight = _ramp(ratio, CORRELATED_GREY if len(mix) == 1 else CORRELATED_COLOR)
    grey = np.median([s[0] for s in spectra], axis=0)
    completed = [[_completed(row, order) for row in s] for s in spectra]
    # Standard deviations, not variances: a bin full of texture then weighs less.
    levels = [np.mean([(row.sum() + flat) / (len(row) + 1) for row, flat in s]) ** 0.5 for s in completed]
    level = float(np.mean(levels))
    row, flat = _completed(grey, order)
    size = len(row) + 1
    beside, below = lag_products(patches)
    total = (row.sum() + flat) / size
    across, down = ((row @ w + flat / size) / total if total > 0 else 0.0 for w in (beside, below))
    return level**2, 2 * CORRELATED_ERROR * level**2, weight, (float(across), float(down))


def _completed(spectrum: Float, order: Float) -> tuple[Float, float]:
    """The spectrum [K] without the picture's share in the lowest coefficients, and the flat coefficient's variance.

    Correlated noise falls about exponentially with frequency; from the slope at orders 4 and 5 follows the most that
    noise can have below.
    """
    at = [float(spectrum[order == n].mean()) if (order == n).any() else 0.0 for n in (4, 5)]
    fall = float(np.clip(at[0] / at[1], 1, 1.6)) if at[1] > 0 else 1.0
    noise = np.where(order < 4, np.minimum(spectrum, at[0] * fall ** (4 - order)), spectrum)
    return noise, float(at[0] * fall**4 if not (order == 1).any() else noise[order == 1].mean())


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1))


def _root(variance: float) -> float:
    return float(max(0.0, variance) ** 0.5)


def _interval(value: float, error: float) -> Interval:
    return max(0.0, value - NORMAL_95 * error), max(0.0, value + NORMAL_95 * error)


def _roots(variance: float, error: float) -> Interval:
    low, high = _interval(variance, error)
    return _root(low), _root(high)
