"""Make data/samples: pictures that ship with scikit-image, and noisy versions of them from fixed seeds.

    python data/make_samples.py

The pictures are free to redistribute (scikit-image's data/README and licence list them): astronaut (NASA, public
domain), camera (Lav Varshney, CC0), chelsea (Stefan van der Walt, CC0), coffee (Rachel Michetti, CC0).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch

from denoise_se.noise import parse_noise_spec

SAMPLES = Path(__file__).parent / "samples"
SIDE = 300
CAMERA = "camera:gain=0.004,read=0.008,luma=0.6,chroma=1.5+jpeg:95"
NOISE = {"astronaut": CAMERA, "camera": "gaussian:25", "chelsea": "gaussian:25", "coffee": CAMERA}


def main() -> None:
    for folder in ("clean", "noisy"):
        (SAMPLES / folder).mkdir(parents=True, exist_ok=True)
    for seed, (name, spec) in enumerate(sorted(NOISE.items())):
        picture = getattr(skimage.data, name)()
        top, left = (max(0, side - SIDE) // 2 for side in picture.shape[:2])
        clean = np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE])
        planes = torch.from_numpy(clean.reshape(*clean.shape[:2], -1)).permute(2, 0, 1)[None].float() / 255
        noisy = parse_noise_spec(spec)(planes, torch.Generator().manual_seed(seed)).image
        pixels = (noisy[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        for folder, image in (("clean", clean), ("noisy", pixels)):
            bgr = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
            cv2.imwrite(str(SAMPLES / folder / f"{name}.png"), bgr)


if __name__ == "__main__":
    main()
