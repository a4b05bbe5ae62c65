"""Pixels that are NaN or infinite, replaced by a local value, so that a filter does not spread them."""

from __future__ import annotations

import numpy as np

LARGEST_RADIUS = 4
# bounds the memory of the windows that are looked at together
BATCH = 1 << 16


def replaced(planes: np.ndarray) -> tuple[np.ndarray, int]:
    """Replaces the non-finite values of `[H, W, C]` float32; gives the array and the number of pixels concerned.

    Each value becomes the median of the finite ones around it in its channel, in the smallest of the windows 3x3 to 9x9
    that has one; inside a larger hole, the nearest finite value. An array without such values is given back as it is.
    Raises ValueError when a channel has no finite value at all.
    """
    bad = ~np.isfinite(planes)
    count = int(bad.any(axis=2).sum())
    if count == 0:
        return planes, 0
    mended = planes.copy()
    for channel in range(planes.shape[2]):
        if bad[..., channel].all():
            raise ValueError("no finite value")
        if bad[..., channel].any():
            _mend(mended[..., channel], planes[..., channel], bad[..., channel])
    return mended, count


def _mend(mended: np.ndarray, plane: np.ndarray, bad: np.ndarray) -> None:
    rows, columns = np.nonzero(bad)
    for radius in range(1, LARGEST_RADIUS + 1):
        left = np.zeros(rows.size, bool)
        for start in range(0, rows.size, BATCH):
            batch = slice(start, start + BATCH)
            medians = _medians(plane, rows[batch], columns[batch], radius)
            found = np.isfinite(medians)
            mended[rows[batch][found], columns[batch][found]] = medians[found]
            left[batch] = ~found
        rows, columns = rows[left], columns[left]
        if rows.size == 0:
            return
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
    mended[rows, columns] = plane[nearest[0][rows, columns], nearest[1][rows, columns]]


def _medians(plane: np.ndarray, rows: np.ndarray, columns: np.ndarray, radius: int) -> np.ndarray:
    """Median of the finite values in the window round each place, NaN where there is none."""
    height, width = plane.shape
    steps = np.arange(-radius, radius + 1)
    near_rows = rows[:, None, None] + steps[:, None]
    near_columns = columns[:, None, None] + steps
    inside = (near_rows >= 0) & (near_rows < height) & (near_columns >= 0) & (near_columns < width)
    window = plane[np.clip(near_rows, 0, height - 1), np.clip(near_columns, 0, width - 1)]
    window = np.where(inside & np.isfinite(window), window, np.float32(np.nan)).reshape(rows.size, -1)
    window.sort(axis=1)
    # NaN sorts to the end, so the finite values come first
    finite = np.isfinite(window).sum(axis=1)
    places = np.arange(rows.size)
    lower = window[places, np.maximum(finite - 1, 0) // 2]
    upper = window[places, np.minimum(finite // 2, window.shape[1] - 1)]
    # halved before they are added: two large values must not overflow
    return np.asarray(lower * np.float32(0.5) + upper * np.float32(0.5), np.float32)
