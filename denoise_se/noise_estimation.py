"""The noise of one image, from the image alone: its level, its growth with brightness, its correlation.

In the DCT of 8x8 patches, white noise fills all coefficients alike, a picture mostly the low ones. So patches with
little energy in the low coefficients are nearly flat, and their high coefficients hold nearly nothing but noise.
Choosing by the low and measuring on the high ones keeps the choice from biasing the measure, the two being
independent for white Gaussian noise (Ponomarenko et al. 2007; Colom and Buades, IPOL 2013,
doi:10.5201/ipol.2013.45). How many patches count as flat follows from the chi-square law that noise alone obeys, as
Liu, Tanaka and Okutomi do with gradients (doi:10.1109/TIP.2013.2283400).

Demosaicing and JPEG take the high coefficients away, and such noise would read as none. It shows in the middle
coefficients of flat patches, which then stand far above the high ones; the level is then summed over all of them.
Pictures lie in the low frequencies, where such noise is denser than white noise of the same sigma, and in camera JPEGs
flat patches hold the least of it. So a network that knows white noise alone is told its density at low frequencies,
unless the picture has so much detail that it would lose more than noise.

Lettering has middle coefficients too, and on white paper hardly a patch that is not blown out and flat. Where white
noise is found on many flat patches, it is white; where it is found on none, and pixels often equal the next but one,
there is no noise; and nowhere is there more of it than the quietest patches allow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import UsageError
from denoise_se.noise_line import MAX_SCATTER, Interval, NoiseLaw, interval, roots
from denoise_se.noise_patches import cut
from denoise_se.patch_noise import Variance, noise_line, variance
from denoise_se.patch_spectrum import correlated_noise, ramp
from denoise_se.scanlines import ArrayScanlines, Scanlines

# Share of the patches that are flat but for white noise: none in camera JPEGs, with white noise 0.1 to 0.9.
MANY_FLAT = (0.05, 0.15)
SAME = 1e-2  # of coefficients of channels that are the same, but for rounding
# Share of pixels equal to the next but one: 0.42 and more in lettering without noise, up to 0.15 in camera JPEGs (10 of
# PolyU), and in noisy pictures enlarged by repeating pixels up to 0.03 (twice) and 0.33 (three times).
DRAWN = 0.4
# And how much oftener than by chance pixels equal the next one: 0.19 and more there, up to 0.04 in dark noise that
# is mostly clipped to black.
JOINED = 0.12
# Sigma over the standard deviation in the quietest tenth of the patches. Noise is nearly everywhere: up to 1.8 in noisy
# pictures, up to 2.2 in camera JPEGs (15 of PolyU); more where texture is taken for noise, and up to 60 in JPEGs of
# lettering, where patches without letters hold next to nothing.
QUIET, MOST_OF_QUIET = 0.1, 2.5
# The median patch's standard deviation over sigma, from where to where detail is too much for a level above sigma. With
# such a level 23 of PolyU's 73 photos in grey, below the first, get 0.3 to 4.3 dB better; BSDS500's and SunHays80's
# pictures under weak grain (sigma 3 and 6, blurred by 0.8 pixels), beyond the second, mostly lose 1 to 4 dB.
DETAILED = (1.2, 1.8)
# How many of its standard errors a growth with brightness rises, to be believed where brightness explains the variances
# (MAX_SCATTER), and where texture lifts many of these. Of 30 training pictures in grey and in colour 418 of 420 with
# noise of photons or speckle pass, with noise that does not grow none of 240; without noise 15 of 120, whose texture
# is taken for noise either way.
GROWS, SURELY_GROWS = 8.0, 15.0
NONE = (0.0, 0.0)
# Grey noise in a colour image: how far, as standard deviations, the first component must stand above the other two.
GREY_NOISE = (1.5, 2.5)
# Grey and two colour differences, orthonormal: the mean of the three variances is the mean of the channels'.
# A picture lies mostly in the first, so the other two see nearly pure noise.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


@dataclass(frozen=True)
class NoiseEstimate:
    """The noise of one image.

    `sigma` (over all channels) and `sigma_channels` are standard deviations in 8-bit units: 25 means 25/255 of the
    range. `gain`, `speckle`, `read_noise` and `black` are for a range of [0, 1]: at brightness x the variance is gain *
    max(0, x - black) + (speckle * x)**2 + read_noise**2. One of gain and speckle is 0: noise is taken for
    multiplicative, as that of lasers, ultrasound and radar, where a speckle explains it and no gain does. `black` is 0
    unless the noise surely says that brightness begins above 0, as a camera's counts do; then it is the darkest that
    was measured, and `read_noise` that of it. The 95 % intervals are statistical for white noise (texture taken for
    noise is not in them) and wide for correlated noise, which reads low: camera JPEGs at about 0.6 of the truth.
    `correlation` is the autocorrelation at a distance of one pixel, (horizontal, vertical): about 0 for white noise,
    0.4 and more after demosaicing or JPEG; where noise is weak the picture's texture raises it too. `white_sigma` is
    what the highest frequencies alone say: equal to sigma for white noise, far lower for correlated noise; more than
    sigma where the quietest patches allow less. `level` is what a network for white noise is to be told: sigma for
    white noise and in pictures full of detail, else that of white noise which is as dense at low frequencies, about
    twice as much in camera JPEGs. `patches` counts those that were measured; 0 means that nothing could be said.
    """

    sigma: float
    sigma_interval: Interval
    sigma_channels: tuple[float, ...]
    white_sigma: float
    level: float
    gain: float
    gain_interval: Interval
    speckle: float
    speckle_interval: Interval
    read_noise: float
    read_noise_interval: Interval
    black: float
    correlation: tuple[float, float]
    patches: int

    @property
    def law(self) -> NoiseLaw:
        """The variance over brightness."""
        return NoiseLaw(self.gain, self.read_noise**2, self.speckle, self.black)


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
    copies = 1
    # grey in triplicate: there is nothing to compare
    if channels == 3 and np.abs(patches.dct - patches.dct[:1]).max() < SAME:
        patches = replace(patches, dct=patches.dct[:1], means=patches.means[:1])
        channels, copies = 1, 3
    mix = OPPONENT if channels == 3 else np.eye(1)
    components = [variance(patches, row) for row in mix]
    flat = max(component.flat for component in components)
    drawn = float(np.median(patches.equal)) > DRAWN and float(np.median(patches.joined)) > JOINED
    if flat < MANY_FLAT[0] and drawn:
        return _nothing(channels * copies, len(patches.equal))
    singles = components if channels == 1 else [variance(patches, row) for row in np.eye(channels)]
    rounding = (255 * step / span) ** 2 / 12
    white, error = _combined(components)
    line = noise_line(patches)
    by_brightness = 255**2 * line.at(np.asarray(patches.means, np.float64) / 255)
    spread = float(np.ptp(np.percentile(by_brightness, [10, 90])))
    sure = line.gain > (GROWS if line.scatter < MAX_SCATTER else SURELY_GROWS) * line.gain_error
    quiet = patches.spread
    if sure and spread > 0.5 * white:
        # The flattest patches need not be of mean brightness, nor the quietest: the line says what the others have.
        white = max(white, float(by_brightness.mean()))
        quiet = quiet * (white / np.maximum(by_brightness.mean(axis=0), 1e-3 * white))
    found = correlated_noise(patches, mix)
    weight = found.weight * (1 - ramp(flat, MANY_FLAT))
    most = MOST_OF_QUIET**2 * float(np.quantile(quiet, QUIET))
    unbound = white + weight * max(0.0, found.variance - white)
    over_all = min(unbound, most)
    dense = over_all
    if weight > 0 and found.variance > white:  # which edges may raise more than the density
        dense = max(dense, over_all / unbound * (white + weight * (found.density - white)))
    detail = float(np.median(patches.spread)) / over_all if over_all > 0 else np.inf
    smooth = 1 - ramp(detail**0.5, DETAILED)
    error = float(np.hypot((1 - weight) * error, weight * found.error))
    grow = over_all / white if white > 0 else 1.0
    growth, growth_error = line.gain * grow, line.gain_error * grow
    linear = line.power == 1
    parts = np.array([s.value for s in singles])
    parts = parts * (over_all / parts.mean()) if parts.mean() > 0 else np.full(channels, over_all)
    return NoiseEstimate(
        sigma=_root(over_all - rounding),
        sigma_interval=roots(over_all - rounding, error),
        sigma_channels=tuple(_root(p - rounding) for p in parts) * copies,
        white_sigma=_root(white - rounding),
        level=_root(over_all ** (1 - smooth) * dense**smooth - rounding),
        gain=growth if linear else 0.0,
        gain_interval=interval(growth, growth_error) if linear else NONE,
        speckle=0.0 if linear else _root(growth),
        speckle_interval=NONE if linear else roots(growth, growth_error),
        read_noise=_root(line.floor * grow - rounding / 255**2),
        read_noise_interval=roots(line.floor * grow - rounding / 255**2, line.floor_error * grow),
        black=line.black,
        correlation=found.correlation,
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


def _nothing(channels: int, patches: int = 0) -> NoiseEstimate:
    return NoiseEstimate(
        sigma=0.0,
        sigma_interval=NONE,
        sigma_channels=(0.0,) * channels,
        white_sigma=0.0,
        level=0.0,
        gain=0.0,
        gain_interval=NONE,
        speckle=0.0,
        speckle_interval=NONE,
        read_noise=0.0,
        read_noise_interval=NONE,
        black=0.0,
        correlation=NONE,
        patches=patches,
    )


def _combined(components: list[Variance]) -> tuple[float, float]:
    """The variance over all channels, and its error, from those of the components."""
    grey, differences = components[0], components[1:]
    if not differences:
        return grey.value, grey.error
    chroma = float(np.mean([c.value for c in differences]))
    excess = (grey.value / chroma) ** 0.5 if chroma > 0 else np.inf
    share = ramp(excess, GREY_NOISE) / 3
    error = float(np.hypot(differences[0].error, differences[1].error)) / 2
    return chroma + share * (grey.value - chroma), float(np.hypot((1 - share) * error, share * grey.error))


def _root(variance: float) -> float:
    return float(max(0.0, variance) ** 0.5)
