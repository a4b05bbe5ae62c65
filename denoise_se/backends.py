"""What runs a network: one small protocol, one class per engine.

A backend takes and gives numpy arrays, so that neither tiling nor file handling knows which engine computes. Each
engine's module is imported when it is chosen, as torch alone takes seconds, and numpy only there too, so that help can
list the tables.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from denoise_se.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from denoise_se.checkpoint import CheckpointFile

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
DEVICES = ("auto", "cpu", "cuda", "mps")
# what the drivers of NVIDIA's and AMD's GPUs put there, on Linux, under WSL, and on Windows
GPU_SIGNS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
Sides = tuple[bool, bool, bool, bool]  # top, bottom, left, right


@dataclass(frozen=True)
class WindowPlace:
    """Where a window lies in its image: at which of its sides the image goes on, so that margins are `cut`, and the
    image's `row` and `column` where what is left of it starts. `uncut` [h, w] are its noise levels before noise was cut
    off at black and white, where that is known; `ends` are what 0 and white, where files cut off, are in the window."""

    cut: Sides = (False, False, False, False)
    row: int = 0
    column: int = 0
    uncut: np.ndarray | None = field(default=None, compare=False)
    ends: tuple[float, float] = (0.0, 1.0)


WHOLE = WindowPlace()


class Backend(Protocol):
    """A network on a device.

    `squeeze` maps windows [N, C, h, w] of one image and their noise levels [N, 1, h, w] to the gates: [1, G], or
    what the backend makes of them. `denoise` maps one window [1, C, h, w], its levels and these gates (None: the
    window's own) to the restored window without the margins that its place cuts, see `Network.forward`. All float32.
    `description` names the engine, device and precision for reports; `halo` is the network's, see `denoise_se.tiling`.
    `in_lanes` gives the same with the cores shared out, for `lanes` threads that each denoise small windows of their
    own, to the same results: then cores wait less for each other. An engine of one lane cannot do that.
    `fine` gives one for images that are not rounded to 8 bits: in fp32 and int8 its results on parts of an image are
    those on the whole to 1e-4. Its gates are its own. `unquantised` gives one without int8, with gates of its own too.
    """

    description: str
    halo: int
    lanes: int

    def in_lanes(self) -> Backend: ...

    def fine(self) -> Backend: ...

    def unquantised(self) -> Backend: ...

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> Any: ...

    def denoise(self, window: np.ndarray, level: np.ndarray, gates: Any, place: WindowPlace = WHOLE) -> np.ndarray: ...


def _torch(checkpoint: CheckpointFile, device: str, precision: str) -> Backend:
    from denoise_se.torch_backend import TorchBackend

    return TorchBackend(checkpoint, device, precision)


def _openvino(checkpoint: CheckpointFile, device: str, precision: str) -> Backend:
    from denoise_se.guarded_backend import GuardedBackend
    from denoise_se.openvino_backend import OpenVinoBackend
    from denoise_se.tiling import in_cells

    backend = OpenVinoBackend(checkpoint, precision)
    if backend.calibration is None or not checkpoint.config.noise_map:
        return backend
    margin = in_cells(backend.halo, checkpoint.config.multiple_of)

    def exact() -> Backend:
        log.warning("note: int8 does not know what is in this picture; such parts are computed in fp32")
        return OpenVinoBackend(checkpoint, "fp32")

    return GuardedBackend(backend, exact, margin)


def _onnxruntime(checkpoint: CheckpointFile, device: str, precision: str) -> Backend:
    from denoise_se.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(checkpoint, precision)


BACKENDS: dict[str, Callable[[CheckpointFile, str, str], Backend]] = {
    "torch": _torch,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}


def make_backend(checkpoint: CheckpointFile, backend: str, device: str, precision: str) -> Backend:
    """The backend called `backend`, on `device`, in `precision`.

    "auto" is torch on a GPU, and on a CPU OpenVINO where it is installed, else torch.

    Raises:
        UsageError: one that is unknown, not installed, or cannot do that.
    """
    check_engine(backend, device, precision)
    chosen = fastest(device, precision) if backend == "auto" else backend
    if chosen == "torch":
        return _torch(checkpoint, device, precision)
    if device not in ("auto", "cpu"):
        raise UsageError(f"--backend {chosen} runs on the CPU only; use --device cpu, or --backend torch for {device}")
    if find_spec(chosen) is None:
        raise UsageError(f'--backend {chosen}: it is not installed; pip install "denoise-se[{chosen}]", or use torch')
    try:
        return BACKENDS[chosen](checkpoint, "cpu", precision)
    except ImportError as error:
        if backend == "auto":
            log.warning(
                "note: %s is installed but cannot be loaded (%s); torch is used, which is slower", chosen, error
            )
            return _torch(checkpoint, device, precision)
        raise UsageError(f"--backend {chosen}: cannot be loaded ({error}); install it again, or use torch") from error


def check_engine(backend: str, device: str, precision: str) -> None:
    """UsageError for a name that stands for nothing."""
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"--backend {backend!r} is not available; one of auto, {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision!r} is unknown; one of {', '.join(PRECISIONS)}")
    if device not in DEVICES:
        raise UsageError(f"--device {device!r} is unknown; one of {', '.join(DEVICES)}")


def fastest(device: str, precision: str) -> str:
    """The backend that "auto" stands for."""
    on_cpu = device == "cpu" or (device == "auto" and not has_gpu())
    # fp16 on a CPU is a matter of torch alone
    return "openvino" if on_cpu and precision != "fp16" and find_spec("openvino") and find_spec("onnx") else "torch"


def has_gpu() -> bool:
    """Whether torch sees a GPU; it is asked only where there are signs of one."""
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    if not apple and not any(Path(sign).exists() for sign in GPU_SIGNS):
        return False
    from denoise_se.torch_backend import pick_device

    return pick_device("auto").type != "cpu"
