"""The models that were learned on this server: a folder each, beside those that are shipped."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path

from denoise_se.checkpoint import ALIASES, CHECKPOINTS
from denoise_se.errors import UsageError

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
KEPT = ("best.safetensors", "best.int8.json", "card.md", "curve.png", "metrics.csv")  # of a run's folder


def plain_name(text: str) -> str:
    """What people call a model as its name: "My Canon 5D" becomes my-canon-5d. Raises UsageError for none."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()  # é as e
    name = re.sub(r"[^a-z0-9]+", "-", letters.lower()).strip("-")[:40].strip("-")
    if not name:
        raise UsageError("give the new model a name first, as my-camera")
    return name


def default_folder() -> Path:
    """Where a person's data belongs (XDG Base Directory Specification 0.8)."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "denoise-se" / "models"


class Shelf:
    """The learned models below `folder`, which is made when there is the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All of them, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if NAME.fullmatch(path.name) and _weights(path))

    def weights(self, name: str) -> Path:
        """The file of one of `names`."""
        return self.folder / name / KEPT[0]

    def check_new(self, name: str) -> str:
        """A name for a new model. Raises UsageError for one that is no plain word, or taken."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"model name {name[:60]!r}: give up to 40 small letters, digits and dashes, as lab-microscope"
            )
        if name in CHECKPOINTS or name in ALIASES or name == "auto" or (self.folder / name).exists():
            raise UsageError(f"model name {name!r} is taken; choose another")
        return name

    def prepare(self) -> None:
        """Makes the folder. Raises UsageError where nothing can be written: better before an hour of training."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise UsageError(
                f"--models-dir: nothing can be written there ({error.strerror}); choose another"
            ) from error

    def add(self, run: Path, name: str) -> None:
        """Takes what is worth keeping of a training run's folder, all or nothing. Raises UsageError."""
        self.check_new(name)
        self.prepare()
        try:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder, ignore_cleanup_errors=True) as made:
                whole = Path(made)
                for kept in KEPT:
                    if (run / kept).is_file():
                        shutil.copyfile(run / kept, whole / kept)
                whole.chmod(0o755)
                whole.rename(self.folder / name)
        except OSError as error:
            raise UsageError(f"--models-dir: {name} cannot be written there ({error.strerror})") from error

    def remove(self, name: str) -> None:
        """Takes a model away, all of it or nothing. Raises UsageError."""
        if name not in self.names():
            raise UsageError(f"there is no learned model called {name[:60]!r}; reload the page to see those there are")
        try:
            with tempfile.TemporaryDirectory(prefix=".old-", dir=self.folder, ignore_cleanup_errors=True) as old:
                (self.folder / name).rename(Path(old) / name)
        except OSError as error:
            raise UsageError(f"--models-dir: {name} cannot be removed there ({error.strerror})") from error


def _weights(folder: Path) -> bool:
    return (folder / KEPT[0]).is_file()
