"""Drawn patches: what a network trained on them gets to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise_se.datasets import Patches, sheets
from denoise_se.drawings import drawn
from denoise_se.errors import UsageError
from denoise_se.training import DenoisingTask
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair


def drawings(count, channels=3, side=64):
    photo = np.full((side, side, channels), 100, np.uint8)
    return [drawn(photo, np.random.default_rng(seed)) for seed in range(count)]


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 200), st.integers(8, 200), st.sampled_from([1, 3]), st.integers(0, 2**32))
def test_a_drawing_has_the_shape_of_its_patch_and_follows_from_the_seed(height, width, channels, seed):
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    one, same = (drawn(photo, np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == photo.shape and one.dtype == np.uint8 and np.array_equal(one, same)


def test_drawings_are_as_sharp_and_as_fine_as_pictures_can_be():
    found = [drawing[..., 0].astype(int) for drawing in drawings(300)]
    steps = [max(np.abs(np.diff(page, axis=axis)).max() for axis in (0, 1)) for page in found]
    assert np.mean(np.array(steps) == 255) > 0.3, "from black to white within a pixel"
    alternate = [np.abs(np.diff(page, axis=0)).min() > 0 for page in found]
    assert 3 <= sum(alternate) < 60, "lines or checks of one pixel, each row unlike the next everywhere"
    flat = [np.mean(np.diff(page, axis=1) == 0) for page in found]
    assert np.mean(np.array(flat) > 0.8) > 0.3, "large areas of one colour"


def test_some_drawings_are_in_colour_and_some_lie_over_the_photograph():
    found = drawings(200)
    coloured = np.mean([np.ptp(page.astype(int), axis=2).max() > 0 for page in found])
    over = np.mean([np.mean((page == 100).all(axis=2)) > 0.05 for page in found])
    assert 0.2 < coloured < 0.8 and 0.05 < over < 0.3


def test_many_drawings_are_of_two_pure_colours_and_all_pairs_occur():
    colours = [{tuple(colour) for colour in page.reshape(-1, 3)} for page in drawings(1500)]
    pure = [found for page in colours if len(found := {c for c in page if {*c} <= {0, 255}}) == 2]
    assert 0.3 < len(pure) / len(colours) < 0.75
    assert len({frozenset(pair) for pair in pure}) == 8 * 7 / 2


@pytest.mark.parametrize("depth", [torch.uint8, torch.uint16])
def test_a_share_of_the_clean_patches_is_drawn_on(depth):
    photo = torch.full((3, 80, 80), 100 if depth == torch.uint8 else 25700, dtype=torch.int32).to(depth)
    patches = Patches([Pair("a", None, photo)], 32, seed=1, drawings=0.25)
    noisy, clean, _ = zip(*(patches[i] for i in range(400)), strict=True)
    assert all(one is other for one, other in zip(noisy, clean, strict=True)) and clean[0].dtype == depth
    untouched = sum(bool((patch.int() == photo[:, :32, :32].int()).all()) for patch in clean)
    assert 0.68 < untouched / 400 < 0.83
    if depth == torch.uint16:
        assert all((patch.int() % 257 == 0).all() for patch in clean)


def test_patches_of_pairs_and_without_drawings_stay_as_they_are():
    photo = torch.arange(3 * 40 * 40).reshape(3, 40, 40).to(torch.uint8)
    for pair, share in [(Pair("a", photo, photo), 1.0), (Pair("a", None, photo), 0.0)]:
        for index in range(20):
            clean = Patches([pair], 16, seed=3, drawings=share)[index].clean
            assert any(torch.equal(clean, photo[:, y : y + 16, x : x + 16]) for y in range(25) for x in range(25))


def test_a_share_beyond_one_is_refused():
    with pytest.raises(UsageError, match=r"drawings is 1\.5"):
        TrainingConfig(drawings=1.5)


def test_validation_gets_a_small_sheet_of_drawings_for_each_image_but_not_more_than_sixteen():
    photo = torch.full((3, 400, 150), 100, dtype=torch.uint8)
    images = [Pair(f"a{i}", None, photo) for i in range(20)]
    found = sheets(images, seed=0)
    assert [pair.name for pair in found] == [f"drawings {i}" for i in range(1, 17)]
    page = found[0].clean
    assert page.shape == (3, 192, 150) and found[0].noisy is None
    cells = [page[:, y : y + 96, x : x + 96] for y in (0, 96) for x in (0, 96)]
    assert all(bool((cell != 100).any()) for cell in cells) and (photo == 100).all()
    assert not torch.equal(page, found[1].clean)
    assert torch.equal(page, sheets(images[:1], seed=0)[0].clean) and len(sheets(images[:1], seed=0)) == 1


def test_sheets_count_in_validation_as_drawings_do_in_training():
    # two photographs of 30 and 32 dB, three sheets of 40, 20 and one without a fault, which counts as 60
    scores = torch.tensor([30.0, 32.0, 40.0, 20.0, torch.inf])
    config = TrainingConfig(drawings=0.1)
    assert float(DenoisingTask(config, drawn=3).mean_score(scores)) == pytest.approx(0.9 * 31 + 0.1 * 40)
    assert float(DenoisingTask(config).mean_score(scores[:3])) == pytest.approx(34)
    assert float(DenoisingTask(config).mean_score(scores[4:])) == 60
