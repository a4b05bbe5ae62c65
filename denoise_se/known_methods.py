"""What models may be measured against: the tables of the names, and how each is made.

A method's module is imported, and numpy with it, when it is made, so that help can list the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from denoise_se.errors import UsageError

if TYPE_CHECKING:
    from denoise_se.classical import ClassicalMethod
    from denoise_se.peers import DnCNN, FFDNet


def _bm3d() -> ClassicalMethod:
    if find_spec("bm3d") is None:
        raise UsageError("bm3d: the package is not installed; pip install bm3d (its licence: non-commercial use)")
    from denoise_se.classical import ClassicalMethod, bm3d

    return ClassicalMethod("bm3d", bm3d)


def _nlm() -> ClassicalMethod:
    from denoise_se.classical import ClassicalMethod, nlm

    return ClassicalMethod("nlm", nlm)


def _wavelet() -> ClassicalMethod:
    from denoise_se.classical import ClassicalMethod, wavelet

    return ClassicalMethod("wavelet", wavelet)


def _tv() -> ClassicalMethod:
    from denoise_se.classical import ClassicalMethod, tv

    return ClassicalMethod("tv", tv)


def _dncnn(weights: Path) -> DnCNN:
    from denoise_se.peers import load_dncnn

    return load_dncnn(weights)


def _ffdnet(weights: Path) -> FFDNet:
    from denoise_se.peers import load_ffdnet

    return load_ffdnet(weights)


CLASSICAL: dict[str, Callable[[], ClassicalMethod]] = {"bm3d": _bm3d, "nlm": _nlm, "wavelet": _wavelet, "tv": _tv}
# from files of their authors' weights
PEERS: dict[str, Callable[[Path], DnCNN | FFDNet]] = {"dncnn": _dncnn, "ffdnet": _ffdnet}
AGAINST = (*CLASSICAL, *(f"{peer}=FILE" for peer in PEERS))  # as `--against` takes them
