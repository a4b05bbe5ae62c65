"""`python -m cluster.planning`: what planning a large batch takes, by which the driver's machine is chosen.

The files are empty: planning reads names, not images.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from denoise_se.plan import make_plan

A_FOLDER = 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.planning", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, metavar="N", help="files (default 100,000)")
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        for number in range(images):
            path = source / f"{number // A_FOLDER:05d}" / f"scan-{number:09d}.jpg"
            if number % A_FOLDER == 0:
                path.parent.mkdir(parents=True)
            path.touch()
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        plan = make_plan([source], Path(folder, "out"), recursive=True)
        seconds = time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert len(plan.jobs) == images
    print(
        f"{images:,} images: {seconds:.1f} processor seconds ({seconds / images * 1e6:.0f} s a million), "
        f"{grown / images:,.0f} bytes an image"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
