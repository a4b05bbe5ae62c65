"""The model card that goes beside each checkpoint, made from the checkpoint's own record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from denoise_se.atomic_file import replacing
from denoise_se.calibration import Calibration
from denoise_se.markdown import markdown_table
from denoise_se.network import build_network, count_macs_per_pixel, count_parameters
from denoise_se.network_config import NetworkConfig

INT8_HEADING = "## int8"


def render_card(
    name: str, config: NetworkConfig, training: Mapping[str, Any], psnr: Mapping[str, Any], notes: str = ""
) -> str:
    """Markdown: what the model is, how it was trained, what it was measured to do, and its limits."""
    import torch

    with torch.device("meta"):
        parameters = count_parameters(build_network(config))
    condition = "a noise-level map" if config.noise_map else "nothing else (blind)"
    recipe = training.get("recipe", {})
    noise = recipe.get("noise") or "as in the noisy images"
    if training.get("rehearsed"):
        noise += f"; in {recipe.get('rehearsal', 0):.0%} of the steps {training['rehearsed']}"
    rows = {
        "data": training.get("data", "not recorded"),
        "noise": noise,
        "started from": training.get("started_from", "random weights"),
        "steps": f"{training.get('steps', 0):,} of {recipe.get('batch')} patches of {recipe.get('patch')} pixels",
        **_changed_on_the_way(training),
        "wall time": f"{_time(training.get('seconds', 0))} on {training.get('hardware', 'not recorded')}",
        "seed, precision": f"{recipe.get('seed')}, {training.get('precision', recipe.get('precision'))}",
        "program": f"denoise-se {training.get('version', '')} {training.get('commit', '')}",
    }
    lines = [
        f"# {name}",
        "",
        f"A {config.layout} network of `{config.block}` blocks, {config.channels} channel(s), "
        f"conditioned on {condition}. "
        f"{parameters:,} parameters, {count_macs_per_pixel(config) / 1e6:.3f} million multiply-adds a pixel.",
        "",
        "## Training",
        "",
        *markdown_table(("what", "value"), rows.items()),
        "",
        "## Measured",
        "",
        *(f"- {key}: {value}" for key, value in psnr.items()),
        "",
        "## Limits",
        "",
        notes
        or "It removes the noise described above; other noise (another camera, stripes, compression) may stay or lose "
        "detail. A denoiser guesses: it can remove fine texture that looks like noise, so do not measure on its output "
        "without a check on known samples.",
        "",
        "Licence: as the project's, see LICENSE; the training images keep their own terms.",
        "",
    ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def _changed_on_the_way(training: Mapping[str, Any]) -> dict[str, str]:
    """A row of what was changed when the run was resumed; none when nothing was."""
    changes = [
        f"from step {change['step']:,}: " + ", ".join(f"{name} {change[name]}" for name in change if name != "step")
        for change in training.get("changes", [])
    ]
    return {"changed on the way": "; ".join(changes)} if changes else {}


def note_calibration(card: Path, calibration: Calibration) -> None:
    """Put what int8 costs into a card, if there is one. Raises OSError."""
    if card.is_file():
        text = with_int8(card.read_text(encoding="utf-8"), calibration)
        with replacing(card) as file:
            file.write(text.encode())


def with_int8(card: str, calibration: Calibration) -> str:
    """The card with its section on int8 replaced, or put before the limits."""
    before, _, rest = card.partition(f"{INT8_HEADING}\n")
    if rest:
        rest = "".join(rest.partition("## ")[1:])
    else:
        before, limits, after = card.partition("## Limits")
        rest = limits + after
    lines = [
        INT8_HEADING,
        "",
        f"Calibrated on {calibration.data}; PSNR lost against fp32, on other images of them, with weights of 8 or 7 "
        "bits (for CPUs without VNNI), whichever lose more:",
        "",
        *(f"- {noise}: {decibels:.3f} dB" for noise, decibels in calibration.loss.items()),
        "",
        "",
    ]
    return before + "\n".join(lines) + rest
