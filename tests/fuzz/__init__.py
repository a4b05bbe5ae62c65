"""A seeded fuzz run over image files, checkpoint headers and whole batches: `python -m fuzz --help`."""
