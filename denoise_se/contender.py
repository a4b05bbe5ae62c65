"""What takes part in a benchmark: a model of ours on an engine, a published peer, or a classical method.

Run as a program (`python -m denoise_se.contender`), it denoises one picture and prints the most memory that it held.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import DenoiseError, UsageError
from denoise_se.evaluation_methods import Method, ModelMethod, parse_against
from denoise_se.peers import DnCNN, FFDNet

Pixels = NDArray[np.float32]
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Contender:
    """A way to denoise.

    Attributes:
        label: of a model of ours (name or path), or an item of `--against`.
        ours: which of the two.
        backend, precision: the engine of our models; of the others only DnCNN runs on another than its own, "openvino".
    """

    label: str
    ours: bool
    backend: str = ""
    precision: str = ""

    @property
    def name(self) -> str:
        """Unique in a run, and what tables show."""
        if self.ours:
            return f"{self._ours.checkpoint.name} {self.backend} {self.precision}"
        return self._method.name

    @property
    def channels(self) -> int | None:
        """1 for grey, 3 for colour, None when it takes both."""
        return self._method.channels

    @cached_property
    def macs_per_pixel(self) -> float | None:
        """Multiply-adds a pixel of a network; None for a classical method."""
        if self.ours:
            from denoise_se.network import count_macs_per_pixel

            return count_macs_per_pixel(self._ours.checkpoint.config)
        return self._method.macs_per_pixel if isinstance(self._method, DnCNN | FFDNet | OpenVinoDnCNN) else None

    def method(self) -> Method:
        """What is measured, loaded once, under this contender's name. Raises DenoiseError when it cannot be had."""
        return self._method

    def peak_bytes(self, side: int, sigma: float) -> int | None:
        """The most memory that a process held which denoises a square picture of `side` pixels and nothing else; None
        where the system does not say. Raises DenoiseError when it fails."""
        if not STATUS.exists():
            return None
        command = [sys.executable, "-m", "denoise_se.contender", json.dumps(asdict(self)), str(side), str(sigma)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DenoiseError(f"{self.name}: failed in a process of its own: {done.stderr.strip()[-300:]}")
        return int(done.stdout.split()[-1])

    @cached_property
    def _ours(self) -> Any:
        from denoise_se.denoiser import Denoiser

        return Denoiser.load(self.label, backend=self.backend, precision=self.precision, device="cpu")

    @cached_property
    def _method(self) -> Method:
        if self.ours:
            return ModelMethod(self.name, self._ours.network.channels, self._ours).for_files(np.dtype(np.uint8))
        method = parse_against(self.label)[0]
        if not self.backend:
            return method
        if self.backend != "openvino" or not isinstance(method, DnCNN):
            raise UsageError(f"{method.name} runs on its own engine only")
        return OpenVinoDnCNN(method)


class OpenVinoDnCNN:
    """DnCNN's layers compiled by OpenVINO in float32, for an image in one piece. Raises UsageError without OpenVINO."""

    def __init__(self, network: DnCNN) -> None:
        try:
            from denoise_se.openvino_core import core, properties
        except ImportError as error:
            raise UsageError('OpenVINO is not installed; pip install "denoise-se[openvino]"') from error
        import torch
        from torch import nn

        from denoise_se.graph import onnx_bytes
        from denoise_se.threads import granted_cores

        self.name, self.channels = f"{network.name} openvino fp32", network.channels
        self.macs_per_pixel = network.macs_per_pixel
        modules: list[nn.Module] = []
        for layer in network.layers:
            convolution = nn.Conv2d(layer.kernel.shape[1], layer.kernel.shape[0], 3, padding=1)
            convolution.weight.data = torch.from_numpy(layer.kernel)
            convolution.bias.data = torch.from_numpy(layer.bias)  # type: ignore[union-attr]
            modules += [convolution, nn.ReLU()]
        image = torch.zeros(1, self.channels, 64, 64)
        free = {2: "height", 3: "width"}
        model = onnx_bytes(nn.Sequential(*modules[:-1]), {"image": image}, ["noise"], {"image": free, "noise": free})
        compiled = core().compile_model(core().read_model(model), "CPU", properties("fp32", granted_cores()))
        self.request = compiled.create_infer_request()

    def __call__(self, noisy: Pixels, sigma: float | None) -> Pixels:
        """As `DnCNN` itself."""
        planes = noisy[None] if noisy.ndim == 2 else np.moveaxis(noisy, -1, 0)
        self.request.infer({"image": np.ascontiguousarray(planes[None], np.float32)})
        noise = np.array(self.request.get_tensor("noise").data)[0]
        return noisy - (noise[0] if noisy.ndim == 2 else np.moveaxis(noise, 0, -1))


def noisy_picture(height: int, width: int, channels: int, sigma: float) -> np.ndarray:
    """A gradient under noise, [H, W] or [H, W, 3] float32; how long a network takes does not depend on what it sees."""
    rng = np.random.default_rng(0)
    shape = (height, width) if channels == 1 else (height, width, channels)
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma / 255)
    gradient = np.linspace(0.1, 0.9, height, dtype=np.float32)
    return noise + gradient.reshape(-1, *[1] * (len(shape) - 1))


def main(arguments: list[str]) -> None:
    contender, side, sigma = Contender(**json.loads(arguments[0])), int(arguments[1]), float(arguments[2])
    contender.method()(noisy_picture(side, side, contender.channels or 3, sigma), sigma)
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):  # of this program alone, unlike what getrusage says after a fork
            print(1024 * int(line.split()[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
