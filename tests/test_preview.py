"""Pictures before and after: where most changed, in bounded memory and bytes, however the bands are cut."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image as Pillow

from denoise_se.image import turned
from denoise_se.preview import ALL_BYTES, LEAST_BYTES, MOST_BYTES, Preview, PreviewMaker, picture_bytes


def opened(picture: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(picture)))


def made(noisy: np.ndarray, clean: np.ndarray, cuts: list[int] | None = None, **options: int) -> Preview:
    maker = PreviewMaker(*noisy.shape, **options)  # type: ignore[misc]
    start = 0
    for rows in [*(cuts or []), len(noisy)]:
        maker.add(start, noisy[start : start + rows], clean[start : start + rows])
        start = min(start + rows, len(noisy))
        if start == len(noisy):
            break
    return maker.finish()


def scene(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth, so that compression leaves it nearly as it is."""
    y, x = np.mgrid[:height, :width]
    ramp = 40 + 120 * (y + x) / (height + width)
    return np.repeat(ramp[..., None], channels, axis=2).astype(np.uint8)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (600, 900), (1008, 1308), (333, 40)])
def test_the_crop_holds_the_place_that_changed_most(top: int, left: int) -> None:
    noisy = scene(1200, 1500)
    clean = noisy.copy()
    clean[100:110, 700:710] += 20
    clean[top : top + 90, left : left + 90] += 60
    preview = made(noisy, clean)
    x, y, width, height = preview.box
    assert (width, height) == (192, 192)
    # windows overlap by half, so one of them holds nearly all of a place of under half their side
    inside = max(0, min(x + 192, left + 90) - max(x, left)) * max(0, min(y + 192, top + 90) - max(y, top))
    assert inside >= 0.95 * 90 * 90
    before, after = (opened(crop).astype(int) for crop in preview.crops)
    assert np.abs(before - noisy[y : y + 192, x : x + 192]).mean() < 2
    assert np.abs(after - clean[y : y + 192, x : x + 192]).mean() < 2
    assert preview.change == pytest.approx(np.abs(clean.astype(int) - noisy)[y : y + 192, x : x + 192].mean())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(700, 500, 3), (1001, 97, 1), (3, 2000, 3)])
def test_the_cut_into_bands_changes_no_byte(shape: tuple[int, int, int], dtype: type) -> None:
    random = np.random.default_rng(0)
    noisy, clean = (random.random(shape) * (np.iinfo(dtype).max if dtype != np.float32 else 1) for _ in range(2))
    noisy, clean = noisy.astype(dtype), clean.astype(dtype)
    whole = made(noisy, clean)
    assert made(noisy, clean, [1, 191, 1, 193, 7, 200]) == whole
    assert made(noisy, clean, [64] * 50) == whole


def test_equal_pictures_come_of_8_16_and_32_bits() -> None:
    noisy, clean = scene(300, 260), scene(300, 260) // 2
    eight = made(noisy, clean)
    sixteen = made(noisy.astype(np.uint16) * 257, clean.astype(np.uint16) * 257)
    floats = made(noisy / np.float32(255), clean / np.float32(255))
    for other in (sixteen, floats):
        assert (other.thumbnails, other.crops, other.box) == (eight.thumbnails, eight.crops, eight.box)
        assert other.change == pytest.approx(eight.change, abs=0.01)


def test_floats_outside_the_range_are_shown_clipped() -> None:
    noisy = np.full((20, 20, 1), 1e30, np.float32)
    preview = made(noisy, -noisy)
    assert opened(preview.crops[0]).min() == 255 and opened(preview.crops[1]).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_and_box_are_upright(orientation: int) -> None:
    noisy = scene(400, 600)
    clean = noisy.copy()
    clean[20:100, 30:120] += 90
    preview = made(noisy, clean, orientation=orientation)
    upright = turned(clean, orientation)
    assert preview.size == (upright.shape[1], upright.shape[0])
    x, y, width, height = preview.box
    assert np.abs(opened(preview.crops[1]).astype(int) - upright[y : y + height, x : x + width]).mean() < 2
    small = opened(preview.thumbnails[1])
    expected = np.asarray(Pillow.fromarray(upright).resize((small.shape[1], small.shape[0]), Pillow.Resampling.BOX))
    assert np.abs(small.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (3, 5, 3), (1, 4096, 3), (4097, 1, 1)])
def test_tiny_and_thin_images_have_pictures(shape: tuple[int, int, int]) -> None:
    noisy = np.full(shape, 200, np.uint8)
    preview = made(noisy, noisy // 2)
    height, width, _ = shape
    assert preview.box[2:] == (min(192, width), min(192, height)) and preview.change == 100
    assert opened(preview.crops[1]).shape[:2] == preview.box[:1:-1]
    assert abs(int(opened(preview.thumbnails[0]).mean()) - 200) <= 2


def test_thumbnails_have_320_pixels_on_the_longer_side() -> None:
    noisy = scene(900, 1300)
    sizes = {opened(picture).shape[:2] for picture in made(noisy, noisy).thumbnails}
    assert sizes <= {(height, 320) for height in (220, 221, 222)} and sizes


@pytest.mark.parametrize("most", [LEAST_BYTES, 5_000, 20_000, MOST_BYTES])
def test_even_pure_noise_keeps_within_its_bytes(most: int) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    preview = made(noisy, 255 - noisy, most=most)
    assert LEAST_BYTES / 4 < sum(map(len, (*preview.thumbnails, *preview.crops))) <= most
    x, y, width, height = preview.box
    assert opened(preview.crops[0]).shape[:2] == (height, width) and x + width <= 800 and y + height <= 800


def test_a_report_s_pictures_share_what_there_is() -> None:
    assert picture_bytes(0) == picture_bytes(1) == picture_bytes(1000) == MOST_BYTES
    share = picture_bytes(10_000)
    assert share is not None and 10_000 * share <= ALL_BYTES
    assert picture_bytes(1_000_000) is None


def test_a_hundred_megapixels_take_under_sixteen_megabytes() -> None:
    rows = np.zeros((400, 20_000, 3), np.uint8)
    tracemalloc.start()
    try:
        maker = PreviewMaker(5_000, 20_000, 3)
        maker.add(0, rows, rows)
        maker.add(400, rows, rows)
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()


def test_rows_out_of_order_or_of_another_image_are_refused() -> None:
    rows = np.zeros((4, 6, 3), np.uint8)
    for start, noisy, clean in ((1, rows, rows), (0, rows, rows[:3]), (0, rows[:, :5], rows[:, :5])):
        with pytest.raises(ValueError, match="rows"):
            PreviewMaker(8, 6, 3).add(start, noisy, clean)
    with pytest.raises(ValueError, match="0 of 8 rows"):
        PreviewMaker(8, 6, 3).finish()
