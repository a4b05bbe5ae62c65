"""A batch that is killed with SIGKILL at random moments and resumed until it is done, compared with a clean run."""

from __future__ import annotations

import hashlib
import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile
from tiny_model import save_tiny

from denoise_se import image_io
from denoise_se.errors import ImageError
from killing.lives import Zygote

# a resumed run does about this many images before it is killed
IMAGES_A_LIFE = 4
FORMATS = ("png", "jpg", "tif", "webp", "deep.png")


@dataclass
class Tally:
    """What the kills did; `faults` are sentences."""

    images: int
    kills: int = 0
    rounds: int = 0
    early: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of a batch of {self.images} images in {self.rounds} rounds "
            f"({self.early} before the first image was written): {len(self.faults)} faults"
        )


def run_killed(work: Path, *, images: int, kills: int, seed: int) -> Tally:
    """Kills the batch `kills` times in the empty folder `work`, round after round, each resumed until it is done."""
    tally, chance = Tally(images), random.Random(seed)
    sources = make_images(work / "in", images)
    save_tiny(work / "tiny.safetensors")
    with Zygote(work, "denoise_se.app.denoise_command") as zygote:
        zygote.start(denoising("clean"))
        if zygote.wait() != 0:
            raise RuntimeError(f"the clean run fails: {zygote.output()[-500:]}")
        clean = digests(work / "clean")
        while tally.kills < kills:
            tally.rounds += 1
            out = f"out{tally.rounds}"
            _kill_until_done(zygote, out, clean, kills, tally, chance)
            _check_end(work / out, clean, tally)
    if digests(work / "in") != sources:
        tally.faults.append("an input was changed")
    return tally


def _kill_until_done(
    zygote: Zygote, out: str, clean: dict[str, str], kills: int, tally: Tally, chance: random.Random
) -> None:
    folder = zygote.work / out
    ended = None
    while ended is None:
        zygote.start(denoising(out, "--resume"))
        if tally.kills < kills:
            if chance.random() < 0.2:
                time.sleep(chance.random())
            else:
                zygote.wait_for('"status": "done"', chance.randint(1, 2 * IMAGES_A_LIFE - 1))
                time.sleep(chance.random() * 0.03)
            killed = zygote.kill()
            tally.kills += killed
            if killed:
                there = {name: digest for name, digest in digests(folder).items() if not name.endswith(".tmp")}
                wrong = [name for name, digest in there.items() if clean.get(name) != digest]
                tally.early += not there
                if wrong:
                    tally.faults.append(f"{out}, kill {tally.kills}: {wrong[:3]} differ from the clean run")
                continue
        ended = zygote.wait()
    if ended != 0:
        tally.faults.append(f"{out}: the last run ended with {ended}: {zygote.output()[-300:]}")
    rows = [json.loads(line) for line in zygote.output().splitlines() if line.startswith("{")]
    if len(rows) != tally.images or any(row["status"] not in ("done", "skipped") for row in rows):
        tally.faults.append(f"{out}: the last run tells of {len(rows)} images")


def _check_end(folder: Path, clean: dict[str, str], tally: Tally) -> None:
    found = digests(folder)
    for name in sorted(clean.keys() | found.keys()):
        if found.get(name) != clean.get(name):
            kind = "lost" if name not in found else "left behind" if name not in clean else "different"
            tally.faults.append(f"{folder.name}/{name}: {kind}")
        else:
            try:
                image_io.read(folder / name)
            except ImageError as error:
                tally.faults.append(str(error))


def denoising(out: str, *options: str) -> list[str]:
    return ["denoise", "in", "-o", out, "--model", "tiny.safetensors", "--sigma", "25", "--json", *options]


def make_images(folder: Path, count: int) -> dict[str, str]:
    """Small pictures of several formats, by name with their digests."""
    folder.mkdir()
    for index in range(count):
        rng = np.random.default_rng(index)
        kind = FORMATS[index % len(FORMATS)]
        pixels = rng.integers(0, 256, (32 + index % 17, 40 + index % 11, 3), dtype=np.uint8)
        path = folder / f"{index:03d}.{kind}"
        if kind == "deep.png":
            path.write_bytes(_deep_png(pixels))
        elif kind == "tif":
            tifffile.imwrite(path, pixels.astype(np.uint16) * 257, photometric="rgb", compression="deflate")
        else:
            buffer = BytesIO()
            PIL.Image.fromarray(pixels).save(buffer, {"jpg": "JPEG"}.get(kind, kind.upper()))
            path.write_bytes(buffer.getvalue())
    return digests(folder)


def _deep_png(pixels: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()


def digests(folder: Path) -> dict[str, str]:
    """sha256 of each file but the manifest, the temporary ones included; nothing for a folder that is not there."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.endswith(".jsonl"):
            with suppress(FileNotFoundError):
                found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
