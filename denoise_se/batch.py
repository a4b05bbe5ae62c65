"""A run over a plan: what it is given and what comes of it; the work itself is the pipeline's."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from denoise_se.errors import EXIT_DONE, EXIT_SOME_FAILED, ImageError, UsageError, exit_code_of, reason
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.manifest import Ledger, Manifest
from denoise_se.pipeline import Pipeline
from denoise_se.plan import Plan, listed, remove_leftovers
from denoise_se.remote_manifest import RemoteManifest, open_manifest
from denoise_se.report import Row
from denoise_se.restorer import Restorer
from denoise_se.stop import Stop
from denoise_se.watcher import Watcher


@dataclass(frozen=True)
class Outcome:
    """All rows, in the plan's order as far as the run came, and the exit code."""

    rows: tuple[Row, ...]
    exit_code: int


def run_batch(
    plan: Plan,
    denoiser_for: Callable[[int], Restorer],
    settings: Settings,
    *,
    fingerprint: Mapping[str, Any],
    watcher: Watcher | None = None,
    inspector: Inspector | None = None,
    workers: int = 1,
) -> Outcome:
    """Denoise all images of `plan`.

    Args:
        denoiser_for: gives the denoiser for an image of so many colour channels.
        fingerprint: what the outputs depend on besides the input (model, settings), for the manifest.
        inspector: what the report wants of each image besides its scores; the pictures are in it afterwards.
        workers: threads that read ahead; writing and measuring have one of their own.

    Returns:
        The rows; the exit code is 0 when all is done, 1 when some failed, 130 or 143 after a signal.

    Raises:
        ImageError: the output folder cannot be made.
        UsageError: its manifest cannot be read, or a file that no earlier run wrote is in the place of an output of a
            run that is resumed.
        CancelledError: the watcher raised it.
    """
    watcher, inspector = watcher or Watcher(), inspector or Inspector()
    manifest = prepare(plan, fingerprint, watcher, resume=settings.resume)
    pipeline = Pipeline(plan.jobs, denoiser_for, settings, manifest, watcher, inspector, max(1, workers))
    with Stop().listening() as stop:
        try:
            rows = pipeline.rows(stop)
        finally:
            finish(plan, manifest)
    return outcome(plan, rows, stop)


def prepare(plan: Plan, fingerprint: Mapping[str, Any], watcher: Watcher, *, resume: bool) -> Manifest | RemoteManifest:
    """Makes the output folder ready, whatever engine works on the plan. Raises ImageError and UsageError."""
    try:
        plan.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(plan.home, f"the output folder cannot be made ({reason(error)})") from error
    _try_writing(plan)
    remove_leftovers(plan)
    manifest = open_manifest(plan.home, fingerprint)
    if resume:
        refuse_foreign(plan, manifest)
        if other := [str(job.relative) for job in plan.jobs if manifest.is_of_other_settings(job.relative)]:
            watcher.notice(f"{listed(other)}: made with other settings or another version before, so done again")
        if changed := [str(job.relative) for job in plan.jobs if manifest.is_of_other_size(job.relative, job.target)]:
            watcher.notice(f"{listed(changed)}: cut or changed since they were written, so done again")
    return manifest


def _try_writing(plan: Plan) -> None:
    """ImageError when nothing can be written, before hours are spent on it."""
    if not isinstance(plan.home, Path):
        return
    try:
        with TemporaryFile(dir=plan.home):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:  # there may be room by then, or for a small image
            return
        text = f"cannot be written ({reason(error)}), nor can the others; see to the rights of the folder"
        raise ImageError(plan.jobs[0].target, text) from error


def refuse_foreign(plan: Plan, manifest: Ledger) -> None:
    """UsageError for outputs that are there and that no earlier run wrote: an entry is kept before an output is. That
    of a store may be lost with a kill, so nothing is known of its objects."""
    foreign = [
        job.target
        for job in plan.jobs
        if isinstance(job.target, Path) and job.relative.as_posix() not in manifest.entries and job.target.exists()
    ]
    if foreign:
        raise UsageError(
            f"{listed(foreign)}: exists already, and no earlier run of denoise-se into this folder wrote it; choose "
            "another -o, or add --overwrite instead of --resume"
        )


def finish(plan: Plan, manifest: Ledger) -> None:
    """At the end of a run, however it came. Raises ImageError."""
    try:
        manifest.close()
    except OSError as error:
        text = f"the manifest cannot be written ({reason(error)}); --resume will do its last images again"
        raise ImageError(plan.home, text) from error


def outcome(plan: Plan, rows: Sequence[Row], stop: Stop) -> Outcome:
    """What the rows and a signal, if there was one, come to."""
    if stop.signal is not None and len(rows) < len(plan.jobs):
        code = exit_code_of(stop.signal)
    else:
        code = EXIT_SOME_FAILED if any(row.status == "failed" for row in rows) else EXIT_DONE
    return Outcome(tuple(rows), code)
