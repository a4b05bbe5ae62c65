"""A short fuzz run over damaged files, checkpoint headers and a batch; and that the run would see what goes wrong.

`make fuzz` runs as many as there is time for.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz.batches import run_batches
from fuzz.mutation import mutated_file
from fuzz.runner import run
from fuzz.samples import samples
from fuzz.worker import KINDS

from denoise_se import image_io
from denoise_se.errors import ImageError

needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_the_samples_are_sound(tmp_path, sample):
    path = tmp_path / f"a{sample.suffix}"
    path.write_bytes(sample.data)
    if "animated" in sample.name:
        with pytest.raises(ImageError, match="frames"):
            image_io.read(path)
    else:
        with image_io.open_pages(path) as pages:
            assert len(pages) == {"tiff pages": 3, "tiff stack": 3, "tiff deep stack": 5}.get(sample.name, 1)
            assert all(page.image().pixels.size for page in pages)


def test_the_same_seed_gives_the_same_inputs_and_others_differ():
    for make, _ in KINDS.values():
        assert make(3, 5) == make(3, 5)
        assert len({make(seed, index)[1] for seed in (3, 4) for index in range(20)}) > 35
    for sample in samples():
        damaged = [mutated_file(sample, sample, np.random.default_rng(index)) for index in range(20)]
        assert sum(data != sample.data for data in damaged) > 10


@pytest.mark.slow
@needs_proc
def test_damaged_files_and_headers_are_read_or_refused_in_time_and_silence():
    for kind, count in (("files", 400), ("headers", 200)):
        tally = run(kind, 7, range(count))
        assert tally.faults == [], str(tally)
        assert 0 < tally.read < count == tally.inputs
        print(tally)


@pytest.mark.slow
@needs_proc
def test_a_batch_of_damaged_files_writes_whole_outputs_and_tells_of_every_file():
    tally = run_batches(7, 1, 80)
    assert tally.faults == [] and 0 < tally.read < tally.inputs == 80
    print(tally)


PLANTED = """
import os, sys, time
from pathlib import Path
from fuzz import worker
from denoise_se.errors import ImageError

def examine(path, index):
    held = []
    if index == 1:
        os.kill(os.getpid(), 11)
    elif index == 2:
        time.sleep(600)
    elif index == 3:
        raise KeyError("no ImageError")
    elif index == 4:
        os.write(2, b"libpng warning")
    elif index == 5:
        held.append(bytearray(os.urandom(1) * worker.MAX_PEAK_BYTES))
    elif index == 6:
        path.write_bytes(b"changed")
        return worker.examine_file(path, index)
    elif index == 7:
        worker.image_io.write = lambda target, image: (target.write_bytes(b"half of it"), image)[1]
        return worker.examine_file(path, 0)
    elif index == 8:
        def fail(target, image):
            target.with_name(".0123abcd.tmp").touch()
            raise ImageError(target, "disk full")
        worker.image_io.write = fail
        return worker.examine_file(path, 0)
    return True

sound = next(sample for sample in worker.samples() if sample.name == "png rgb")
worker.KINDS["files"] = (lambda seed, index: ("a.png", sound.data), examine)
worker.main("files")
"""


@needs_proc
def test_every_kind_of_fault_is_seen_counted_and_survived(tmp_path):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED)
    tally = run("files", 0, range(10), command=[sys.executable, str(script)], seconds=20)
    seen = {index: fault for index, fault, _ in tally.faults}
    assert seen == {1: "crash", 2: "hang", 3: "crash", 4: "print", 5: "memory", 7: "partial", 8: "partial"}
    assert tally.inputs == 10
    assert "crashes 4, hangs 1, partial outputs 2" in str(tally) and "SIGSEGV" in tally.faults[0][2]
