"""The command line: `main` is the installed command, and the one place where errors become messages and exit codes.

A command's module is imported when it runs, and torch, gradio and lightning by the library when they are needed, so
that help and refusals come at once.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from denoise_se.app.developer_cli import developer_app
from denoise_se.app.measure_cli import measure_app
from denoise_se.app.noise_cli import noise_app
from denoise_se.errors import DenoiseError
from denoise_se.noise_spec import noise_help
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
        print(f"denoise-se {version('denoise-se')}")
        raise typer.Exit


@app.callback()
def common(
    wanted: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.add_typer(noise_app, name="noise")
for own_app in (measure_app, developer_app):  # without a name: their commands are the app's own
    app.add_typer(own_app)

NOISE_HELP = noise_help()
BACKEND_HELP = "auto, torch, openvino or onnxruntime."
RUN_PANEL = "How to run"


class Strategy(StrEnum):
    """How `train` shares its batches: ddp also for one process."""

    AUTO = "auto"
    DDP = "ddp"


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
        typer.Option("--self-ensemble", help="Mean over eight turned copies: a little better, 8 times slower."),
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Take subfolders too, and keep them.")] = False,
    format: Annotated[str, typer.Option(help="same, png, tiff, jpg, webp, bmp or ppm.")] = "same",
    resume: Annotated[bool, typer.Option("--resume", help="Skip what an earlier run finished.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    tile: Annotated[
        str, typer.Option(help="auto, 0 (whole image) or pixels; the result is the same.", rich_help_panel=RUN_PANEL)
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=RUN_PANEL)] = "auto",
    backend: Annotated[str, typer.Option(help=BACKEND_HELP, rich_help_panel=RUN_PANEL)] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.", rich_help_panel=RUN_PANEL)] = "auto",
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


@app.command(
    epilog="Examples:\n\n  denoise-se train -o run shots --minutes 60\n\n"
    "  denoise-se train -o run --pairs noisy clean --minutes 60\n\n"
    "  denoise-se train -o run --clean photos --noise poisson-gaussian:gain=0.01,read=0.002 --init color"
)
def train(
    run: Annotated[Path, typer.Option("-o", "--output", help="Run folder to write.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Images; what they are is told by names and pixels, or by an option."),
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="NOISY CLEAN", help="Two folders of the same file names."),
    ] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder of clean images; needs --noise.")] = None,
    noise: Annotated[str | None, typer.Option(help=NOISE_HELP)] = None,
    burst: Annotated[
        Path | None, typer.Option(help="Folder with a sub-folder for each scene: several shots of it.")
    ] = None,
    noisy: Annotated[Path | None, typer.Option(help="Folder of noisy images without clean ones.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from a model: name, path or none. Left out: the shipped one that does best on the images, or "
            "color, or gray for grey ones, for white Gaussian noise."
        ),
    ] = None,
    val_pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="NOISY CLEAN", help="Validation pairs; at most 100, evenly spread."),
    ] = None,
    rehearse: Annotated[
        Path | None,
        typer.Option(help="Folder of other clean images to practise the start's own noise on, so as not to forget it."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML recipe; the options below override it.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Wall-clock budget; 30 where neither this nor --steps is given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Step budget.")] = None,
    patch: Annotated[int | None, typer.Option(min=8, help="Side of the patches in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches per step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, patches and noise.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Refuse larger images.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that crop patches; 0 crops in this one.")] = 0,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs, or processes on the CPU, on each machine.", show_default="1, or as started"),
    ] = None,
    num_nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines; see the README.", show_default="1, or as started")
    ] = None,
    strategy: Annotated[Strategy, typer.Option(help="How several devices train together.")] = Strategy.AUTO,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN/last.ckpt.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train or fine-tune on your own noise; writes RUN/best.safetensors and a card with what was measured."""
    from denoise_se.app.train_command import Sources, run_train

    run_train(
        run,
        Sources(folder, pairs, clean, burst, noisy, noise, val_pairs, rehearse),
        init=init,
        config=config,
        overrides={"minutes": minutes, "steps": steps, "patch": patch, "batch": batch, "seed": seed},
        max_pixels=max_pixels,
        workers=workers,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy.value,
        resume=resume,
        quiet=quiet,
    )


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


@app.command(epilog="Example:\n\n  denoise-se web --host 0.0.0.0 --auth-file accounts.txt --jobs 2")
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=RUN_PANEL)] = "auto",
    backend: Annotated[str, typer.Option(help=BACKEND_HELP, rich_help_panel=RUN_PANEL)] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.", rich_help_panel=RUN_PANEL)] = "auto",
    tile: Annotated[str, typer.Option(help="auto, 0 (whole image) or pixels.", rich_help_panel=RUN_PANEL)] = "auto",
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


def main() -> None:
    """Run the command line; every DenoiseError ends as one message on stderr and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    try:
        app()
    except DenoiseError as error:
        with suppress(OSError):  # the code says it too
            print(f"denoise-se: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
