"""What a batch will do, decided and checked before any of it is done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from denoise_se.atomic_file import remove_temporary_files
from denoise_se.errors import ImageError, UsageError, reason
from denoise_se.formats import FORMATS, NOT_WRITTEN, READABLE_SUFFIXES, format_of_suffix, output_suffix
from denoise_se.image_io import probe
from denoise_se.manifest import Manifest
from denoise_se.remote_files import Address, Location, check_library, real_path

LISTED = 10  # a message names at most this many files


@dataclass(frozen=True)
class Job:
    """One image to denoise: from `source` to `target`, compared with `reference` if there is one.

    `relative` is the target below the output folder, the job's name in manifests and reports.
    """

    source: Location
    target: Location
    relative: Path
    reference: Location | None = None


@dataclass(frozen=True)
class Plan:
    """All jobs of a run; `home` is the folder that holds the outputs; `notices` are for the user to see."""

    jobs: tuple[Job, ...]
    home: Location
    notices: tuple[str, ...] = ()


def make_plan(
    inputs: Sequence[Location],
    out: Location,
    *,
    format: str = "same",
    recursive: bool = False,
    reference: Location | None = None,
    replace: bool = False,
) -> Plan:
    """Find the images and name their outputs.

    Args:
        inputs: files and folders. One folder's images go right under `out`, several keep their folders' names.
        out: a file when there is one input file and it has a suffix of ours, else a folder.
        format: "same" or a key of FORMATS.
        recursive: take subfolders too, and keep them.
        reference: clean file or folder, matched by relative path and stem.
        replace: whether existing outputs are no hindrance (resuming or overwriting).

    The same file given twice is denoised once.

    Raises:
        UsageError: nothing to do, a missing or unreadable input or reference, two inputs with one output, an output
            that is an input, or existing outputs without `replace`; nothing was written.
    """
    try:
        return _plan(inputs, out, format, recursive, reference, replace)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be used ({reason(error)}); check its name and rights") from error


def check_there(paths: Sequence[Location]) -> None:
    """UsageError that names those that do not exist."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise UsageError(f"{listed(missing)}: no such file or folder; check the name")


def _plan(
    inputs: Sequence[Location], out: Location, format: str, recursive: bool, reference: Location | None, replace: bool
) -> Plan:
    if format != "same" and format not in FORMATS:
        raise UsageError(f"--format {format!r} is unknown; one of same, {', '.join(FORMATS)}")
    for path in (*inputs, out, reference):
        if isinstance(path, Address):
            check_library(path)
    if isinstance(out, Address) and not out.has_bucket():
        raise UsageError(f"{out}: there is no bucket {out.bucket}; check its name, or make it first")
    check_there(inputs)
    folders = [path for path in inputs if path.is_dir()]
    to_file = len(inputs) == 1 and not folders and format_of_suffix(out) is not None and not out.is_dir()
    notices: list[str] = []
    if out.suffix and not (to_file or out.exists()):
        if format_of_suffix(out) is not None:
            notices.append(f"{out}: is made a folder, as there are several inputs or a folder of them")
        elif len(inputs) == 1 and not folders:
            written = ", ".join(FORMATS)
            if out.suffix.lower() in NOT_WRITTEN:
                raise UsageError(f"{out}: {out.suffix} is not written; take the suffix of one that is ({written})")
            notices.append(f"{out}: is made a folder, as {out.suffix} is no format that is written ({written})")
    found: list[tuple[Location, Path]] = []
    if to_file:
        if format not in ("same", format_of_suffix(out)):
            raise UsageError(f"{out}: its suffix is not of --format {format}; leave one of the two out")
        found.append((inputs[0], Path(out.name)))
    else:
        for path in inputs:
            if path.is_dir():
                top = Path(Path(real_name(path)).name) if len(folders) > 1 else Path()
                found += [(file, top / name) for file, name in _scan(path, recursive, out, notices)]
            else:
                found.append((path, Path(path.name)))
        found = [(source, _named(name, output_suffix(source, format))) for source, name in found]
        nameless = [source for source, name in found if format_of_suffix(Path(name)) is None and _is_read(source)]
        if nameless:
            raise UsageError(f"{listed(nameless)}: without the suffix of an image; add --format png, or another")
    home = out.parent if to_file else out
    if out.exists() and not to_file and not out.is_dir():
        raise UsageError(f"{out}: is a file; give a folder for the outputs, or a name with an image suffix")
    if not found:
        where = listed(inputs)
        hint = "" if recursive or not folders else " (--recursive looks into subfolders)"
        raise UsageError(f"{where}: no image of a known suffix ({', '.join(sorted(READABLE_SUFFIXES))}){hint}")
    found = _without_own(_once_each(found, notices), home, notices)
    references = _references(reference, found, notices)
    jobs = tuple(Job(source, home / name, name, references.get(source)) for source, name in found)
    _check_outputs(jobs, replace, "" if format == "same" else ", or keep --format same")
    return Plan(jobs, home, tuple(notices))


def _scan(folder: Location, recursive: bool, out: Location, notices: list[str]) -> Iterator[tuple[Location, Path]]:
    """Images of a folder in sorted order with their names below it, without the output folder, hidden files and linked
    folders."""
    skipped: Counter[str] = Counter()
    for base, names in _folders(folder, recursive, real_name(out), notices):
        for name in names:
            path = base / name
            if name.startswith("."):
                continue
            if path.suffix.lower() in READABLE_SUFFIXES:
                yield path, path.relative_to(folder)  # type: ignore[arg-type]
            else:
                skipped[path.suffix.lower()] += 1
    if skipped:
        kinds = ", ".join(name or "without a suffix" for name, _ in skipped.most_common(LISTED))
        notices.append(f"{folder}: {skipped.total()} file(s) of kinds that are not read were left out ({kinds})")


def _folders(folder: Location, recursive: bool, own: str, notices: list[str]) -> Iterator[tuple[Location, list[str]]]:
    """The folder and those below it but `own`, each with its files' names."""
    if isinstance(folder, Address):
        for below, names in folder.walk(recursive):
            if below == folder or not f"{below}/".startswith(f"{own}/"):
                yield below, names
        return

    linked = 0
    for base, subfolders, names in os.walk(folder, onerror=_refuse):
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and real_name(Path(base, name)) != own
        )
        if not recursive:
            if subfolders:
                notices.append(f"{folder}: {len(subfolders)} subfolder(s) were left out; --recursive takes them too")
            subfolders.clear()
        linked += sum(Path(base, name).is_symlink() for name in subfolders)
        yield Path(base), sorted(names)
    if linked:
        notices.append(f"{folder}: {linked} linked folder(s) were left out; give them as inputs of their own")


def _refuse(error: OSError) -> None:
    raise error


def _without_own(
    found: Sequence[tuple[Location, Path]], home: Location, notices: list[str]
) -> list[tuple[Location, Path]]:
    """Without what an earlier run made, by its manifest, of another file that was found and would be written there
    again: inputs and outputs may lie in one folder."""
    if isinstance(home, Address) or not home.is_dir() or not (written := Manifest(home, {}).entries):
        return list(found)
    made = {real_name(home / name) for name in written}
    targets = Counter(real_name(home / name) for _, name in found)

    def is_own(source: Location, name: Path) -> bool:
        real = real_name(source)
        return real in made and targets[real] > (real == real_name(home / name))

    others = [(source, name) for source, name in found if not is_own(source, name)]
    if len(others) < len(found):
        notices.append(f"{home}: {len(found) - len(others)} file(s) that an earlier run wrote are no inputs")
    return others


def _is_read(source: Location) -> bool:
    """Whether the content is that of an image; what is none fails alone, by its kind."""
    try:
        probe(source)
    except ImageError:
        return False
    return True


def _named(name: Path, suffix: str) -> Path:
    """With another suffix; one that is none of an image, as in "scan.2023", belongs to the name and stays."""
    own = name.suffix.lower() in READABLE_SUFFIXES or name.suffix == suffix
    return name.with_suffix(suffix) if own else name.with_name(name.name + suffix)


def _once_each(found: Sequence[tuple[Location, Path]], notices: list[str]) -> list[tuple[Location, Path]]:
    """Without the repetitions of a file that was given twice under one output name."""
    once: dict[tuple[str, Path], tuple[Location, Path]] = {}
    for source, name in found:
        once.setdefault((real_name(source), name), (source, name))
    if len(once) < len(found):
        notices.append(f"{len(found) - len(once)} file(s) given more than once are denoised once")
    return list(once.values())


def real_name(path: Location) -> str:
    """By which two locations can be told to be one: the path without links, or the address."""
    return str(path if isinstance(path, Address) else real_path(path))


def _references(
    reference: Location | None, found: Sequence[tuple[Location, Path]], notices: list[str]
) -> dict[Location, Location]:
    if reference is None:
        return {}
    if not reference.exists():
        raise UsageError(f"--reference {reference}: no such file or folder; check the name")
    if reference.is_file():
        if len(found) > 1:
            raise UsageError(f"--reference {reference}: is one file for {len(found)} inputs; give a folder")
        return {found[0][0]: reference}
    by_stem: dict[Path, list[Location]] = {}
    for path, name in _below(reference):
        if path.suffix.lower() in READABLE_SUFFIXES:
            by_stem.setdefault(name.with_suffix(""), []).append(path)
    matched: dict[Location, Location] = {}
    for source, name in found:
        candidates = by_stem.get(name.with_name(source.stem), [])
        same_suffix = [path for path in candidates if path.suffix == source.suffix]
        if len(candidates) == 1 or same_suffix:
            matched[source] = (same_suffix or candidates)[0]
        elif candidates:
            raise UsageError(f"--reference: {listed(candidates)} all match {source}; keep one of them")
    if not matched:
        raise UsageError(f"--reference {reference}: no file there has the relative path and stem of an input")
    if len(matched) < len(found):
        notices.append(f"--reference {reference}: {len(found) - len(matched)} of {len(found)} inputs have no reference")
    return matched


def _below(folder: Location) -> Iterator[tuple[Location, Path]]:
    """All files of a folder and those below it, with their names there."""
    if isinstance(folder, Address):
        for base, names in folder.walk(True):
            yield from ((base / name, (base / name).relative_to(folder)) for name in names)
        return
    for top, subfolders, names in os.walk(folder, onerror=_refuse):
        subfolders.sort()
        paths = [Path(top, name) for name in sorted(names)]
        yield from ((path, path.relative_to(folder)) for path in paths if path.is_file())


def _existing(jobs: Sequence[Job]) -> list[Location]:
    """The outputs that are there. A store is asked for its lists, not for each name."""
    known: dict[Address, set[str]] = {}
    found: list[Location] = []
    for job in jobs:
        target = job.target
        if isinstance(target, Address):
            if target.parent not in known:
                known[target.parent] = target.parent.names()
            there = target.name in known[target.parent]
        else:
            there = target.exists()
        if there:
            found.append(target)
    return found


def _check_outputs(jobs: Sequence[Job], replace: bool, hint: str) -> None:
    sources = {real_name(job.source) for job in jobs} | {real_name(job.reference) for job in jobs if job.reference}
    by_target: dict[str, Job] = {}
    for job in jobs:
        # names that differ in case alone are one file on some systems
        other = by_target.setdefault(str(job.target).casefold(), job)
        if other is not job:
            raise UsageError(
                f"{other.source} and {job.source} would both be written to {job.target}; rename one{hint}, or denoise "
                "them in two runs, each with an -o of its own"
            )
    own = [job.target for job in jobs if real_name(job.target) in sources]
    if own:
        raise UsageError(f"{listed(own)}: the output would replace an input; choose another -o")
    existing = _existing(jobs)
    folders = [path for path in existing if isinstance(path, Path) and path.is_dir()]
    if folders:
        raise UsageError(f"{listed(folders)}: is a folder; choose another -o")
    if existing and not replace:
        raise UsageError(
            f"{listed(existing)}: exists already; add --resume to skip what is done, or --overwrite to do it again"
        )


def remove_leftovers(plan: Plan) -> None:
    """Delete the temporary files that a killed run left beside its outputs."""
    for folder in {job.target.parent for job in plan.jobs}:
        if isinstance(folder, Path) and folder.is_dir():
            remove_temporary_files(folder)


def listed(paths: Sequence[Location | str]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return ", ".join(map(str, paths[:LISTED])) + more
