"""What the tabs and the named endpoints of the web app share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denoise_se.app import web_parts as parts
from denoise_se.app.web_cache import Cache
from denoise_se.app.web_learning import School
from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_work import Crew
from denoise_se.blending import Strength
from denoise_se.errors import DenoiseError, UsageError

# of events that run a network: the crew has its limits, and tells who waits
DENOISING: dict[str, Any] = {"concurrency_limit": None}
SAVING = {"concurrency_id": "saving", "concurrency_limit": 2}  # blends and writes; needs no network


@dataclass(frozen=True)
class Service:
    """The options, the cache, the threads that run networks, and the training of new ones."""

    options: WebOptions
    cache: Cache
    crew: Crew
    school: School

    def samples(self) -> list[str]:
        """The names of the examples."""
        return sorted(path.name for path in (self.cache.samples / "noisy").glob("*.png"))

    def explained(self, error: Exception) -> str:
        """An error's message for people, without the server's folders and the command line's options."""
        if not isinstance(error, DenoiseError):
            return f"this failed by a mistake of the program ({type(error).__name__}), of which its log tells more"
        return parts.without_options(self.cache.without_folders(str(error)))


def blend(strength: float, chroma: float | None) -> Strength:
    """The strength that two sliders stand for, or a program asks for. Raises UsageError."""
    try:
        return Strength(float(strength), float(strength if chroma is None else chroma))
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"strength is {strength!r}, chroma_strength {chroma!r}; give numbers from 0 to 1") from error


def as_paths(files: object) -> list[Path]:
    """Uploads as Gradio gives them: none, one or several."""
    if files is None:
        return []
    return [Path(str(file)) for file in (files if isinstance(files, list) else [files])]
