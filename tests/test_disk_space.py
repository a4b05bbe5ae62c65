"""Too little space is told before any work, and an image whose output has no room fails before its own."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest
import tifffile

from denoise_se import disk_space, formats, image_io
from denoise_se.disk_space import check_room, shortage
from denoise_se.errors import ImageError
from denoise_se.plan import make_plan


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch):
    """Sets the free bytes of every disk and collects the folders that are asked about."""
    asked: list[Path] = []

    def set_free(count: int) -> list[Path]:
        def usage(folder: Path) -> Usage:
            asked.append(Path(folder))
            return Usage(count, 0, count)

        monkeypatch.setattr(shutil, "disk_usage", usage)
        return asked

    return set_free


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def told(*, format: str = "same", replace: bool = False, **options: int) -> str:
    return shortage(make_plan([Path("in")], Path("out/deep"), format=format, replace=replace), **options)


def fits(disk, free: int, **options: object) -> bool:
    disk(free)
    return not told(**options)  # type: ignore[arg-type]


@pytest.fixture
def pictures() -> None:
    Path("in").mkdir()
    for index in range(4):
        PIL.Image.fromarray(noise(100, 100, 3)).save(f"in/{index}.bmp")


def test_uncompressed_outputs_need_all_their_pixels(disk, pictures) -> None:
    assert fits(disk, 120_000) and not fits(disk, 119_999)


def test_the_message_tells_both_numbers_and_the_mend_and_asks_the_disk_of_the_output(
    disk, pictures, tmp_path: Path
) -> None:
    asked = disk(56_789)
    assert re.fullmatch(r"out/deep: .*at least 120\.0 kB.*56\.8 kB free: .*; free some space or .*", told())
    assert asked == [tmp_path] and not Path("out").exists()


def test_an_image_needs_room_for_its_output_beside_the_one_it_replaces(disk, pictures) -> None:
    shutil.copytree("in", "out/deep")
    for job in make_plan([Path("in")], Path("out/deep"), replace=True).jobs:
        disk(30_000)
        check_room(job)
        disk(29_999)
        with pytest.raises(ImageError, match=r"in/\d\.bmp: .*at least 30\.0 kB and 30\.0 kB are free; free some space"):
            check_room(job)


def test_outputs_that_are_replaced_count_only_by_what_they_grow(disk, pictures) -> None:
    shutil.copytree("in", "out/deep")
    assert fits(disk, 0, replace=True)
    Path("out/deep/0.bmp").write_bytes(b"")
    assert fits(disk, 30_000, replace=True) and not fits(disk, 29_000, replace=True)


def test_a_tiff_that_is_stored_plain_is_written_plain_and_a_packed_one_is_not(disk) -> None:
    Path("in").mkdir()
    tifffile.imwrite("in/a.tif", noise(200, 100, 3), photometric="rgb")
    assert not fits(disk, 59_000) and fits(disk, 61_000)
    tifffile.imwrite("in/a.tif", np.zeros((200, 100, 3), np.uint8), photometric="rgb", compression="deflate")
    assert fits(disk, 1_000)


@pytest.mark.parametrize("format", [*formats.WRITERS, "same"])
def test_of_a_run_that_fits_nothing_is_told(disk, format: str) -> None:
    """What is really written, for a picture whose noise is gone, is more than the bound."""
    ramp = np.linspace(30, 220, 300)[None, :, None] + np.linspace(0, 30, 200)[:, None, None]
    clean = np.rint(ramp * np.array([1, 0.9, 0.8])).astype(np.uint8)
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 25, clean.shape), 0, 255).astype(np.uint8)
    Path("in").mkdir()
    for source in ("png", "jpg", "tif", "webp"):
        for path in Path("in").iterdir():
            path.unlink()
        PIL.Image.fromarray(noisy).save(f"in/a.{source}")
        target = formats.output_suffix(f"a.{source}", format)
        image = image_io.read(f"in/a.{source}")
        # half of the noise stays, as that of a picture with detail
        image_io.write(f"b{target}", image.with_pixels((noisy // 2 + clean // 2).astype(np.uint8)))
        assert fits(disk, Path(f"b{target}").stat().st_size, format=format), f"{source} to {format}"


def test_files_that_will_fail_need_no_space(disk) -> None:
    Path("in").mkdir()
    Path("in/a.png").write_bytes(b"no image" * 1000)
    PIL.Image.fromarray(noise(100, 100)).save("in/b.png")
    assert fits(disk, 0, format="bmp", max_pixels=9_999)
    assert not fits(disk, 0, format="bmp", max_pixels=10_000)


def test_with_enough_space_no_header_is_read_and_ten_thousand_files_take_no_time(disk, monkeypatch) -> None:
    Path("in").mkdir()
    for index in range(10_000):
        Path(f"in/{index}.png").write_bytes(b"x")
    plan = make_plan([Path("in")], Path("out"))
    monkeypatch.setattr(disk_space, "probe", None)
    disk(10_000)
    start = time.perf_counter()
    assert shortage(plan) == ""
    assert time.perf_counter() - start < 2
