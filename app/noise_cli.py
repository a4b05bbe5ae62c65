"""The commands of `denoise-se noise` and their options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

noise_app = typer.Typer(
    no_args_is_help=True,
    help="Measure the noise of images.",
    epilog="Example:\n\n  denoise-se noise estimate photo.jpg",
)
SERIES_HELP = (
    "What the files are: burst (shots of one scene that does not move) or flats (evenly lit frames at several "
    "exposures, dark ones too). Left out: any noisy pictures."
)


@noise_app.command(
    "estimate",
    epilog="Examples:\n\n  denoise-se noise estimate photo.jpg\n\n"
    "  denoise-se noise estimate shot1.png shot2.png shot3.png --series burst",
)
def noise_estimate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Images, or folders of them; of a TIFF stack each page.")
    ],
    series: Annotated[str | None, typer.Option(help=SERIES_HELP)] = None,
) -> None:
    """Estimate the noise of each image, or of a series of them: sigma in 8-bit units, gain and read noise.

    For single images also the level that `--sigma auto` gives a model, which is more where noise is correlated.
    """
    from denoise_se.app.noise_command import run_estimate

    sys.exit(run_estimate(files, series))


@noise_app.command(
    "profile",
    epilog="Examples:\n\n  denoise-se noise profile shots/*.png --series burst -o camera.json --plot camera.png\n\n"
    "  denoise-se train -o run --clean photos --noise profile:camera.json",
)
def noise_profile(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Images of one device, or folders of them; of a TIFF stack each page."),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Profile to write, .json.")],
    series: Annotated[str | None, typer.Option(help=SERIES_HELP)] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it: .png, .pdf or .svg.")] = None,
) -> None:
    """Measure a device's gain, read noise, banding and correlation; the profile is a noise model for `train`."""
    from denoise_se.app.noise_command import run_profile

    sys.exit(run_profile(files, out, series=series, plot=plot))


@noise_app.command(
    "fit",
    epilog="Example:\n\n  denoise-se noise fit --pairs noisy clean\n\n"
    "  denoise-se train -o run --clean photos --noise camera:gain=0.0002-0.004,...",
)
def noise_fit(
    pairs: Annotated[tuple[Path, Path], typer.Option(metavar="NOISY CLEAN", help="Folders with the same names.")],
) -> None:
    """Fit the camera model to noisy/clean photos; prints a noise spec that puts such noise on any picture."""
    from denoise_se.app.noise_command import run_fit

    sys.exit(run_fit(*pairs))


@noise_app.command("check", hidden=True)
def noise_check() -> None:
    """Make known noise, measure it, and print true, estimated and error (developers)."""
    from denoise_se.app.noise_command import run_check

    sys.exit(run_check())
