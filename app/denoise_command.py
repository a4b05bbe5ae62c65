"""`denoise-se denoise`: from options to a plan, a batch and a report."""

from __future__ import annotations

import math
from contextlib import nullcontext
from importlib.metadata import version

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from denoise_se.app.batch_watcher import ConsoleWatcher
from denoise_se.app.console import message_console, print_table
from denoise_se.app.request import Engine, Request, parse_tile
from denoise_se.blending import Strength
from denoise_se.disk_space import shortage
from denoise_se.errors import ImageError, UsageError
from denoise_se.image_io import DEFAULT_MAX_PIXELS
from denoise_se.plan import listed, make_plan, real_name
from denoise_se.preview import picture_bytes
from denoise_se.ray_cluster import check_installed
from denoise_se.remote_files import Address, Location
from denoise_se.report import as_table, check_report, write_report

ENGINES = ("local", "ray")
READ_AHEAD = 2  # images, unless told otherwise


def parse_sigma(text: str) -> float | None:
    """A number from 0 to 255, None for "auto"; UsageError otherwise."""
    if text == "auto":
        return None
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma <= 255:
        raise UsageError(f"--sigma {text}: give auto or a number from 0 to 255, the noise level in 8-bit units")
    return sigma


def run_denoise(
    inputs: list[Location],
    out: Location,
    *,
    model: str,
    sigma: str,
    strength: float,
    chroma_strength: float | None,
    reference: Location | None,
    report: Location | None,
    estimate_quality: bool,
    self_ensemble: bool,
    recursive: bool,
    format: str,
    resume: bool,
    overwrite: bool,
    tile: str,
    device: str,
    backend: str,
    precision: str,
    workers: int | None,
    engine: str,
    max_pixels: int | None,
    quiet: bool,
    json_lines: bool,
) -> int:
    """Returns the exit code; raises DenoiseError before any work for a request that cannot be carried out."""
    blend = Strength(strength, strength if chroma_strength is None else chroma_strength)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other: skip what is done, or do it again")
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown; one of {', '.join(ENGINES)}")
    if engine == "ray":
        check_installed()
        if any(isinstance(path, Address) and path.protocol == "memory" for path in (*inputs, out)):
            raise UsageError("--engine ray: memory:// is seen by one process alone; use --engine local")
    level, side = parse_sigma(sigma), parse_tile(tile)
    check_report(report)
    request = Request(
        model,
        level,
        blend,
        format,
        max_pixels or DEFAULT_MAX_PIXELS,
        resume,
        Engine(device, backend, precision, side, self_ensemble),
    )
    _ = request.weights  # a model that does not exist is refused first
    plan = make_plan(inputs, out, format=format, recursive=recursive, reference=reference, replace=resume or overwrite)
    files = [p for job in plan.jobs for p in (job.source, job.target, job.reference) if p is not None]
    folders = {plan.home, *(job.target.parent for job in plan.jobs)}
    if report is not None and real_name(report) in {real_name(path) for path in (*files, *folders)}:
        raise UsageError(f"--report {report}: is also an input or an output; choose another name")
    errors = message_console()
    short = shortage(plan, max_pixels=max_pixels or DEFAULT_MAX_PIXELS)
    for notice in (*plan.notices, *([short] if short else ())):
        errors.print(f"note: {notice}")

    from denoise_se.batch import run_batch  # torch comes with it
    from denoise_se.inspection import Inspector

    kind = "" if report is None else report.suffix.lower()
    most = picture_bytes(len(plan.jobs)) if kind == ".html" else None
    if kind == ".html" and most is None:
        errors.print(f"note: {report}: without pictures, as {len(plan.jobs)} images are too many for one page")
    inspector = Inspector(most, noise=kind in (".json", ".html"), quality=estimate_quality)

    computed_by = request.denoiser_for(3).backend.description  # a damaged one is refused before the first image
    if engine == "ray":
        models = request.models()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet or json_lines,
    )
    with bar if errors.is_terminal else nullcontext():
        watcher = ConsoleWatcher(
            errors, bar, len(plan.jobs), told=level is not None, quiet=quiet, json_lines=json_lines
        )
        to_do = {"fingerprint": request.fingerprint(), "watcher": watcher, "inspector": inspector}
        if engine == "ray":
            from denoise_se.ray_engine import run_on_ray

            outcome = run_on_ray(plan, models, request.settings(), workers=workers, **to_do)
        else:
            ahead = READ_AHEAD if workers is None else workers
            outcome = run_batch(plan, request.denoiser_for, request.settings(), workers=ahead, **to_do)
    watcher.end()
    if not (quiet or json_lines):
        print_table(as_table(outcome.rows, computed_by))
    if alone := [row.input for row in outcome.rows if request.left_alone(row)]:
        mend = "if you see some, give --model photo, which is for cameras' noise, or --sigma 5"
        errors.print(f"note: {listed(alone)}: no noise was found, so none was removed; {mend}")
    left = len(plan.jobs) - len(outcome.rows)
    if left:
        errors.print(f"stopped with {left} image(s) to do; go on with --resume")
    failed = sum(row.status == "failed" for row in outcome.rows)
    if failed:
        others = ", the others are done" if failed < len(plan.jobs) and not left else ""
        errors.print(f"{failed} of {len(plan.jobs)} image(s) failed{others}")
    if report is not None:
        run = {
            "model": model,
            "sigma": sigma,
            "strength": f"{blend.luma:g}" if blend.luma == blend.chroma else f"{blend.luma:g}, colour {blend.chroma:g}",
            "reference": "none" if reference is None else str(reference),
            "output": str(out),
            "format": format,
            "tile": tile,
            "device": device,
            "backend": backend,
            "precision": precision,
            "computed by": computed_by,
            "version": version("denoise-se"),
        }
        try:
            write_report(report, outcome.rows, previews=inspector.previews, settings=run, estimates=estimate_quality)
        except ImageError as error:
            errors.print(str(error))
            return outcome.exit_code or error.exit_code
    return outcome.exit_code
