"""The cache of networks: what is kept is used, what is damaged or cannot be written is said and done without."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny

from denoise_se import graph_cache
from denoise_se.denoiser import Denoiser
from denoise_se.graph_cache import ENVIRONMENT, SUFFIX, Entry, cache_folder, cached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "kept"))
    return tmp_path / "kept"


class Engine:
    """Counts what it makes and takes over."""

    def __init__(self, data=b"\nbytes\n\0", refuses=False):
        self.data, self.refuses, self.made, self.taken = data, refuses, 0, []

    def make(self):
        self.made += 1
        return Entry({"halo": 7}, self.data)

    def accept(self, entry):
        self.taken.append(entry)
        return not self.refuses

    def get(self, **parts):
        return cached(parts, self.make, self.accept)


def test_what_was_made_once_is_used_again_for_the_same_parts_only(folder, caplog):
    first, second = Engine(), Engine()
    assert first.get(weights="a", version=1) == Entry({"halo": 7}, b"\nbytes\n\0")
    assert second.get(version=1, weights="a") == Entry({"halo": 7}, b"\nbytes\n\0")
    assert (first.made, first.taken, second.made, len(second.taken)) == (1, [], 0, 1)
    for parts in ({"weights": "b", "version": 1}, {"weights": "a", "version": 2}):
        second.get(**parts)
    assert second.made == 2 and not caplog.text


@pytest.mark.parametrize("damage", ["cut", "flipped", "facts", "empty", "text", "deep"])
def test_a_damaged_entry_is_said_and_made_again(folder, caplog, damage):
    Engine().get(weights="a")
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-1],
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "facts": content.replace(b'"halo": 7', b'"halo": 8'),
            "empty": b"",
            "text": b"hello\n",
            "deep": b"[" * 100_000 + b"\n",
        }[damage]
    )
    engine = Engine()
    assert engine.get(weights="a").data == b"\nbytes\n\0" and engine.made == 1 and engine.taken == []
    assert str(path) in caplog.text and "damaged" in caplog.text
    assert path.read_bytes() == content, "the damaged one was replaced"


def test_an_entry_that_the_engine_refuses_is_made_again(folder, caplog):
    Engine(b"old").get(weights="a")
    engine = Engine(b"new", refuses=True)
    assert engine.get(weights="a").data == b"new" and "cannot be used here" in caplog.text
    assert Engine().get(weights="a").data == b"new"


@pytest.mark.parametrize("kind", ["a file", "below a file"])
def test_a_folder_that_cannot_be_written_is_said_and_done_without(tmp_path, monkeypatch, caplog, kind):
    (tmp_path / "file").write_bytes(b"")
    blocked = tmp_path / "file" / ("sub" if kind == "below a file" else "")
    monkeypatch.setenv(ENVIRONMENT, str(blocked))
    assert Engine().get(weights="a").data and "cannot be written" in caplog.text and ENVIRONMENT in caplog.text
    assert (tmp_path / "file").read_bytes() == b""


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch, caplog):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert Engine().get(weights="a").data and "No space left" in caplog.text
    assert list(folder.iterdir()) == []


def test_the_oldest_go_when_there_are_too_many(folder, monkeypatch):
    monkeypatch.setattr(graph_cache, "MOST_ENTRIES", 2)
    for number in range(4):
        Engine(bytes([number])).get(weights=number)
        for path in folder.glob(f"*{SUFFIX}"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert {path.read_bytes()[-1] for path in folder.iterdir()} == {2, 3}


def test_the_folder_is_the_users_and_can_be_set_or_switched_off(monkeypatch, tmp_path):
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/denoise-se")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "denoise-se"
    monkeypatch.setenv(ENVIRONMENT, "")
    assert cache_folder() is None and Engine().get(weights="a").data


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_kept_network_gives_the_same_and_one_that_is_no_network_is_made_again(tmp_path, folder, caplog, backend):
    pytest.importorskip(backend)
    path = save_tiny(tmp_path / "a.safetensors")
    noisy = np.random.default_rng(0).random((21, 34, 3), np.float32)

    def result():
        return Denoiser.load(path, device="cpu", backend=backend)(noisy, 20.0)

    first = result()
    assert np.array_equal(result(), first) and len(list(folder.iterdir())) == 1
    (kept,) = folder.iterdir()
    entry = graph_cache._read(kept)
    graph_cache._write(kept, Entry(entry.facts, b"not a network"))
    assert np.array_equal(result(), first) and "cannot be used here" in caplog.text
    save_tiny(path, seed=1)
    assert not np.array_equal(result(), first) and len(list(folder.iterdir())) == 2
