"""Tiles cover the image once and lie on the network's grid; gates are pooled over windows that the size alone fixes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise_se.tiling import BLOCK, SAMPLE_COUNT, SAMPLE_SIDE, WHOLE_PIXELS, Span, spans, squeeze_windows, tile_shape


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 90), st.integers(0, 60), st.integers(0, 40), st.sampled_from([1, 2, 4, 6, 8]))
def test_cores_cover_an_axis_once_in_order_and_windows_hold_the_halo(size, tile, halo, multiple):
    covered = np.zeros(size, int)
    before = 0
    for core, window in spans(size, tile, halo, multiple):
        covered[core.slice] += 1
        assert core.start == before
        before = core.stop
        assert 0 <= window.start <= core.start < core.stop <= window.stop <= size
        assert window.start == 0 or window.start <= core.start - halo
        assert window.stop == size or window.stop >= core.stop + halo
        assert window.start % multiple == core.start % multiple == 0
        assert window.stop == size or window.stop % multiple == 0
        length = -(-(window.stop - window.start) // multiple) * multiple  # as the network fills it up
        assert length % 8 == 0 or (window.start == 0 and window.stop == size)
        inner = core.within(window)
        assert (inner.start, inner.stop) == (core.start - window.start, core.stop - window.start)
        if tile:
            assert core.stop - core.start < tile + math.lcm(multiple, BLOCK) and core.start % BLOCK == 0
    assert (covered == 1).all()


def test_a_tile_of_zero_is_the_whole_axis():
    assert spans(33, 0, 24, 8) == [(Span(0, 33), Span(0, 33))]


@settings(deadline=None)
@given(
    st.integers(1, 20_000) | st.just(2_000_000), st.integers(1, 20_000), st.sampled_from([0, 90, 700]), st.booleans()
)
def test_the_tiles_of_an_image_are_as_large_as_memory_allows(height, width, halo, transposed):
    if transposed:
        height, width = width, height
    shape = tile_shape(height, width, halo, 8, 16)
    assert tile_shape(height, width, halo, 8, 16) == shape and min(shape) > 0
    rows, columns = spans(height, shape[0], halo, 8), spans(width, shape[1], halo, 8)
    largest = max(window.stop - window.start for _, window in rows) * max(
        window.stop - window.start for _, window in columns
    )
    assert largest <= max(2_506_944, (4 * halo + 24) ** 2)  # 1,083 MB at 23 bytes for each of 16 features and 64
    if height * width >= 100_000_000 and halo == 90:
        assert largest <= 1_000_000
    if height * width <= 2_500_000:
        assert len(rows) == len(columns) == 1


@given(
    st.integers(1000, 6000),
    st.integers(1000, 6000),
    st.integers(0, 90),
    st.sampled_from([1, 2, 12]),
    st.sampled_from([16, 256, 2048]),
)
def test_networks_of_any_width_and_step_get_tiles(height, width, halo, multiple, features):
    shape = tile_shape(height, width, halo, multiple, features)
    for size, tile in zip((height, width), shape, strict=True):
        assert tile > 0 and len(spans(size, tile, halo, multiple)) == -(-size // tile)


def test_a_photo_of_12_megapixels_is_cut_into_six():
    assert tile_shape(2828, 4243, 90, 8, 16) == (1440, 1440)


def test_a_network_of_more_features_gets_smaller_tiles():
    height, width = tile_shape(2828, 4243, 90, 8, features=32)
    assert (height + 2 * 96) * (width + 2 * 96) <= 1_250_000


@given(st.integers(1, 1024), st.integers(1, 1024), st.sampled_from([1, 2, 8]))
def test_gates_of_a_small_image_are_pooled_over_all_of_it(height, width, multiple):
    assert squeeze_windows(height, width, multiple) == [(Span(0, height), Span(0, width))]


@given(
    st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)).filter(lambda s: s[0] * s[1] > WHOLE_PIXELS)
    | st.tuples(st.integers(1, 9), st.integers(WHOLE_PIXELS + 1, 4 * WHOLE_PIXELS)),
    st.sampled_from([1, 4, 8]),
    st.booleans(),
)
def test_gates_of_a_large_image_are_pooled_over_equal_windows_within_it(size, multiple, transposed):
    height, width = size[::-1] if transposed else size
    windows = squeeze_windows(height, width, multiple)
    assert 1 <= len(windows) <= SAMPLE_COUNT and len(set(windows)) == len(windows)
    for row, column in windows:
        assert (row.stop - row.start, column.stop - column.start) == (min(height, SAMPLE_SIDE), min(width, SAMPLE_SIDE))
        assert row.start >= 0 and row.stop <= height and column.start >= 0 and column.stop <= width
        assert row.start % multiple == column.start % multiple == 0


@pytest.mark.parametrize(("size", "grid"), [((4000, 4000), (4, 4)), ((200, 30_000), (1, 16)), ((30_000, 200), (16, 1))])
def test_the_samples_are_spread_over_the_image(size, grid):
    windows = squeeze_windows(*size, 8)
    for axis in (0, 1):
        starts = sorted({window[axis].start for window in windows})
        assert len(starts) == grid[axis]
        assert len(set(np.diff(starts))) <= 2  # rounding to the grid apart, all equal
        assert abs(starts[0] - (size[axis] - starts[-1] - SAMPLE_SIDE)) <= 16
