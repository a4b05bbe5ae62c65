"""Image denoising with residual squeeze-and-excitation networks.

>>> from denoise_se import Denoiser
>>> clean = Denoiser.load("photo")(noisy)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from denoise_se.denoiser import Denoiser

__all__ = ["Denoiser"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: `denoise-se --help` must not pay for it
    if name == "Denoiser":
        from denoise_se.denoiser import Denoiser

        return Denoiser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
