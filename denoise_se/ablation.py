"""What squeeze-and-excitation, its placement and BatchNorm bring: every variant trained equally and measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from denoise_se.datasets import Example, Patches
from denoise_se.loaded import to_unit
from denoise_se.markdown import markdown_table
from denoise_se.network import Denoising, build_network, count_macs_per_pixel, count_parameters
from denoise_se.network_config import NetworkConfig
from denoise_se.network_psnr import Batch, mean_psnr
from denoise_se.noise import parse_noise_spec
from denoise_se.training import augment, learning_rate, make_optimizer
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair

SIGMAS = (15, 25, 50)
TIMED_SIDE = 512

VARIANTS: dict[str, NetworkConfig] = {
    "RB without SE": NetworkConfig(block="residual"),
    "RB + SE": NetworkConfig(),
    "RB + SE, gate starts at 0.5": NetworkConfig(se_gate_scale=1.0),
    "RB + SE, RB keeps its own skip": NetworkConfig(inner_skip=True, se_gate_scale=1.0),
    "RB + SE, one SE a stage": NetworkConfig(se_every="stage"),
    "RB + SE, BatchNorm": NetworkConfig(norm="batch"),
    "SE-ResNet bottleneck": NetworkConfig(block="se_bottleneck"),
    "SE-ResNet bottleneck, BatchNorm": NetworkConfig(block="se_bottleneck", norm="batch"),
    "MobileNetV3 bottleneck": NetworkConfig(block="mobile_se", se_ratio=0.25),
    "MobileNetV3 bottleneck, BatchNorm": NetworkConfig(block="mobile_se", se_ratio=0.25, norm="batch"),
    "flat RB + SE, 10 blocks": NetworkConfig(layout="flat", widths=(64,), blocks=10),
}


@dataclass(frozen=True)
class Trial:
    """One variant: mean PSNR in dB at each of SIGMAS, parameters, multiply-adds a pixel, and seconds."""

    name: str
    psnr: tuple[float, ...]
    parameters: int
    macs: float
    milliseconds: float
    training_seconds: float


def run_trial(name: str, train: Sequence[Pair], validation: Sequence[Pair], config: TrainingConfig) -> Trial:
    """Train VARIANTS[name] for `config.steps` with that recipe's data, rate and seed, and measure it.

    A plain loop and no Lightning run: no files, no validation on the way, so that nothing but the network differs.
    """
    torch.manual_seed(config.seed)
    network = build_network(VARIANTS[name])
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimizer = make_optimizer(network, config)
    generator = torch.Generator().manual_seed(config.seed)
    patches, noise = Patches(train, config.patch, config.seed), parse_noise_spec(config.noise or "gaussian:0-55")
    began = time.perf_counter()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, step / config.steps)
        batch = torch.stack([patches[step * config.batch + i].clean for i in range(config.batch)])
        clean = augment(Example(batch, batch, batch.new_empty(0)).in_unit(), generator).clean
        noisy, level = noise(clean, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            restored = network(noisy, level)
        optimizer.zero_grad()
        (restored.float() - clean).abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        average.update_parameters(network)
    seconds = time.perf_counter() - began
    result = cast(Denoising, average.module)
    result.eval()
    psnr = tuple(measure(result, validation, sigma) for sigma in SIGMAS)
    result.fold_batchnorm()
    cost = count_macs_per_pixel(VARIANTS[name])
    return Trial(name, psnr, count_parameters(network), cost, time_forward(result), seconds)


def measure(network: Denoising, validation: Sequence[Pair], sigma: float) -> float:
    """Mean PSNR by the protocol of `denoise_se.evaluation`: seeded unclipped noise, the result rounded to 8 bits."""

    def batches() -> Iterator[Batch]:
        for index, pair in enumerate(validation):
            clean = to_unit(pair.clean)[None]
            noisy = clean + sigma / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
            yield noisy, torch.full_like(noisy[:, :1], sigma / 255), clean

    return mean_psnr(network, batches(), in_8_bits=True)


@torch.inference_mode()
def time_forward(network: Denoising, repeats: int = 5) -> float:
    """Median milliseconds of a 512x512 image, BatchNorm folded."""
    noisy = torch.rand(1, network.config.channels, TIMED_SIDE, TIMED_SIDE)
    level = torch.full((1, 1, TIMED_SIDE, TIMED_SIDE), 0.1)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        network(noisy, level)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[1:])


def run_ablation(
    names: Sequence[str],
    train: Sequence[Pair],
    validation: Sequence[Pair],
    config: TrainingConfig,
    on_trial: Callable[[Trial], None],
) -> list[Trial]:
    """All trials, one after the other; `on_trial` hears of each as it ends."""
    trials = []
    for name in names:
        trials.append(run_trial(name, train, validation, config))
        on_trial(trials[-1])
    return trials


def as_markdown(trials: Sequence[Trial]) -> str:
    """The table of the trials."""
    psnr = (f"PSNR {sigma}" for sigma in SIGMAS)
    head = ["variant", *psnr, "parameters", "MMAC a pixel", "ms at 512x512", "training s"]
    rows = [
        [
            trial.name,
            *(f"{value:.2f}" for value in trial.psnr),
            f"{trial.parameters:,}",
            f"{trial.macs / 1e6:.3f}",
            f"{trial.milliseconds:.0f}",
            f"{trial.training_seconds:.0f}",
        ]
        for trial in trials
    ]
    return "\n".join(markdown_table(head, rows)) + "\n"
