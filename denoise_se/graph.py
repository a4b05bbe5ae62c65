"""A network as an ONNX graph with free height and width, for the engines that run such graphs.

One graph serves both passes of `denoise_se.tiling`: it always pools, gives the gates that it found, and applies either
these or the gates that it was given. It is traced from the network itself, so there is no second definition of it.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from denoise_se.errors import UsageError
from denoise_se.provenance import release

if TYPE_CHECKING:
    import torch.nn as nn
    from torch import Tensor

    from denoise_se.network import Network

OPSET = 17
INPUTS = ("image", "level", "cut", "gates", "fixed")
SOURCES = (  # what a graph depends on besides the weights
    "network.py",
    "network_config.py",
    "blocks.py",
    "gate_bounds.py",
    "quantisation.py",
    "graph.py",
    "openvino_backend.py",
    "tiling.py",
)


@dataclass(frozen=True)
class Graph:
    """An ONNX model, and the halo of its network.

    Inputs, float32: `image` [N, C, H, W]; `level` [N, 1, H, W], unless the network is blind; `cut` (int64 [4]), see
    `Network.forward`; where it has gates, also `gates` [1, G] and `fixed` (bool [1]): whether these gates act, or those
    pooled over the N windows, which belong to one image. Outputs: `restored` like the image, less what was cut;
    `pooled` [1, G], the pooled gates.
    """

    model: bytes
    halo: int


@cache
def sources_digest() -> str:
    """sha256 of the code that makes a graph, so that graphs kept by another version of it are not used."""
    digest = hashlib.sha256(release().encode())
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def trace(network: Network) -> Graph:
    """The graph of a network in eval mode; BatchNorm is folded into its convolutions, in place."""
    import torch

    network.fold_batchnorm()
    config = network.config
    gates = sum(network.gate_channels)
    image = torch.rand(2, config.channels, 3 * config.multiple_of, 4 * config.multiple_of)
    inputs = {"image": image}
    if config.noise_map:
        inputs["level"] = torch.full_like(image[:, :1], 0.1)
    inputs["cut"] = torch.zeros(4, dtype=torch.int64)
    if gates:
        inputs |= {"gates": torch.ones(1, gates), "fixed": torch.ones(1, dtype=torch.bool)}
    free = {0: "n", 2: "height", 3: "width"}
    model = onnx_bytes(
        _with_gates(network),
        inputs,
        outputs=["restored", "pooled"] if gates else ["restored"],
        free={"image": free, "level": free, "restored": free},
    )
    return Graph(model, network.halo)


def onnx_bytes(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], free: Mapping[str, Mapping[int, str]]
) -> bytes:
    """The ONNX file of `module`, called with `inputs` by position; `free` names the axes of any length.

    Raises UsageError when the onnx package is missing.
    """
    import torch

    try:
        import onnx  # noqa: F401  # torch's exporter needs it, and would say so in its own words
    except ImportError as error:
        raise UsageError('the onnx package is missing; pip install "denoise-se[openvino]"') from error
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer is to be replaced by one that has no free sizes here yet
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            file,  # type: ignore[arg-type]  # a stream too, without dynamo
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: dict(axes) for name, axes in free.items() if name in inputs or name in outputs},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


def _with_gates(network: Network) -> nn.Module:
    """The network with the graph's inputs and outputs, by position."""
    import torch
    import torch.nn as nn

    from denoise_se.blocks import SqueezeExcitation

    class WithGates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.modules_with_gates = [m for m in network.modules() if isinstance(m, SqueezeExcitation)]
            for se in self.modules_with_gates:
                se.pool_jointly()
                se.excite.register_forward_hook(self.choose)

        def choose(self, _: nn.Module, __: object, gate: Tensor) -> Tensor:
            self.pooled.append(gate)
            return torch.where(self.fixed, next(self.given), gate)

        def forward(self, image: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            level = others[0] if network.config.noise_map else image[:, :1]
            if not self.modules_with_gates:
                return network(image, level, cut=others[-1])
            cut, gates, self.fixed = others[-3:]
            scales = [se.gate_scale for se in self.modules_with_gates]
            parts = gates.split(network.gate_channels, dim=1)
            self.given = iter([part / scale for part, scale in zip(parts, scales, strict=True)])
            self.pooled: list[Tensor] = []
            restored = network(image, level, cut=cut)
            return restored, torch.cat([scale * gate for scale, gate in zip(scales, self.pooled, strict=True)], dim=1)

    return WithGates().eval()
