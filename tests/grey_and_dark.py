"""What a colour model does to noise that is the same in all channels, and to dark pictures: `make grey-and-dark`.

Clean colour pictures of a folder, as they are, in grey, in sepia, and a half and a quarter as bright, with Gaussian
noise for each channel or the same for all, as 8-bit pictures. Prints the mean PSNR in dB before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from denoise_se import Denoiser
from denoise_se.blending import LUMA_WEIGHTS
from denoise_se.image_folder import image_files
from denoise_se.image_io import read
from denoise_se.metrics import psnr

Pixels = NDArray[np.float32]  # [H, W, 3] in 8-bit units

SIDE = 256
SEPIA = np.array([1.07, 0.95, 0.76], np.float32)
GRAIN = 0.8  # pixels
QUALITY = 92


def in_grey(picture: Pixels) -> Pixels:
    return np.repeat((picture @ LUMA_WEIGHTS)[..., None], 3, axis=2)


def codes(picture: Pixels) -> NDArray[np.uint8]:
    return np.rint(picture.clip(0, 255)).astype(np.uint8)


def as_jpeg(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def cases(picture: Pixels, seed: int) -> Iterator[tuple[str, Pixels, NDArray[np.uint8]]]:
    """(what, clean, noisy)"""
    random = np.random.default_rng(seed)
    same, each = (random.normal(size=(*picture.shape[:2], channels)).astype(np.float32) for channels in (1, 3))
    grain = cv2.GaussianBlur(same[..., 0], (0, 0), GRAIN)[..., None]
    grain /= grain.std()
    grey = in_grey(picture)
    sepia = (grey * SEPIA).clip(0, 255)
    yield "grey in RGB, sigma 10", grey, codes(grey + 10 * same)
    yield "grey in RGB, sigma 25", grey, codes(grey + 25 * same)
    yield f"the same, JPEG {QUALITY}", grey, as_jpeg(codes(grey + 25 * same))
    yield "sepia, sigma 25", sepia, codes(sepia + 25 * same * SEPIA)
    yield "grey in RGB, grain of sigma 12", grey, codes(grey + 12 * grain)
    yield "colour, the same noise in all channels, sigma 10", picture, codes(picture + 10 * same)
    yield "a quarter as bright, sigma 2", picture / 4, codes(picture / 4 + 2 * each)
    yield "a quarter as bright, sigma 4", picture / 4, codes(picture / 4 + 4 * each)
    yield "half as bright, sigma 3", picture / 2, codes(picture / 2 + 3 * each)
    for sigma in (5, 10, 25):
        yield f"colour, sigma {sigma}", picture, codes(picture + sigma * each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="clean colour pictures")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    denoiser = Denoiser.load(options.model, precision=options.precision)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed, path in enumerate(image_files(options.folder)):
        picture = read(path).upright().pixels[:SIDE, :SIDE].astype(np.float32)
        if picture.shape[2] != 3:
            continue
        for what, clean, noisy in cases(picture, seed):
            scores = (psnr(clean / 255, image / np.float32(255), data_range=1.0) for image in (noisy, denoiser(noisy)))
            found.setdefault(what, []).append(tuple(scores))
    for what, scores in found.items():
        before, after = np.mean(scores, axis=0)
        print(f"{what:50} {before:6.2f} -> {after:6.2f} dB")


if __name__ == "__main__":
    main()
