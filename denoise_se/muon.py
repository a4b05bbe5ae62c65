"""The Muon optimizer, for the convolutions of a network; everything else gets Adam.

A convolution's step is its momentum with all singular values brought near 1, so that rare directions of the gradient
move as far as common ones. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The size of
the step is matched to that of AdamW (Liu et al., "Muon is scalable for LLM training", 2025), so one learning rate
serves both kinds. `torch.optim.Muon` takes matrices only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd quintic that Jordan et al. iterate
ITERATIONS = 5
MOMENTUM = 0.95
BETAS = (0.9, 0.99)  # of Adam
SMALLEST_SIDE = 32  # narrower matrices (gates, the first and last convolution) get Adam


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices [..., m, n] with their singular values brought to about 0.7 to 1.2, their singular vectors kept."""
    a, b, c = COEFFICIENTS
    x = matrices.flatten(0, -3).bfloat16() if matrices.ndim > 2 else matrices[None].bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # the largest singular value is at most 1
    wide = x if x.shape[-2] <= x.shape[-1] else x.mT
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide if x.shape[-2] <= x.shape[-1] else wide.mT).reshape(matrices.shape).to(matrices.dtype)


def is_hidden_convolution(weight: Tensor) -> bool:
    """Whether a parameter is a convolution's kernel [out, in, k, k] wide enough for Muon."""
    return weight.ndim == 4 and min(weight.shape[:2]) >= SMALLEST_SIDE and weight.shape[2] * weight.shape[3] > 1


class Muon(torch.optim.Optimizer):
    """Muon on a network's wide convolutions, AdamW on its other parameters.

    Args:
        network: whose parameters are trained.
        lr: learning rate of both, in AdamW's sense.
        weight_decay: decoupled, as in AdamW.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        parameters = [weight for weight in network.parameters() if weight.requires_grad]
        kernels = [weight for weight in parameters if is_hidden_convolution(weight)]
        others = [weight for weight in parameters if not is_hidden_convolution(weight)]
        groups = [{"params": kernels, "muon": True}, {"params": others, "muon": False}]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            steps = self._muon_steps(weights) if group["muon"] else map(self._adam_step, weights)
            for weight, step in zip(weights, steps, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(step, alpha=group["lr"])
        return loss

    def _muon_steps(self, weights: list[Tensor]) -> list[Tensor]:
        directions = [self._direction(weight) for weight in weights]
        steps: dict[int, Tensor] = {}
        for shape in dict.fromkeys(direction.shape for direction in directions):
            alike = [i for i, direction in enumerate(directions) if direction.shape == shape]
            together = orthogonalized(torch.stack([directions[i] for i in alike])) * (0.2 * math.sqrt(max(shape)))
            steps |= zip(alike, together, strict=True)
        return [steps[i].view_as(weight) for i, weight in enumerate(weights)]

    def _direction(self, weight: Tensor) -> Tensor:
        """The momentum [out, in * k * k] after this step's gradient, with Nesterov's look ahead."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM).flatten(1)

    def _adam_step(self, weight: Tensor) -> Tensor:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - BETAS[0])
        state["square"].lerp_(gradient.square(), 1 - BETAS[1])
        mean = state["mean"] / (1 - BETAS[0] ** state["step"])
        square = state["square"] / (1 - BETAS[1] ** state["step"])
        return mean / (square.sqrt() + 1e-8)
