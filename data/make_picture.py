"""Make data/samples/before-after.png, the README's picture: noisy samples, and what the shipped models make of them.

python data/make_picture.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from denoise_se import Denoiser
from denoise_se.metrics import psnr

SAMPLES = Path(__file__).parent / "samples"
SHOWN = {"chelsea": "color", "astronaut": "photo", "camera": "gray"}
BAND = 26  # pixels of text below each picture


def panel(image: np.ndarray, label: str) -> np.ndarray:
    """The image as BGR with a line of text below it."""
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
    strip = np.full((BAND, colour.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, label, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([colour, strip])


def main() -> None:
    rows: list[list[np.ndarray]] = [[], []]
    for name, model in SHOWN.items():
        noisy, clean = (
            cv2.imread(str(SAMPLES / folder / f"{name}.png"), cv2.IMREAD_UNCHANGED) for folder in ("noisy", "clean")
        )
        denoiser = Denoiser.load(model)
        rgb = noisy if noisy.ndim == 2 else np.ascontiguousarray(noisy[..., ::-1])
        result = denoiser(rgb)
        restored = result if result.ndim == 2 else result[..., ::-1]
        for row, image, what in ((rows[0], noisy, "noisy"), (rows[1], restored, f"denoise-se, {model}")):
            row.append(panel(image, f"{what}: {psnr(clean, image, data_range=255):.2f} dB"))
    cv2.imwrite(str(SAMPLES / "before-after.png"), np.vstack([np.hstack(row) for row in rows]))


if __name__ == "__main__":
    main()
