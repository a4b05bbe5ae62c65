"""How a server is run: what it offers, what it refuses, whom it lets in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from denoise_se.app.request import Engine, Request
from denoise_se.app.web_models import Shelf, default_folder
from denoise_se.backends import check_engine
from denoise_se.blending import Strength
from denoise_se.checkpoint import ALIASES, CHECKPOINTS, open_checkpoint, resolve
from denoise_se.errors import UsageError
from denoise_se.formats import FORMATS
from denoise_se.remote_files import real_path
from denoise_se.tiling import check_tile

MEGABYTE = 1_000_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class WebOptions:
    """The options of `denoise-se web`; sizes in bytes, ages in seconds."""

    host: str = "127.0.0.1"
    port: int = 7860
    root_path: str = ""
    names: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    engine: Engine = field(default_factory=Engine)
    jobs: int = 1
    queue: int = 64
    max_upload: int = 200 * MEGABYTE
    max_files: int = 200
    max_pixels: int = 100_000_000
    keep: float = 3600
    cache: Path | None = None
    cache_size: int = 20_000 * MEGABYTE
    auth_file: Path | None = None
    training: bool = False
    max_minutes: float = 60
    models_dir: Path = field(default_factory=default_folder)

    @property
    def shelf(self) -> Shelf:
        """The models that were learned here."""
        return Shelf(self.models_dir)

    @property
    def named(self) -> dict[str, str]:
        """What `models` are called, without the folders of the server, and what was given. Raises CheckpointError."""
        return {resolve(model)[0]: model for model in self.models}

    @property
    def offered(self) -> dict[str, str]:
        """The models that people may choose, with a line of explanation each; those learned here come last."""
        learned = dict.fromkeys(self.shelf.names(), "learned on this server")
        if self.models:
            own = {
                name: CHECKPOINTS[name].purpose if model in (*CHECKPOINTS, *ALIASES) else "own model"
                for name, model in self.named.items()
            }
            return own | {name: purpose for name, purpose in learned.items() if name not in own}
        auto = "photo for colour images, gray for grey ones"
        return {"auto": auto, **{name: entry.purpose for name, entry in CHECKPOINTS.items()}, **learned}

    def request(self, model: str, sigma: float | None, strength: Strength, format: str) -> Request:
        """What one person asks for, checked. Raises UsageError with the mend."""
        model = ALIASES.get(model, model) if not self.models else model
        if model not in self.offered and model not in self.models:
            raise UsageError(f"model {model!r} is not offered here; one of {', '.join(self.offered)}")
        if sigma is not None and not (isinstance(sigma, (int, float)) and 0 <= sigma <= 255):
            raise UsageError(f"sigma is {sigma!r}; give a number from 0 to 255, the noise level in 8-bit units")
        if format != "same" and format not in FORMATS:
            raise UsageError(f"format {format!r} is unknown; one of same, {', '.join(FORMATS)}")
        if model in self.named:
            model = self.named[model]
        elif model in self.shelf.names():
            model = str(self.shelf.weights(model))
        return Request(model, sigma, strength, format, self.max_pixels, engine=self.engine)

    def accounts(self) -> list[tuple[str, str]]:
        """Names and passwords of `auth_file`, a `name:password` a line; none without one. Raises UsageError."""
        if self.auth_file is None:
            return []
        try:
            lines = self.auth_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--auth-file {self.auth_file}: cannot be read ({error})") from error
        accounts = [tuple(line.split(":", 1)) for line in lines if line.strip()]
        if not accounts or any(len(account) != 2 or not all(account) for account in accounts):
            raise UsageError(f"--auth-file {self.auth_file}: give one name:password a line")
        return [(name, password) for name, password in accounts]

    def check(self) -> None:
        """Raises UsageError and CheckpointError for what can be told before anything is loaded: a model, an engine, an
        account, a path."""
        engine = self.engine
        check_engine(engine.backend, engine.device, engine.precision)
        check_tile(engine.tile)
        for model in self.models:
            open_checkpoint(model)
        if len(self.named) < len({real_path(resolve(model)[1]) for model in self.models}):
            raise UsageError(f"--model {', '.join(self.models)}: two are called alike; rename one of the files")
        self.accounts()
        if self.root_path and not self.root_path.startswith("/"):
            raise UsageError(f"--root-path {self.root_path}: starts with a slash, as /denoise")
        if self.cache is not None and not self.cache.is_dir():
            raise UsageError(f"--cache {self.cache}: no such folder")

    @property
    def shared(self) -> bool:
        """Whether anything says that others than the person at this machine use it."""
        return self.host not in LOOPBACK or bool(self.root_path or self.names or self.auth_file)

    def check_files(self, paths: Sequence[str | Path]) -> list[Path]:
        """The uploads as paths. Raises UsageError when there are none, or too many."""
        if not paths:
            raise UsageError("no files were given; upload at least one")
        if len(paths) > self.max_files:
            raise UsageError(f"{len(paths)} files at once; at most {self.max_files} are taken")
        return [Path(path) for path in paths]
