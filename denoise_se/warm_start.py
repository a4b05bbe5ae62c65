"""Starting a network from the weights of another."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from denoise_se.checkpoint import Checkpoint
from denoise_se.errors import CheckpointError
from denoise_se.gate_bounds import bounds_of
from denoise_se.network import Network
from denoise_se.network_config import NetworkConfig

BLOCK = re.compile(r"((?:blocks|bottom|encoders\.\d+|decoders\.\d+)\.)(\d+)(\..+)")  # a run of blocks, which, what


def in_channels(start: Checkpoint, channels: int) -> Checkpoint:
    """`start` for images of so many channels: the head's weights shared out evenly over them, the tail's repeated, so
    that of a grey picture in triplicate a colour network makes what the grey one made, and the reverse its mean."""
    theirs, weights = start.config, dict(start.weights)
    if theirs.channels == channels:
        return start
    folds = theirs.unshuffle**2
    head, tail, bias = weights["head.weight"], weights["tail.weight"], weights["tail.bias"]
    image = head[:, : theirs.channels * folds].unflatten(1, (theirs.channels, folds)).mean(1, keepdim=True)
    image = (image * theirs.channels / channels).expand(-1, channels, -1, -1, -1).flatten(1, 2)
    weights["head.weight"] = torch.cat([image, head[:, theirs.channels * folds :]], dim=1)
    weights["tail.weight"] = tail.unflatten(0, (theirs.channels, folds)).mean(0).repeat(channels, 1, 1, 1)
    weights["tail.bias"] = bias.unflatten(0, (theirs.channels, folds)).mean(0).repeat(channels)
    return replace(start, config=replace(theirs, channels=channels), weights=weights)


def warm_start(network: Network, start: Checkpoint) -> None:
    """Copy `start`'s weights into `network`, which is freshly initialised, in place.

    The shapes may differ in the image channels (see `in_channels`) and the noise-level map, whose column is dropped or
    starts at zero. `network` may also have more blocks: `start`'s are spread over them and the new ones between them
    start as the identity; and, when it is flat, wider ones: what `start` has ignores the new channels at first. Either
    way the larger network starts with what the smaller one knows (Chen et al., "Net2Net", ICLR 2016), its gates not
    held: those of what is new do not move yet, and it changes the others.

    Raises:
        CheckpointError: any other difference between the two configs.
    """
    start = in_channels(start, network.config.channels)
    ours, theirs = network.config, start.config
    deepens = ours.blocks > theirs.blocks and starts_as_identity(ours)
    widens = ours.layout == theirs.layout == "flat" and ours.widths > theirs.widths
    same = replace(
        theirs,
        noise_map=ours.noise_map,
        blocks=ours.blocks if deepens else theirs.blocks,
        widths=ours.widths if widens else theirs.widths,
    )
    if same != ours:
        raise CheckpointError(
            f"{start.name}: its network has another shape than the one to train; leave the network out of --config, or "
            "use --init none"
        )
    weights = {spread(name, theirs.blocks, ours.blocks): weight for name, weight in start.weights.items()}
    if theirs.noise_map and not ours.noise_map:
        weights["head.weight"] = weights["head.weight"][:, :-1]
    elif ours.noise_map and not theirs.noise_map:
        weights["head.weight"] = F.pad(weights["head.weight"], (0, 0, 0, 0, 0, 1))
    fresh = network.state_dict()
    network.load_state_dict(fresh | {name: widened(weight, fresh[name]) for name, weight in weights.items()})
    if larger(ours, theirs):
        for bounds in bounds_of(network):
            bounds.open()


def larger(ours: NetworkConfig, theirs: NetworkConfig) -> bool:
    """Whether a network has more blocks or wider ones than its start."""
    return (ours.blocks, ours.widths) != (theirs.blocks, theirs.widths)


def widened(weight: Tensor, fresh: Tensor) -> Tensor:
    """`weight` [out, in, ...] in the shape of `fresh`: old outputs read no new inputs, new ones are fresh."""
    wide = fresh.clone()
    if weight.ndim > 1:
        wide[: len(weight)] = 0
    wide[tuple(slice(size) for size in weight.shape)] = weight
    return wide


def starts_as_identity(config: NetworkConfig) -> bool:
    """Whether a fresh block passes its input on unchanged; see `Denoising.initialise`."""
    return not config.final_relu and not (config.block == "se_residual" and config.inner_skip)


def spread(name: str, few: int, many: int) -> str:
    """The name that a weight has when each run of `few` blocks becomes one of `many`; the last block stays the last."""
    return BLOCK.sub(lambda m: f"{m[1]}{(int(m[2]) + 1) * many // few - 1}{m[3]}", name)
