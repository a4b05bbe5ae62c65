"""Known noise on a known picture, measured: what the estimators are worth, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denoise_se.noise_measurement import measure_noise
from denoise_se.noise_profile import NoiseProfile

SHOTS = 8
SIDE = 384


@dataclass(frozen=True)
class Check:
    """One quantity: the noise `spec`, from what it was measured, its name, and its true and estimated values."""

    spec: str
    source: str
    quantity: str
    true: float
    estimated: float


def chart(channels: int = 3, side: int = SIDE) -> NDArray[np.float32]:
    """[side, side, channels] in [0.08, 0.92]: slopes of every brightness, discs, stripes, and a rough corner."""
    y, x = np.mgrid[:side, :side] / side
    slope = 0.15 + 0.6 * (x + y) / 2
    slope[(y - 0.3) ** 2 + (x - 0.35) ** 2 < 0.04] += 0.12
    slope[(y > 0.8) & (x < 0.4)] += 0.06 * np.sin(40 * np.pi * x[(y > 0.8) & (x < 0.4)])
    rough = (y > 0.75) & (x > 0.75)
    slope[rough] += np.random.default_rng(5).normal(0, 0.05, np.count_nonzero(rough))
    planes = [slope, 0.85 * slope + 0.05, 0.95 - 0.8 * slope][:channels]
    return np.clip(np.stack(planes, axis=-1), 0.08, 0.92).astype(np.float32)


def check_estimates() -> Iterator[Check]:
    """Every kind of noise that a profile holds, from a burst of 8 shots and from one of them; then the closed loop:
    the profile made a noise model, its noise measured again."""
    import torch

    from denoise_se.noise import parse_noise_spec
    from denoise_se.noise_model import NoiseModel
    from denoise_se.profile_noise import ProfileNoise

    picture = chart()
    clean = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]

    def shots(model: NoiseModel, seed: int) -> list[NDArray[np.float32]]:
        drawn = (model(clean, torch.Generator().manual_seed(seed + shot)).image[0] for shot in range(SHOTS))
        return [image.numpy().transpose(1, 2, 0) for image in drawn]

    for spec, truth in CASES.items():
        images = shots(parse_noise_spec(spec), 0)
        burst = measure_noise(images, "burst").profile
        again = measure_noise(shots(ProfileNoise(burst), 100), "burst").profile
        single = measure_noise(images[:1]).profile
        for source, profile in ((f"{SHOTS} shots", burst), ("1 picture", single), ("synthesised", again)):
            for quantity, value in truth.items():
                yield Check(spec, source, quantity, value, QUANTITIES[quantity](profile))


def _mean(values: tuple[float, ...] | NDArray[np.float64]) -> float:
    return float(np.mean(values))


QUANTITIES: dict[str, Callable[[NoiseProfile], float]] = {
    "sigma at 0.5 (8-bit)": lambda p: 255 * _mean(p.variance(0.5)) ** 0.5,
    "gain": lambda p: _mean(p.gain),
    "read noise": lambda p: _mean(p.read_noise),
    "rows (8-bit)": lambda p: 255 * _mean(p.row),
    "columns (8-bit)": lambda p: 255 * _mean(p.column),
    "correlation at 1 px": lambda p: _mean(p.correlation_at(1)[0]),
    "correlation at 2 px": lambda p: _mean(p.correlation_at(2)[0]),
    "correlation of channels": lambda p: float(p.channel_correlation[np.triu_indices(3, 1)].mean()),
}


def _sampled_gaussian(radius: float, lag: int) -> float:
    """Autocorrelation of white noise under a sampled Gaussian, as `noise.Correlated` makes it."""
    reach = max(1, round(3 * radius))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    return float((kernel[lag:] * kernel[:-lag]).sum() / np.square(kernel).sum())


CASES: dict[str, dict[str, float]] = {
    "poisson-gaussian:gain=0.004,read=0.02": {
        "gain": 0.004,
        "read noise": 0.02,
        "rows (8-bit)": 0.0,
        "correlation at 1 px": 0.0,
        "correlation of channels": 0.0,
    },
    "poisson-gaussian:gain=0.002,read=0.01+banding:row=4,column=2": {
        "gain": 0.002,
        "read noise": 0.01,
        "rows (8-bit)": 4.0,
        "columns (8-bit)": 2.0,
    },
    "poisson-gaussian:gain=0.01,read=0.005,black=0.07": {
        "gain": 0.01,
        "sigma at 0.5 (8-bit)": 255 * (0.01 * 0.43 + 0.005**2) ** 0.5,
    },
    "correlated:sigma=10,radius=0.7": {
        "sigma at 0.5 (8-bit)": 10.0,
        "correlation at 1 px": _sampled_gaussian(0.7, 1),
        "correlation at 2 px": _sampled_gaussian(0.7, 2),
    },
}
