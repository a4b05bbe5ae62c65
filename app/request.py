"""What a user asks for, and what the library is to do for it: one mapping for the command line and the web app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from denoise_se.blending import Strength
from denoise_se.checkpoint import resolve
from denoise_se.errors import UsageError
from denoise_se.image_io import DEFAULT_MAX_PIXELS
from denoise_se.manifest import file_digest, identity
from denoise_se.provenance import release

if TYPE_CHECKING:
    from denoise_se.denoiser import Denoiser
    from denoise_se.file_work import Settings
    from denoise_se.ray_worker import Models
    from denoise_se.report import Row

AUTO_MODELS = {1: "gray", 3: "photo"}  # by colour channels
MOST_LOADED = 8  # models that are kept, each with some hundred megabytes at work
Version = tuple[int, ...] | None
LEFT_ALONE = "no noise was found, so none was removed"


@dataclass(frozen=True)
class Engine:
    """What runs the networks; see `Denoiser.load` for the values."""

    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    tile: int | str = "auto"
    self_ensemble: bool = False


@dataclass(frozen=True)
class Request:
    """How images are to be denoised. `sigma` in 8-bit units, None to estimate it for each image."""

    model: str = "auto"
    sigma: float | None = None
    strength: Strength = field(default_factory=Strength)
    format: str = "same"
    max_pixels: int = DEFAULT_MAX_PIXELS
    resume: bool = False
    engine: Engine = field(default_factory=Engine)

    @cached_property
    def weights(self) -> Mapping[str, Path]:
        """The files of the models that may be needed, by name. Raises CheckpointError."""
        names = sorted(AUTO_MODELS.values()) if self.model == "auto" else [self.model]
        return {name: resolve(name)[1] for name in names}

    @property
    def calibrations(self) -> Mapping[str, Path]:
        """The files that int8 needs, of those models that have one."""
        from denoise_se.calibration import calibration_path

        paths = {name: calibration_path(path) for name, path in self.weights.items()}
        return {name: path for name, path in paths.items() if path.is_file()}

    def denoiser_for(self, channels: int) -> Denoiser:
        """The denoiser for an image of so many colour channels, loaded once. Raises CheckpointError or UsageError."""
        from denoise_se.calibration import calibration_path

        name = AUTO_MODELS[channels] if self.model == "auto" else self.model
        weights = self.weights[name]
        return loaded(name, self.engine, _version(weights), _version(calibration_path(weights)))

    def models(self) -> Models:
        """For `run_on_ray`. Raises CheckpointError, also for a damaged file."""
        from denoise_se.checkpoint import load_checkpoint
        from denoise_se.ray_worker import Models

        names = AUTO_MODELS if self.model == "auto" else dict.fromkeys(AUTO_MODELS, self.model)
        shown = {name: load_checkpoint(name).name for name in set(names.values())}
        files = {shown[name]: {".safetensors": self.weights[name].read_bytes()} for name in shown}
        for name, path in self.calibrations.items():
            files[shown[name]][".int8.json"] = path.read_bytes()
        return Models(files, {channels: shown[name] for channels, name in names.items()}, asdict(self.engine))

    def settings(self) -> Settings:
        """For `run_batch`."""
        from denoise_se.file_work import Settings

        return Settings(self.sigma, self.strength, self.max_pixels, self.resume)

    def left_alone(self, row: Row) -> bool:
        """Whether an image stayed as it was since no noise was found in it, though some may be seen."""
        return self.sigma is None and not self.strength.is_zero and row.status == "done" and row.sigma == 0

    def fingerprint(self) -> Mapping[str, Any]:
        """What the outputs depend on besides the input, for the manifest. Raises ImageError or as `denoiser_for`."""
        return {
            "weights": {name: file_digest(path) for name, path in self.weights.items()},
            "calibrations": {name: file_digest(path) for name, path in self.calibrations.items()},
            "sigma": self.sigma,
            "strength": asdict(self.strength),
            "format": self.format,
            "precision": self.engine.precision,
            "backend": self.engine.backend,
            "computed by": self.denoiser_for(3).backend.description,
            "version": release(),
        }


@lru_cache(maxsize=MOST_LOADED)
def loaded(model: str, engine: Engine, weights: Version, calibration: Version) -> Denoiser:
    """A denoiser, loaded at its first use and then kept; the versions tell its files from others of their names."""
    from denoise_se.denoiser import Denoiser

    return Denoiser.load(model, **asdict(engine))


def _version(path: Path) -> Version:
    found = identity(path)
    return None if found is None else tuple(found)


def parse_tile(text: str) -> int | str:
    """ "auto" or a whole number; UsageError otherwise."""
    if text == "auto":
        return text
    try:
        side = int(text)
    except ValueError:
        side = -1
    if side < 0:
        raise UsageError(f"--tile {text}: give auto, 0 for the whole image at once, or a number of pixels")
    return side
