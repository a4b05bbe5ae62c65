"""PyTorch as a backend: on GPUs, and on CPUs where nothing faster is installed."""

from __future__ import annotations

import logging
import threading

import numpy as np
import torch

from denoise_se.backends import WHOLE, WindowPlace
from denoise_se.checkpoint import CheckpointFile
from denoise_se.errors import UsageError
from denoise_se.threads import granted_cores

log = logging.getLogger(__name__)


class TorchBackend:
    """PyTorch on a CPU, CUDA or MPS device. "auto" precision is fp32 on a CPU and bf16 on a GPU."""

    lanes = 1

    def __init__(self, checkpoint: CheckpointFile, device: str = "auto", precision: str = "auto") -> None:
        self.device = pick_device(device)
        if precision == "int8":
            raise UsageError("--precision int8 is not available with the torch backend; use fp32, bf16 or auto")
        if precision == "auto":
            precision = "fp32" if self.device.type == "cpu" else "bf16"
        self.autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.network = checkpoint.load().network()
        self.network.fold_batchnorm()
        self.halo = self.network.halo
        # channels last: a quarter less time on CPUs, and what tensor cores want
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub
        if self.device.type == "cpu" and granted_cores() < torch.get_num_threads():
            torch.set_num_threads(granted_cores())
        self.description = f"torch {self.device.type} {precision}"
        self.warned = False
        self.turn = threading.Lock()  # `Denoising.squeeze` changes the network while it runs

    def in_lanes(self) -> TorchBackend:
        return self

    def fine(self) -> TorchBackend:
        return self

    def unquantised(self) -> TorchBackend:
        return self

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.require(array, requirements=("C", "W"))).to(self.device)

    @torch.inference_mode()
    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray:
        inputs = self.tensor(windows), self.tensor(level)
        with self.turn:
            return self.network.squeeze(*inputs).float().cpu().numpy()

    @torch.inference_mode()
    def denoise(
        self, window: np.ndarray, level: np.ndarray, gates: np.ndarray | None, place: WindowPlace = WHOLE
    ) -> np.ndarray:
        inputs = self.tensor(window), self.tensor(level), None if gates is None else self.tensor(gates)
        sides = torch.tensor(place.cut, dtype=torch.int64) if any(place.cut) else None
        with self.turn, torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            restored = self.network(*inputs, sides)
        if self.autocast is not None and not torch.isfinite(restored).all():
            if not self.warned:
                log.warning("note: %s: its result is not finite, computed again in fp32", self.description)
                self.warned = True
            with self.turn, torch.autocast(self.device.type, enabled=False):
                restored = self.network(*inputs, sides)
        return restored.float().cpu().numpy()


def pick_device(device: str) -> torch.device:
    """The torch device of a name; UsageError when this machine has none such."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no CUDA GPU here; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: PyTorch sees no Apple GPU here; use --device cpu or auto")
    return torch.device(device)
