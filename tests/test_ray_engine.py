"""Batches on a Ray cluster: the same outputs, rows and exit codes as on this machine alone, also when workers die."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from cluster.harness import run_losing_a_worker, start
from killing.harness import digests, make_images
from tiny_model import save_tiny

from denoise_se import manifest, ray_cluster
from denoise_se.atomic_file import remove_temporary_files
from denoise_se.errors import UsageError
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.manifest import Entry, settings_digest
from denoise_se.plan import make_plan
from denoise_se.ray_engine import output_marker
from denoise_se.ray_worker import Clerk, Done, ModelFiles, Models, Order, Task, Worker

KINDS = ("safetensors", "int8.json")
OPTIONS = {"device": "cpu", "backend": "auto", "precision": "auto", "tile": "auto"}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a small model, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "tiny.safetensors")
    return tmp_path


# --- without a cluster -----------------------------------------------------------------------------------------------


class Alone(Worker):
    """A worker that keeps its entries itself."""

    def _keep(self, entry: Entry) -> None:
        Clerk(Path("out").absolute()).append(entry)


def alone(
    work: Path, *, version: str | None = None, marker: Path | None = None, files: Mapping[str, bytes] | None = None
) -> tuple[Alone, str]:
    """A worker, with the files of its model, and why it refuses."""
    from importlib.metadata import version as installed

    digest = settings_digest({})
    version = version or installed("denoise-se")
    order = Order(Settings(sigma=25.0), digest, Inspector(), version, Path("out"), work, marker)
    files = files or {".safetensors": (work / "tiny.safetensors").read_bytes()}
    models = Models({"tiny": files}, {1: "tiny", 3: "tiny"}, OPTIONS)
    worker = Alone()
    return worker, worker.refusal(order, models, None)


def test_a_worker_tells_of_each_image_and_its_entries_come_into_the_manifest(work: Path) -> None:
    make_images(work / "in", 5)
    plan = make_plan([Path("in")], Path("out"))
    plan.home.mkdir()
    worker, refusal = alone(work)
    assert refusal == ""
    events = list(worker.work([Task(10 + i, job, None) for i, job in enumerate(plan.jobs)]))
    done = [event for event in events if isinstance(event, Done)]
    assert [event.number for event in done] == [10, 11, 12, 13, 14]
    assert {(event.row.status, event.row.model) for event in done} == {("done", "tiny")}
    assert sorted(manifest.Manifest(Path("out"), {}).entries) == [job.relative.as_posix() for job in plan.jobs]


def test_a_worker_has_what_large_and_deep_images_need_of_the_model(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # networks with given gates, and with float parts of other precision, are made when the first image needs them
    monkeypatch.setenv("DENOISE_SE_CACHE", "")
    shipped = [Path(str(resources.files("denoise_se.checkpoints") / f"gray-fast.{kind}")) for kind in KINDS]
    worker, _ = alone(work, files={f".{kind}": file.read_bytes() for kind, file in zip(KINDS, shipped, strict=True)})
    (work / "in").mkdir()
    for name, shape, dtype in (("large", (1100, 1000), np.uint8), ("deep", (40, 50), np.uint16)):
        pixels = np.random.default_rng(0).normal(0.5, 0.1, shape).clip(0, 1) * np.iinfo(dtype).max
        cv2.imwrite(f"in/{name}.png", pixels.astype(dtype))
    plan = make_plan([Path("in")], Path("out"))
    plan.home.mkdir()
    events = list(worker.work([Task(i, job, None) for i, job in enumerate(plan.jobs)]))
    assert [(e.row.status, e.row.error) for e in events if isinstance(e, Done)] == [("done", "")] * 2


def test_the_files_of_models_go_with_their_worker_and_those_of_killed_ones_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, alive = ModelFiles(), ModelFiles()
    (killed.folder / "weights").write_bytes(b"weights")
    killed.stream.close()  # as the system does when a process ends
    next_one = ModelFiles()
    assert not killed.folder.exists() and alive.folder.is_dir() and next_one.folder.is_dir()
    alive.close()
    next_one.close()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_told_to_stop_ends_after_the_image_at_work(work: Path) -> None:
    make_images(work / "in", 5)
    plan = make_plan([Path("in")], Path("out"))
    plan.home.mkdir()
    worker, _ = alone(work)
    worker.stop()
    events = list(worker.work([Task(i, job, None) for i, job in enumerate(plan.jobs)]))
    assert sum(isinstance(event, Done) for event in events) == 1


def test_a_machine_of_another_version_or_without_the_output_folder_is_refused(work: Path) -> None:
    assert "install the same version" in alone(work, version="0.0.1")[1]
    refusal = alone(work, marker=work / "out" / ".00000000.tmp")[1]
    assert "does not see the output folder" in refusal and "s3://" in refusal


def test_another_run_into_the_folder_leaves_the_file_by_which_workers_know_it(tmp_path: Path) -> None:
    with output_marker(tmp_path) as marker:
        assert marker is not None
        remove_temporary_files(tmp_path)
        assert marker.exists()
    assert not marker.exists()


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "denoise-se\[ray\]"'):
        ray_cluster.check_installed()


@pytest.mark.parametrize(
    ("resources", "workers", "device", "expected"),
    [
        ({"CPU": 8.0, "memory": 64 << 30}, None, "auto", (8, False)),
        ({"CPU": 8.0, "memory": 9 << 30}, None, "auto", (4, False)),
        ({"CPU": 8.0, "memory": 1 << 30}, None, "auto", (1, False)),
        ({"CPU": 8.0, "memory": 64 << 30}, 3, "auto", (3, False)),
        ({"CPU": 8.0, "GPU": 2.0, "memory": 64 << 30}, None, "auto", (2, True)),
        ({"CPU": 8.0, "GPU": 2.0, "memory": 64 << 30}, 4, "cuda", (2, True)),
        ({"CPU": 8.0, "GPU": 2.0, "memory": 64 << 30}, None, "cpu", (8, False)),
    ],
)
def test_workers_are_as_many_as_the_cluster_has_gpus_or_cores_with_memory(
    resources: dict[str, float], workers: int | None, device: str, expected: tuple[int, bool]
) -> None:
    assert ray_cluster.chosen(resources, workers, device) == ray_cluster.Cluster(*expected)


def test_a_cluster_that_is_started_has_the_cores_that_were_granted_and_not_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **options: asked.append(options["num_cpus"])))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setattr(ray_cluster, "granted_cores", lambda: 3)
    ray_cluster._start(None, {})
    ray_cluster._start(7, {})
    assert asked == [3, 7]


def test_a_gpu_that_the_cluster_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="no GPU"):
        ray_cluster.chosen({"CPU": 8.0}, None, "cuda")


# --- on a cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ray() -> None:
    pytest.importorskip("ray", reason='Ray is not installed (pip install "denoise-se[ray]")')


@pytest.mark.slow
def test_a_batch_that_loses_a_worker_is_done_once_and_like_the_local_one(ray: None, tmp_path: Path) -> None:
    tally = run_losing_a_worker(tmp_path, images=60, workers=2)
    assert tally.faults == [], str(tally)
    assert tally.killed_after is not None and 20 <= tally.killed_after < 60


@pytest.mark.slow
def test_a_batch_goes_on_with_the_other_engine_and_a_stop_is_as_with_the_local_one(ray: None, work: Path) -> None:
    make_images(work / "all", 40)
    shutil.copytree("all", "in")
    with start(work, "local", out="whole") as run:
        assert run.end() == 0
    for first, second in (("local", "ray"), ("ray", "local")):
        out = f"{first}-{second}"
        shutil.rmtree("in")
        (work / "in").mkdir()
        for path in sorted((work / "all").iterdir())[:20]:
            shutil.copy2(path, "in")
        with start(work, first, out=out) as run:
            if first == "ray":
                next(run.lines())
                run.process.send_signal(signal.SIGTERM)
                code = run.end()
                # all may have been done before the signal came
                assert (code, len(run.rows)) == (0, 20) or (code == 143 and len(run.rows) < 20), run.errors()
            else:
                assert run.end() == 0
        done = len(run.rows)
        for path in sorted((work / "all").iterdir())[20:]:
            shutil.copy2(path, "in")
        (work / "in" / "999.png").write_bytes(b"no image")
        with start(work, second, "--resume", out=out) as run:
            assert run.end() == 1, run.errors()
        statuses = [row["status"] for row in run.rows]
        assert (statuses.count("skipped"), statuses.count("failed"), len(statuses)) == (done, 1, 41)
        assert "in/999.png: failed: is text and not an image" in run.errors()
        assert digests(work / out) == digests(work / "whole")


@pytest.mark.slow
def test_a_cluster_that_was_started_goes_with_its_command_even_when_that_is_killed(ray: None, work: Path) -> None:
    make_images(work / "in", 4)
    with start(work, "ray", "--workers", "1") as run:
        next(run.lines())
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        end = time.monotonic() + 120
        while run.processes() and time.monotonic() < end:
            time.sleep(0.5)
        assert run.processes() == []
