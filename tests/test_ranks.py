"""Several processes train as one: the same weights, one writer, and none that is left behind."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fuzz.runner import environment
from killing.training import RECIPE, make_pictures, training

from denoise_se.datasets import Turns
from denoise_se.errors import UsageError
from denoise_se.place import ProcessPlace, this_place
from denoise_se.ranks import Ranks
from denoise_se.training import DenoisingTask

slow = [pytest.mark.slow, pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on the CPU")]
STEPS = 12


# --- where a process stands ------------------------------------------------------------------------------------------


def test_a_process_alone_has_no_place() -> None:
    assert this_place({}) is None
    assert this_place({"RANK": "3", "WORLD_SIZE": "4"}) is None, "not torchrun's"
    assert this_place({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None, "an interactive shell"


def test_torchrun_tells_a_process_its_place() -> None:
    told = {"LOCAL_RANK": "1", "GROUP_RANK": "2", "RANK": "5", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
    assert this_place(told) == ProcessPlace(local=1, node=2, rank=5, devices=2, world_size=6)


def test_srun_tells_a_process_its_place() -> None:
    told = {
        "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "3", "SLURM_NODEID": "1",
        "SLURM_PROCID": "7",
    }  # fmt: skip
    assert this_place(told) == ProcessPlace(local=3, node=1, rank=7, devices=4, world_size=8)


def test_under_srun_the_first_machine_of_the_list_is_where_all_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    place = ProcessPlace(0, 0, 0, 4, 8)
    for listed, first in (("gpu[03-07,9],x4", "gpu03"), ("one", "one"), ("a1,b2", "a1"), ("n[12]", "n12")):
        monkeypatch.setenv("SLURM_STEP_NODELIST", listed)
        monkeypatch.setenv("SLURM_JOB_ID", "1234567")
        assert Ranks(4, 2)._meeting_point(place) == {"MASTER_ADDR": first, "MASTER_PORT": str(15000 + 4567)}


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ProcessPlace(local=0, node=0, rank=0, devices=2, world_size=4).environment().items():
        monkeypatch.setenv(name, value)


def test_the_number_of_processes_is_torchruns_unless_it_is_given(torchrun: None) -> None:
    ranks = Ranks.from_environment(None, None, "auto")
    assert (ranks.devices, ranks.nodes, ranks.world_size) == (2, 2, 4)
    with pytest.raises(UsageError, match=r"make 3 process\(es\), but 4 were started"):
        Ranks.from_environment(3, 1, "auto")


def test_several_machines_need_to_know_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    with pytest.raises(UsageError, match="needs MASTER_PORT, NODE_RANK in"), Ranks(1, 2, command=["x"]).running():
        pass
    assert "LOCAL_RANK" not in os.environ


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_the_nearest_ones() -> None:
    Ranks(2).check_batch(6)
    with pytest.raises(UsageError, match=r"--batch 7 .* take 6 or 8"):
        Ranks(2).check_batch(7)
    with pytest.raises(UsageError, match=r"--batch 1 .* take 2"):
        Ranks(2).check_batch(1)


def test_the_shares_of_all_ranks_make_the_batch() -> None:
    batch, other = torch.arange(12).reshape(6, 2), torch.arange(6)
    trainers = [SimpleNamespace(trainer=SimpleNamespace(world_size=3), global_rank=rank) for rank in range(3)]
    shares = [list(DenoisingTask.share(task, batch, other)) for task in trainers]  # type: ignore[arg-type]
    for index, whole in enumerate((batch, other)):
        assert torch.equal(torch.cat([share[index] for share in shares]), whole)
        assert all(len(share[index]) == 2 for share in shares)


@pytest.mark.parametrize(("images", "ranks"), [(5, 2), (1, 3), (6, 3), (7, 1)])
def test_validation_images_are_each_looked_at_and_no_rank_waits_for_another(images: int, ranks: int) -> None:
    turns = [list(Turns(images, rank, ranks)) for rank in range(ranks)]
    assert {index for share in turns for index in share} == set(range(images))
    assert len({len(share) for share in turns}) == 1 and len(turns[0]) == -(-images // ranks)


# --- two processes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which three are for validation, an odd number, and the recipe."""
    work = tmp_path_factory.mktemp("ranks")
    make_pictures(work / "clean", 30)
    (work / "recipe.yaml").write_text(json.dumps(RECIPE | {"batch": 4, "validations": 2}))
    return work


@pytest.fixture
def started(work: Path) -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(
    work: Path, out: str, *options: str, launcher: tuple[str, ...] = (), steps: int = STEPS, code: str = ""
) -> subprocess.Popen[str]:
    """`denoise-se train`; `code` is run before it, in each of its processes."""
    env = environment()
    if code:
        plant = work / f"plant-{out}"
        plant.mkdir(exist_ok=True)
        (plant / "sitecustomize.py").write_text(code)
        env["PYTHONPATH"] = os.pathsep.join([str(plant), env["PYTHONPATH"]])
    command = [*(launcher or (sys.executable, "-m", "denoise_se.app")), *training(out, steps, *options)]
    return subprocess.Popen(command, cwd=work, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


@pytest.fixture(scope="module")
def alone(work: Path) -> Path:
    """What one process makes."""
    code, output = end(start(work, "alone"))
    assert code == 0, output
    return work / "alone"


def assert_like(folder: Path, alone: Path) -> None:
    """The same to the rounding of sums that are taken in another order: 1e-6 of weights, 1e-4 dB."""
    states = [torch.load(f / "last.ckpt", weights_only=True) for f in (folder, alone)]
    assert [state["global_step"] for state in states] == [STEPS, STEPS]
    for key, weight in states[1]["state_dict"].items():
        torch.testing.assert_close(states[0]["state_dict"][key], weight, rtol=1e-4, atol=1e-6, msg=key)
    tables = []
    for f in (folder, alone):
        with (f / "metrics.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert [row["step"] for row in tables[0]] == [row["step"] for row in tables[1]] == ["0", "6", "12"]
    for ours, theirs in zip(*tables, strict=True):
        for key in ("loss", "learning_rate", "val_psnr", "val_ssim"):
            assert float(ours[key]) == pytest.approx(float(theirs[key]), abs=2e-4, nan_ok=True), key
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}


def descendants(process: int) -> list[int]:
    """The processes that `process` started, and those that they did."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def until(condition: object, seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.05)


class TestTwoProcesses:
    pytestmark = slow

    def test_make_the_weights_and_figures_of_one(self, work: Path, alone: Path, started: list) -> None:
        started.append(start(work, "two", "--devices", "2"))
        code, output = end(started[0])
        assert code == 0, output
        assert_like(work / "two", alone)
        assert output.count("wrote two/best.safetensors") == output.count("reading the images") == 1
        assert "2 processes" in (work / "two" / "card.md").read_text()

    def test_started_by_torchrun_do_too(self, work: Path, alone: Path, started: list) -> None:
        torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        started.append(start(work, "elastic", launcher=(*torchrun, "-m", "denoise_se.app")))
        code, output = end(started[0])
        assert code == 0, output
        assert_like(work / "elastic", alone)
        assert output.count("wrote elastic/best.safetensors") == 1

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
    def test_stop_together_on_a_signal_to_the_first_and_resume(self, work: Path, alone: Path, started: list) -> None:
        # each process waits in its fifth step, in the middle between two validations, until the signal is sent
        waits = "import os, time, torch\nreal, steps = torch.nn.utils.clip_grad_norm_, []\n"
        waits += "def clip(*a):\n    steps.append(0)\n"
        waits += "    while len(steps) == 5 and not os.path.exists('signalled'):\n"
        waits += "        open('fifth', 'w').close()\n        time.sleep(0.05)\n"
        waits += "    return real(*a)\ntorch.nn.utils.clip_grad_norm_ = clip\n"
        started.append(start(work, "stopped", "--devices", "2", code=waits))
        until((work / "fifth").exists)
        family = descendants(started[0].pid)
        assert family
        started[0].send_signal(signal.SIGTERM)
        (work / "signalled").touch()
        code, output = end(started[0])
        assert code == 143 and output.count("stopped by SIGTERM") == 1 and "Traceback" not in output, output
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
        assert 4 <= torch.load(work / "stopped" / "last.ckpt", weights_only=True)["global_step"] <= 6
        started.append(start(work, "stopped", "--devices", "2", "--resume"))
        code, output = end(started[1])
        assert code == 0, output
        assert_like(work / "stopped", alone)

    @pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
    @pytest.mark.parametrize("victim", ["first", "other"])
    def test_end_when_one_of_them_is_killed(self, work: Path, started: list, victim: str) -> None:
        started.append(start(work, f"killed-{victim}", "--devices", "2", steps=100_000))
        until(lambda: (work / f"killed-{victim}" / "last.ckpt").exists())
        family = descendants(started[0].pid)
        os.kill(started[0].pid if victim == "first" else family[0], signal.SIGKILL)
        until(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], 60)
        code, output = end(started[0])
        if victim == "other":
            assert code == 1 and "--resume" in output and "Traceback" not in output, output

    def test_agree_on_the_time_that_a_run_of_minutes_takes(self, work: Path, started: list) -> None:
        # the second process's clock runs ahead; alone it would stop, and validate, while the first waits for it
        fast = "import os, time\nreal = time.monotonic\n"
        fast += "if os.environ.get('LOCAL_RANK') == '1':\n    time.monotonic = lambda: 3 * real()\n"
        options = ("--devices", "2", "--minutes", "0.05")
        started.append(start(work, "timed", *options, steps=0, code=fast))
        code, output = end(started[0])
        assert code == 0, output
        with (work / "timed" / "metrics.csv").open(newline="") as file:
            assert 3 <= float(list(csv.DictReader(file))[-1]["seconds"]) < 100
