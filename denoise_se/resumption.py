"""Whether a training run may be gone on with, and what of its recipe changes on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from denoise_se.errors import UsageError
from denoise_se.output_file import check_name
from denoise_se.training_config import TrainingConfig

BEST, LAST = "best.safetensors", "last.ckpt"
CHANGEABLE = ("steps", "minutes", "validations", "batch", "patch")  # what a resumed run may change


def check_run(folder: Path, resume: bool) -> None:
    """UsageError when the folder holds a run and `resume` is off, or none and it is on, or when it cannot be made."""
    check_name("-o", folder / LAST)
    best, last = folder / BEST, folder / LAST
    if resume and not last.is_file():
        raise UsageError(f"{folder}: no last.ckpt to resume from; leave --resume out to start a run")
    if not resume and best.exists() and not last.exists():
        raise UsageError(f"{folder}: holds a best.safetensors but no run; move it, or choose another")
    if not resume and last.exists():
        raise UsageError(f"{folder}: holds a training run already; add --resume, or choose another folder")


def changes_of(
    before: Mapping[str, Any], recipe: Mapping[str, Any], start: str, images: Mapping[str, str], last: Path
) -> dict[str, Any]:
    """What a resumed run changes of its recipe, the new values by name.

    Args:
        before: what the run folder saved of itself into `last`.
        recipe, start, images: of now; the start's name, and digests of the images by what they are of, of which older
            versions saved fewer.

    Raises:
        UsageError: naming what differs and may not.
    """
    # fields that came later: runs of before did as their defaults say
    then, now = flat(TrainingConfig().to_dict()) | flat(before["recipe"]), flat(recipe)
    then["--init"], now["--init"] = before.get("start", start), start
    differs = [name for name in now if then.get(name) != now[name]]
    if changed := [name for name in differs if name not in CHANGEABLE]:
        told = ", ".join(f"{name} is {now[name]!r} and was {then.get(name)!r}" for name in changed)
        raise UsageError(
            f"{last}: not the run to resume: {told}; give what it was started with (only the budget, batch and patch "
            "may be others), or start a run in another folder, from best.safetensors with --init"
        )
    if any(before.get(key, value) != value for key, value in images.items()):
        raise UsageError(
            f"{last}: was started with other images, other names or sizes of them, or another noise profile; give "
            "those, or start a run in another folder, from best.safetensors with --init"
        )
    return {name: now[name] for name in differs}


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the network's fields beside the others, as JSON keeps them."""
    fields = json.loads(json.dumps(recipe))
    return fields | {f"network.{name}": value for name, value in fields.pop("network", {}).items()}
