"""The child process of a fuzz run: examines one damaged input after the other and tells what came of each.

It says by an empty answer that it is ready. Then it reads lines `{"seed": .., "index": ..}` and answers each with
`{"fault": .., ...}`, fault being null for an input that was read or refused as it should be. What kills the process or
never answers is the parent's business.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tiny_model import save_tiny

from denoise_se import image_io
from denoise_se.checkpoint import load_checkpoint
from denoise_se.errors import CheckpointError, ImageError
from denoise_se.page import Page
from fuzz.mutation import mutated_file, mutated_header
from fuzz.samples import samples

# a mutated header may claim any size, and what this allows must still be quick
MAX_PIXELS = 4_000_000
# pixels as float32 with alpha, a few copies of them, and the libraries
MAX_PEAK_BYTES = 600 << 20
ADDRESS_SPACE = 6 << 30
# rows of a page that are read and written together
BAND = 11
LOSSLESS = frozenset({".png", ".tif", ".bmp", ".ppm"})


class Fault(Exception):
    """Something that must not happen: `kind` is crash, print, memory or partial."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def file_input(seed: int, index: int) -> tuple[str, bytes]:
    """The name and bytes of one damaged image file."""
    rng = np.random.default_rng([seed, 0, index])
    found = samples()
    sample = found[rng.integers(len(found))]
    kin = [other for other in found if other.suffix == sample.suffix]
    data = mutated_file(sample, kin[rng.integers(len(kin))], rng)
    return f"{index:06d} {sample.name}{sample.suffix}", data


def header_input(seed: int, index: int) -> tuple[str, bytes]:
    """The name and bytes of one checkpoint with a damaged header."""
    rng = np.random.default_rng([seed, 1, index])
    return f"{index:06d}.safetensors", mutated_header(_checkpoint(), rng)


@cache
def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return save_tiny(Path(folder) / "tiny.safetensors").read_bytes()


def examine_file(path: Path, index: int) -> bool:
    """Reads, changes and writes one file; True when it was read. Raises Fault."""
    before = path.read_bytes()
    suffix = path.suffix if index % 4 else (".png", ".tif", ".jpg", ".webp", ".bmp", ".ppm")[index // 4 % 6]
    target = path.parent / "out" / f"result{suffix}"
    target.parent.mkdir()
    was_read = False
    try:
        if suffix == ".tif" and index % 3:
            _rewrite_pages(path, target)
        else:
            image = image_io.read(path, max_pixels=MAX_PIXELS)
            written = image_io.write(target, image.with_pixels(_changed(image.pixels)))
        was_read = True
    except ImageError as error:
        if "needs more memory" in error.reason:
            raise Fault("memory", f"asked for more than {ADDRESS_SPACE >> 30} GB of addresses") from error
        if any(target.parent.iterdir()):
            raise Fault("partial", "an image that failed left a file behind") from error
    else:
        if suffix == ".tif" and index % 3:
            _check_pages(path, target)
        else:
            _check_output(target, written, suffix)
    if path.read_bytes() != before:
        raise Fault("partial", "the input was changed")
    return was_read


def _changed(pixels: np.ndarray) -> np.ndarray:
    return 1 - pixels if pixels.dtype.kind == "f" else ~pixels


def _rewrite_pages(path: Path, target: Path) -> None:
    """As a batch does with stacks and large files: band by band, all pages."""
    with image_io.open_pages(path, max_pixels=MAX_PIXELS) as pages:
        if sum(page.shape[0] * page.shape[1] for page in pages) > MAX_PIXELS:
            raise ImageError(path, "is more in all than a run has time for")
        image_io.write_pages(target, pages, _bands(pages))


def _bands(pages: Sequence[Page]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for colours, alpha in _rows(pages):
        yield _changed(colours), alpha


def _check_pages(path: Path, target: Path) -> None:
    _check_alone(target)
    try:
        with image_io.open_pages(path) as pages, image_io.open_pages(target) as written:
            if [page.shape for page in pages] != [page.shape for page in written]:
                raise Fault("partial", f"{len(pages)} pages became {len(written)}, or their sizes changed")
            for (colours, alpha), page in zip(_bands(pages), _rows(written), strict=True):
                if not np.array_equal(colours, page[0]) or not np.array_equal(alpha, page[1]):
                    raise Fault("partial", "the output has other pixels than were written")
    except ImageError as error:
        raise Fault("partial", f"the output cannot be read again: {error.reason}") from error


def _rows(pages: Sequence[Page]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for page in pages:
        for start in range(0, page.shape[0], BAND):
            stop = min(start + BAND, page.shape[0])
            yield page.rows(start, stop), page.alpha(start, stop)


def _check_alone(target: Path) -> None:
    if [path.name for path in target.parent.iterdir()] != [target.name]:
        raise Fault("partial", "more or less than the output was left behind")


def _check_output(target: Path, written: image_io.Image, suffix: str) -> None:
    _check_alone(target)
    try:
        again = image_io.read(target, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise Fault("partial", f"the output cannot be read again: {error.reason}") from error
    if again.pixels.shape[:2] != written.pixels.shape[:2]:
        raise Fault("partial", f"the output has {again.width} x {again.height} pixels")
    same_kind = again.pixels.shape == written.pixels.shape and again.pixels.dtype == written.pixels.dtype
    if suffix in LOSSLESS and same_kind and not np.array_equal(again.pixels, written.pixels):
        raise Fault("partial", "the output has other pixels than were written")


def examine_header(path: Path, index: int) -> bool:
    """Loads one checkpoint and builds its network; True when it was loaded. Raises Fault."""
    try:
        load_checkpoint(path).network()
    except CheckpointError:
        return False
    return True


# name: how an input is made, how it is examined
KINDS: dict[str, tuple[Callable[[int, int], tuple[str, bytes]], Callable[[Path, int], bool]]] = {
    "files": (file_input, examine_file),
    "headers": (header_input, examine_header),
}


def examined(kind: str, seed: int, index: int) -> dict[str, Any]:
    """What came of one input, as the line that is told to the parent."""
    make, examine = KINDS[kind]
    name, data = make(seed, index)
    answer: dict[str, Any] = {"index": index, "name": name, "fault": None, "detail": "", "read": False}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        printed = os.fstat(2).st_size
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        start = time.perf_counter()
        try:
            answer["read"] = examine(path, index)
            peak = _peak_bytes()
            if peak > MAX_PEAK_BYTES:
                raise Fault("memory", f"took {peak >> 20} MB")
            if os.fstat(2).st_size != printed:
                raise Fault("print", "a decoder printed something")
        except Fault as fault:
            answer |= {"fault": fault.kind, "detail": str(fault)}
        except BaseException as error:
            answer |= {"fault": "crash", "detail": f"{type(error).__name__}: {error}"[:300]}
        answer["seconds"] = time.perf_counter() - start
    return answer


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def main(kind: str) -> None:
    """Answers on the standard output as it was at the start; what anything else prints goes to a file."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        for make, _ in KINDS.values():
            make(0, 0)  # the samples are made before the clock of the first input runs
        print("{}", file=answers)
        for line in sys.stdin:
            question = json.loads(line)
            print(json.dumps(examined(kind, question["seed"], question["index"])), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
