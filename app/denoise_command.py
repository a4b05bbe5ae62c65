"""`denoise-se denoise`: from options to a plan, a batch and a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from denoise_se.app.batch_watcher import ConsoleWatcher
from denoise_se.app.console import message_console, table_console
from denoise_se.app.request import LEFT_ALONE, Request
from denoise_se.disk_space import shortage
from denoise_se.errors import ImageError, UsageError
from denoise_se.plan import Plan, listed, make_plan, real_name
from denoise_se.preview import picture_bytes
from denoise_se.provenance import release
from denoise_se.ray_cluster import check_installed
from denoise_se.remote_files import Address, Location
from denoise_se.report import as_table, check_report, write_report

if TYPE_CHECKING:
    from denoise_se.batch import Outcome
    from denoise_se.inspection import Inspector

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


@dataclass(frozen=True)
class Errand:
    """A batch as it is asked for: which files, and what is told of them.

    overwrite: outputs may be there. engine: one of ENGINES, with so many `workers`. quiet: problems alone are told;
    json_lines: a line for each image stands in the table's place.
    """

    inputs: Sequence[Location]
    out: Location
    reference: Location | None = None
    report: Location | None = None
    recursive: bool = False
    overwrite: bool = False
    engine: str = "local"
    workers: int | None = None
    estimate_quality: bool = False
    quiet: bool = False
    json_lines: bool = False

    def plan(self, request: Request) -> Plan:
        """All that can be checked before any work. Raises UsageError and CheckpointError."""
        if request.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other: skip what is done, or do it again")
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine!r} is unknown; one of {', '.join(ENGINES)}")
        if self.engine == "ray":
            check_installed()
            if any(isinstance(path, Address) and path.protocol == "memory" for path in (*self.inputs, self.out)):
                raise UsageError("--engine ray: memory:// is seen by one process alone; use --engine local")
        check_report(self.report)
        _ = request.weights  # a model that does not exist is refused first
        plan = make_plan(
            self.inputs,
            self.out,
            format=request.format,
            recursive=self.recursive,
            reference=self.reference,
            replace=request.resume or self.overwrite,
        )
        files = [p for job in plan.jobs for p in (job.source, job.target, job.reference) if p is not None]
        folders = {plan.home, *(job.target.parent for job in plan.jobs)}
        if self.report is not None and real_name(self.report) in {real_name(path) for path in (*files, *folders)}:
            raise UsageError(f"--report {self.report}: is also an input or an output; choose another name")
        return plan

    def inspector(self, images: int) -> Inspector:
        """What the report wants of each of so many images."""
        from denoise_se.inspection import Inspector

        kind = "" if self.report is None else self.report.suffix.lower()
        most = picture_bytes(images) if kind == ".html" else None
        return Inspector(most, noise=kind in (".json", ".html"), quality=self.estimate_quality)


def run_denoise(errand: Errand, request: Request) -> int:
    """Returns the exit code; raises DenoiseError before any work for a request that cannot be carried out."""
    plan = errand.plan(request)
    errors = message_console()
    short = shortage(plan, max_pixels=request.max_pixels)
    for notice in (*plan.notices, *([short] if short else ())):
        errors.print(f"note: {notice}")
    inspector = errand.inspector(len(plan.jobs))  # torch comes with it
    if errand.report is not None and errand.report.suffix.lower() == ".html" and inspector.picture_bytes is None:
        errors.print(f"note: {errand.report}: without pictures, as {len(plan.jobs)} images are too many for one page")
    computed_by = request.denoiser_for(3).backend.description  # a damaged one is refused before the first image
    outcome = carry_out(errand, request, plan, inspector, errors)
    if not (errand.quiet or errand.json_lines):
        table_console().print(as_table(outcome.rows, computed_by))
    sum_up(request, plan, outcome, errors)
    if errand.report is not None:
        earlier = sum(row.status == "skipped" for row in outcome.rows)
        if earlier and (inspector.noise or inspector.quality):
            errors.print(
                f"note: {errand.report}: lacks the pictures, noise and estimates of {earlier} image(s) that an earlier "
                "run did; --overwrite does them again"
            )
        settings = described(errand, request, computed_by)
        try:
            write_report(
                errand.report,
                outcome.rows,
                previews=inspector.previews,
                settings=settings,
                estimates=errand.estimate_quality,
            )
        except ImageError as error:
            errors.print(str(error))
            return outcome.exit_code or error.exit_code
    return outcome.exit_code


def carry_out(errand: Errand, request: Request, plan: Plan, inspector: Inspector, errors: Console) -> Outcome:
    """The batch, with its progress on `errors`."""
    from denoise_se.batch import run_batch

    models = request.models() if errand.engine == "ray" else None  # a damaged one is refused here
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=errand.quiet or errand.json_lines,
    )
    with bar if errors.is_terminal else nullcontext():
        watcher = ConsoleWatcher(
            errors,
            bar,
            len(plan.jobs),
            told=request.sigma is not None,
            quiet=errand.quiet,
            json_lines=errand.json_lines,
        )
        to_do = {"fingerprint": request.fingerprint(), "watcher": watcher, "inspector": inspector}
        if models is not None:
            from denoise_se.ray_engine import run_on_ray

            outcome = run_on_ray(plan, models, request.settings(), workers=errand.workers, **to_do)
        else:
            ahead = READ_AHEAD if errand.workers is None else errand.workers
            outcome = run_batch(plan, request.denoiser_for, request.settings(), workers=ahead, **to_do)
    watcher.end()
    return outcome


def sum_up(request: Request, plan: Plan, outcome: Outcome, errors: Console) -> None:
    """What there is to say at the end: images without noise, those left to do, and those that failed."""
    if alone := [row.input for row in outcome.rows if request.left_alone(row)]:
        mend = "if you see some, give --model photo, which is for cameras' noise, or --sigma 5"
        errors.print(f"note: {listed(alone)}: {LEFT_ALONE}; {mend}")
    left = len(plan.jobs) - len(outcome.rows)
    if left:
        errors.print(f"stopped with {left} image(s) to do; go on with --resume")
    failed = sum(row.status == "failed" for row in outcome.rows)
    if failed:
        others = ", the others are done" if failed < len(plan.jobs) and not left else ""
        errors.print(f"{failed} of {len(plan.jobs)} image(s) failed{others}")


def described(errand: Errand, request: Request, computed_by: str) -> dict[str, object]:
    """The settings of a run, for its report."""
    blend, engine = request.strength, request.engine
    return {
        "model": request.model,
        "sigma": "auto" if request.sigma is None else f"{request.sigma:g}",
        "strength": f"{blend.luma:g}" if blend.luma == blend.chroma else f"{blend.luma:g}, colour {blend.chroma:g}",
        "reference": "none" if errand.reference is None else str(errand.reference),
        "output": str(errand.out),
        "format": request.format,
        "tile": str(engine.tile),
        "device": engine.device,
        "backend": engine.backend,
        "precision": engine.precision,
        "computed by": computed_by,
        "version": release(),
    }
