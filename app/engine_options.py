"""Options that several commands have: where and how networks are run."""

from __future__ import annotations

from typing import Annotated

import typer

from denoise_se.app.choices import one_of
from denoise_se.backends import BACKENDS, DEVICES, PRECISIONS

RUN_PANEL = "How to run"
Device = Annotated[str, typer.Option(help=f"{one_of(DEVICES)}.", rich_help_panel=RUN_PANEL)]
BackendName = Annotated[str, typer.Option(help=f"{one_of(('auto', *BACKENDS))}.", rich_help_panel=RUN_PANEL)]
Precision = Annotated[str, typer.Option(help=f"{one_of(PRECISIONS)}.", rich_help_panel=RUN_PANEL)]
Tile = Annotated[
    str, typer.Option(help="auto, 0 (whole image) or pixels; the result is the same.", rich_help_panel=RUN_PANEL)
]
