"""The command `denoise-se web` and its options."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from denoise_se.app.engine_options import RUN_PANEL, BackendName, Device, Precision, Tile

web_app = typer.Typer()


@web_app.command(epilog="Example:\n\n  denoise-se web --host 0.0.0.0 --auth-file accounts.txt --jobs 2")
def web(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    root_path: Annotated[str, typer.Option(help="Path under which a reverse proxy serves it, as /denoise.")] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which people reach it, as denoise.lab.example; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Offer this name or .safetensors path only; may be repeated.")
    ] = None,
    auth_file: Annotated[Path | None, typer.Option(help="Ask for a password: name:password a line.")] = None,
    allow_training: Annotated[
        bool | None,
        typer.Option(help="Let people teach models.", show_default="on this machine alone, off when shared"),
    ] = None,
    max_minutes: Annotated[float, typer.Option(min=1, help="Longest training.", rich_help_panel=RUN_PANEL)] = 60,
    models_dir: Annotated[
        Path | None,
        typer.Option(help="Where models learned here are kept.", show_default="a folder of the user's"),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Photos denoised at a time.", rich_help_panel=RUN_PANEL)] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.", rich_help_panel=RUN_PANEL)] = 64,
    max_upload: Annotated[int, typer.Option(min=1, help="MB of a file.", rich_help_panel=RUN_PANEL)] = 200,
    max_files: Annotated[int, typer.Option(min=1, help="Files at once.", rich_help_panel=RUN_PANEL)] = 200,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger images.", rich_help_panel=RUN_PANEL)
    ] = 100_000_000,
    keep: Annotated[float, typer.Option(min=0.1, help="Minutes that files are kept.", rich_help_panel=RUN_PANEL)] = 60,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for uploads and results.", rich_help_panel=RUN_PANEL)
    ] = None,
    cache_size: Annotated[int, typer.Option(min=1, help="MB it may hold.", rich_help_panel=RUN_PANEL)] = 20_000,
    device: Device = "auto",
    backend: BackendName = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
) -> None:
    """Serve the web app: drop a photo, see the difference, download the same bytes as from the command line."""
    from denoise_se.app.request import Engine, parse_tile
    from denoise_se.app.web import run_web
    from denoise_se.app.web_options import MEGABYTE, WebOptions

    options = WebOptions(
        host=host,
        port=port,
        root_path=root_path.rstrip("/"),
        names=tuple(allow_host or ()),
        models=tuple(model or ()),
        engine=Engine(device, backend, precision, parse_tile(tile)),
        jobs=jobs,
        queue=queue,
        max_upload=max_upload * MEGABYTE,
        max_files=max_files,
        max_pixels=max_pixels,
        keep=keep * 60,
        cache=cache,
        cache_size=cache_size * MEGABYTE,
        auth_file=auth_file,
        max_minutes=max_minutes,
        **({} if models_dir is None else {"models_dir": models_dir}),
    )
    training = not options.shared if allow_training is None else allow_training
    sys.exit(run_web(replace(options, training=training)))
