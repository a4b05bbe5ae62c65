"""Options that several commands have: where and how networks are run."""

from __future__ import annotations

from typing import Annotated

import typer

RUN_PANEL = "How to run"
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=RUN_PANEL)]
BackendName = Annotated[str, typer.Option(help="auto, torch, openvino or onnxruntime.", rich_help_panel=RUN_PANEL)]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.", rich_help_panel=RUN_PANEL)]
Tile = Annotated[
    str, typer.Option(help="auto, 0 (whole image) or pixels; the result is the same.", rich_help_panel=RUN_PANEL)
]
