"""`python -m killing`: kills a batch or a training at random moments and resumes it; exit code 1 for a loss."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from killing.harness import run_killed
from killing.training import train_killed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m killing", description=__doc__)
    parser.add_argument("--training", action="store_true", help="a training run instead of a batch")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="images in the batch (default 200)")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="steps of the training (default 60)")
    parser.add_argument("--kills", type=int, metavar="N", help="how often (default 100, of a training 30)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments, as far as time repeats")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if options.training:
            tally = train_killed(Path(work), steps=options.steps, kills=options.kills or 30, seed=options.seed)
        else:
            tally = run_killed(Path(work), images=options.images, kills=options.kills or 100, seed=options.seed)
    print(tally)
    for fault in tally.faults:
        print(f"  {fault}")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
