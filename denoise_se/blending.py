"""How much of what the network found is taken out: strength, for brightness and colour apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from denoise_se.errors import UsageError
from denoise_se.value_range import full_range

# luma of ITU-R BT.601, section 2.5.1, as JPEG has it
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Strength:
    """Shares from 0 (the input) to 1 (the network's full result) of the change in luma and of what is left, chroma."""

    luma: float = 1.0
    chroma: float = 1.0

    def __post_init__(self) -> None:
        for name, share in (("strength", self.luma), ("chroma strength", self.chroma)):
            if not isinstance(share, int | float | np.floating | np.integer) or not 0 <= share <= 1:
                raise UsageError(f"{name} is {share!r}; it lies from 0 (the input) to 1 (the full result)")

    @property
    def is_zero(self) -> bool:
        """Whether nothing changes."""
        return self.luma == self.chroma == 0


def blended(noisy: np.ndarray, restored: np.ndarray, strength: Strength) -> np.ndarray:
    """The result in the dtype of `noisy`: between it and `restored`, integers rounded and clipped to their range.

    noisy: `[H, W, C]` uint8, uint16 or float. restored: the network's result `[H, W, C]` float32 in units of the range.
    Chroma is the change without its luma; one channel has luma only.
    """
    if strength.is_zero:
        return noisy.copy()
    scale = np.float32(full_range(noisy.dtype))
    result = restored
    luma, chroma = np.float32(strength.luma), np.float32(strength.chroma)
    if noisy.shape[2] == 1 or luma == chroma:
        if luma < 1:
            before = noisy.astype(np.float32) / scale
            result = before + luma * (restored - before)
    else:
        before = noisy.astype(np.float32) / scale
        change = restored - before
        # term by term: a matrix product may round differently with the shape of the band it is given
        luma_change = sum(change[..., i : i + 1] * weight for i, weight in enumerate(LUMA_WEIGHTS))
        result = before + chroma * change + (luma - chroma) * luma_change
    if noisy.dtype.kind == "u":
        result = result * scale
        np.rint(result, out=result)
        np.clip(result, 0, scale, out=result)
    return result.astype(noisy.dtype)
