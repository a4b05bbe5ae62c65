"""Pairs of 16-bit pictures as a scientific camera (sCMOS, EMCCD) counts: `make camera-counts COUNTS="FOLDER OUT"`.

The grey of clean pictures becomes linear light; photons are counted, multiplied, and read with noise, on an offset that
keeps counts above 0. Writes OUT/noisy and OUT/clean; `denoise-se evaluate --pairs OUT/noisy OUT/clean --model gray`
measures what denoising brings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from denoise_se.image_folder import image_files
from denoise_se.image_io import read

GAMMA = 2.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--offset", type=float, default=100, help="counts without light")
    parser.add_argument("--white", type=float, default=1500, help="counts above it of the brightest light")
    parser.add_argument("--gain", type=float, default=2.17, help="counts a photon (electron)")
    parser.add_argument("--read", type=float, default=3.5, help="counts of read noise")
    parser.add_argument("--most", type=float, default=65535, help="counts at which it saturates")
    arguments = parser.parse_args()
    for side in ("noisy", "clean"):
        (arguments.out / side).mkdir(parents=True)
    for index, path in enumerate(image_files(arguments.folder)):
        rng = np.random.default_rng(index)
        grey = read(path).pixels.mean(axis=2) / 255
        light = arguments.white * grey**GAMMA
        counts = arguments.gain * rng.poisson(light / arguments.gain) + rng.normal(0, arguments.read, light.shape)
        for side, values in (("noisy", counts), ("clean", light)):
            whole = np.rint(arguments.offset + values).clip(0, arguments.most).astype(np.uint16)
            cv2.imwrite(str(arguments.out / side / f"{path.stem}.png"), whole)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
