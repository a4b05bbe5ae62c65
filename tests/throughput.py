"""Throughput of `denoise-se denoise` on folders beside a plain loop over the network: `make throughput`.

The loop holds the decoded pixels in memory and does nothing but run the same network on them (large ones in pieces
without a margin), before and after the folder, in a process with the same threads. What a folder takes longer than that
is more than the loop: start-up, decoding, margins of tiles, noise levels, writing with fsync, the manifest, and what
these, done beside the network, slow it. Outside the network is less: the share of the wall time, from the process's
start to its end, in which the network is at work on no image (OpenVINO only).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SAMPLES = Path(__file__).parents[1] / "data/samples/noisy"

LOOP = """
import sys, time
import cv2, numpy as np
from denoise_se.denoiser import Denoiser
model, files, side = sys.argv[1], sys.argv[3:], int(sys.argv[2])
denoiser = Denoiser.load(model, tile=0)
pieces = []
for file in files:
    pixels = cv2.imread(file)[:, :, ::-1].astype(np.float32) / 255
    for top in range(0, pixels.shape[0], side):
        for left in range(0, pixels.shape[1], side):
            piece = pixels[top : top + side, left : left + side]
            pieces.append(np.ascontiguousarray(piece.transpose(2, 0, 1)[None]))
level = np.zeros((1, 1, side, side), np.float32)
run = lambda piece: denoiser.backend.denoise(piece, level[:, :, : piece.shape[2], : piece.shape[3]], None)
run(pieces[0])
began = time.perf_counter()
for piece in pieces:
    run(piece)
print(time.perf_counter() - began, denoiser.backend.description, sep="|")
"""

WATCHED = """
import sys, time
from denoise_se.app.cli import main
from denoise_se.openvino_backend import _Engine
spans, run = [], _Engine.run
def watched(*arguments):
    began = time.perf_counter()
    try:
        return run(*arguments)
    finally:
        spans.append((began, time.perf_counter()))
_Engine.run = watched
try:
    main()
finally:
    inside, until = 0.0, 0.0
    for began, ended in sorted(spans):  # small images run side by side
        inside, until = inside + max(0.0, ended - max(began, until)), max(until, ended)
    print(inside)
"""


@dataclass(frozen=True)
class Folder:
    """Pictures made for a measurement: `count` of `height` by `width`, of which the loop runs `looped` twice."""

    name: str
    count: int
    height: int
    width: int
    suffix: str
    looped: int

    @property
    def megapixels(self) -> float:
        return self.count * self.height * self.width / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=1000, help="how many images of 256x256")
    parser.add_argument("--large", type=int, default=20, help="how many images of 12 megapixels")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--options", nargs="*", default=[], help="further options of `denoise-se denoise`, without --")
    arguments = parser.parse_args()
    folders = [
        Folder("small PNG", arguments.small, 256, 256, ".png", max(1, arguments.small // 10)),
        Folder("large JPEG", arguments.large, 2828, 4243, ".jpg", max(1, arguments.large // 10)),
    ]
    names = f"{'network alone MP/s':>19} {'more than it':>13} {'outside':>8}"
    print(f"{'folder':>11} {'images':>6} {'images/s':>9} {'MP/s':>7} {names}  engine")
    for folder in folders:
        if folder.count:
            measure(folder, arguments.model, [f"--{option}" for option in arguments.options])
    return 0


def measure(folder: Folder, model: str, options: list[str]) -> None:
    """Prints a line of the table."""
    with tempfile.TemporaryDirectory() as home:
        source = Path(home, "in")
        source.mkdir()
        files = [picture(source, folder, index) for index in range(folder.count)]
        loop = [sys.executable, "-c", LOOP, model, "256" if folder.height == 256 else "768"]
        alone, engine = 0.0, ""
        command = [sys.executable, "-c", WATCHED, "denoise", str(source), "-o", f"{home}/out", "--quiet"]
        for half in range(2):
            part = files[half * folder.looped : (half + 1) * folder.looped] or files[: folder.looped]
            output = subprocess.run([*loop, *map(str, part)], capture_output=True, text=True, check=True).stdout
            alone += float(output.split("|")[0]) / (2 * len(part))
            engine = output.split("|")[1].strip()
            if half == 0:
                began = time.perf_counter()
                folder_run = [*command, "--model", model, *options]
                said = subprocess.run(folder_run, stdout=subprocess.PIPE, text=True, check=True).stdout
                took = time.perf_counter() - began
                inside = float(said.splitlines()[-1])
    more, outside = 1 - alone * folder.count / took, 1 - inside / took
    speeds = folder.count / took, folder.megapixels / took, folder.megapixels / folder.count / alone
    shown = "{:9.2f} {:7.3f} {:19.3f}".format(*speeds)
    without = f"{outside:.1%}" if inside else "-"
    print(f"{folder.name:>11} {folder.count:6d} {shown} {more:13.1%} {without:>8}  {engine}", flush=True)


def picture(home: Path, folder: Folder, index: int) -> Path:
    """One of the noisy samples, turned and repeated to the folder's size."""
    samples = [cv2.imread(str(path)) for path in sorted(SAMPLES.glob("*.png"))]
    sample = np.roll(samples[index % len(samples)], (7 * index, 13 * index), (0, 1))
    rows, columns = -(-folder.height // sample.shape[0]), -(-folder.width // sample.shape[1])
    path = home / f"{index:04d}{folder.suffix}"
    cv2.imwrite(str(path), np.tile(sample, (rows, columns, 1))[: folder.height, : folder.width])
    return path


if __name__ == "__main__":
    raise SystemExit(main())
