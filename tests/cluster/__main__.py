"""`python -m cluster`: a batch whose worker is killed midway, and the local engine's; exit code 1 when they differ."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from cluster.harness import run_losing_a_worker


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    parser.add_argument("--images", type=int, default=2000, metavar="N", help="images in the batch (default 2000)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="workers of the cluster (default 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        tally = run_losing_a_worker(Path(work), images=options.images, workers=options.workers)
    print(tally)
    for fault in tally.faults:
        print(f"  {fault}")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
