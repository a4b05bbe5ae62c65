"""The noise model that a measured profile makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.errors import NoiseSpecError
from denoise_se.noise_model import NoiseModel, Noisy, level_of
from denoise_se.noise_profile import Matrix, NoiseProfile

_LOST_ENERGY = 1e-3  # of the kernel, by cutting its tails


@dataclass(unsafe_hash=True)
class ProfileNoise(NoiseModel):
    """``y_c = x_c + sqrt(gain_c * max(0, x_c - black_c) + read_c^2) * z_c + row_c + column_c``, the noise of a
    `NoiseProfile`.

    z is white noise through a kernel whose spectrum is the square root of the correlation's, channels together, so
    that grain and colour cast come back as they were measured. Units and validity are the profile's. Grey profiles
    take grey images, RGB ones RGB.
    """

    profile: NoiseProfile

    @classmethod
    def from_file(cls, path: str) -> ProfileNoise:
        """Raises ProfileError with the file's name."""
        return cls(NoiseProfile.load(path))

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        profile = self.profile
        batch, channels, height, width = clean.shape
        if channels != profile.channels:
            raise NoiseSpecError(
                f"profile: it was measured on {profile.channels} channel(s), the images have {channels}; profile "
                "images of the same kind"
            )

        def white(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=clean.device, dtype=clean.dtype)

        kernel = clean.new_tensor(grain_kernel(profile))
        reach = kernel.shape[-1] // 2
        grain = F.conv2d(white(batch, channels, height + 2 * reach, width + 2 * reach), kernel)
        gain, read, black = (
            clean.new_tensor(values)[:, None, None] for values in (profile.gain, profile.read_noise, profile.black)
        )
        variance = gain * (clean - black).clamp_min(0) + read**2
        noise = variance.sqrt() * grain
        for covariance, shape in ((profile.row_covariance, (height, 1)), (profile.column_covariance, (1, width))):
            if any(map(any, covariance)):
                mix = clean.new_tensor(_root(np.array(covariance)))
                noise = noise + torch.einsum("cd,bdhw->bchw", mix, white(batch, channels, *shape))
                variance = variance + clean.new_tensor(np.diagonal(covariance).copy())[:, None, None]
        return Noisy(clean + noise, level_of(variance, clean))


def grain_kernel(profile: NoiseProfile) -> NDArray[np.float32]:
    """[C, C, K, K], K odd: what turns white noise into grain of the profile's correlation and variance 1."""
    return _kernel(profile.correlation)


@lru_cache(maxsize=8)
def _kernel(correlation: tuple[tuple[Matrix, ...], ...]) -> NDArray[np.float32]:
    table = np.array(correlation)
    reach = table.shape[-1] // 2
    size = 8 * max(1, reach)
    lags = np.zeros((*table.shape[:2], size, size))
    lags[..., : 2 * reach + 1, : 2 * reach + 1] = table
    lags = np.roll(lags, (-reach, -reach), axis=(-2, -1))
    spectrum = np.fft.fft2(lags).transpose(2, 3, 0, 1)
    # a table that was cut or measured need not be one of any noise: `_root` takes the nearest spectrum that is
    kernel = np.fft.ifft2(_root(spectrum).transpose(2, 3, 0, 1)).real
    kernel = np.fft.fftshift(kernel, axes=(-2, -1))
    middle, energy = size // 2, np.square(kernel)
    for reach in range(middle):
        inside = slice(middle - reach, middle + reach + 1)
        if energy[..., inside, inside].sum() >= (1 - _LOST_ENERGY) * energy.sum():
            break
    kernel = kernel[..., inside, inside]
    return (kernel / np.sqrt(np.square(kernel).sum(axis=(1, 2, 3), keepdims=True))).astype(np.float32)


def _root(matrices: NDArray[np.inexact]) -> NDArray[np.inexact]:
    """The symmetric root of Hermitian matrices [..., C, C], negative eigenvalues taken for 0."""
    values, vectors = np.linalg.eigh(matrices)
    scaled = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    return scaled @ vectors.conj().swapaxes(-1, -2)
