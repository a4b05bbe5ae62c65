"""What is measured side by side: our own models, classical baselines, published peers, each a denoiser with a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from denoise_se.denoiser import Denoiser
from denoise_se.errors import UsageError
from denoise_se.known_methods import AGAINST, CLASSICAL, PEERS
from denoise_se.level_grid import Known, held
from denoise_se.noise_estimation import NoiseEstimate
from denoise_se.scanlines import ArrayScanlines

Pixels = NDArray[np.float32]
NOISY = "noisy"  # what the noisy images themselves are called


class Method(Protocol):
    """Anything that denoises. `channels` is 1 or 3 when it takes only grey or only colour images, else None."""

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> int | None: ...

    def __call__(self, noisy: Pixels, sigma: float | None) -> Pixels:
        """`noisy` `[H, W]` or `[H, W, 3]` float32, nominally in [0, 1], not clipped; sigma in 8-bit units, None when
        it is not known; the same shape back."""


@dataclass(frozen=True)
class ModelMethod:
    """One of our own models as a method: `denoiser` is a `Denoiser` or anything called as `denoiser(noisy, sigma=)`."""

    name: str
    channels: int | None
    denoiser: Callable[..., NDArray[Any]]

    def for_files(self, dtype: np.dtype[Any]) -> ModelMethod:
        """This method as it works on files of `dtype`, for floats that stand for such ones."""
        if dtype == np.uint8 and isinstance(self.denoiser, Denoiser):
            return replace(self, denoiser=self.denoiser.for_8_bits())
        return self

    def __call__(self, noisy: Pixels, sigma: float | None) -> Pixels:
        return np.asarray(self.denoiser(noisy, sigma=sigma), dtype=np.float32)

    def again(self, noisy: Pixels, sigma: float | None, noise: NoiseEstimate) -> Callable[[Pixels], Pixels]:
        """What it makes of that image, which has this noise, when its pixels are a little changed: told the same."""
        level: Known = noise.level if sigma is None else sigma
        if isinstance(self.denoiser, Denoiser):
            source = ArrayScanlines(noisy[..., None] if noisy.ndim == 2 else noisy)
            ours = self.denoiser
            found = ours.level_for(source, noise) if sigma is None else ours.noise_level(source, sigma)
            level = held(found, source)
        return lambda pixels: np.asarray(self.denoiser(pixels, sigma=level), dtype=np.float32)


def parse_against(text: str) -> list[Method]:
    """The methods of `--against`: `bm3d,nlm,dncnn=dncnn_25.pth,ffdnet=FFDNet_gray.mat`.

    Classical methods stand by name, published peers as `name=weights`. Raises `UsageError` for what is unknown, given
    twice or not there.
    """
    methods: list[Method] = []
    for item in (part.strip() for part in text.split(",")):
        name, equals, weights = item.partition("=")
        if name in CLASSICAL:
            if equals:
                raise UsageError(f"--against {item}: {name} takes no weights; write {name}")
            methods.append(CLASSICAL[name]())
        elif name in PEERS:
            if not weights:
                raise UsageError(f"--against {item}: {name} needs its weights; write {name}=FILE")
            if not Path(weights).is_file():
                raise UsageError(f"--against {item}: there is no file {weights}")
            methods.append(PEERS[name](Path(weights)))
        else:
            raise UsageError(f"--against: unknown method {name!r}; known are {', '.join(AGAINST)}")
    check_names(methods)
    return methods


def check_names(methods: Sequence[Method]) -> None:
    names = [NOISY, *(method.name for method in methods)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(
            f"methods to compare need different names; twice: {', '.join(repeated)} (a run's best.safetensors bears "
            "its folder's name: copy it under another)"
        )
