"""The cache of the web app: what is deleted when, and when it is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from web_server import serving, wait_until

from denoise_se.app.web_cache import MARK, Cache
from denoise_se.errors import UsageError

pytest.importorskip("gradio", reason="the web extra is not installed")


def test_old_uploads_and_those_that_were_broken_off_are_deleted_and_young_ones_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 60, 10**9)
    old, broken, young = (cache.files / name for name in ("old/a.png", "tmp12", "young/a.png"))
    for path in (old, broken, young):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    later = time.time() + 61
    os.utime(young, (later, later))
    cache.clean(later)
    assert not old.parent.exists() and not broken.exists() and young.exists()


def test_the_photos_that_a_killed_server_left_are_deleted_by_the_next_and_those_of_a_running_one_kept(
    tmp_path: Path,
) -> None:
    script = "import sys, time; from pathlib import Path; from denoise_se.app.web_cache import Cache\n"
    script += "cache = Cache(Path(sys.argv[1]), 60, 1); print(cache.root, flush=True); time.sleep(600)"
    servers = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    killed, running = (Path(str(server.stdout.readline()).strip()) for server in servers if server.stdout)
    for root in (killed, running):
        (root / "files" / "photo.png").write_bytes(b"photo")
    (tmp_path / "denoise-se-web-mine").mkdir()  # a person's own folder
    (tmp_path / "denoise-se-web-link").symlink_to(running)
    elsewhere = tmp_path / "denoise-se-web-elsewhere"  # on a folder that machines share: locks do not tell of theirs
    elsewhere.mkdir()
    (elsewhere / MARK).write_text("another-machine")
    os.utime(elsewhere / MARK, (0, 0))
    try:
        servers[0].kill()
        servers[0].wait()
        Cache(tmp_path, 60, 1).close()
        assert killed.is_dir()  # so young that it may be about to be locked
        for root in (killed, running):
            os.utime(root / MARK, (0, 0))
        Cache(tmp_path, 60, 1).close()
        assert sorted(tmp_path.iterdir()) == sorted(
            [running, elsewhere, tmp_path / "denoise-se-web-link", tmp_path / "denoise-se-web-mine"]
        )
        assert (running / "files" / "photo.png").read_bytes() == b"photo"
    finally:
        servers[1].kill()
        servers[1].wait()


def test_the_size_is_told_while_another_thread_deletes_folders(tmp_path: Path) -> None:
    cache, ended = Cache(tmp_path, 60, 10**9), threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(20):
                (cache.files / f"{number}/deeper").mkdir(parents=True)
            for number in range(20):
                shutil.rmtree(cache.files / str(number))

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        limit = time.monotonic() + 2
        while time.monotonic() < limit:
            assert cache.size() == 0
    finally:
        ended.set()
        other.join()


def test_the_cache_is_full_by_the_size_of_all_its_files_and_not_before(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 60, 0)
    cache.max_bytes = 1000
    (cache.folder() / "result.png").write_bytes(bytes(1000))
    assert not cache.full
    (cache.files / "upload.png").write_bytes(bytes(1))
    assert cache.full
    with pytest.raises(UsageError, match="space for uploads and results is used up"):
        cache.folder()
    cache.max_bytes = 1001
    (cache.files / "another name.png").hardlink_to(cache.files / "upload.png")
    assert not cache.full
    assert cache.without_folders(f"{cache.files}/x1/photos/a b.png: 16 bits") == "a b.png: 16 bits"


@pytest.mark.slow
def test_a_full_cache_refuses_uploads_with_a_reason_until_it_is_emptied(tmp_path: Path, tiny: Path) -> None:
    large_file = tmp_path / "two.tif"
    large_file.write_bytes(bytes(2_000_000))

    def upload() -> tuple[int, str]:
        import httpx

        with large_file.open("rb") as file:
            answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("two.tif", file)})
        return answer.status_code, answer.text

    with serving(tmp_path, "--model", str(tiny), "--cache-size", "1", "--keep", "0.1") as server:
        assert upload()[0] == 200
        status, text = upload()
        assert status == 507 and "used up; try again in a few minutes" in text
        assert server.health()["status"] == "ok"
        wait_until(lambda: upload()[0] == 200, 30, "the cache is not emptied")
