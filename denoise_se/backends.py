"""What runs a network: one small protocol, one class per engine.

A backend takes and gives numpy arrays, so that neither tiling nor file handling knows which engine computes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from denoise_se.checkpoint import Checkpoint
from denoise_se.errors import UsageError

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
DEVICES = ("auto", "cpu", "cuda", "mps")


class Backend(Protocol):
    """A network on a device.

    `squeeze` maps windows [N, C, h, w] of one image and their noise levels [N, 1, h, w] to gates [1, G]; `denoise` maps
    one window [1, C, h, w], its levels and the gates (None: the window's own) to the restored window. All float32.
    `description` names the engine, device and precision for reports.
    """

    description: str

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray: ...

    def denoise(self, window: np.ndarray, level: np.ndarray, gates: np.ndarray | None) -> np.ndarray: ...


class TorchBackend:
    """PyTorch on a CPU, CUDA or MPS device. "auto" precision is fp32 on a CPU and bf16 on a GPU."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: str = "auto") -> None:
        self.device = pick_device(device)
        if precision == "int8":
            raise UsageError("--precision int8 is not available with the torch backend; use fp32, bf16 or auto")
        if precision == "auto":
            precision = "fp32" if self.device.type == "cpu" else "bf16"
        self.autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.network = checkpoint.network()
        self.network.fold_batchnorm()
        self.network.to(self.device)
        self.description = f"torch {self.device.type} {precision}"

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(self.device)

    @torch.inference_mode()
    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray:
        return self.network.squeeze(self.tensor(windows), self.tensor(level)).float().cpu().numpy()

    @torch.inference_mode()
    def denoise(self, window: np.ndarray, level: np.ndarray, gates: np.ndarray | None) -> np.ndarray:
        inputs = self.tensor(window), self.tensor(level), None if gates is None else self.tensor(gates)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            restored = self.network(*inputs)
        if self.autocast is not None and not torch.isfinite(restored).all():
            with torch.autocast(self.device.type, enabled=False):
                restored = self.network(*inputs)
        return restored.float().cpu().numpy()


BACKENDS: dict[str, type[TorchBackend]] = {"torch": TorchBackend}


def pick_device(device: str) -> torch.device:
    """The torch device of a name; UsageError when this machine has none such."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if device not in DEVICES:
        raise UsageError(f"--device {device!r} is unknown; one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no CUDA GPU here; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: PyTorch sees no Apple GPU here; use --device cpu or auto")
    return torch.device(device)


def make_backend(checkpoint: Checkpoint, backend: str, device: str, precision: str) -> Backend:
    """The backend called `backend`; "auto" is the first of BACKENDS. UsageError when it is not available."""
    name = next(iter(BACKENDS)) if backend == "auto" else backend
    if name not in BACKENDS:
        raise UsageError(f"--backend {name!r} is not available; one of auto, {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision!r} is unknown; one of {', '.join(PRECISIONS)}")
    return BACKENDS[name](checkpoint, device, precision)
