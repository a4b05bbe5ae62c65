"""The Muon optimizer against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from denoise_se.muon import Muon, is_hidden_convolution, orthogonalized


@pytest.mark.parametrize("shape", [(32, 288), (300, 40), (64, 64)])
def test_orthogonalizing_keeps_the_singular_vectors_and_evens_the_values(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).standard_normal(shape)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(torch.from_numpy(matrix).float()).numpy()
    inner = left.T @ result @ right.T
    assert np.all((np.diag(inner) > 0.6) & (np.diag(inner) < 1.3))
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 0.1


def test_only_wide_kernels_get_muon() -> None:
    assert is_hidden_convolution(torch.zeros(64, 64, 3, 3))
    assert not is_hidden_convolution(torch.zeros(64, 5, 3, 3))  # the first convolution
    assert not is_hidden_convolution(torch.zeros(64, 64, 1, 1))  # a gate
    assert not is_hidden_convolution(torch.zeros(64))


def test_other_parameters_follow_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    muon = Muon(ours, lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(4):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in ((ours, muon), (theirs, adamw)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_a_kernels_second_step_is_the_polar_factor_of_nesterovs_momentum() -> None:
    """Expected by an SVD: all singular values are 1; five iterations come near that."""
    draw = torch.Generator().manual_seed(5)
    first, second = 3 * torch.randn(64, 64 * 9, generator=draw), torch.randn(64, 64 * 9, generator=draw)
    layer = nn.Conv2d(64, 64, 3, bias=False)
    muon = Muon(layer, lr=0.01)
    for gradient in (first, second):
        before = layer.weight.detach().clone()
        layer.weight.grad = gradient.reshape(64, 64, 3, 3).clone()
        muon.step()
    taken = (before - layer.weight.detach()).flatten(1)
    momentum = 0.95 * (0.05 * first) + 0.05 * second
    left, _, right = torch.linalg.svd(0.05 * second + 0.95 * momentum, full_matrices=False)
    expected = 0.01 * 0.2 * math.sqrt(64 * 9) * left @ right
    assert float(nn.functional.cosine_similarity(taken.flatten(), expected.flatten(), dim=0)) > 0.98
    assert float(taken.norm() / expected.norm()) == pytest.approx(1, abs=0.3)


def test_a_kernels_step_has_the_size_of_an_adamw_step() -> None:
    layer = nn.Conv2d(64, 64, 3, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(3)) * 1e-4
    Muon(layer, lr=0.001).step()
    rms = (layer.weight.detach() - before).square().mean().sqrt().item()
    assert rms == pytest.approx(0.001 * 0.2, rel=0.3)  # Liu et al. match a root mean square of 0.2 of the rate


def test_weight_decay_shrinks_kernels_too() -> None:
    layer = nn.Conv2d(64, 64, 3, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    Muon(layer, lr=0.01, weight_decay=0.5).step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.01 * 0.5))
