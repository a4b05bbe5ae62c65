"""The images of a folder that is only read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from denoise_se.errors import DatasetError
from denoise_se.image_folder import image_files


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_files(folder)]


def write(home: Path, *names: str) -> None:
    for name in names:
        (home / name).parent.mkdir(exist_ok=True, parents=True)
        (home / name).write_bytes(b"")


def test_images_are_found_below_a_folder_without_hidden_ones(tmp_path: Path) -> None:
    write(tmp_path, "b.png", "x/a.PNG", "x/._a.png", ".cache/c.png", "notes.txt")
    assert found(tmp_path) == ["b.png", "x/a.PNG"]
    with pytest.raises(DatasetError, match="no such folder"):
        image_files(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: holds no image \(.*\.png"):
        image_files(tmp_path / "empty")


def test_linked_folders_are_followed_and_each_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/deep/a.png", "elsewhere/b.png", "in/c.png")
    (tmp_path / "in/linked").symlink_to("../elsewhere")
    (tmp_path / "in/more").symlink_to("../elsewhere")
    (tmp_path / "in/round").symlink_to("..")
    (tmp_path / "in/.hidden").symlink_to("../elsewhere")
    (tmp_path / "in/gone").symlink_to("nowhere")
    assert found(tmp_path / "in") == ["c.png", "linked/b.png", "linked/deep/a.png"]
    (tmp_path / "alias").symlink_to("in")
    assert found(tmp_path / "alias") == found(tmp_path / "in")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(DatasetError, match="closed: cannot be read"):
        image_files(tmp_path)
