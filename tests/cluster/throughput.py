"""`python -m cluster.throughput`: images an hour of the local engine and of one and two workers.

Beside the wall clock it counts the processor seconds an image, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

from cluster.harness import start

# label, engine, options, threads
SETTINGS = (
    ("local, 1 thread", "local", (), 1),
    ("local, 2 threads", "local", (), 2),
    ("ray, 1 worker", "ray", ("--workers", "1"), 1),
    ("ray, 2 workers", "ray", ("--workers", "2"), 1),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.throughput", description=__doc__)
    parser.add_argument("--images", type=int, default=200, metavar="N", help="colour PNGs (default 200)")
    parser.add_argument("--side", type=int, default=256, metavar="PX", help="height and width (default 256)")
    options = parser.parse_args()
    print(f"{options.images} images of {options.side} x {options.side}, load before: {os.getloadavg()[0]:.1f}")
    print("| engine | images an hour | processor seconds an image | seconds of it by the driver |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_noisy(work / "in", options.images, options.side)
        for number, (label, engine, arguments, threads) in enumerate(SETTINGS):
            print(f"| {label} | {measured(work, engine, arguments, threads, f'out{number}')} |", flush=True)
    return 0


def make_noisy(folder: Path, count: int, side: int) -> None:
    """Smooth pictures with Gaussian noise of sigma 25."""
    folder.mkdir()
    ramp = np.linspace(0, 1, side)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        waves = np.sin(rng.uniform(2, 30) * ramp)[:, None, None] * np.cos(rng.uniform(2, 30) * ramp)[:, None]
        noisy = 128 + 90 * waves + rng.normal(0, 25, (side, side, 3))
        PIL.Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)).save(folder / f"{seed:04d}.png")


def measured(work: Path, engine: str, arguments: tuple[str, ...], threads: int, out: str) -> str:
    """From the first image to the last, so without the start."""
    model = ("--model", "color")
    with start(work, engine, *model, *arguments, out=out, environ={"OMP_NUM_THREADS": str(threads)}) as run:
        began, used, last = 0.0, (0.0, 0.0), (0.0, 0.0)
        for _ in run.lines():
            last = run.processor_seconds()
            if len(run.rows) == 1:
                began, used = time.monotonic(), last
        seconds = time.monotonic() - began
        if run.end() != 0:
            raise RuntimeError(run.errors()[-500:])
    images = len(run.rows) - 1
    driver, workers = (after - before for before, after in zip(used, last, strict=True))
    return f"{3600 * images / seconds:,.0f} | {(driver + workers) / images:.3f} | {driver / images:.3f}"


if __name__ == "__main__":
    sys.exit(main())
