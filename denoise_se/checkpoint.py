"""Checkpoints: safetensors files that carry their network's config, training record and measured PSNR.

Nothing here unpickles: a file is read as safetensors or refused. The header's metadata (string to string) holds
``schema_version``, ``config``, ``training`` and ``psnr``, the last three as JSON. torch is imported by the functions
that need it, so that the catalogue can be listed without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from denoise_se.atomic_file import replacing
from denoise_se.errors import CheckpointError, reason
from denoise_se.noise_spec import strongest_gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from denoise_se.network import Network
    from denoise_se.network_config import NetworkConfig

SCHEMA_VERSION = 1
MAX_METADATA_BYTES = 1_000_000
OPEN_BOUNDS = {"low": 0.0, "high": 1.0}  # of gates, in files that have none, see `denoise_se.gate_bounds`
MAX_PARAMETERS = 200_000_000


@dataclass(frozen=True)
class CatalogueEntry:
    """A shipped checkpoint: its file under `checkpoints/`, what it is for, in one line, and its image channels."""

    file: str
    purpose: str
    channels: int


CHECKPOINTS: dict[str, CatalogueEntry] = {
    "gray": CatalogueEntry("gray-fast.safetensors", "grey images with Gaussian noise of known or estimated sigma", 1),
    "color": CatalogueEntry("color-fast.safetensors", "RGB images with Gaussian noise of known or estimated sigma", 3),
    "photo": CatalogueEntry("photo-fast.safetensors", "photos as cameras write them; blind, needs no sigma", 3),
    "gray-best": CatalogueEntry("gray-best.safetensors", "as gray, a little better, 2.7 times the work", 1),
    "color-best": CatalogueEntry("color-best.safetensors", "as color, a little better, 2.7 times the work", 3),
}
ALIASES = {"gray-fast": "gray", "color-fast": "color", "photo-fast": "photo"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: `config`, the weights by name (float32), the training record and measured PSNR."""

    name: str
    config: NetworkConfig
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)
    psnr: Mapping[str, Any] = field(default_factory=dict)

    def network(self) -> Network:
        """The network in eval mode on the CPU, without gradients."""
        from denoise_se.network import build_network

        network = build_network(self.config)
        network.load_state_dict(dict(self.weights))
        return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint's file and what its header says; `digest` is the file's sha256. Its weights are not read yet."""

    name: str
    path: Path
    digest: str
    config: NetworkConfig
    training: Mapping[str, Any] = field(default_factory=dict)
    psnr: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Checkpoint:
        """The checkpoint with its weights, checked; raises CheckpointError like `load_checkpoint`, and where the file
        is another one by now."""
        loaded = _load(self.name, self.path)
        if _digest(self.path) != self.digest:
            raise CheckpointError(f"{self.path}: was replaced while it was in use; start again to take the new one")
        return loaded


def resolve(model: str | Path) -> tuple[str, Path]:
    """The display name and file of a catalogue name or a path.

    Raises:
        CheckpointError: no such name or file, or a file that is not .safetensors.
    """
    if not isinstance(model, str | PathLike):
        raise CheckpointError(f"the model is a {type(model).__name__}; give a name or the path of a .safetensors file")
    name = ALIASES.get(str(model), str(model))
    if name in CHECKPOINTS:
        return name, Path(str(resources.files("denoise_se.checkpoints").joinpath(CHECKPOINTS[name].file)))
    path = Path(model)
    try:
        is_file = path.is_file()
        is_run = (path / "best.safetensors").is_file()
    except OSError:  # a name too long for the system, or a folder that may not be looked into
        is_file = is_run = False
    if path.suffix.lower() in {".ckpt", ".pth", ".pt", ".pt2", ".pkl", ".bin"}:
        raise CheckpointError(
            f"{path}: a {path.suffix} file can run code when it is loaded, so only .safetensors checkpoints are read; "
            "a training run writes one as best.safetensors"
        )
    if is_run:
        raise CheckpointError(f"{path}: is the folder of a training run; give {path / 'best.safetensors'}")
    if not is_file:
        known = ", ".join([*CHECKPOINTS, *ALIASES])
        raise CheckpointError(f"{model}: no such checkpoint; give one of {known}, or the path of a .safetensors file")
    if path.suffix.lower() != ".safetensors":
        raise CheckpointError(f"{path}: not a .safetensors file, the only kind of checkpoint that is read")
    return path.stem if path.stem != "best" else path.absolute().parent.name, path


def load_checkpoint(model: str | Path) -> Checkpoint:
    """Load a shipped checkpoint by name, or any by path; everything is checked before a network is built.

    Raises:
        CheckpointError: the reason and the key at fault: not safetensors, no or newer schema, a config that is not
            understood, missing, extra or misshapen weights, weights that are not finite.
    """
    return _load(*resolve(model))


def open_checkpoint(model: str | Path) -> CheckpointFile:
    """The header of a checkpoint, given like that of `load_checkpoint`; no torch is needed.

    Raises:
        CheckpointError: as `load_checkpoint`, but for what is wrong with the weights.
    """
    from safetensors import SafetensorError, safe_open

    name, path = resolve(model)
    try:
        digest = _digest(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    config = _read_config(path, metadata)
    return CheckpointFile(name, path, digest, config, _json(path, metadata, "training"), _json(path, metadata, "psnr"))


def _digest(path: Path) -> str:
    """The file's sha256. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a readable safetensors file ({error}); copy or train it again")


def _load(name: str, path: Path) -> Checkpoint:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            config = _read_config(path, metadata)
            expected = _expected_shapes(path, config)
            names = file.keys()
            _check_shapes(path, expected, {key: tuple(file.get_slice(key).get_shape()) for key in names})
            weights = {
                key: file.get_tensor(key) if key in names else torch.full(shape, OPEN_BOUNDS[_last(key)])
                for key, shape in expected.items()
            }
    except (SafetensorError, OSError, ValueError, RuntimeError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for key, tensor in weights.items():
        counter = key.endswith("num_batches_tracked")
        if tensor.dtype not in ((torch.int64,) if counter else floats):
            kind = "an int64 counter" if counter else "a float type"
            raise CheckpointError(f"{path}: weight {key!r} is {tensor.dtype}, not {kind}; the file is damaged")
        weights[key] = tensor if counter else tensor.float()
        if not torch.isfinite(weights[key]).all():
            raise CheckpointError(f"{path}: weight {key!r} holds a value that is not finite; the file is damaged")
    return Checkpoint(name, config, weights, _json(path, metadata, "training"), _json(path, metadata, "psnr"))


def save_checkpoint(
    path: str | Path,
    weights: Mapping[str, Tensor],
    config: NetworkConfig,
    *,
    training: Mapping[str, Any],
    psnr: Mapping[str, Any],
    half: bool = False,
) -> None:
    """Write a checkpoint atomically. With `half` float weights are stored as fp16.

    Raises:
        CheckpointError: a weight that is not finite (or not in fp16), or the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    path = Path(path)
    stored = {}
    for key, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        stored[key] = tensor.half() if half and tensor.is_floating_point() else tensor
        if not torch.isfinite(stored[key]).all():
            raise CheckpointError(f"{path}: weight {key!r} is not finite, the checkpoint was not written")
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "config": json.dumps(config.to_dict()),
        "training": json.dumps(dict(training)),
        "psnr": json.dumps(dict(psnr)),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(save(stored, metadata))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({reason(error)}); free space or choose another place"
        ) from error


def _json(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: metadata key {key!r} is not JSON ({error}); the file is damaged") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: metadata key {key!r} is not a JSON object; the file is damaged")
    return value


def _read_config(path: Path, metadata: Mapping[str, str]) -> NetworkConfig:
    from denoise_se.network_config import NetworkConfig

    if sum(map(len, metadata.values())) > MAX_METADATA_BYTES:
        raise CheckpointError(f"{path}: its metadata is over {MAX_METADATA_BYTES} bytes; not one of our checkpoints")
    schema = metadata.get("schema_version")
    if schema is None:
        raise CheckpointError(f"{path}: no 'schema_version' in its metadata; not a denoise-se checkpoint")
    if not schema.isascii() or not schema.isdecimal() or len(schema) > 9 or int(schema) < 1:
        shown = repr(schema[:20])
        raise CheckpointError(f"{path}: 'schema_version' is {shown}, not a positive integer; the file is damaged")
    if int(schema) > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: 'schema_version' {schema} is newer than this program's {SCHEMA_VERSION}; update denoise-se"
        )
    if "config" not in metadata:
        raise CheckpointError(f"{path}: no 'config' in its metadata; not a denoise-se checkpoint")
    try:
        return NetworkConfig.from_dict(_json(path, metadata, "config"))
    except ValueError as error:
        raise CheckpointError(f"{path}: metadata key 'config': {str(error)[:300]}") from error


def _expected_shapes(path: Path, config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    import torch

    from denoise_se.network import build_network

    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in build_network(config).state_dict().items()}
    if sum(torch.Size(shape).numel() for shape in shapes.values()) > MAX_PARAMETERS:
        raise CheckpointError(f"{path}: 'config' asks for over {MAX_PARAMETERS:,} parameters; it is refused")
    return shapes


def _check_shapes(path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    for key, shape in expected.items():
        if key not in found and _last(key) in OPEN_BOUNDS:
            continue
        if key not in found:
            raise CheckpointError(f"{path}: weight {key!r} is missing; the file does not match its own config")
        if found[key] != shape:
            raise CheckpointError(f"{path}: weight {key!r} has shape {found[key]}, its config asks for {shape}")
    for key in found:
        if key not in expected:
            raise CheckpointError(f"{path}: unexpected weight {key!r}; the file does not match its own config")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def most_sigma(training: Mapping[str, Any]) -> float | None:
    """The strongest noise of a training on white Gaussian noise, in 8-bit units; None for one on other noise."""
    recipe = training.get("recipe")
    spec = recipe.get("noise") if isinstance(recipe, Mapping) else None
    return strongest_gaussian(spec) if isinstance(spec, str) else None


def learnt_uncut(training: Mapping[str, Any]) -> bool:
    """Whether a training was on white Gaussian noise that no file had cut off at black and white."""
    return most_sigma(training) is not None and "quantise" not in training["recipe"]["noise"]


def made_noise(training: Mapping[str, Any]) -> str | None:
    """The noise spec of a training record's recipe, or the one that was rehearsed beside pairs; None for neither."""
    recipe = training.get("recipe")
    for spec in (recipe.get("noise") if isinstance(recipe, Mapping) else None, training.get("rehearsed")):
        if isinstance(spec, str):
            return spec
    return None
