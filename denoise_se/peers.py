"""Published peer networks, DnCNN and FFDNet, run from weight files that the user has.

Both are plain stacks of 3x3 convolutions with ReLU between, batch normalization already folded in, so a file is read
into a list of kernels and biases and the network is inferred from it. Weights come as the authors' MATLAB files
(MatConvNet, MATLAB v7.3, which is HDF5) or, for DnCNN, as the PyTorch state dict of the KAIR toolbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from denoise_se.classical import wavelet_sigma
from denoise_se.errors import CheckpointError, UsageError
from denoise_se.torch_file import load_tensors

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.float32]

# Rows are taken in strips of about this many pixels, so that memory does not grow with the image.
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution: kernel `[out, in, 3, 3]` as PyTorch has it, and bias `[out]`."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class DnCNN:
    """Zhang, Zuo, Chen, Meng and Zhang 2017, "Beyond a Gaussian Denoiser", doi:10.1109/TIP.2017.2662206.

    The network predicts the noise. It is trained for one sigma or blind, so a call's sigma is not used.
    """

    name: str
    layers: tuple[Convolution, ...]

    @property
    def channels(self) -> int:
        """1 for grey weights, 3 for colour."""
        return int(self.layers[0].kernel.shape[1])

    @property
    def macs_per_pixel(self) -> float:
        """Multiply-adds a pixel."""
        return float(sum(layer.kernel.size for layer in self.layers))

    def __call__(self, noisy: Pixels, sigma: float | None) -> Pixels:
        """`noisy` is `[H, W]` or `[H, W, 3]` float32, nominally in [0, 1]; the same shape back."""
        image = _to_tensor(noisy)
        result = image - _in_strips(lambda rows: _stack(self.layers, rows), image, halo=len(self.layers))
        return _to_pixels(result, noisy.shape)


@dataclass(frozen=True)
class FFDNet:
    """Zhang, Zuo and Zhang 2018, "FFDNet", doi:10.1109/TIP.2018.2839891.

    The image at half resolution as four sub-images, with a map of the noise level, gives the clean sub-images. An
    unknown sigma is estimated with `wavelet_sigma`. An odd side is extended by its last row or column.
    """

    name: str
    layers: tuple[Convolution, ...]

    @property
    def channels(self) -> int:
        """1 for grey weights, 3 for colour."""
        return int(self.layers[-1].kernel.shape[0]) // 4

    @property
    def macs_per_pixel(self) -> float:
        """Multiply-adds a pixel of the image; the layers see a quarter of the pixels."""
        return sum(layer.kernel.size for layer in self.layers) / 4

    def __call__(self, noisy: Pixels, sigma: float | None) -> Pixels:
        """`noisy` is `[H, W]` or `[H, W, 3]` float32, nominally in [0, 1]; sigma in 8-bit units; same shape back."""
        from torch.nn import functional

        level = (wavelet_sigma(noisy) if sigma is None else sigma) / 255.0
        image = _to_tensor(noisy)
        height, width = image.shape[-2:]
        padded = functional.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
        result = _in_strips(lambda rows: self._denoise_even(rows, level), padded, halo=2 * len(self.layers))
        return _to_pixels(result[..., :height, :width], noisy.shape)

    def _denoise_even(self, image: torch.Tensor, level: float) -> torch.Tensor:
        import torch

        offsets = ((0, 0), (1, 0), (0, 1), (1, 1))  # MATLAB's order: down the rows first
        parts = [image[..., row::2, column::2] for row, column in offsets]
        # Channel by channel, each with its four sub-images: red 0-3, green 0-3, blue 0-3.
        below = torch.stack(parts, dim=2).flatten(1, 2)
        level_map = below.new_full((1, 1, *below.shape[-2:]), level)
        clean = _stack(self.layers, torch.cat([below, level_map], dim=1))
        result = torch.empty_like(image)
        for index, (row, column) in enumerate(offsets):
            result[..., row::2, column::2] = clean[:, index::4]
        return result


def load_dncnn(path: Path) -> DnCNN:
    """DnCNN from a `.mat` file of its authors or a `.pth` state dict of KAIR; 1 or 3 channels, any depth.

    Raises `CheckpointError` when the file is not one of these.
    """
    layers = _read_state_dict(path) if path.suffix.lower() in (".pth", ".pt") else _read_matlab(path)
    if layers[0].kernel.shape[1] not in (1, 3) or layers[-1].kernel.shape[0] != layers[0].kernel.shape[1]:
        raise CheckpointError(
            f"{path}: not a DnCNN: it takes {layers[0].kernel.shape[1]} channels and gives {layers[-1].kernel.shape[0]}"
        )
    return DnCNN(f"dncnn:{path.stem}", layers)


def load_ffdnet(path: Path) -> FFDNet:
    """FFDNet from a `.mat` file of its authors, grey or colour. Raises `CheckpointError` when the file is not that."""
    layers = _read_matlab(path)
    taken, given = layers[0].kernel.shape[1], layers[-1].kernel.shape[0]
    if given not in (4, 12) or taken != given + 1:
        raise CheckpointError(f"{path}: not an FFDNet: it takes {taken} channels and gives {given}")
    return FFDNet(f"ffdnet:{path.stem}", layers)


def load_peer_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a published `.pth` state dict. Raises `CheckpointError` when it holds anything else."""
    import torch

    loaded = load_tensors(path)
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise CheckpointError(f"{path}: not a state dict of tensors; give the weights, not a training checkpoint")
    return loaded


def _read_state_dict(path: Path) -> tuple[Convolution, ...]:
    state = load_peer_state_dict(path)
    numbers = set()
    for key in state:
        match = re.fullmatch(r"model\.(\d+)\.(weight|bias)", key)
        if match is None:
            raise CheckpointError(f"{path}: {key} is not part of a plain stack of convolutions (model.N.weight, .bias)")
        numbers.add(int(match[1]))
    layers = []
    for number in sorted(numbers):
        parts = [state.get(f"model.{number}.{kind}") for kind in ("weight", "bias")]
        if parts[0] is None or parts[1] is None:
            raise CheckpointError(f"{path}: model.{number} lacks its weight or its bias")
        layers.append(Convolution(*(part.float().numpy() for part in parts if part is not None)))
    return _checked(path, layers)


def _read_matlab(path: Path) -> tuple[Convolution, ...]:
    if path.suffix.lower() != ".mat":
        raise CheckpointError(f"{path}: unknown kind of weight file; give the authors' .mat file")
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"{path}: reading .mat weights needs h5py; pip install h5py") from error
    layers = []
    try:
        with h5py.File(path, "r") as file:
            for reference in np.ravel(file["net/layers"][()]):
                layer = file[reference]
                if "".join(map(chr, np.ravel(layer["type"][()]))) == "conv":
                    kernel, bias = (np.asarray(file[r][()], np.float32) for r in np.ravel(layer["weights"][()]))
                    # MATLAB drops a last axis of one output; stored axes are (out, in, width, height).
                    kernel = kernel.reshape(-1, *kernel.shape[-3:]).swapaxes(-1, -2)
                    layers.append(Convolution(np.ascontiguousarray(kernel), bias.ravel()))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a MatConvNet network in a MATLAB v7.3 file ({error})") from error
    return _checked(path, layers)


def _checked(path: Path, layers: Sequence[Convolution]) -> tuple[Convolution, ...]:
    if not layers:
        raise CheckpointError(f"{path}: holds no convolution")
    channels = layers[0].kernel.shape[1] if layers[0].kernel.ndim == 4 else 0
    for number, layer in enumerate(layers):
        expected = (layer.bias.size, channels, 3, 3)
        if layer.kernel.shape != expected or layer.bias.ndim != 1:
            raise CheckpointError(
                f"{path}: convolution {number} has a kernel of shape {layer.kernel.shape}, expected {expected}"
            )
        if not (np.isfinite(layer.kernel).all() and np.isfinite(layer.bias).all()):
            raise CheckpointError(f"{path}: convolution {number} holds values that are not finite")
        channels = layer.bias.size
    return tuple(layers)


def _stack(layers: Sequence[Convolution], image: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        for number, layer in enumerate(layers):
            if number:
                image = functional.relu(image, inplace=True)
            image = functional.conv2d(image, torch.from_numpy(layer.kernel), torch.from_numpy(layer.bias), padding=1)
    return image


def _in_strips(network: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, halo: int) -> torch.Tensor:
    """`network(image)`, strip by strip; `halo` is how many rows away a pixel can matter, so strips equal the whole."""
    import torch

    height, width = image.shape[-2:]
    # An even step and halo keep FFDNet's sub-images in phase.
    step = max(2 * halo, _STRIP_PIXELS // width) // 2 * 2
    halo += halo % 2
    strips = []
    for top in range(0, height, step):
        first, last = max(0, top - halo), min(height, top + step + halo)
        strips.append(network(image[..., first:last, :])[..., top - first : top - first + step, :])
    return torch.cat(strips, dim=-2)


def _to_tensor(noisy: Pixels) -> torch.Tensor:
    import torch

    planes = noisy[None] if noisy.ndim == 2 else np.moveaxis(noisy, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None]


def _to_pixels(result: torch.Tensor, shape: tuple[int, ...]) -> Pixels:
    planes: Pixels = result[0].numpy()
    return np.ascontiguousarray(planes[0] if len(shape) == 2 else np.moveaxis(planes, 0, -1))
