"""A model as a file that runs without this package: ONNX, or OpenVINO's IR; checked against torch when it is written.

The graph takes `image` [1, C, H, W], float32, RGB, nominally in [0, 1], any H, W >= 1, and unless the network is blind
`sigma` [1] in 8-bit units (25 means 25/255); it gives `restored`, shaped like the image and not clipped. Padding is
inside, and the gates are pooled over the whole image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from denoise_se.atomic_file import replacing
from denoise_se.checkpoint import CheckpointFile
from denoise_se.errors import DenoiseError, UsageError, reason
from denoise_se.graph import onnx_bytes
from denoise_se.output_file import check_name, check_writable

if TYPE_CHECKING:
    import torch.nn as nn
    from torch import Tensor

    from denoise_se.network import Network

MOST_DIFFERENCE = 1e-4
SIZES = ((1, 1), (3, 5), (37, 53), (96, 64))
Runner = Callable[[dict[str, np.ndarray]], np.ndarray]


def export(checkpoint: CheckpointFile, out: Path, *, overwrite: bool = False) -> tuple[list[Path], float]:
    """Write FILE.onnx, or a folder's NAME.xml and NAME.bin, and run it.

    Returns:
        The files, and the largest difference from torch over a few odd sizes and levels.

    Raises:
        UsageError: another suffix, an existing file without `overwrite`, a missing package, or no place to write.
        DenoiseError: the file gives something else than torch; nothing is written then.
    """
    as_onnx = out.suffix.lower() == ".onnx"
    check_name("-o", out)
    if not as_onnx and (out.is_file() or (out.suffix and not out.is_dir())):
        raise UsageError(f"{out}: give a name that ends in .onnx, or a folder for OpenVINO's files")
    paths = [out] if as_onnx else [out / f"{checkpoint.name}{suffix}" for suffix in (".xml", ".bin")]
    for path in paths:
        check_writable("-o", path)
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists; choose another name, or replace it with --overwrite")
    engine = "onnxruntime" if as_onnx and find_spec("onnxruntime") else "openvino"
    if find_spec(engine) is None:
        raise UsageError(f'exporting needs a package that can check the file; pip install "denoise-se[{engine}]"')
    network = checkpoint.load().network()
    inputs = _inputs(network, 24, 32, sigma=25.0)
    free = {2: "height", 3: "width"}
    model = onnx_bytes(_by_sigma(network), inputs, ["restored"], {"image": free, "restored": free})
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made = [Path(temporary) / path.name for path in paths]
            if as_onnx:
                with replacing(made[0]) as file:
                    file.write(model)
            else:
                _write_ir(model, made[0])
            difference = largest_difference(network, _runner(made[0], engine))
            if not difference <= MOST_DIFFERENCE:
                raise DenoiseError(f"{out}: {engine} differs from torch by {difference:.2g}, so no file was written")
            for new, path in reversed(list(zip(made, paths, strict=True))):  # the one that refers to the other is last
                new.replace(path)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({reason(error)}); choose another place") from error
    return paths, difference


def largest_difference(network: Network, run: Runner) -> float:
    """Between what `run` gives and what torch gives, over `SIZES` and three levels."""
    import torch

    differences = []
    for seed, (height, width) in enumerate(SIZES):
        for sigma in (0.0, 25.0, 75.0):
            inputs = _inputs(network, height, width, sigma, seed)
            with torch.inference_mode():
                expected = _by_sigma(network)(*inputs.values()).numpy()
            differences.append(np.abs(run({name: value.numpy() for name, value in inputs.items()}) - expected).max())
    return float(np.max(differences))


def _inputs(network: Network, height: int, width: int, sigma: float, seed: int = 0) -> dict[str, Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    inputs = {"image": torch.rand(1, network.config.channels, height, width, generator=generator)}
    if network.config.noise_map:
        inputs["sigma"] = torch.tensor([sigma])
    return inputs


def _by_sigma(network: Network) -> nn.Module:
    """The network with one sigma in 8-bit units in place of the map."""
    import torch.nn as nn

    class BySigma(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor, *sigma: Tensor) -> Tensor:
            level = image[:, :1]
            if sigma:
                level = (sigma[0] / 255).reshape(1, 1, 1, 1).expand(1, 1, image.shape[2], image.shape[3])
            return self.network(image, level)

    return BySigma().eval()


def _write_ir(model: bytes, path: Path) -> None:
    import openvino as ov

    from denoise_se.openvino_core import core

    ov.save_model(core().read_model(model), path, compress_to_fp16=False)


def _runner(path: Path, engine: str) -> Runner:
    if engine == "onnxruntime":
        import onnxruntime as ort

        session: Any = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]
    from denoise_se.openvino_core import core

    compiled: Any = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: compiled(inputs)[0]
