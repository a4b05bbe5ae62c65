"""What `train DIR` takes a folder for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from denoise_se.errors import DatasetError
from denoise_se.file_pairs import match_pairs
from denoise_se.training_layout import Layout, alike, recognise, scene_folders, thumbnail


def picture(seed: int, side: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.uniform(40, 215, (5, 5, 3)), (side, side), interpolation=cv2.INTER_CUBIC)


def save(path: Path, seed: int, noise: float = 0, side: int = 40, shot: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noisy = picture(seed, side) + np.random.default_rng((seed, shot)).normal(0, noise, (side, side, 3))
    cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8))


def found(folder: Path, has_noise: bool = False) -> Layout:
    return recognise(folder, has_noise=has_noise)


@pytest.mark.parametrize(("noisy", "clean"), [("noisy", "clean"), ("Input", "Target"), ("lq", "hq"), ("noisy", "GT")])
def test_folders_of_the_common_names_are_pairs(tmp_path: Path, noisy: str, clean: str) -> None:
    save(tmp_path / noisy / "a.png", 1)
    save(tmp_path / clean / "a.png", 1)
    layout = found(tmp_path)
    assert layout.kind == "pairs" and layout.files is not None
    assert (layout.files.noisy, layout.files.clean) == (tmp_path / noisy, tmp_path / clean)
    assert noisy in layout.why and clean in layout.why and layout.validation is None


def test_parts_for_training_and_validation_are_both_taken(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for side in ("noisy", "clean"):
            save(tmp_path / part / side / "a.png", 1)
    layout = found(tmp_path)
    assert layout.files is not None and layout.files.noisy == tmp_path / "train" / "noisy"
    assert layout.validation is not None and layout.validation.clean == tmp_path / "val" / "clean"


def test_a_part_for_training_is_taken_alone_and_one_for_tests_left_out(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for side in ("noisy", "clean"):
            save(tmp_path / part / side / "a.png", 1)
    layout = found(tmp_path)
    assert layout.kind == "pairs" and layout.files is not None and layout.validation is None
    assert layout.files.noisy == tmp_path / "train" / "noisy" and "test/ left out" in layout.why


def test_words_within_names_tell_noisy_from_clean(tmp_path: Path) -> None:
    """As in SIDD."""
    for scene in ("0001", "0002"):
        for kind in ("GT", "NOISY"):
            save(tmp_path / scene / f"{scene}_{kind}_SRGB_010.png", int(scene))
    layout = found(tmp_path)
    assert layout.kind == "pairs" and layout.files is not None and layout.files.words == ("noisy", "gt")
    matched, problems = match_pairs(tmp_path, tmp_path, layout.files.words)
    assert not problems and [(noisy.name, clean.name) for noisy, clean in matched] == [
        (f"{scene}_NOISY_SRGB_010.png", f"{scene}_GT_SRGB_010.png") for scene in ("0001", "0002")
    ]


def test_of_two_words_in_a_name_the_last_one_counts_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("clean_room_noisy", "clean_room_clean", "a-1_noisy", "a-1_clean", "a_1_noisy", "a_1_clean"):
        save(tmp_path / f"{name}.png", 1)
    layout = found(tmp_path)
    assert layout.kind == "pairs" and layout.files is not None
    matched, problems = match_pairs(tmp_path, tmp_path, layout.files.words)
    assert not problems and len(matched) == 3
    assert all(noisy.stem.replace("noisy", "clean") == clean.stem for noisy, clean in matched)


def test_names_that_are_nothing_but_the_words_are_matched_by_their_folders(tmp_path: Path) -> None:
    for scene in ("0001", "0002"):
        for kind in ("GT", "NOISY"):
            save(tmp_path / scene / f"{kind}.png", int(scene))
    layout = found(tmp_path)
    assert layout.kind == "pairs" and layout.files is not None
    matched, problems = match_pairs(tmp_path, tmp_path, layout.files.words)
    assert not problems and [noisy.parent == clean.parent for noisy, clean in matched] == [True, True]


@pytest.mark.parametrize("name", ["x/clean/a.png", "a_gt.png", "scenes/1/groundtruth/a.png"])
def test_clean_pictures_without_noisy_ones_are_not_learnt_from_as_noisy(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, 1)
    save(tmp_path / "b.png", 2)
    with pytest.raises(DatasetError, match=r"sounds like a clean picture.*--pairs NOISY CLEAN, --burst or --noisy"):
        found(tmp_path)
    assert found(tmp_path, has_noise=True).kind == "clean"


def test_fields_of_one_light_are_no_burst_and_shots_of_a_plain_scene_are(tmp_path: Path) -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    light = 200 * (1 - 0.7 * (x**2 + y**2) / 2)
    for number in range(3):
        rng = np.random.default_rng(number)
        cells = np.zeros((128, 128))
        for top, left in rng.integers(0, 112, (12, 2)):
            cells[top : top + 14, left : left + 14] = 1
        noise = rng.normal(0, 8, (128, 128))
        for kind, image in (("fields", light * (1 - 0.1 * cells) + noise), ("plain", light + noise)):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{number}.png"), image.clip(0, 255).astype(np.uint8))
    shots = [thumbnail(cv2.imread(str(path))) for path in sorted((tmp_path / "fields").iterdir())]
    assert alike(shots[0], shots[1]), "the light alone is that much alike"
    assert found(tmp_path / "fields").kind == "noisy" and found(tmp_path / "plain").kind == "burst"


def test_names_with_two_endings_are_pairs_in_one_folder(tmp_path: Path) -> None:
    for seed, name in enumerate(("a_real", "a_mean", "b_Real", "b_Mean")):
        save(tmp_path / f"{name}.png", seed)
    layout = found(tmp_path)
    assert layout.kind == "pairs" and layout.files is not None and layout.files.words == ("real", "mean")
    save(tmp_path / "another.png", 9)
    assert found(tmp_path).kind == "noisy", "a name without an ending shows that the endings mean something else"


def test_two_readings_are_refused_with_the_option_that_says_which(tmp_path: Path) -> None:
    for name in ("noisy", "clean", "gt"):
        save(tmp_path / name / "a.png", 1)
    with pytest.raises(DatasetError, match=r"noisy, clean, gt.*--pairs"):
        found(tmp_path)


def test_folders_of_several_shots_of_one_scene_are_bursts(tmp_path: Path) -> None:
    for scene in range(3):
        for shot in range(2):
            save(tmp_path / f"s{scene}" / f"{shot}.png", scene, noise=25, shot=shot)
    layout = found(tmp_path)
    assert layout.kind == "burst" and "3 sub-folders" in layout.why


def test_folders_of_different_pictures_of_one_size_are_no_bursts(tmp_path: Path) -> None:
    for album in range(2):
        for name in range(3):
            save(tmp_path / f"album{album}" / f"{name}.png", 10 * album + name)
    assert found(tmp_path).kind == "noisy"
    save(tmp_path / "sizes" / "a.png", 1)
    save(tmp_path / "sizes" / "b.png", 1, side=48)
    assert found(tmp_path / "sizes").kind == "noisy"


def test_pictures_alone_are_noisy_unless_a_noise_is_given(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / "more" / "b.png", 2)
    assert found(tmp_path).kind == "noisy"
    layout = found(tmp_path, has_noise=True)
    assert layout.kind == "clean" and layout.files is not None and layout.files.noisy is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no image"):
        found(tmp_path / "empty")


def test_thumbnails_tell_scenes_apart_under_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 40, (2, 96, 96, 3))
    one, same, other = (thumbnail(p) for p in (picture(1, 96), picture(1, 96) + noise[0], picture(2, 96)))
    assert alike(one, same) and not alike(one, other)
    assert alike(one, thumbnail(np.full((96, 96, 3), 7.0))), "nothing can be said of a plain image"


def test_each_folder_of_images_is_a_scene(tmp_path: Path) -> None:
    for name in ("x/1.png", "x/2.png", "y/z/1.png"):
        save(tmp_path / name, 1)
    assert [[path.parent.name for path in scene] for scene in scene_folders(tmp_path)] == [["x", "x"], ["z"]]
