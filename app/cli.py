"""The command line: `main` is the installed command, and the one place where errors become messages and exit codes.

A command's module is imported when it runs, and torch, gradio and lightning by the library when they are needed, so
that help and refusals come at once.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from denoise_se.app.choices import one_of
from denoise_se.app.console import output
from denoise_se.app.developer_cli import developer_app
from denoise_se.app.engine_options import RUN_PANEL, BackendName, Device, Precision, Tile
from denoise_se.app.measure_cli import measure_app
from denoise_se.app.noise_cli import noise_app
from denoise_se.app.train_cli import train_app
from denoise_se.app.web_cli import web_app
from denoise_se.errors import PREFIX, DenoiseError
from denoise_se.format_names import FORMATS
from denoise_se.remote_files import parse_location

app = typer.Typer(
    name="denoise-se",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Remove the noise from images, measure how well it went, and train on the noise of your own camera.\n\n"
    "Example: [bold]denoise-se denoise photos -o clean[/]",
)


def print_version(wanted: bool) -> None:
    if wanted:
        from denoise_se.provenance import release

        print(f"denoise-se {release()}", file=output(), flush=True)
        raise typer.Exit


@app.callback()
def common(
    wanted: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.add_typer(noise_app, name="noise")
for own_app in (train_app, measure_app, web_app, developer_app):  # without a name: their commands are the app's own
    app.add_typer(own_app)


@app.command(
    epilog="Examples:\n\n  denoise-se denoise photo.jpg -o clean.jpg\n\n"
    "  denoise-se denoise scans -o clean --recursive --report report.csv\n\n"
    "  denoise-se denoise noisy -o out --model color --sigma 25 --reference clean"
)
def denoise(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", parser=parse_location, help="Image files and folders; s3:// and gs:// too."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="PATH", parser=parse_location, help="Output folder, or file for a single input."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="auto (photo for colour, gray for grey), a name of `models`, or a .safetensors path.")
    ] = "auto",
    sigma: Annotated[str, typer.Option(help="Noise level in 8-bit units, or auto to estimate it.")] = "auto",
    strength: Annotated[float, typer.Option(help="0 gives the input back, 1 the full result.")] = 1.0,
    chroma_strength: Annotated[
        float | None, typer.Option(help="The strength for colour noise alone.", show_default="as --strength")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            parser=parse_location,
            help="Clean file or folder, matched by file stem: PSNR/SSIM before and after.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=parse_location, help="Write a report: .csv, .json or .html.")
    ] = None,
    estimate_quality: Annotated[
        bool,
        typer.Option("--estimate-quality", help="Estimate PSNR without a reference, where the noise allows; slower."),
    ] = False,
    self_ensemble: Annotated[
        bool,
        typer.Option("--self-ensemble", help="Mean over eight turned copies: a little better, 4 to 8 times slower."),
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Take subfolders too, and keep them.")] = False,
    format: Annotated[str, typer.Option(help=f"{one_of(('same', *FORMATS))}.")] = "same",
    resume: Annotated[bool, typer.Option("--resume", help="Skip what an earlier run finished.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    tile: Tile = "auto",
    device: Device = "auto",
    backend: BackendName = "auto",
    precision: Precision = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images read ahead (2); with --engine ray processes (one a GPU or core).",
            show_default=False,
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray for a cluster of machines.", rich_help_panel=RUN_PANEL)
    ] = "local",
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Refuse larger images.", rich_help_panel=RUN_PANEL)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only problems.", rich_help_panel=RUN_PANEL)] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="One JSON line per image on stdout.", rich_help_panel=RUN_PANEL)
    ] = False,
) -> None:
    """Denoise image files and folders; bit depth, alpha, EXIF and ICC are kept."""
    from denoise_se.app.denoise_command import Errand, parse_sigma, run_denoise
    from denoise_se.app.request import Engine, Request, parse_tile
    from denoise_se.blending import Strength
    from denoise_se.image_io import DEFAULT_MAX_PIXELS

    errand = Errand(
        inputs,
        out,
        reference,
        report,
        recursive,
        overwrite,
        engine,
        workers,
        estimate_quality,
        quiet,
        json_lines,
    )
    request = Request(
        model,
        parse_sigma(sigma),
        Strength(strength, strength if chroma_strength is None else chroma_strength),
        format,
        max_pixels or DEFAULT_MAX_PIXELS,
        resume,
        Engine(device, backend, precision, parse_tile(tile), self_ensemble),
    )
    sys.exit(run_denoise(errand, request))


@app.command(epilog="Example:\n\n  denoise-se models")
def models() -> None:
    """List the shipped models with their size and cost."""
    from denoise_se.app.models_command import run_models

    run_models()


@app.command(epilog="Examples:\n\n  denoise-se export photo -o photo.onnx\n\n  denoise-se export gray -o openvino")
def export(
    model: Annotated[str, typer.Argument(help="A name of `models`, or a .safetensors path.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="FILE.onnx, or a folder for OpenVINO's .xml and .bin.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Write a model as ONNX or OpenVINO IR, any image size, and check it against torch."""
    from denoise_se.app.export_command import run_export

    run_export(model, out, overwrite)


def main() -> None:
    """Run the command line; every DenoiseError ends as one message on stderr and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    try:
        app()
    except DenoiseError as error:
        with suppress(OSError):  # the code says it too
            print(f"{PREFIX}{error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
