"""What the models do to lettering and patterns, as on screens and scanned pages: `make patterns`.

Black-and-white lettering, lines, checks and dots at random, each clean and with Gaussian noise, as 8-bit pictures.
Prints PSNR in dB of the noisy picture and of each result; for colour models also the mean and the least over letters
in each pair of pure colours. `--save` keeps the clean pictures, for
`denoise-se evaluate --clean FOLDER --noise gaussian:25 --against bm3d,nlm`. The letters are DejaVu's, which no
training sees.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from denoise_se import Denoiser
from denoise_se.checkpoint import CHECKPOINTS
from denoise_se.metrics import psnr

Pixels = NDArray[np.uint8]  # [H, W, C]

SIDE = 192
TEXT = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and "
    "should act towards one another in a spirit of brotherhood. "
) * 8
BLACK, WHITE, RED, BLUE = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255))
PURE = tuple(itertools.product((0, 255), repeat=3))
SIGMAS = (0, 5, 10, 25, 50)


def lettering(size: int, ink: tuple[int, ...] = BLACK, paper: tuple[int, ...] = WHITE) -> Pixels:
    """A page of text, [SIDE, SIDE, 3]."""
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSerif.ttf", size)
    page = Image.new("RGB", (SIDE, SIDE), paper)
    per_line = SIDE * 2 // size
    for line in range(SIDE * 5 // (6 * size) + 1):
        text = TEXT[line * per_line : (line + 1) * per_line]
        ImageDraw.Draw(page).text((3, 2 + line * size * 6 // 5), text, fill=ink, font=font)
    return np.asarray(page)


def in_colour(pattern: NDArray[np.generic]) -> Pixels:
    """0 to black and 1 to white, [SIDE, SIDE, 3]."""
    return np.repeat((255 * np.broadcast_to(pattern, (SIDE, SIDE))[..., None]).astype(np.uint8), 3, axis=2)


def checks(cell: int) -> Pixels:
    cells = np.arange(SIDE) // cell
    return in_colour(np.add.outer(cells, cells) % 2)


def lines(width: int) -> Pixels:
    return in_colour((np.arange(SIDE) // width % 2)[:, None])


PATTERNS: dict[str, Callable[[], Pixels]] = {
    "10-pixel letters": lambda: lettering(10),
    "16-pixel letters": lambda: lettering(16),
    "24-pixel letters": lambda: lettering(24),
    "16-pixel letters, white on black": lambda: lettering(16, WHITE, BLACK),
    "16-pixel letters, red on blue": lambda: lettering(16, RED, BLUE),
    "lines of 1 pixel": lambda: lines(1),
    "lines of 2 pixels": lambda: lines(2),
    "lines of 4 pixels": lambda: lines(4),
    "checks of 1 pixel": lambda: checks(1),
    "checks of 2 pixels": lambda: checks(2),
    "checks of 8 pixels": lambda: checks(8),
    "dots at random": lambda: in_colour(np.random.default_rng(0).integers(0, 2, (SIDE, SIDE))),
}


def with_noise(clean: Pixels, sigma: float) -> Pixels:
    noise = np.random.default_rng(1).normal(0, sigma, clean.shape)
    return np.rint(clean + noise).clip(0, 255).astype(np.uint8)


def before_and_after(denoiser: Denoiser, clean: Pixels, sigma: float) -> tuple[float, float]:
    """PSNR in dB of the noisy picture and of the result."""
    pixels = clean[..., :1] if denoiser.checkpoint.config.channels == 1 else clean
    noisy = with_noise(pixels, sigma)
    restored = denoiser(noisy, sigma=sigma)
    return psnr(pixels, noisy, data_range=255), psnr(pixels, restored, data_range=255)


def in_pure_colours(denoiser: Denoiser, sigma: float) -> list[float]:
    """PSNR in dB of letters in each pair of the eight pure colours."""
    pairs = itertools.permutations(PURE, 2)
    return [before_and_after(denoiser, lettering(16, ink, paper), sigma)[1] for ink, paper in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=list(CHECKPOINTS))
    parser.add_argument("--sigma", nargs="+", type=float, default=list(SIGMAS))
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--save", type=Path, help="write the clean pictures into this folder instead")
    arguments = parser.parse_args()
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
        for name, pattern in PATTERNS.items():
            Image.fromarray(pattern()).save(arguments.save / f"{name}.png")
        return
    print("| model | pattern |" + "".join(f" {sigma:g} |" for sigma in arguments.sigma))
    print("|---|---|" + "---|" * len(arguments.sigma))
    for model in arguments.model:
        denoiser = Denoiser.load(model, precision=arguments.precision)
        for name, pattern in PATTERNS.items():
            if denoiser.checkpoint.config.channels == 1 and "red" in name:
                continue
            scores = [before_and_after(denoiser, pattern(), sigma) for sigma in arguments.sigma]
            cells = "".join(f" {noisy:.1f} → {restored:.1f} |" for noisy, restored in scores)
            print(f"| {model} | {name} |{cells}", flush=True)
        if denoiser.checkpoint.config.channels == 3:
            pure = [in_pure_colours(denoiser, sigma) for sigma in arguments.sigma]
            cells = "".join(f" {np.mean(found):.1f}, least {min(found):.1f} |" for found in pure)
            print(f"| {model} | 16-pixel letters in pure colours |{cells}", flush=True)


if __name__ == "__main__":
    main()
