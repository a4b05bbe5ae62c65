"""Whether the two images of a pair lie on each other, from the peak of their cross-correlation.

Guizar-Sicairos, Thurman and Fienup 2008, doi:10.1364/OL.33.000156, as scikit-image implements it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.loaded import grey_centre

MOST_SHIFT = 1.0  # pixels
SIDE = 512  # of the centre that is compared
SMOOTH = 1.5  # pixels; noise has less of a say
BETTER = 0.95  # the shift must leave less than this share of the squared difference

Plane = NDArray[np.float64]


def shift_between(reference: Tensor, moved: Tensor) -> tuple[float, float]:
    """(down, right): by how many pixels `moved` [C, H, W] lies away from `reference`, to a quarter of a pixel.

    (0, 0) where a shift explains the difference no better, as in plain or very noisy images.
    """
    from scipy.ndimage import shift
    from skimage.registration import phase_cross_correlation

    one, other = _plane(reference), _plane(moved)
    if min(one.shape) < 32 or one.std() == 0 or other.std() == 0:
        return 0.0, 0.0
    window = np.hanning(one.shape[0])[:, None] * np.hanning(one.shape[1])
    back, _, _ = phase_cross_correlation(one * window, other * window, upsample_factor=4, normalization=None)
    reach = int(np.ceil(np.abs(back).max()))
    if reach == 0 or 4 * reach > min(one.shape):
        return 0.0, 0.0
    inside = (slice(reach, -reach), slice(reach, -reach))
    before = np.square(one - other)[inside].mean()
    after = np.square(one - shift(other, back, order=1, mode="nearest"))[inside].mean()
    return (-float(back[0]), -float(back[1])) if after < BETTER * before else (0.0, 0.0)


def _plane(image: Tensor) -> Plane:
    """The smoothed centre [h, w] of the mean of the channels, without its mean; in units of the range."""
    from scipy.ndimage import gaussian_filter

    smooth: Plane = gaussian_filter(grey_centre(image, SIDE), SMOOTH)
    return smooth - smooth.mean()
