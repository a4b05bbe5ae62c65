"""A batch that is killed again and again loses nothing; `python -m killing` kills it as often as there is time for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killing.harness import run_killed
from killing.training import train_killed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_batch_killed_at_random_moments_resumes_to_the_clean_result(tmp_path: Path) -> None:
    tally = run_killed(tmp_path, images=40, kills=10, seed=1)
    assert tally.faults == [], str(tally)
    assert tally.kills == 10 and tally.early < 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_harness_sees_what_is_not_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the children are other processes, so the fault is planted where Python looks on its start
    (tmp_path / "plant").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "plant" / "sitecustomize.py").write_text(
        "import contextlib, io, pathlib, time\n"
        "import denoise_se.atomic_file as atomic_file\n"
        "@contextlib.contextmanager\n"
        "def replacing(path):\n"
        "    whole = io.BytesIO()\n"
        "    yield whole\n"
        "    with pathlib.Path(path).open('wb', buffering=0) as stream:\n"
        "        stream.write(whole.getvalue()[:99])\n"
        "        time.sleep(0.05)\n"
        "        stream.write(whole.getvalue()[99:])\n"
        "atomic_file.replacing = replacing\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plant"))
    assert run_killed(tmp_path / "work", images=20, kills=4, seed=1).faults


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_training_killed_at_random_moments_resumes_to_the_very_result_of_an_uninterrupted_one(tmp_path: Path) -> None:
    tally = train_killed(tmp_path, steps=24, kills=3, seed=1)
    assert tally.faults == [], str(tally)
    assert tally.kills == 3
