"""PSNR and SSIM of image files against a reference file, page by page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from denoise_se.errors import ImageError
from denoise_se.image import MOST_FAR_OUT, Image, far_out
from denoise_se.image_io import open_pages
from denoise_se.metrics import mean_finite, psnr, ssim
from denoise_se.remote_files import Location
from denoise_se.value_range import full_range


@dataclass(frozen=True)
class Comparison:
    """Of the noisy and of the denoised file; means over the pages that have a finite value. See `metrics`."""

    psnr_noisy: float | None
    psnr: float | None
    ssim_noisy: float | None
    ssim: float | None


def compare(source: Location, target: Location, reference: Location, max_pixels: int) -> Comparison:
    """Compare what two files hold with `reference`, as they are shown: turned upright, and in its number of channels.

    Raises ImageError when one cannot be read, or when sizes, channels or numbers of pages differ.
    """
    scores: list[list[float | None]] = [[], [], [], []]
    with (
        open_pages(source, max_pixels=max_pixels) as before,
        open_pages(target, max_pixels=max_pixels) as after,
        open_pages(reference, max_pixels=max_pixels) as clean,
    ):
        for path, pages in ((reference, clean), (target, after)):
            if len(pages) != len(before):
                raise ImageError(path, f"has {len(pages):,} page(s), the input {source} has {len(before):,}")
        for noisy_page, result_page, clean_page in zip(before, after, clean, strict=True):
            expected = clean_page.image().upright()
            for column, page in enumerate((noisy_page, result_page)):
                image = page.image().upright()
                if column == 0:
                    _check_shapes(expected, image, reference, source)
                elif (image.height, image.width) != (expected.height, expected.width):
                    sizes = f"is {image.width}x{image.height}, the input {source} {expected.width}x{expected.height}"
                    raise ImageError(target, f"{sizes}: it was changed since it was written")
                # a format without grey holds it as three equal channels
                first, second = _comparable(expected.pixels, image.pixels[..., : expected.channels])
                scores[column].append(psnr(first, second, data_range=full_range(first.dtype)))
                scores[2 + column].append(ssim(first, second, data_range=full_range(first.dtype)))
    return Comparison(*(_mean(values) for values in scores))


def _check_shapes(expected: Image, image: Image, reference: Location, source: Location) -> None:
    if expected.pixels.shape != image.pixels.shape:
        texts = [f"{i.width}x{i.height}, {i.channels} channel(s)" for i in (expected, image)]
        raise ImageError(reference, f"is {texts[0]}, the input {source} is {texts[1]}")


def _mean(values: list[float | None]) -> float | None:
    """Of one page its value as it is; of several the mean of the finite ones, "inf" when all pages are identical."""
    if len(values) == 1:
        return values[0]
    mean = mean_finite(values)
    return next((value for value in values if value is not None), None) if mean is None else mean


def _comparable(reference: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in one dtype: as they are, or, when their bit depths differ, as floats in [0, 1]. Floats far outside of it
    beside integers are such integers, as the mean of shots is."""
    if reference.dtype == image.dtype:
        return reference, image
    kinds = {pixels.dtype.kind: pixels for pixels in (reference, image)}
    if len(kinds) == 2 and far_out(kinds["f"]) > MOST_FAR_OUT * kinds["f"].size:
        full = np.float32(full_range(kinds["u"].dtype))
        return reference / full, image / full
    first, second = (pixels / np.float32(full_range(pixels.dtype)) for pixels in (reference, image))
    return first, second
