"""Blocks: the gate worked out in numpy, shapes, placements, folding, and the three mistakes of the known listing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from denoise_se.blocks import (
    ConvNorm,
    MobileSEBottleneck,
    ResidualBlock,
    SEBottleneck,
    SEResidualBlock,
    SqueezeExcitation,
)

BLOCKS = [ResidualBlock, SEResidualBlock, SEBottleneck, MobileSEBottleneck]


def randomised(module, seed=0):
    """The module in eval mode with every parameter and BatchNorm statistic random, so that nothing hides behind a 0.

    The bounds of gates are such that some gates lie beyond them.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif name.endswith((".low", ".high")):
                tensor.lerp_(torch.full_like(tensor, 0.5), 0.9 * torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def features(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the squeeze-and-excitation module --------------------------------------------------------


@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("ratio", [1 / 16, 0.25])
def test_se_holds_two_c_squared_ratio_parameters(channels, ratio):
    count = sum(p.numel() for p in SqueezeExcitation(channels, ratio).parameters())
    assert count == 2 * channels * channels * ratio


def test_a_narrow_se_keeps_one_hidden_channel():
    assert SqueezeExcitation(4, 1 / 16).excite[0].out_features == 1


@pytest.mark.parametrize("gate_scale", [1.0, 2.0])
def test_the_gate_is_that_of_the_mean_over_the_whole_image(gate_scale):
    se = randomised(SqueezeExcitation(6, 0.5, gate_scale))
    x = features(2, 6, 3, 5)
    w1, w2 = (se.excite[i].weight.detach().numpy() for i in (0, 2))
    z = x.numpy().mean(axis=(2, 3))
    gate = gate_scale / (1 + np.exp(-(np.maximum(z @ w1.T, 0) @ w2.T)))
    assert np.ptp(gate) > 0.05
    np.testing.assert_allclose(se(x).detach().numpy(), x.numpy() * gate[:, :, None, None], rtol=1e-5)


@pytest.mark.parametrize("gate_scale", [1.0, 2.0])
def test_gates_start_at_half_their_scale(gate_scale):
    x = features(1, 8, 4, 4)
    assert torch.equal(SqueezeExcitation(8, 0.5, gate_scale)(x), gate_scale / 2 * x)


def test_a_given_gate_replaces_the_pooled_one():
    gate = torch.tensor([[0.0, 0.5, 3.0]])
    x = features(2, 3, 4, 5)
    assert torch.equal(SqueezeExcitation(3)(x, gate), x * gate[:, :, None, None])


# --- all blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(4, 4), (3, 5)])
@pytest.mark.parametrize("kind", BLOCKS)
def test_any_size_any_width_and_stride_give_the_documented_shape(kind, channels, stride, norm):
    block = randomised(kind(*channels, stride=stride, norm=norm))
    for height, width in [(1, 1), (1, 6), (7, 4)]:
        y = block(features(2, channels[0], height, width))
        assert y.shape == (2, channels[1], -(-height // stride), -(-width // stride))
        assert torch.isfinite(y).all()


def test_the_usage_of_the_document_runs_on_any_size():
    net = SEResidualBlock(64, 64).eval()
    for size in [(1, 1), (3, 5), (8, 8)]:
        assert net(features(1, 64, *size)).shape == (1, 64, *size)
    assert SEResidualBlock(64, 64).train()(features(2, 64, 4, 4)).shape == (2, 64, 4, 4)


@pytest.mark.parametrize("channels", [(16, 16), (16, 12)])
@pytest.mark.parametrize("kind", BLOCKS)
def test_gradients_reach_every_parameter(kind, channels):
    options = {} if kind is ResidualBlock else {"ratio": 0.5}
    block = randomised(kind(*channels, **options))
    block(features(2, channels[0], 6, 6)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("channels", [(4, 4), (4, 6)])
@pytest.mark.parametrize("kind", BLOCKS)
def test_folding_batchnorm_changes_nothing(kind, channels):
    block = randomised(kind(*channels))
    x = features(2, 4, 6, 7)
    before = block(x)
    for module in block.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())
    torch.testing.assert_close(block(x), before, atol=1e-5, rtol=1e-5)


# --- where the gate acts ----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(6, 6), (6, 4)])
def test_a_closed_gate_leaves_the_skip_alone(channels):
    x, closed = features(1, 6, 5, 5), torch.zeros(1, channels[1])
    block = randomised(SEResidualBlock(*channels))
    torch.testing.assert_close(block(x, closed), block.skip(x))
    block = randomised(SEBottleneck(*channels))
    torch.testing.assert_close(block(x, closed), torch.relu(block.skip(x)))


def test_rb_plus_se_is_the_skip_plus_the_gated_rb():
    block, x, gate = randomised(SEResidualBlock(6, 6)), features(1, 6, 5, 5), features(1, 6)
    torch.testing.assert_close(block(x, gate), x + block.rb(x) * gate[:, :, None, None])


def test_without_the_inner_skip_the_gate_weighs_the_convolutions_only():
    block, x, gate = SEResidualBlock(6, 6, inner_skip=False, final_relu=False), features(1, 6, 5, 5), features(1, 6)
    block = randomised(block)
    torch.testing.assert_close(block(x, gate), x + block.rb.body(x) * gate[:, :, None, None])


def test_se_resnet_gates_after_the_bottleneck_of_a_quarter_of_the_width():
    block, x, gate = randomised(SEBottleneck(8, 8)), features(1, 8, 5, 5), features(1, 8)
    convolutions = [m for m in block.body.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.out_channels) for c in convolutions] == [(1, 2), (3, 2), (1, 8)]
    torch.testing.assert_close(block(x, gate), torch.relu(x + block.body(x) * gate[:, :, None, None]))


def test_mobile_se_gates_the_depthwise_result_with_ratio_a_quarter():
    block, x, gate = randomised(MobileSEBottleneck(4, 4)), features(1, 4, 5, 5), features(1, 16)
    depthwise = block.depthwise[0].conv
    assert depthwise.groups == depthwise.out_channels == 16
    assert block.se.excite[0].out_features == 16 * 0.25
    gated = block.depthwise(block.expand(x)) * gate[:, :, None, None]
    torch.testing.assert_close(block(x, gate), x + block.project(gated))


def test_mobile_se_adds_no_input_where_the_shape_changes():
    block, closed = randomised(MobileSEBottleneck(4, 6)), torch.zeros(1, 16)
    y = block(features(1, 4, 5, 5), closed)
    torch.testing.assert_close(y, block.project(torch.zeros(1, 16, 5, 5)))


# --- the mistakes of the known listing, each with a check that it fails -----------------------


class ListedRB(nn.Module):
    def __init__(self, nin, nout, ksize=3, stride=1, pad=1):
        super().__init__()
        self.rb = nn.Sequential(
            nn.Conv2d(nin, nout, ksize, stride, pad),
            nn.BatchNorm2d(nout),
            nn.ReLU(inplace=True),
            nn.Conv2d(nout, nout, ksize, stride, pad),
            nn.BatchNorm2d(nout),
        )

    def forward(self, x):
        return nn.ReLU(x + self.rb(x))


class ListedRBWithReLUApplied(ListedRB):
    def forward(self, x):
        return torch.relu(x + self.rb(x))


class ListedSE(nn.Module):
    def __init__(self, nin, nout, reduce=16):
        super().__init__()
        self.gp = nn.AvgPool2d(1)
        self.rb1 = ListedRB(nin, nout)
        self.se = nn.Sequential(
            nn.Linear(nout, nout // reduce), nn.ReLU(inplace=True), nn.Linear(nout // reduce, nout), nn.Sigmoid()
        )

    def forward(self, x):
        y = self.rb1(x)
        b, c, _, _ = y.size()
        gate = self.se(self.gp(y).view(b, c)).view(b, c, 1, 1)
        return y * gate.expand_as(y) + x


def check_relu_acts_on_the_sum(block, body):
    x = features(2, 4, 5, 5)
    y = block(x)
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y, torch.relu(x + body(x)))


def check_gate_pools_the_whole_image(block):
    """`block` is RB + SE whose RB is the identity, so that (y - x) / x is the gate."""
    x = 1 + features(1, 32, 5, 7).abs()
    x[:, :16, :, 3:] *= 5  # so that a part of the image has another mean
    gate = (block(x) - x) / x
    mean = x.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(gate, ((block(mean) - mean) / mean).expand_as(gate))


def check_skip_fits(block, stride):
    assert block(features(2, 3, 8, 8)).shape[2:] == (8 // stride, 8 // stride)


def test_relu_is_applied_where_the_listing_constructs_one():
    block, listed = randomised(ResidualBlock(4, 4)), randomised(ListedRB(4, 4))
    check_relu_acts_on_the_sum(block, block.body)
    with pytest.raises(AssertionError):
        check_relu_acts_on_the_sum(listed, listed.rb)


def test_pooling_is_global_where_the_listing_pools_nothing():
    block, listed = randomised(SEResidualBlock(32, 32, ratio=0.5)), randomised(ListedSE(32, 32))
    block.rb = listed.rb1 = nn.Identity()
    check_gate_pools_the_whole_image(block)
    with pytest.raises(RuntimeError, match="shape"):
        check_gate_pools_the_whole_image(listed)


@pytest.mark.parametrize(("nout", "stride"), [(5, 1), (3, 2), (5, 2)])
def test_the_skip_is_projected_where_the_listing_cannot_add(nout, stride):
    check_skip_fits(randomised(ResidualBlock(3, nout, stride=stride)), stride)
    check_skip_fits(randomised(SEResidualBlock(3, nout, stride=stride)), stride)
    with pytest.raises(RuntimeError, match="must match"):
        check_skip_fits(randomised(ListedRBWithReLUApplied(3, nout, stride=stride)), stride)
