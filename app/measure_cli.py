"""The commands that measure models beside peers, and their options: `evaluate` and `benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from denoise_se.known_methods import AGAINST
from denoise_se.noise_spec import noise_help

measure_app = typer.Typer()
NOISE_HELP = noise_help()
Against = Annotated[str | None, typer.Option(help=f"{', '.join(AGAINST)}; joined by commas. FILE: its weights.")]


@measure_app.command(
    epilog="Example:\n\n  denoise-se evaluate --clean Set12 --noise gaussian:25 --model gray --against bm3d,nlm"
)
def evaluate(
    clean: Annotated[list[Path] | None, typer.Option(help="Folder of clean images; may be repeated.")] = None,
    noise: Annotated[list[str] | None, typer.Option(help=NOISE_HELP + " May be repeated.")] = None,
    pairs: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="NOISY CLEAN", help="Two folders of the same file names.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model name or path; may be repeated. Default auto.")] = None,
    against: Against = None,
    report: Annotated[Path | None, typer.Option(help="Write .csv, .json or .md.")] = None,
    crops: Annotated[Path | None, typer.Option(help="Write a PNG of where the methods differ most.")] = None,
    sigma: Annotated[
        str, typer.Option(help="told: methods know the level of Gaussian noise; auto: they do not.")
    ] = "told",
    estimate_quality: Annotated[
        bool, typer.Option("--estimate-quality", help="Also estimate PSNR without the clean image, and show the error.")
    ] = False,
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Measure each model also as the mean over eight turned copies.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Measure PSNR, SSIM and time on a test set, beside classical methods and published networks."""
    from denoise_se.app.evaluate_command import run_evaluate

    sys.exit(
        run_evaluate(
            clean or [],
            noise or [],
            pairs,
            model or ["auto"],
            against=against,
            report=report,
            crops=crops,
            sigma=sigma,
            estimate_quality=estimate_quality,
            self_ensemble=self_ensemble,
            quiet=quiet,
        )
    )


@measure_app.command(
    epilog="Example:\n\n  denoise-se benchmark --clean Set12 --against dncnn=DnCNN_sigma25.mat,nlm --plot speed.png"
)
def benchmark(
    model: Annotated[list[str] | None, typer.Option(help="Model name or path; may be repeated. Default all.")] = None,
    backend: Annotated[
        str, typer.Option(help="Engines for our models, joined by commas; DnCNN runs on OpenVINO too.")
    ] = "torch,openvino",
    precision: Annotated[str, typer.Option(help="Precisions for our models, joined by commas.")] = "fp32,int8",
    against: Against = None,
    clean: Annotated[
        list[Path] | None, typer.Option(help="Clean images for PSNR; may be repeated. Default the samples.")
    ] = None,
    sigma: Annotated[float, typer.Option(min=0.1, help="Gaussian noise for PSNR, 8-bit units.")] = 25.0,
    side: Annotated[int, typer.Option(min=16, help="Side of the timed picture in pixels.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Times each is timed; the fastest counts.")] = 5,
    sizes: Annotated[str, typer.Option(help="Also time our first models at these megapixels, as 0.1,1,4.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 for what the machine grants.")] = 0,
    memory: Annotated[bool, typer.Option(help="Peak memory of each, in a process of its own.")] = True,
    report: Annotated[Path | None, typer.Option(help="Write .json or .md.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture, .png, .svg or .pdf.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Measure speed, memory and PSNR of our models on every engine beside peers, in one run."""
    from denoise_se.app.benchmark_command import run_benchmark_command
    from denoise_se.checkpoint import CHECKPOINTS

    run_benchmark_command(
        model or list(CHECKPOINTS),
        backend,
        precision,
        against=against,
        clean=clean or [],
        sigma=sigma,
        side=side,
        rounds=rounds,
        sizes=sizes,
        threads=threads,
        memory=memory,
        report=report,
        plot=plot,
        quiet=quiet,
    )
