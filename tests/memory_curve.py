"""Peak memory of `denoise-se denoise` against the size of one image: `make memory`.

Each size is a run of its own in a new process. The picture is noise on a gradient, written by rows, so that this
program needs little memory itself. Prints a table: megapixels, format, peak resident memory in MB, seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

# ru_maxrss would start from the peak of this process, which makes the images
MEASURED = """
import sys
from pathlib import Path
from denoise_se.app.cli import main
try:
    main()
finally:
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    print(peak // 1024, file=sys.stderr)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--formats", nargs="+", default=["tiff"], choices=["tiff", "png", "jpg"])
    parser.add_argument("--model", default="photo")
    parser.add_argument("--options", nargs="*", default=[], help="further options of `denoise-se denoise`, without --")
    arguments = parser.parse_args()
    print(f"{'MP':>6} {'format':>6} {'peak MB':>8} {'seconds':>8}", flush=True)
    failed = 0
    for format in arguments.formats:
        for megapixels in arguments.megapixels:
            with tempfile.TemporaryDirectory() as folder:
                source = picture(Path(folder), megapixels, format)
                command = [sys.executable, "-c", MEASURED, "denoise", str(source), "-o", f"{folder}/out", "--quiet"]
                command += ["--model", arguments.model, *(f"--{option}" for option in arguments.options)]
                began = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                failed += done.returncode != 0
                peak = done.stderr.split()[-1] if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"
                seconds = time.perf_counter() - began
                print(f"{megapixels:6g} {format:>6} {peak:>8} {seconds:8.1f}", flush=True)
    return 1 if failed else 0


def picture(folder: Path, megapixels: float, format: str) -> Path:
    """An RGB image of 3:2 with so many pixels."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(1.5 * height)
    path = folder / f"picture.{format}"
    if format == "tiff":
        tifffile.imwrite(path, strips(height, width), shape=(height, width, 3), dtype=np.uint8, rowsperstrip=1)
        return path
    import cv2

    cv2.imwrite(
        str(path), np.concatenate([np.frombuffer(row, np.uint8).reshape(1, width, 3) for row in strips(height, width)])
    )
    return path


def strips(height: int, width: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    gradient = np.linspace(40, 200, width)[:, None]
    noise = rng.normal(0, 12, (64, width, 3))
    for row in range(height):
        yield np.clip(gradient + noise[row % 64], 0, 255).astype(np.uint8).tobytes()


if __name__ == "__main__":
    raise SystemExit(main())
