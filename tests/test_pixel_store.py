"""Images that do not fit into memory are learnt from off the disk, to the same weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise_se import pixel_store
from denoise_se.atomic_file import remove_temporary_files
from denoise_se.errors import DatasetError
from denoise_se.file_pairs import PairedFiles
from denoise_se.loaded import Reading
from denoise_se.pixel_store import PixelStore
from denoise_se.training_images import load_pairs

DTYPES = {torch.uint8: 255, torch.uint16: 65535}


def made(seed: int, shape: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(0, DTYPES[dtype], shape, endpoint=True)
    return torch.from_numpy(values.astype(np.uint8 if dtype == torch.uint8 else np.uint16))


@pytest.fixture
def room(monkeypatch):
    """Says how many bytes of memory are free, besides those for the rest."""

    def free(count: int | None) -> None:
        monkeypatch.setattr(pixel_store, "BESIDES", 0)
        monkeypatch.setattr(pixel_store, "free_memory", lambda: count)

    return free


def test_half_of_the_free_memory_is_filled_and_the_rest_is_on_the_disk_without_a_name(tmp_path, room):
    room(8000)
    told = []
    store = PixelStore(tmp_path / "run", tell=lambda store: told.append((store.count, store.kept, store.mapped)))
    images = [made(seed, (3, 20, 25), torch.uint8) for seed in range(4)]
    kept = [store.keep(image.clone()) for image in images]
    assert all(torch.equal(one, other) for one, other in zip(images, kept, strict=True))
    assert told == [(1, 1500, 0), (2, 3000, 0), (3, 3000, 1500), (4, 3000, 3000)]
    assert str(store) == "4 images, 0.0 GB, 0.0 GB of them on the disk"
    assert list((tmp_path / "run").iterdir()) == []


@given(
    shapes=st.lists(
        st.tuples(st.sampled_from([1, 3]), st.integers(1, 90), st.integers(1, 90), st.sampled_from(list(DTYPES))),
        min_size=1,
        max_size=8,
    )
)
def test_what_comes_from_the_disk_is_what_was_given_whether_files_are_shared_or_too_small(shapes):
    images = [made(seed, shape, dtype) for seed, (*shape, dtype) in enumerate(shapes)]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pixel_store, "free_memory", lambda: 0)
        patch.setattr(pixel_store, "SEGMENT", 10_000)
        store = PixelStore(Path(folder))
        kept = [store.keep(image.clone()) for image in images]
        assert not list(Path(folder).iterdir())
    for image, found in zip(images, kept, strict=True):
        assert found.dtype == image.dtype and torch.equal(found, image)
    assert store.kept == 0 and store.mapped == sum(image.nbytes for image in images)


def test_another_process_of_the_run_leaves_the_files_alone(tmp_path, room, monkeypatch):
    room(0)
    mapped = torch.from_file

    def clean_up_and_map(name: str, **options: object) -> torch.Tensor:
        remove_temporary_files(tmp_path)
        return mapped(name, **options)

    monkeypatch.setattr(torch, "from_file", clean_up_and_map)
    image = made(0, (3, 20, 25), torch.uint8)
    assert torch.equal(PixelStore(tmp_path).keep(image), image)


def test_without_word_from_the_system_all_is_kept_in_memory(tmp_path, room):
    room(None)
    store = PixelStore(tmp_path / "run")
    image = made(0, (3, 20, 25), torch.uint8)
    assert store.keep(image) is image and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("free", "budget"), [(10e9, 5e9), (3e9, 1e9), (1e9, 0)])
def test_where_memory_is_short_room_is_left_for_the_rest(tmp_path, monkeypatch, free, budget):
    monkeypatch.setattr(pixel_store, "free_memory", lambda: free)
    assert PixelStore(tmp_path).budget == budget


def test_processes_share_the_memory(tmp_path, room):
    room(8000)
    assert PixelStore(tmp_path, processes=4).budget == 1000


def test_a_full_disk_is_told_with_the_mend(tmp_path, room, monkeypatch):
    room(0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000_000))
    with pytest.raises(DatasetError, match=r"the disk is full\); make room, choose another -o, or give fewer images"):
        PixelStore(tmp_path).keep(made(0, (1, 8, 8), torch.uint8))
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_mixed_depth_are_all_kept_there(tmp_path, room):
    room(0)
    rng = np.random.default_rng(0)
    for side in ("n", "c"):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "a.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))
        cv2.imwrite(str(tmp_path / side / "b.png"), rng.integers(0, 65536, (32, 32, 3), np.uint16))
    files = PairedFiles(tmp_path / "n", tmp_path / "c")
    store = PixelStore(tmp_path / "run")
    for one, other in zip(load_pairs(files, 3, 16), load_pairs(files, 3, 16, reading=Reading(store.keep)), strict=True):
        assert one.name == other.name
        assert torch.equal(one.noisy, other.noisy) and torch.equal(one.clean, other.clean)
    assert store.mapped == 32 * 32 * 3 * 2 * (1 + 2 + 2)  # those of 8 bits, of 16, and the former made deep


SCRIPT = """
import sys
from denoise_se import pixel_store
if sys.argv[1] == "disk":
    pixel_store.free_memory = lambda: 0
sys.argv[1:2] = []
from denoise_se.app.cli import app
app()
"""


def test_a_run_off_the_disk_gives_the_very_weights_of_one_in_memory(tmp_path):
    (tmp_path / "clean").mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(tmp_path / "clean" / f"{index}.png"), rng.integers(0, 256, (64, 72, 3), np.uint8))
    (tmp_path / "tiny.yaml").write_text("network: {layout: flat, channels: 3, widths: [4], blocks: 1}\n")
    said = {}
    for where in ("memory", "disk"):
        command = [sys.executable, "-c", SCRIPT, where, "train", "-o", str(tmp_path / where), "--init", "none"]
        command += [
            "--clean",
            str(tmp_path / "clean"),
            "--noise",
            "gaussian:10",
            "--config",
            str(tmp_path / "tiny.yaml"),
        ]
        command += ["--steps", "3", "--batch", "2", "--patch", "32", "--workers", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said[where] = done.stderr
    assert f"4 images, 0.0 GB, 0.0 GB of them on the disk: the disk of {tmp_path / 'disk'}" in said["disk"]
    assert "disk" not in said["memory"].replace(str(tmp_path), "")
    weights = [pixels(tmp_path / where / "best.safetensors") for where in said]
    assert weights[0] == weights[1]
    assert not list(Path(tmp_path / "disk").glob(".*"))


def pixels(path: Path) -> dict[str, list[float]]:
    from safetensors.torch import load_file

    return {name: tensor.float().flatten().tolist() for name, tensor in load_file(path).items()}
