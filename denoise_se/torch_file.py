"""Files that torch.save wrote, read without running what they say: the one place where torch.load stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from denoise_se.errors import CheckpointError


def load_tensors(path: str | Path, device: Any = "cpu") -> Any:
    """The tensors and plain containers in `path`.

    Two kinds of files are read: a published peer's weights, which the user names for a comparison, and a training run's
    own last.ckpt. `weights_only=True` restricts the unpickler: a file that asks for any other class or function is
    refused before it is called.

    Raises:
        CheckpointError: anything else in it, or damage.
    """
    import torch

    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere inside the unpickler
        first = str(error).strip().partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: holds more than tensors, or is damaged ({type(error).__name__}: {first}); use another copy of it"
        ) from error
