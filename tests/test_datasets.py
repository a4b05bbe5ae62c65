"""Training data: matching, refusing, splitting and cropping."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch

from denoise_se import training_plan
from denoise_se.datasets import VALIDATION_SIDE, Consecutive, Patches, TrainingData, WholeImages
from denoise_se.errors import DatasetError
from denoise_se.file_pairs import PairedFiles, match_pairs
from denoise_se.image import turned
from denoise_se.loaded import Reading, load_pixels, to_unit
from denoise_se.network import NetworkConfig
from denoise_se.noise_estimation import estimate_noise
from denoise_se.scanlines import ArrayScanlines
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair, load_pairs, refuse_shared_images, split_validation
from denoise_se.training_layout import Layout
from denoise_se.training_plan import left_out
from denoise_se.value_range import value_range, white_level


def save(path: Path, shape: tuple[int, ...] = (32, 40, 3), dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    return pixels


def pair(name: str, seed: int, shape: tuple[int, int, int] = (3, 32, 40), noisy: bool = True) -> Pair:
    random = torch.Generator().manual_seed(seed)
    clean, other = (torch.randint(0, 256, shape, generator=random, dtype=torch.uint8) for _ in range(2))
    return Pair(name, other if noisy else None, clean)


def test_pictures_that_are_too_small_are_counted(tmp_path):
    for name, side in (("a", 40), ("b", 40), ("c", 20)):
        save(tmp_path / f"{name}.png", (side, 40, 3))
    images = load_pairs(PairedFiles(None, tmp_path), 3, 32)
    assert left_out(tmp_path, images, 32) == [f"{tmp_path}: 1 picture(s) smaller than 32 pixels are left out"]
    assert left_out(tmp_path, load_pairs(PairedFiles(None, tmp_path), 3, 16), 16) == []


def save_turned(path: Path, shown: np.ndarray, orientation: int) -> None:
    """A PNG that is stored turned and shown as `shown` [H, W, 3]."""
    back = {1: 1, 3: 3, 6: 8, 8: 6}[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(turned(shown, back)).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pairs_of_which_one_side_is_stored_turned_are_learnt_as_they_are_shown(tmp_path, orientation):
    shown = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    save_turned(tmp_path / "n/a.png", shown, orientation)
    save_turned(tmp_path / "c/a.png", shown, 1)
    ((_, noisy, clean, _),) = load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 3, 32)
    assert torch.equal(noisy, clean) and np.array_equal(clean.permute(1, 2, 0).numpy(), shown)


def test_pairs_that_are_stored_alike_stay_so_as_the_sensors_rows_are_rows_there(tmp_path):
    shown = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    for side in ("n", "c"):
        save_turned(tmp_path / side / "a.png", shown, 6)
    ((_, noisy, clean, _),) = load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 3, 32)
    assert torch.equal(noisy, clean) and clean.shape == (3, 64, 40)


def test_floats_of_another_range_are_no_white_pictures(tmp_path):
    counts = np.random.default_rng(0).uniform(0, 4080, (40, 40)).astype(np.float32)
    noisy, clean = as_learnt(tmp_path, counts, counts)
    assert np.abs(noisy - counts / 4096).max() < 1e-4 and np.array_equal(noisy, clean)
    tomogram = np.tile(np.linspace(-1000, 3000, 64, dtype=np.float32), (64, 1))
    noisy, clean = as_learnt(tmp_path, tomogram, tomogram)
    assert 0 <= noisy.min() < 0.02 and 0.9 < noisy.max() <= 1 and np.array_equal(noisy, clean)


def test_a_dark_picture_of_which_noise_takes_half_below_black_is_read(tmp_path):
    for side in ("n", "c"):
        (tmp_path / side).mkdir()
    dark = np.random.default_rng(0).normal(0, 0.2, (40, 40, 3)).astype(np.float32)  # a noisy night, half of it below 0
    tifffile.imwrite(tmp_path / "n/a.tif", dark, photometric="rgb")
    tifffile.imwrite(tmp_path / "c/a.tif", np.zeros_like(dark), photometric="rgb")
    assert len(load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 3, 32)) == 1


def test_pairs_share_relative_path_and_stem(tmp_path: Path) -> None:
    for name in ("n/a.jpg", "n/x/a.png", "n/alone.png", "n/two.png", "n/two.jpg"):
        save(tmp_path / name)
    for name in ("c/a.png", "c/x/a.png", "c/two.png", "c/lonely.png"):
        save(tmp_path / name)
    matched, problems = match_pairs(tmp_path / "n", tmp_path / "c")
    assert [(noisy.name, clean.relative_to(tmp_path).as_posix()) for noisy, clean in matched] == [
        ("a.jpg", "c/a.png"),
        ("two.jpg", "c/two.png"),
        ("a.png", "c/x/a.png"),
    ]
    assert len(problems) == 3
    assert any("alone.png" in line and "no partner" in line for line in problems)
    assert any("lonely.png" in line and "no partner" in line for line in problems)
    assert any("two.png" in line and "same stem" in line for line in problems)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_become_the_channels_of_the_network(tmp_path: Path, dtype: type) -> None:
    bgr = save(tmp_path / "rgb.png", dtype=dtype)
    rgb = bgr[..., ::-1].transpose(2, 0, 1)
    loaded = load_pixels(tmp_path / "rgb.png", 3)
    assert loaded.dtype == (torch.uint8 if dtype is np.uint8 else torch.uint16)
    assert np.array_equal(loaded.numpy(), rgb)
    luma = 0.299 * rgb[0].astype(float) + 0.587 * rgb[1] + 0.114 * rgb[2]
    assert np.abs(load_pixels(tmp_path / "rgb.png", 1).numpy().astype(float) - luma).max() <= 0.51
    grey = save(tmp_path / "grey.png", (32, 40), dtype)
    assert np.array_equal(load_pixels(tmp_path / "grey.png", 3).numpy(), np.stack([grey] * 3))


def test_integers_are_scaled_by_their_full_range() -> None:
    assert to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert to_unit(torch.tensor([0, 13107, 65535], dtype=torch.uint16)).tolist() == pytest.approx([0, 0.2, 1])


def test_every_problem_of_a_paired_set_is_listed_at_once(tmp_path: Path) -> None:
    for name in ("ok", "alone", "size", "small"):
        save(tmp_path / "n" / f"{name}.png", (10, 40, 3) if name == "small" else (32, 40, 3))
    save(tmp_path / "c" / "ok.png")
    save(tmp_path / "c" / "size.png", (16, 40, 3))
    save(tmp_path / "c" / "small.png", (10, 40, 3))
    save(tmp_path / "c" / "broken.png")
    (tmp_path / "n" / "broken.png").write_bytes(b"x")
    with pytest.raises(DatasetError) as caught:
        load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 3, 16)
    assert len(caught.value.problems) == 4
    for part in ("alone.png: no partner", "size.png: is 40x32", "40x16", "broken.png: ", "small.png: is 40x10"):
        assert part in str(caught.value), part
    assert "ok.png" not in str(caught.value)


def test_clean_images_that_are_too_small_are_left_out_while_others_remain(tmp_path: Path) -> None:
    save(tmp_path / "small.png", (10, 40, 3))
    with pytest.raises(DatasetError, match=r"small\.png: is 40x10, smaller than 16"):
        load_pairs(PairedFiles(None, tmp_path), 3, 16)
    save(tmp_path / "smaller than 16 pixels.png", (16, 16, 3))
    (loaded,) = load_pairs(PairedFiles(None, tmp_path), 3, 16)
    assert loaded.name == "smaller than 16 pixels" and loaded.noisy is None and loaded.clean.shape == (3, 16, 16)


def test_the_split_is_by_name_whole_and_of_a_tenth() -> None:
    pairs = [pair(f"{i}", i) for i in range(40)]
    train, validation = split_validation(pairs)
    assert len(validation) == 4 and len(train) == 36
    assert {p.name for p in train} | {p.name for p in validation} == {p.name for p in pairs}
    again = split_validation(pairs[::-1])
    assert [p.name for p in again[1]] == [p.name for p in validation]
    assert [len(part) for part in split_validation(pairs[:2])] == [1, 1]
    assert len(split_validation([pair(f"{i}", i) for i in range(400)])[1]) == 10
    with pytest.raises(DatasetError, match="--val-pairs"):
        split_validation(pairs[:1])


def test_several_shots_with_one_clean_image_are_on_one_side() -> None:
    fields = [pair(str(field), field) for field in range(4)]
    shots = [field._replace(name=f"{field.name} {shot}") for field in fields for shot in "abcdefghij"]
    train, validation = split_validation(shots)
    sides = [{shot.name.split()[0] for shot in side} for side in (train, validation)]
    assert len(sides[1]) == 1 and sides[0] | sides[1] == set("0123") and not sides[0] & sides[1]
    refuse_shared_images(train, validation)
    with pytest.raises(DatasetError, match="all images have the same clean one; give some of another scene"):
        split_validation(shots[:10])


def test_a_picture_on_both_sides_is_refused_by_name() -> None:
    train = [pair("a", 1), pair("b", 2)]
    refuse_shared_images(train, [pair("a", 3)])
    with pytest.raises(DatasetError, match="copy of b: the same picture as b"):
        refuse_shared_images(train, [pair("fine", 4), Pair("copy of b", None, train[1].clean.clone())])
    refuse_shared_images(train, [Pair("reshaped", None, train[1].clean.reshape(3, 40, 32))])


def test_a_patch_is_a_function_of_seed_and_index_alone() -> None:
    pairs = [pair("a", 1), pair("b", 2, (3, 64, 48))]
    patches = Patches(pairs, 16, seed=7)
    first = [patches[i] for i in (0, 5, 1000)]
    other = Patches(pairs, 16, seed=7)
    for index, (noisy, clean, _) in zip((1000, 5, 0), first[::-1], strict=True):
        assert torch.equal(other[index][0], noisy) and torch.equal(other[index][1], clean)
    assert not all(torch.equal(Patches(pairs, 16, seed=8)[i][1], patches[i][1]) for i in range(4))
    assert len({patches[i][1].numpy().tobytes() for i in range(50)}) > 45


def test_patches_come_from_the_same_place_of_both_images_and_reach_every_corner() -> None:
    height, width, patch = 5, 6, 4
    where = torch.arange(height * width, dtype=torch.uint8).reshape(1, height, width)
    patches = Patches([Pair("a", where + 100, where)], patch, seed=0)
    corners = set()
    for index in range(200):
        noisy, clean, _ = patches[index]
        assert torch.equal(noisy, clean + 100) and clean.shape == (1, patch, patch)
        corners.add(int(clean[0, 0, 0]))
    assert corners == {row * width + column for row in range(2) for column in range(3)}
    noisy, clean, _ = Patches([Pair("a", None, where)], patch, seed=0)[3]
    assert torch.equal(noisy, clean)


def test_images_are_drawn_in_proportion_to_their_area() -> None:
    small, large = torch.zeros(1, 16, 16, dtype=torch.uint8), torch.ones(1, 32, 24, dtype=torch.uint8)
    patches = Patches([Pair("s", None, small), Pair("l", None, large)], 8, seed=0)
    share = np.mean([float(patches[i][1].max()) for i in range(1000)])
    assert share == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("first_step", [0, 3])
def test_the_loader_goes_on_from_a_step(first_step: int) -> None:
    data = TrainingData([pair("a", 1)], [], patch=16, batch=4, seed=7)
    noisy, clean, _ = next(iter(data.patches(first_step)))
    patches = Patches([pair("a", 1)], 16, seed=7)
    for slot in range(4):
        assert torch.equal(noisy[slot], patches[4 * first_step + slot][0])
        assert torch.equal(clean[slot], patches[4 * first_step + slot][1])
    indices = iter(Consecutive(5))
    assert [next(indices) for _ in range(3)] == [5, 6, 7]


def test_validation_images_are_cut_to_their_centre() -> None:
    size = VALIDATION_SIDE + 10
    large = torch.randint(0, 256, (1, size, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (noisy, clean, _), (small, *_) = (WholeImages([Pair("l", None, large), pair("s", 1)])[i] for i in range(2))
    assert torch.equal(clean, large[:, 5 : 5 + VALIDATION_SIDE]) and torch.equal(noisy, clean)
    assert torch.equal(small, pair("s", 1).noisy)  # type: ignore[arg-type]


def test_images_are_kept_on_the_device_when_they_fit_into_a_quarter_of_its_memory() -> None:
    # "meta" stands for a device with memory of its own
    size = 2 * 2 * 3 * 32 * 40  # two pairs of noisy and clean images
    for free, kept in ((4 * size, "meta"), (4 * size - 1, "cpu")):
        module = TrainingData([pair("a", 1), pair("b", 2)], [pair("c", 3)], patch=8, batch=2, seed=0, workers=2)
        module.keep_on(torch.device("meta"), free)
        assert {p.clean.device.type for p in module.train} == {kept}
        assert module.workers == (0 if kept == "meta" else 2)
        assert module.validation[0].clean.device.type == "cpu"


def save_stack(path: Path, pages: int, seed: int = 0, side: int = 40) -> np.ndarray:
    stack = np.random.default_rng(seed).integers(30_000, 65_536, (pages, side, side), np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, stack, photometric="minisblack")
    return stack


def test_each_page_of_a_stack_is_an_image_and_stays_on_one_side(tmp_path):
    stacks = [save_stack(tmp_path / f"s{seed}.tif", 3, seed) for seed in range(4)]
    pairs = load_pairs(PairedFiles(None, tmp_path), 1, 32)
    assert [pair.name for pair in pairs[:4]] == ["s0, page 1", "s0, page 2", "s0, page 3", "s1, page 1"]
    for pair, page in zip(pairs, np.concatenate(stacks), strict=True):
        assert np.array_equal(pair.clean[0].numpy(), page)
    train, validation = split_validation(pairs)
    assert len({pair.file for pair in train}) == 3 and len(train) == 9
    assert len({pair.file for pair in validation}) == 1 and len(validation) == 3


def test_of_a_single_stack_the_last_pages_are_kept_for_validation(tmp_path):
    save_stack(tmp_path / "s.tif", 20)
    train, validation = split_validation(load_pairs(PairedFiles(None, tmp_path), 1, 32))
    assert len(train) == 18 and [pair.name for pair in validation] == ["s, page 19", "s, page 20"]


def test_validation_takes_few_pages_of_a_long_stack(tmp_path):
    pairs = [Pair(f"s{k}, page {page}", None, torch.zeros(1, 8, 8)) for k in range(2) for page in range(1, 101)]
    train, validation = split_validation(pairs)
    assert len(train) == 100 and len(validation) == 10 and len({pair.file for pair in validation}) == 1


def test_stacks_are_paired_page_by_page(tmp_path):
    noisy, clean = save_stack(tmp_path / "n/s.tif", 3, 1), save_stack(tmp_path / "c/s.tif", 3, 2)
    pairs = load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 1, 32)
    for page, pair in enumerate(pairs):
        assert pair.name == f"s, page {page + 1}"
        assert np.array_equal(pair.noisy[0].numpy(), noisy[page]) and np.array_equal(pair.clean[0].numpy(), clean[page])
    save_stack(tmp_path / "c/s.tif", 2, 2)
    with pytest.raises(DatasetError, match=r"s\.tif: has 3 page\(s\), its clean partner .*s\.tif has 2"):
        load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 1, 32)


def test_what_is_wrong_with_a_page_is_told_by_its_number(tmp_path):
    save_stack(tmp_path / "n/s.tif", 3)
    save_stack(tmp_path / "c/s.tif", 3, side=48)
    with pytest.raises(DatasetError, match=r"s\.tif \(page 2\): is 40x40, its clean partner .*s\.tif \(page 2\) is 48"):
        load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 1, 32)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_pair_that_uses_a_small_part_of_its_range_is_learnt_as_it_is_denoised(tmp_path, dtype):
    # counts of 12 bits in 16: the noisy side reaches 4000 and is shown 16 times as bright, the clean one with it
    noisy = np.linspace(0, 4000, 1600).round().reshape(40, 40).astype(np.uint16)
    clean = np.minimum(noisy, 1000)  # alone it would be shown 64 times as bright
    for side, pixels in (("n", noisy), ("c", clean)):
        (tmp_path / side).mkdir()
        stored = pixels if dtype is np.uint16 else (pixels / 65535).astype(np.float32)
        tifffile.imwrite(tmp_path / side / "a.tif", stored, photometric="minisblack")
    ((_, left, right, _),) = load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 1, 32)
    assert np.array_equal(left[0].numpy(), noisy * 16) and np.array_equal(right[0].numpy(), clean * 16)
    assert load_pixels(tmp_path / "c/a.tif", 1).numpy().max() == 64_000


def test_what_the_readers_changed_is_said_and_counted(tmp_path):
    (tmp_path / "c").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).uniform(0, 1, (40, 40)).astype(np.float32)
        pixels[3, 3] = np.nan
        tifffile.imwrite(tmp_path / "c" / f"{number}.tif", pixels, photometric="minisblack")
    dark = np.random.default_rng(9).normal(0.005, 0.02, (40, 40)).astype(np.float32)
    tifffile.imwrite(tmp_path / "c" / "dark.tif", dark, photometric="minisblack")
    reading = Reading()
    load_pairs(PairedFiles(None, tmp_path / "c"), 1, 32, reading=reading)
    lines = reading.lines()
    assert sum("non-finite" in line for line in lines) == 4 and any(line.startswith("and 2 more: ") for line in lines)
    (dark,) = (line for line in lines if "dark.tif" in line)
    assert dark.endswith(": more than 1% of its values are below 0 and are learnt as 0; add an offset to all images")


def test_an_image_above_the_limit_of_pixels_is_refused_by_the_options_name(tmp_path):
    save(tmp_path / "c/a.png", (40, 50))
    with pytest.raises(DatasetError, match=r"2,000 pixels and exceeds 1,999 pixels \(--max-pixels\)"):
        load_pairs(PairedFiles(None, tmp_path / "c"), 1, 32, reading=Reading(max_pixels=1999))


def test_of_many_pairs_those_that_are_wanted_are_read_alone(tmp_path):
    for number in range(7):
        for side in ("n", "c"):
            save(tmp_path / side / f"{number}.png", (40, 40, 3), seed=number)
    (tmp_path / "n/1.png").write_bytes(b"no image")
    pairs = load_pairs(PairedFiles(tmp_path / "n", tmp_path / "c"), 3, 32, most=3)
    assert [pair.name for pair in pairs] == ["0", "3", "6"]


def as_learnt(folder: Path, noisy: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of a pair of grey TIFFs as they are trained on, in [0, 1]."""
    for side, pixels in (("n", noisy), ("c", clean)):
        (folder / side).mkdir(exist_ok=True)
        tifffile.imwrite(folder / side / "a.tif", pixels, photometric="minisblack")
    ((_, left, right, _),) = load_pairs(PairedFiles(folder / "n", folder / "c"), 1, 32)
    return to_unit(left)[0].numpy(), to_unit(right)[0].numpy()


def test_no_side_of_a_pair_is_clipped_by_the_range_of_the_other(tmp_path):
    ramp = np.linspace(0, 1, 1600).reshape(40, 40)
    # an 8-bit clean side is full-range, whatever the noisy one's counts are
    noisy, clean = as_learnt(tmp_path, np.rint(4000 * ramp).astype(np.uint16), np.rint(250 * ramp).astype(np.uint8))
    assert np.abs(noisy - clean).max() < 0.01
    # a dim photo and the mean of its shots, which is as bright
    noisy, clean = as_learnt(tmp_path, np.rint(50 * ramp).astype(np.uint8), np.rint(50 * 257 * ramp).astype(np.uint16))
    assert np.abs(noisy - clean).max() < 0.01
    # counts of a noisy side that reach four times as far in the clean one
    noisy, clean = as_learnt(tmp_path, *(np.rint(peak * ramp).astype(np.uint16) for peak in (4000, 16_000)))
    assert np.abs(4 * noisy - clean).max() < 0.001 and clean.max() > 0.9


@pytest.mark.parametrize("sigma", [0.02, 0.3, 0.6])
def test_dim_pictures_are_learnt_in_the_range_in_which_they_are_denoised(tmp_path, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, (96, 96))
    noisy = np.clip((np.linspace(0.2, 0.8, 96)[:, None] + noise) / 16, 0, 1).astype(np.float32)
    seen, _ = as_learnt(tmp_path, noisy, noisy)
    level = estimate_noise(noisy).level
    gain = 1 / white_level(ArrayScanlines(noisy[..., None]), level)
    assert np.abs(seen - np.clip(gain * noisy, 0, 1)).max() < 1e-4 and gain > 1


def test_pairs_with_an_offset_are_learnt_in_the_range_in_which_they_are_denoised(tmp_path):
    clean = 3000 + 200 * np.linspace(0, 1, 96 * 96).reshape(96, 96)
    noisy = clean + np.random.default_rng(0).normal(0, 10, clean.shape)
    noisy, clean = (np.rint(side).astype(np.uint16) for side in (noisy, clean))
    left, right = as_learnt(tmp_path, noisy, clean)
    seen = value_range(ArrayScanlines(noisy[..., None]))
    assert 2900 < seen.black < 3000 and 200 < seen.span < 300
    for side, learnt in ((noisy, left), (clean, right)):
        assert np.abs(learnt - np.clip(seen.seen(side), 0, 1)).max() < 1e-4


def test_one_long_stack_does_not_take_all_images_for_validation():
    pairs = [Pair(f"stack, page {page}", None, torch.zeros(1, 8, 8)) for page in range(1, 17)]
    train, validation = split_validation([*pairs, Pair("single", None, torch.zeros(1, 8, 8))])
    assert len(train) == 16 and [pair.name for pair in validation] == ["single"]


def test_blank_pages_are_no_shared_pictures(tmp_path):
    blank = torch.zeros(1, 8, 8, dtype=torch.uint8)
    refuse_shared_images([Pair("a, page 1", None, blank)], [Pair("a, page 2", None, blank.clone())])


def test_a_claim_of_more_pages_than_there_are_leaves_none_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in save_stack(tmp_path / "other/b.tif", 4):
            writer.write(page, photometric="minisblack", description="ImageJ=1.53\nimages=200\n", contiguous=False)
    images = load_pairs(PairedFiles(None, tmp_path), 1, 32)
    assert len(images) == 8 and left_out(tmp_path, images, 32) == []


def test_of_very_many_pairs_to_validate_on_some_are_taken_evenly_spread(tmp_path, monkeypatch):
    monkeypatch.setattr(training_plan, "MOST_HELD_OUT", 3)
    for index in range(8):
        for side in ("n", "c"):
            save(tmp_path / "val" / side / f"{index}.png", seed=index + 10 * (side == "n"))
    for index in range(2):
        save(tmp_path / "clean" / f"{index}.png", seed=100 + index)
    config = TrainingConfig(
        patch=32, noise="gaussian:10", network=NetworkConfig(layout="flat", channels=3, widths=(4,))
    )
    layout = Layout("clean", tmp_path / "clean", PairedFiles(None, tmp_path / "clean"), "")
    held_out = PairedFiles(tmp_path / "val/n", tmp_path / "val/c")
    plan = training_plan.plan_training(layout, config, None, held_out)
    assert [pair.name for pair in plan.validation] == ["0", "4", "7"] and len(plan.train) == 2
