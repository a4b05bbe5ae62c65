"""Folders of damaged files through the real command line, hundreds at once."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tiny_model import save_tiny

from denoise_se import image_io
from denoise_se.errors import ImageError
from fuzz.runner import Tally, environment
from fuzz.worker import ADDRESS_SPACE, MAX_PIXELS, file_input

SECONDS_PER_FILE = 2.0
# below the large images that a mutated header may claim, since the network takes a second for each megapixel
BATCH_PIXELS = MAX_PIXELS // 16


def run_batches(seed: int, folders: int, files: int) -> Tally:
    """Denoises `folders` folders of `files` damaged files each; every file counts as one input.

    A fault's index is that of the folder's first input; the inputs are those of the kind "files".
    """
    tally = Tally("files in batches")
    for start in range(0, folders * files, max(files, 1)):
        with tempfile.TemporaryDirectory() as work:
            _run_batch(Path(work), seed, range(start, start + files), tally)
    return tally


def _run_batch(work: Path, seed: int, indices: range, tally: Tally) -> None:
    def fault(kind: str, detail: str) -> None:
        tally.faults.append((indices.start, kind, detail))

    (work / "in").mkdir()
    digests = {}
    for index in indices:
        name, data = file_input(seed, index)
        (work / "in" / name).write_bytes(data)
        digests[f"in/{name}"] = hashlib.sha256(data).hexdigest()
    save_tiny(work / "tiny.safetensors")
    tally.inputs += len(indices)
    command = [sys.executable, "-m", "denoise_se.app", "denoise", "in", "-o", "out", "--model", "tiny.safetensors"]
    command += ["--sigma", "25", "--max-pixels", str(BATCH_PIXELS), "--json"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    allowed = 60 + SECONDS_PER_FILE * len(indices)
    try:
        ended = subprocess.run(
            command, cwd=work, env=environment(), capture_output=True, timeout=allowed, preexec_fn=limit, check=False
        )
    except subprocess.TimeoutExpired:
        fault("hang", f"the batch took more than {allowed:.0f} s")
        return
    errors = ended.stderr.decode(errors="replace")
    if ended.returncode not in (0, 1) or "Traceback" in errors:
        fault("crash", f"exit code {ended.returncode}: {errors[-300:]}")
    rows = {row["input"]: row for row in map(json.loads, ended.stdout.splitlines())}
    if rows.keys() != digests.keys():
        fault("partial", f"{len(rows)} rows for {len(digests)} files")
    if ended.returncode != any(row["status"] == "failed" for row in rows.values()):
        fault("partial", f"exit code {ended.returncode} does not tell whether a file failed")
    for name, digest in digests.items():
        if hashlib.sha256((work / name).read_bytes()).hexdigest() != digest:
            fault("partial", f"{name}: the input was changed")
    expected = {row["output"] for row in rows.values() if row["status"] == "done"}
    tally.read += len(expected)
    found = {path.relative_to(work).as_posix() for path in (work / "out").iterdir() if path.name[0] != "."}
    left = [path.name for path in (work / "out").iterdir() if path.name.endswith(".tmp")]
    if found != expected or left:
        fault("partial", f"outputs that nobody told of or that are missing: {sorted(found ^ expected)[:3]}, {left}")
    for name in sorted(found & expected):
        try:
            with image_io.open_pages(work / name) as pages:
                for page in pages:
                    page.image()
        except ImageError as error:
            fault("partial", f"{error}: the output cannot be read")
