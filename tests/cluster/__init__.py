"""Batches on a Ray cluster of this machine that lose a worker: `python -m cluster --help`."""
