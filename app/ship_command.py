"""`denoise-se ship`: a training run's best weights become a shipped checkpoint and its card."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from denoise_se.app.console import table_console
from denoise_se.atomic_file import write_whole
from denoise_se.checkpoint import CHECKPOINTS, Checkpoint, load_checkpoint, save_checkpoint
from denoise_se.errors import UsageError
from denoise_se.model_card import render_card

HALF_LOSS = 0.001  # dB that storing fp16 may cost
SIDE = 256  # of the corner of a picture that it is measured on


def run_ship(name: str, weights: Path, evaluations: list[Path]) -> None:
    """Write the name's file under checkpoints/ (fp16 when that is harmless) and its card.

    `evaluations` are JSON reports of `denoise-se evaluate` that measured `weights`; their means go into both.
    """
    if name not in CHECKPOINTS:
        raise UsageError(f"{name}: is no name of the catalogue; one of {', '.join(CHECKPOINTS)}")
    checkpoint = load_checkpoint(weights)
    psnr: dict[str, Any] = dict(checkpoint.psnr) | measured(checkpoint, evaluations)
    target = Path(str(resources.files("denoise_se.checkpoints"))) / CHECKPOINTS[name].file
    loss = half_loss(checkpoint)
    save_checkpoint(
        target, checkpoint.weights, checkpoint.config, training=checkpoint.training, psnr=psnr, half=loss < HALF_LOSS
    )
    shown = {key: value for key, value in psnr.items() if isinstance(value, str)}
    card = render_card(name, checkpoint.config, checkpoint.training, shown)
    write_whole(target.with_suffix(".md"), card.encode())
    console = table_console()
    console.print(f"{target}: fp16 costs {loss:.5f} dB on the samples; {target.stat().st_size:,} bytes")
    console.print(f"int8 belongs to the old weights: denoise-se quantize {name} --clean FOLDER makes it for these")


def measured(checkpoint: Checkpoint, evaluations: list[Path]) -> dict[str, str]:
    """One line per test set and noise of this checkpoint: "Set12, gaussian:25" -> "30.12 dB, SSIM 0.8523"."""
    lines = {}
    for path in evaluations:
        for mean in json.loads(path.read_text(encoding="utf-8"))["means"]:
            if mean["method"] == checkpoint.name:
                ssim = "" if mean["ssim"] is None else f", SSIM {mean['ssim']:.4f}"
                lines[f"{mean['test_set']}, {mean['noise']}"] = f"{mean['psnr']:.2f} dB{ssim}"
    if evaluations and not lines:
        raise UsageError(
            f"no evaluation measured {checkpoint.name!r}; give reports made with this very file as --model"
        )
    return lines


def half_loss(checkpoint: Checkpoint) -> float:
    """PSNR lost (dB, mean) by rounding the weights to fp16, on the sample pictures under noise of sigma 25."""
    import torch

    from denoise_se.loaded import to_unit
    from denoise_se.network_psnr import mean_psnr
    from denoise_se.rehearsal import sample_images

    generator, batches = torch.Generator().manual_seed(0), []
    for image in sample_images(checkpoint.config.channels):
        clean = to_unit(image[None, :, :SIDE, :SIDE])
        noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=generator)
        batches.append((noisy, torch.full_like(noisy[:, :1], 25 / 255), clean))
    return mean_psnr(checkpoint.network(), batches) - mean_psnr(checkpoint.network().half().float(), batches)
