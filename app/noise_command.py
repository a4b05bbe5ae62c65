"""`denoise-se noise`: what the noise of images is like, as a table, a profile or a picture."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Column, Table

from denoise_se.alike import counted
from denoise_se.app.console import message_console, output, table_console
from denoise_se.channel_names import CHANNELS, KINDS
from denoise_se.errors import EXIT_DONE, EXIT_SOME_FAILED, PREFIX, ImageError, UsageError
from denoise_se.image import Image
from denoise_se.image_folder import image_files
from denoise_se.image_io import open_pages
from denoise_se.noise_estimation import NoiseEstimate, estimate_noise
from denoise_se.noise_measurement import MIN_SIDE, Measurement, measure_noise, used_range
from denoise_se.page import Source, sourced
from denoise_se.plan import check_there, listed
from denoise_se.remote_files import real_path
from denoise_se.value_range import ValueRange, full_range

Item = TypeVar("Item")


def run_estimate(files: list[Path], series: str | None) -> int:
    """Print a row per file or page of it, or one per channel of a series; returns the exit code."""
    files = _expanded(files)
    if series is not None:
        table_console().print(_profile_table(_measured(files, series)))
        return EXIT_DONE
    names = "sigma (8-bit units)", "95 %", "gain or speckle", "read noise", "correlation (h, v)", "--sigma auto"
    table = Table(Column("file", overflow="fold"), *names)
    code = EXIT_DONE
    for path in _shown(files, "measuring"):
        try:
            for source, page in _pages(path):
                pixels = page.pixels
                noise = estimate_noise(pixels)
                table.add_row(
                    str(source),
                    _in_both_units(noise.sigma, pixels.dtype),
                    "{:.2f} to {:.2f}".format(*noise.sigma_interval),
                    _growth(noise),
                    _with_interval(noise.read_noise, noise.read_noise_interval),
                    ", ".join(f"{value:.2f}" for value in noise.correlation),
                    f"{noise.level:.2f}",
                )
        except ImageError as error:
            print(f"{PREFIX}{error}", file=sys.stderr)
            code = EXIT_SOME_FAILED
    if table.row_count:
        table_console().print(table)
    return code


def run_profile(files: list[Path], out: Path, *, series: str | None, plot: Path | None) -> int:
    """Measure, print, write the profile and its plot. Raises DenoiseError before anything is written."""
    from denoise_se.noise_plot import plot_measurement
    from denoise_se.output_file import PLOT_SUFFIXES, check_output

    files = _expanded(files)
    for option, path, suffixes in (("-o", out, (".json",)), ("--plot", plot, PLOT_SUFFIXES)):
        check_output(option, path, suffixes)
        if path is not None and real_path(path) in {real_path(file) for file in files}:
            raise UsageError(f"{option} {path}: is one of the images to measure; choose another name")
    measurement = _measured(files, series)
    if max(measurement.profile.variance(1.0)) == 0:
        raise UsageError(
            f"{listed(files)}: show no noise, as copies of one shot and drawings do; give pictures as they come from "
            "the device"
        )
    measurement.profile.save(out)
    if plot is not None:
        plot_measurement(plot, measurement)
    table_console().print(_profile_table(measurement))
    noise = shlex.quote(f"profile:{out}")
    print(f"wrote {out}; use it with: denoise-se train -o RUN --clean DIR --noise {noise}", file=sys.stderr)
    return EXIT_DONE


def run_fit(noisy: Path, clean: Path) -> int:
    """Print what was fitted as a table on stderr, and the spec on stdout. Raises DenoiseError for wrong images."""
    from denoise_se.camera_fit import PARAMETERS, SMALLEST_SIDE, fit_camera
    from denoise_se.file_pairs import PairedFiles
    from denoise_se.training_images import load_pairs

    pairs = load_pairs(PairedFiles(noisy, clean), 3, SMALLEST_SIDE, mend="take larger crops")
    console = message_console()
    fit = fit_camera(_shown(pairs, "fitting"))
    table = Table("parameter", "least", "10 %", "median", "90 %", "most")
    for name, values in zip(PARAMETERS, fit.parameters.T, strict=True):
        table.add_row(name, *(f"{value:.2g}" for value in np.quantile(values, (0, 0.1, 0.5, 0.9, 1))))
    console.print(table)
    off = 2 ** float(np.median(fit.misfit)) - 1
    console.print(f"{len(fit.names)} pairs; the level of the fitted noise is off by {off:.0%} (median)")
    print(fit.spec(), file=output(), flush=True)
    return EXIT_DONE


def run_check() -> int:
    """Print true and estimated values of noise that was made."""
    from denoise_se.noise_check import check_estimates

    table = Table("noise", "from", "quantity", "true", "estimated", "error")
    for row in check_estimates():
        error = f"{row.estimated / row.true - 1:+.1%}" if row.true else f"{row.estimated:+.2g}"
        table.add_row(row.spec, row.source, row.quantity, f"{row.true:.4g}", f"{row.estimated:.4g}", error)
    table_console().print(table)
    return EXIT_DONE


@dataclass(frozen=True)
class Pages:
    """The pages of image files, decoded anew each time that they are gone through. Raises ImageError on the way."""

    files: list[Path]

    def __iter__(self) -> Iterator[NDArray[np.generic]]:
        return (page.pixels for path in _shown(self.files, "measuring") for _, page in _pages(path))


def _measured(files: list[Path], series: str | None) -> Measurement:
    """Raises UsageError with all that is wrong with the files, by name."""
    problems: list[str] = []
    found: list[tuple[Source, tuple[int, ...]]] = []
    images: list[NDArray[np.generic]] = []
    told: list[tuple[object, str]] = []
    used: ValueRange | None = None
    for path in _shown(files, "reading"):
        try:
            for source, page in _pages(path):
                pixels = page.pixels
                told += [(source, notice) for notice in page.notices]
                found.append((source, pixels.shape))
                if min(pixels.shape[:2]) >= MIN_SIDE:
                    own = used_range(pixels, series)
                    used = used.joined(own) if used else own
                if series is not None:  # all of its shots are needed at once
                    images.append(pixels)
        except ImageError as error:
            problems.append(str(error))
    for line in counted(told):
        print(f"note: {line}", file=sys.stderr)
    usual_shape = Counter(shape[:2] for _, shape in found).most_common(1)
    usual_kind = Counter(shape[2] for _, shape in found).most_common(1)
    for source, (height, width, channels) in found:
        if min(height, width) < MIN_SIDE:
            problems.append(f"{source}: has {width}x{height} pixels; a profile needs at least {MIN_SIDE}x{MIN_SIDE}")
        if channels != usual_kind[0][0]:
            problems.append(f"{source}: is {KINDS[channels]}, most are {KINDS[usual_kind[0][0]]}; profile them apart")
        if series is not None and (height, width) != usual_shape[0][0]:
            most = "{1}x{0}".format(*usual_shape[0][0])
            problems.append(f"{source}: has {width}x{height} pixels, most have {most}")
    if problems:
        raise UsageError("\n  - ".join([f"{len(problems)} problem(s) with the images", *problems]))
    return measure_noise(images if series is not None else Pages(files), series, used=used)


def _shown(items: Sequence[Item], doing: str) -> Iterable[Item]:
    """The items, one after the other, with a bar on a terminal."""
    console = message_console()
    return track(items, doing, console=console, transient=True, disable=not console.is_terminal)


def _expanded(paths: list[Path]) -> list[Path]:
    """The files, and the images of the folders. Raises UsageError for what is not there, DatasetError for a folder
    without any."""
    check_there(paths)
    return [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]


def _pages(path: Path) -> Iterator[tuple[Source, Image]]:
    """Each page of a file, one after the other. Raises ImageError."""
    with open_pages(path) as pages:
        for source, page in sourced(path, pages):
            yield source, page.image()


def _profile_table(measurement: Measurement) -> Table:
    profile = measurement.profile
    names = ["channel", "gain (95 %)", "read noise (95 %)", "rows", "columns", "correlation (h, v)"]
    shows_black = any(profile.black)
    table = Table(*names, *(["black"] if shows_black else []), caption=profile.source)
    across, down = profile.correlation_at(1)
    for c, name in enumerate(CHANNELS[profile.channels]):
        table.add_row(
            name,
            _with_interval(profile.gain[c], profile.gain_interval[c]),
            _with_interval(profile.read_noise[c], profile.read_noise_interval[c]),
            f"{profile.row[c]:.2e}",
            f"{profile.column[c]:.2e}",
            f"{across[c]:.2f}, {down[c]:.2f}",
            *([f"{profile.black[c]:.2e}"] if shows_black else []),
        )
    return table


def _in_both_units(sigma: float, dtype: np.dtype) -> str:
    """In 8-bit units, and in those of a deeper file."""
    full = full_range(dtype)
    return f"{sigma:.2f}" if dtype == np.uint8 else f"{sigma:.2f} ({sigma / 255 * full:.3g} of {full:.0f})"


def _growth(noise: NoiseEstimate) -> str:
    """The gain, or the speckle as a noise spec has it."""
    if noise.speckle == 0:
        return _with_interval(noise.gain, noise.gain_interval) + (f" above {noise.black:.2e}" if noise.black else "")
    return "speckle:{:.3f} ({:.3f} to {:.3f})".format(noise.speckle, *noise.speckle_interval)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return "{:.2e} ({:.1e} to {:.1e})".format(value, *interval)
