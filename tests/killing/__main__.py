"""`python -m killing`: kills a batch at random moments and resumes it; exit code 1 when anything was lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from killing.harness import run_killed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m killing", description=__doc__)
    parser.add_argument("--images", type=int, default=200, metavar="N", help="images in the batch (default 200)")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how often it is killed (default 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments, as far as time repeats")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        tally = run_killed(Path(work), images=options.images, kills=options.kills, seed=options.seed)
    print(tally)
    for fault in tally.faults:
        print(f"  {fault}")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
