"""Mutated files of every format: the only thing that ever comes out of `read` is an image or an ImageError.

DENOISE_SE_FUZZ gives the number of files (400 unless set).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from PIL import ImageCms

from denoise_se import image_io
from denoise_se.errors import ImageError

COUNT = int(os.environ.get("DENOISE_SE_FUZZ", "400"))
LONGEST_SECONDS = 5.0


def seeds(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    image, grey, palette = (
        PIL.Image.fromarray(rgb),
        PIL.Image.fromarray(rgb[..., 0]),
        PIL.Image.fromarray(rgb).quantize(),
    )
    bits = PIL.Image.fromarray(rgb[..., 0] > 99)
    exif = PIL.Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    facts = {"exif": exif, "icc_profile": icc}
    saves = [
        ("png", image, facts),
        ("png", grey, {}),
        ("png", palette, {"transparency": 2}),
        ("png", bits, {}),
        ("jpeg", image, facts),
        ("jpeg", grey, {}),
        ("jpeg", image, {"progressive": True, "quality": 95}),
        ("tiff", image, facts),
        ("tiff", bits, {"compression": "group4"}),
        ("tiff", palette, {"compression": "tiff_lzw"}),
        ("tiff", image, {"compression": "jpeg"}),
        ("webp", image, facts),
        ("webp", image, {"lossless": True}),
        ("bmp", image, {}),
        ("bmp", palette, {}),
        ("ppm", image, {}),
        ("ppm", bits, {}),
    ]
    found = []
    for index, (format, source, options) in enumerate(saves):
        source.save(folder / f"{index}", format, **options)
        found.append((folder / f"{index}").read_bytes())
    deep = rng.integers(0, 65536, (40, 56, 4), dtype=np.uint16)
    for index, options in enumerate(
        [
            {"compression": "deflate", "predictor": True, "tile": (16, 16)},
            {"compression": "zstd", "bigtiff": True},
            {"compression": "packbits", "byteorder": ">"},
            {"rowsperstrip": 7},
        ]
    ):
        tifffile.imwrite(folder / f"t{index}", deep, photometric="rgb", extrasamples=["unassalpha"], **options)
        found.append((folder / f"t{index}").read_bytes())
    floats = rng.normal(0.5, 1, (40, 56)).astype(np.float32)
    tifffile.imwrite(folder / "f", floats, compression="deflate", predictor=3)
    found.append((folder / "f").read_bytes())
    found += [b"P2\n3 2\n255\n0 1 2\n3 4 255\n", b"P1\n3 2\n101\n010\n"]
    return found


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    kind = rng.integers(6)
    # the first bytes hold what decides most, and TIFF's directory lies at either end
    span = len(data) if kind != 0 else min(len(data), 200)
    places = rng.integers(0, span, rng.integers(1, 9))
    if kind <= 1:
        for place in places:
            changed[place] = rng.integers(256)
    elif kind == 2:
        for place in places:
            changed[place] ^= 1 << rng.integers(8)
    elif kind == 3:
        del changed[rng.integers(0, len(data)) :]
    elif kind == 4:
        start = rng.integers(0, len(data))
        changed[start:start] = changed[rng.integers(0, len(data)) :][: rng.integers(1, 400)]
    else:
        extremes = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFF, len(data), 8]
        place, value = int(rng.integers(0, max(span - 4, 1))), extremes[rng.integers(len(extremes))]
        changed[place : place + 4] = value.to_bytes(4, "little" if rng.random() < 0.5 else "big")
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mutated_files_give_an_image_or_an_image_error_in_time_and_silence(tmp_path, capfd):
    rng = np.random.default_rng(2024)
    sources = seeds(tmp_path)
    path = tmp_path / "mutated"
    refused, slowest = 0, 0.0
    for index in range(COUNT):
        path.write_bytes(mutated(sources[index % len(sources)], rng))
        start = time.perf_counter()
        try:
            image = image_io.read(path, max_pixels=20_000_000)
            assert image.height * image.width <= 20_000_000
        except ImageError:
            refused += 1
        slowest = max(slowest, time.perf_counter() - start)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", ""), "decoders print nothing"
    print(f"{COUNT} files, {refused} refused, slowest {slowest:.2f} s")
    assert slowest < LONGEST_SECONDS and 0 < refused < COUNT
