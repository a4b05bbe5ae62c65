"""last.ckpt: everything a training run needs to go on, written whole or not at all and read without unpickling."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from denoise_se.atomic_file import replacing
from denoise_se.errors import CheckpointError, TrainingError, UsageError
from denoise_se.torch_file import load_tensors

# what there must be
KINDS: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "loops": dict,
    "optimizer_states": list,
    "callbacks": dict,
    "global_step": int,
    "elapsed": (int, float),
}


class TrainingState(CheckpointIO):
    """How Lightning saves and loads a run's state, see `load_tensors`: a file from elsewhere cannot run code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Replace `path`; TrainingError when it cannot be written, and the old file stays."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with replacing(path) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise TrainingError(
                f"{path}: cannot be written ({error.strerror}); make room, then go on from the last one with --resume"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """The state in `path`; UsageError when it is damaged or holds anything but tensors and plain containers."""
        try:
            _check_sums(path)
            state = load_tensors(path, map_location or "cpu")
            if not isinstance(state, dict):
                raise CheckpointError("it holds no names")
        except CheckpointError as error:
            raise UsageError(
                f"{path}: is no state of a training run: {error}; start a run elsewhere, from best.safetensors with "
                "--init if that is there"
            ) from error
        if wrong := [name for name, kind in KINDS.items() if not isinstance(state.get(name), kind)]:
            raise UsageError(f"{path}: is no state of a training run ({', '.join(sorted(wrong))} missing or wrong)")
        if not state["optimizer_states"] or "fit_loop" not in state["loops"]:
            raise UsageError(f"{path}: is no state of a training run (no optimizer or no loop)")
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _check_sums(path: str | Path) -> None:
    """CheckpointError when a byte of the file is not what was written; PyTorch does not look at its own check sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile and zlib raise what they like at a damaged directory
        raise CheckpointError(f"it cannot be read ({error})") from error
    if damaged is not None:
        raise CheckpointError(f"it is damaged (the check sum of {damaged})")
