"""Pieces of the page: the header, the progress bar, messages, facts and the examples, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from urllib.parse import quote

from denoise_se.app.web_photo import Photo
from denoise_se.app.web_work import Work
from denoise_se.channel_names import KINDS
from denoise_se.report import Row, shown_number
from denoise_se.value_range import ValueRange

HEADER = """
<header><div><h1>denoise-se</h1><p>Take the noise out of a photo. Compare, choose how much, and download it
with its format, bit depth and metadata kept.</p></div>
<button id=scheme type=button aria-label="Switch between light and dark" title="Light or dark">◐</button></header>
"""


def asset(name: str) -> str:
    """The text of a file that lies beside this module."""
    return resources.files("denoise_se.app").joinpath(name).read_text(encoding="utf-8")


def progress(work: Work) -> str:
    """A progress bar with the step's name."""
    return bar(work.share, work.label)


def bar(share: float, label: str) -> str:
    """A progress bar at a share of 1, with a line below."""
    percent = round(100 * share)
    return (
        f'<div class=working><div role=progressbar aria-label="Progress" aria-valuemin=0 aria-valuemax=100 '
        f'aria-valuenow={percent}><i style="width:{percent}%"></i></div><p>{escape(label)}</p></div>'
    )


def problem(message: str) -> str:
    """What went wrong and the mend."""
    return f"<p class=problem role=alert>{escape(message)}</p>"


def note(message: str) -> str:
    return f"<p class=note role=status>{escape(message)}</p>"


def examples(names: Sequence[str], folder: str) -> str:
    """A button with a picture for each sample."""
    buttons = "".join(
        f'<button type=button data-name="{escape(name)}" aria-label="Try the example {escape(name)}">'
        f'<img src="gradio_api/file={quote(folder)}/{quote(name)}" alt="" loading=lazy></button>'
        for name in names
    )
    return f"<p>No photo at hand? Try one of these.</p><div class=row>{buttons}</div>"


def noise_level(sigma: float, seen: ValueRange) -> str:
    """A standard deviation in 8-bit units, of a photo that uses that range: of 255, but for floats beyond 0 to 1."""
    if seen.span > 1:
        return f"{sigma / 255:.3g} in the file's values"
    return f"{sigma:.1f} of 255" if sigma >= 0.1 or sigma == 0 else f"{sigma:.1g} of 255"


def facts(photo: Photo, row: Row, notices: Sequence[str], command: str) -> str:
    """Size, noise and scores of a result, and the command that gives the same file."""
    width, height = photo.size
    count = f", {photo.pages} pages" if photo.pages > 1 else ""
    sigma, seen = photo.estimated.sigma, photo.ranges[0]
    found = noise_level(sigma, seen)
    if row.sigma is not None and photo.pages == 1 and abs(row.sigma - sigma) >= 0.1 * max(1.0, seen.span):
        found += f", treated as {noise_level(row.sigma, seen)}"
    parts = [
        ("Photo", f"{width:,} × {height:,}, {row.bit_depth}-bit {KINDS[row.channels or 3]}{count}"),
        ("Noise found", found),
        ("Model", escape(row.model)),
    ]
    if row.psnr is not None:
        parts.append(("PSNR", f"{shown_number('psnr', row.psnr_noisy)} → <b>{shown_number('psnr', row.psnr)} dB</b>"))
        if row.ssim is not None:
            before, after = (shown_number("ssim", value) for value in (row.ssim_noisy, row.ssim))
            parts.append(("SSIM", f"{before} → <b>{after}</b>"))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in parts)
    told = "".join(note(text) for text in notices)
    return (
        f"<dl class=facts>{listed}</dl>{told}<details class=command><summary>The same from the command line</summary>"
        f"<code>{escape(command)}</code></details>"
    )


# of what the command line advises, and what people can do who have none of its options
ADVICE = (
    (
        "(--max-pixels): give a larger --max-pixels if the file is meant to be this large",
        "of this server: make it smaller, or use the command line",
    ),
    ("give --val-pairs or more images", "give more photos"),
    ("give some of another scene too, or --val-pairs", "give some of another scene too"),
    ("take a smaller --patch", "give larger ones"),
    ("; try a smaller --tile", "; give a smaller one"),
    ("; make room and go on with --resume", ": it needs room on its disk"),
)


def without_options(message: str) -> str:
    """A message of the command line, for people who have none of its options."""
    for advice, plain in ADVICE:
        message = message.replace(advice, plain)
    return message
