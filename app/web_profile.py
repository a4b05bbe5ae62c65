"""The noise of some photos, measured by `denoise-se noise profile` in a process of its own, and told in few words."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from denoise_se.channel_names import CHANNELS
from denoise_se.errors import ImageError, UsageError, last_message
from denoise_se.image_io import probe
from denoise_se.noise_profile import NoiseProfile

MOST_PIXELS = 40_000_000  # measured at once: more photos say little more, and they take memory
BRIGHTNESS = (("dark", 0.02), ("middle", 0.5), ("bright", 0.9))


def enough(photos: Sequence[Path], max_pixels: int) -> list[Path]:
    """The first photos, up to MOST_PIXELS in all but one at least. Raises ImageError, also for one above `max_pixels`,
    all of its pages together."""
    taken: list[Path] = []
    pixels = 0
    for photo in photos:
        found = probe(photo)
        own = found.width * found.height * found.frames
        pixels += own
        if taken and pixels > MOST_PIXELS:
            break
        if own > max_pixels:
            raise ImageError(photo, f"has {own:,} pixels, and this server takes {max_pixels:,}: make it smaller")
        taken.append(photo)
    return taken


async def measure(photos: Sequence[Path], folder: Path) -> tuple[NoiseProfile, Path]:
    """The profile and its plot, both written into `folder`. Cancelling ends the process. Raises UsageError."""
    profile, plot = folder / "profile.json", folder / "profile.png"
    words = ["-m", "denoise_se.app", "noise", "profile", *map(str, photos), "-o", str(profile), "--plot", str(plot)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        message = last_message(said.decode(errors="replace"))
        raise UsageError(message or "the photos could not be measured; try fewer or smaller ones")
    return NoiseProfile.load(profile), plot


def as_html(profile: NoiseProfile, plot: Path, photos: int) -> str:
    """A table of the noise at three brightnesses, how far it is correlated, and the plot."""
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Channel", *(f"Noise, {name}" for name, _ in BRIGHTNESS)))
    body = ""
    for c, name in enumerate(CHANNELS[profile.channels]):
        cells = "".join(f"<td>{255 * profile.variance(x)[c] ** 0.5:.1f}</td>" for _, x in BRIGHTNESS)
        body += f"<tr><th scope=row>{name}</th>{cells}</tr>"
    table = f"<table class=report><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    told = f"Variance over brightness, correlation over distance and between channels: {profile.source}"
    return (
        f"<p class=ok>The noise of {photos} photo(s), of 255</p>"
        f"<div class=scroll tabindex=0 role=region aria-label='Noise of the photos'>{table}</div>"
        f"<p class=note>Measured on {escape(profile.source)}</p>"
        f'<img class=plot src="gradio_api/file={quote(str(plot))}" alt="{escape(told)}">'
    )
