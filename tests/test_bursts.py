"""Bursts: targets that leave the input out, scenes that stay on one side, and what is wrong with a set."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from denoise_se.bursts import Scene, load_bursts, refuse_shared_scenes, split_scenes
from denoise_se.errors import DatasetError


def picture(seed: int, side: int = 48) -> np.ndarray:
    small = np.random.default_rng(seed).uniform(60, 195, (6, 6, 3))
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def noisy(seed: int, shot: int, sigma: float = 12) -> np.ndarray:
    return picture(seed) + np.random.default_rng((seed, shot)).normal(0, sigma, (48, 48, 3))


def scene(name: str, *values: int, dtype: torch.dtype = torch.uint8) -> Scene:
    return Scene(name, torch.stack([torch.full((1, 4, 4), value) for value in values]).to(dtype))


def test_the_target_of_a_shot_is_the_mean_of_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    shots = torch.randint(100, 150, (3, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pairs = list(Scene("s", shots).pairs())
    assert len(pairs) == 3 and [torch.equal(p.noisy, shot) for p, shot in zip(pairs, shots, strict=True)] == [True] * 3
    others = (shots[1].double() + shots[2].double()) / 2
    expected = others * shots[0].double().mean() / others.mean()
    assert pairs[0].clean.dtype == torch.uint16
    assert (pairs[0].clean.double() / 257 - expected).abs().max() < 0.003


def test_two_shots_are_each_others_target_at_their_own_brightness() -> None:
    first, second = scene("s", 100, 120).pairs()
    assert first.noisy is not None and int(first.noisy[0, 0, 0]) == 100
    assert int(first.clean[0, 0, 0]) == 100 * 257 and int(second.clean[0, 0, 0]) == 120 * 257


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_clipped_pixels_neither_change_the_brightness_nor_become_grey(dtype: torch.dtype) -> None:
    full = torch.iinfo(dtype).max
    scene = torch.full((1, 8, 8), full // 2)
    scene[:, :4] = 2 * full  # white in all shots
    first, second = ((scene * gain).clamp(0, full).to(dtype) for gain in (1.0, 0.8))
    for pair in Scene("s", [first, second]).pairs():
        assert pair.noisy is not None
        expected = pair.noisy.double() / full * 65535
        torch.testing.assert_close(pair.clean.double(), expected, rtol=0, atol=0.005 * 65535)


def test_the_noise_of_a_target_is_independent_of_its_shot() -> None:
    rng = np.random.default_rng(0)
    shots = torch.from_numpy(np.clip(np.rint(128 + rng.normal(0, 20, (4, 1, 200, 200))), 0, 255).astype(np.uint8))
    pair = next(Scene("s", shots).pairs(1))
    assert pair.noisy is not None
    one, other = pair.noisy.double().flatten() - 128, pair.clean.double().flatten() / 257 - 128
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.02
    assert float(other.std()) == pytest.approx(20 / 3**0.5, rel=0.03)
    assert Scene("s", shots).target_psnr() == pytest.approx(20 * np.log10(255 / (20 / 3**0.5)), abs=0.1)


def test_scenes_are_read_from_their_folders(tmp_path: Path) -> None:
    for index in range(3):
        for shot in range(3):
            save(tmp_path / f"s{index}" / f"{shot}.png", noisy(index, shot))
    scenes, warnings = load_bursts(tmp_path, 3, 16)
    assert [s.name for s in scenes] == ["s0", "s1", "s2"] and warnings == []
    assert [(shot.shape, shot.dtype) for shot in scenes[0].shots] == 3 * [((3, 48, 48), torch.uint8)]
    train, validation = split_scenes(scenes)
    assert len(train) == 2 and len(validation) == 1
    refuse_shared_scenes(train, validation)
    with pytest.raises(DatasetError, match="another scene"):
        split_scenes(scenes[:1])


def test_every_problem_of_a_burst_is_listed_at_once(tmp_path: Path) -> None:
    for name in ("good", "size", "other", "broken", "grey"):
        for shot in range(3):
            save(tmp_path / name / f"{shot}.png", noisy(1, shot))
    save(tmp_path / "alone" / "0.png", noisy(1, 0))
    save(tmp_path / "size" / "1.png", noisy(1, 1)[:40])
    save(tmp_path / "other" / "2.png", noisy(7, 2))
    (tmp_path / "broken" / "0.png").write_bytes(b"x")
    for shot in range(3):
        save(tmp_path / "grey" / f"{shot}.png", noisy(1, shot)[..., 0])
    with pytest.raises(DatasetError) as caught:
        load_bursts(tmp_path, 3, 16)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 7, text
    for part in ("alone/0.png: is the only shot", "size/1.png: is 48x40", "other/2.png: shows another scene"):
        assert part in text, part
    assert "broken/0.png" in text and text.count("is grey, most others are colour") == 3 and "good" not in text


def test_a_shot_that_moved_is_a_warning_with_its_shift(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (120, 120)), (0, 0), 8) * 12 - 1400
    for shot, (down, right) in enumerate([(0, 0), (0, 0), (2, 3)]):
        window = wide[10 - down : 106 - down, 10 - right : 106 - right]
        save(tmp_path / "s" / f"{shot}.png", window + rng.normal(0, 5, window.shape))
    _, warnings = load_bursts(tmp_path, 1, 16)
    (line,) = warnings
    found = re.search(r"2\.png: is shifted by (\S+) pixels across and (\S+) down from", line)
    assert found and [float(part) for part in found.groups()] == pytest.approx([3, 2], abs=0.6), line


def test_a_scene_on_both_sides_is_refused_although_its_shots_differ() -> None:
    def shots(seed: int, first: int) -> torch.Tensor:
        stack = np.stack([noisy(seed, first + k) for k in range(3)]).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.clip(np.rint(stack), 0, 255).astype(np.uint8))

    train = [Scene("a", shots(1, 0)), Scene("b", shots(2, 0))]
    refuse_shared_scenes(train, [Scene("c", shots(3, 0))])
    with pytest.raises(DatasetError, match="d: the same scene as b"):
        refuse_shared_scenes(train, [Scene("c", shots(3, 0)), Scene("d", shots(2, 5))])


def test_shots_of_8_and_16_bits_become_one_kind(tmp_path: Path) -> None:
    save(tmp_path / "s" / "0.png", noisy(1, 0))
    deep = np.clip(np.rint(noisy(1, 1) * 257), 0, 65535).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "s" / "1.png"), deep)
    ((only,), _) = load_bursts(tmp_path, 3, 16)
    assert {shot.dtype for shot in only.shots} == {torch.uint16}
    assert np.array_equal(only.shots[1].permute(1, 2, 0).numpy()[..., ::-1], deep)
    assert set((only.shots[0].int() % 257).unique().tolist()) == {0}


def test_the_pages_of_a_file_are_the_shots_of_a_scene(tmp_path: Path) -> None:
    for index in range(2):
        shots = np.stack([np.clip(noisy(index, shot)[..., 0] * 16, 0, 4095) for shot in range(3)])  # 12 bits in 16
        tifffile.imwrite(tmp_path / f"s{index}.tif", shots.astype(np.uint16), photometric="minisblack")
    scenes, warnings = load_bursts(tmp_path, 1, 16)
    assert [s.name for s in scenes] == ["s0.tif", "s1.tif"] and warnings == []
    assert [shot.shape for shot in scenes[0].shots] == 3 * [(1, 48, 48)]
    assert (
        0.25 < float(torch.stack(scenes[0].shots).double().max()) / 65535 <= 1
    )  # as `denoise` shows them to the network
    save(tmp_path / "alone.png", noisy(0, 0)[..., 0])
    with pytest.raises(DatasetError, match=r"alone\.png: is the only shot"):
        load_bursts(tmp_path, 1, 16)


def test_shots_of_longer_exposure_than_the_first_are_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 48 * 48).reshape(48, 48)
    for shot, peak in enumerate((2000, 4000, 8000)):
        tifffile.imwrite(tmp_path / f"{shot}.tif", np.rint(peak * ramp).astype(np.uint16), photometric="minisblack")
    ((scene_of_three,), _) = load_bursts(tmp_path, 1, 16)
    shots = torch.stack(scene_of_three.shots).double()
    assert np.allclose(shots[0, 0], shots[1, 0] / 2, atol=32) and np.allclose(shots[0, 0], shots[2, 0] / 4, atol=32)
    assert shots.max() > 60_000


def test_scenes_of_one_name_are_all_kept(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    for place, seed in ((folder, 1), (folder / "shots", 2), (folder / "x", 3)):
        for shot in range(2):
            save(place / f"{shot}.png", noisy(seed, shot))
    scenes, _ = load_bursts(folder, 3, 16)
    assert [s.name for s in scenes] == ["shots", "shots", "x"]
