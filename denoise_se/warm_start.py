"""Starting a network from the weights of another."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from denoise_se.checkpoint import Checkpoint
from denoise_se.errors import CheckpointError
from denoise_se.network import Network


def warm_start(network: Network, start: Checkpoint) -> None:
    """Copy `start`'s weights into `network`, in place.

    The shapes may differ in the image channels and the noise-level map: then the head's weights are shared out evenly
    over the channels, the tail's are repeated, and the map's column is dropped or starts at zero.

    Raises:
        CheckpointError: any other difference between the two configs.
    """
    ours, theirs = network.config, start.config
    if replace(ours, channels=1, noise_map=True) != replace(theirs, channels=1, noise_map=True):
        raise CheckpointError(
            f"{start.name}: its network has another shape than the one to train; leave the network out of --config, or "
            "use --init none"
        )
    weights = dict(start.weights)
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
