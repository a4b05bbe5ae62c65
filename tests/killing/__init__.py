"""Batches that are killed at random moments and resumed: `python -m killing --help`."""
