"""Starting a network from the weights of another."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
import torch.nn.functional as F

from denoise_se.checkpoint import Checkpoint
from denoise_se.errors import CheckpointError
from denoise_se.network import Network
from denoise_se.network_config import NetworkConfig

BLOCK = re.compile(r"((?:blocks|bottom|encoders\.\d+|decoders\.\d+)\.)(\d+)(\..+)")  # a run of blocks, which, what


def warm_start(network: Network, start: Checkpoint) -> None:
    """Copy `start`'s weights into `network`, which is freshly initialised, in place.

    The shapes may differ in the image channels and the noise-level map: then the head's weights are shared out evenly
    over the channels, the tail's are repeated, and the map's column is dropped or starts at zero. `network` may also
    have more blocks: `start`'s are spread over them and the new ones between them start as the identity, so that the
    deeper network starts with what the shallower one knows (Chen et al., "Net2Net", ICLR 2016).

    Raises:
        CheckpointError: any other difference between the two configs.
    """
    ours, theirs = network.config, start.config
    deepens = ours.blocks > theirs.blocks and starts_as_identity(ours)
    like_ours = replace(
        theirs,
        channels=ours.channels,
        noise_map=ours.noise_map,
        blocks=ours.blocks if deepens else theirs.blocks,
    )
    if like_ours != ours:
        raise CheckpointError(
            f"{start.name}: its network has another shape than the one to train; leave the network out of --config, or "
            "use --init none"
        )
    weights = network.state_dict() if deepens else {}
    weights |= {spread(name, theirs.blocks, ours.blocks): weight for name, weight in start.weights.items()}
    head, tail, bias = weights["head.weight"], weights["tail.weight"], weights["tail.bias"]
    folds = theirs.unshuffle**2
    if ours.channels != theirs.channels:
        image = head[:, : theirs.channels * folds].unflatten(1, (theirs.channels, folds)).mean(1, keepdim=True)
        image = image * theirs.channels / ours.channels
        level = head[:, theirs.channels * folds :]
        head = torch.cat([image.expand(-1, ours.channels, -1, -1, -1).flatten(1, 2), level], dim=1)
        tail = tail.unflatten(0, (theirs.channels, folds)).mean(0).repeat(ours.channels, 1, 1, 1)
        bias = bias.unflatten(0, (theirs.channels, folds)).mean(0).repeat(ours.channels)
    if theirs.noise_map and not ours.noise_map:
        head = head[:, :-1]
    elif ours.noise_map and not theirs.noise_map:
        head = F.pad(head, (0, 0, 0, 0, 0, 1))
    network.load_state_dict(weights | {"head.weight": head, "tail.weight": tail, "tail.bias": bias})


def starts_as_identity(config: NetworkConfig) -> bool:
    """Whether a fresh block passes its input on unchanged; see `Denoising.initialise`."""
    return not config.final_relu and not (config.block == "se_residual" and config.inner_skip)


def spread(name: str, few: int, many: int) -> str:
    """The name that a weight has when each run of `few` blocks becomes one of `many`; the last block stays the last."""
    return BLOCK.sub(lambda m: f"{m[1]}{(int(m[2]) + 1) * many // few - 1}{m[3]}", name)
