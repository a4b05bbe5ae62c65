"""What retraining brings on noise that no shipped model knows: `make own-noise OWN="--clean FOLDER"`.

Row banding and Poisson-Gaussian grain are put on clean pictures; then `denoise-se train` gets the pairs, or the clean
pictures and the noise's spec, or the noisy pictures alone, or all noisy shots of a burst. Pictures that no run sees are
denoised with the results. Prints a table of mean PSNR in dB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from denoise_se.evaluation_set import add_noise
from denoise_se.image_io import read
from denoise_se.metrics import psnr
from denoise_se.noise import NoiseChain, NoiseMixture, parse_noise_spec

Pixels = NDArray[np.uint8]

SPEC = "poisson-gaussian:gain=0.0047,read=0.008+banding:row=14"
WAYS = ("pairs", "synthetic", "noisy", "burst")
SHOTS = 4  # of each scene of the burst
BURST_SHARE = 4  # one scene of so many pictures, so that the burst has as many shots as there are pictures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clean", type=Path, required=True, help="folder of clean pictures")
    parser.add_argument("--images", type=int, default=48, help="how many of them; a sixth is held out")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS[:3]))
    parser.add_argument("--noise", default=SPEC, help="another spec")
    parser.add_argument("--init", default="photo")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pictures(root, arguments.clean, arguments.images, arguments.noise)
        sources = {
            "pairs": ["--pairs", root / "train/noisy", root / "train/clean"],
            "synthetic": ["--clean", root / "train/clean", "--noise", arguments.noise],
            "noisy": ["--noisy", root / "train/noisy"],
            "burst": ["--burst", root / "burst"],
        }
        budget = ["--steps", arguments.steps] if arguments.steps else ["--minutes", arguments.minutes]
        print(f"noisy: {score(root / 'test/noisy', root):.2f}", flush=True)
        print(f"{arguments.init}: {denoised(root, arguments.init):.2f}", flush=True)
        for way in arguments.ways:
            run = root / f"run-{way}"
            command("train", "-o", run, *sources[way], "--init", arguments.init, *budget, "--quiet")
            step, seconds = (run / "metrics.csv").read_text().splitlines()[-1].split(",")[:2]
            result = denoised(root, run / "best.safetensors")
            print(f"{way}: {result:.2f} after {step} steps, {float(seconds) / 60:.1f} minutes", flush=True)
    return 0


def make_pictures(root: Path, clean: Path, count: int, spec: str) -> None:
    """train/ and test/ with noisy/ and clean/ in each, and burst/ of the training pictures, 8-bit PNG."""
    noise = parse_noise_spec(spec)
    files = sorted(path for path in clean.iterdir() if path.is_file())[:count]
    held_out = max(1, count // 6)
    for index, path in enumerate(files):
        image = read(path)
        pixels = image.pixels if image.pixels.shape[2] == 3 else image.pixels.repeat(3, axis=2)
        part = root / ("test" if index >= len(files) - held_out else "train")
        save(part / "clean" / f"{path.stem}.png", pixels)
        save(part / "noisy" / f"{path.stem}.png", noisy(pixels, noise, index))
        if part.name == "train" and index % BURST_SHARE == 0:
            for shot in range(SHOTS):
                save(root / "burst" / path.stem / f"{shot}.png", noisy(pixels, noise, 1000 * (shot + 1) + index))


def noisy(pixels: Pixels, noise: NoiseChain | NoiseMixture, seed: int) -> Pixels:
    unit, _ = add_noise(pixels.astype(np.float32) / np.float32(255), noise, seed)
    return np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def denoised(root: Path, model: str | Path) -> float:
    """The mean PSNR of the held-out pictures after `model`."""
    with tempfile.TemporaryDirectory() as out:
        command("denoise", root / "test/noisy", "-o", out, "--overwrite", "--quiet", "--model", model)
        return score(Path(out), root)


def score(folder: Path, root: Path) -> float:
    clean = sorted((root / "test/clean").iterdir())
    return float(np.mean([psnr(read(p).pixels, read(folder / p.name).pixels, data_range=255) for p in clean]))


def command(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "denoise_se.app", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"denoise-se {' '.join(map(str, arguments))}\n{done.stderr}")


if __name__ == "__main__":
    raise SystemExit(main())
