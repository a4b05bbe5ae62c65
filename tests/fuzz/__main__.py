"""`python -m fuzz`: damaged files, checkpoint headers and batches; exit code 1 when anything went wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz.batches import run_batches
from fuzz.runner import SECONDS, Tally, run
from fuzz.worker import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=2000, metavar="N", help="damaged image files (default 2000)")
    parser.add_argument("--headers", type=int, default=2000, metavar="N", help="damaged checkpoints (default 2000)")
    parser.add_argument("--batches", type=int, default=2, metavar="N", help="folders for the command line (default 2)")
    parser.add_argument("--batch-files", type=int, default=300, metavar="N", help="files in each folder (default 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same inputs")
    parser.add_argument("--only", metavar="KIND:INDEX", help="one input again, such as files:123 or headers:7")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put the inputs that went wrong, or --only's, here")
    options = parser.parse_args()
    seed: int = options.seed
    if options.only:
        kind, _, index = options.only.partition(":")
        if kind not in KINDS or not index.isdecimal():
            parser.error("--only takes files:INDEX or headers:INDEX")
        tallies = [run(kind, seed, [int(index)])]
        _keep(options.keep, kind, seed, [int(index)])
        return _told(tallies, seed)
    tallies = []
    for kind, count in (("files", options.files), ("headers", options.headers)):
        tallies.append(run(kind, seed, range(count)))
        _keep(options.keep, kind, seed, [index for index, *_ in tallies[-1].faults])
    tallies.append(run_batches(seed, options.batches, options.batch_files))
    return _told(tallies, seed)


def _keep(folder: Path | None, kind: str, seed: int, indices: list[int]) -> None:
    for index in indices if folder else ():
        name, data = KINDS[kind][0](seed, index)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}-{name}").write_bytes(data)


def _told(tallies: list[Tally], seed: int) -> int:
    print(f"seed {seed}, at most {SECONDS:g} s an input")
    for tally in tallies:
        print(tally)
        for index, fault, detail in tally.faults:
            print(f"  --seed {seed} --only {tally.kind}:{index}  {fault}: {detail}")
    return 1 if any(tally.faults for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
