"""Sound files of every format and kind that the fuzz run damages, none of them written by denoise-se itself.

Always the same bytes, so that a seed names a file on every machine with the same libraries.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pillow_heif
import tifffile
from cmyk_profile import cmyk_profile
from dng_file import dng
from PIL import ImageCms

HEIGHT, WIDTH = 40, 56
# first row and column, and the steps to the next, of the seven passes of an interlaced image (PNG 8.2)
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass(frozen=True)
class Sample:
    """One sound file: what it shows, the suffix it goes by, and its bytes."""

    name: str
    suffix: str
    data: bytes


@cache
def samples() -> tuple[Sample, ...]:
    """All of them, those of one format in a row."""
    return (*_pngs(), *_jpegs(), *_tiffs(), *_webps(), *_bitmaps(), *_netpbms(), *_raws(), *_heics())


def _pixels(dtype: type, channels: int = 3) -> np.ndarray:
    """A picture with flat parts and noise: all of the coders' ways of packing are used."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, 1, WIDTH)[None, :, None] * np.linspace(0.2, 1, HEIGHT)[:, None, None]
    picture = np.repeat(ramp, channels, axis=2)
    picture[10:] += rng.normal(0, 0.1, picture[10:].shape)
    if np.issubdtype(dtype, np.floating):
        return picture.astype(dtype)
    full = np.iinfo(dtype).max
    return np.rint(np.clip(picture, 0, 1) * full).astype(dtype)


def _picture() -> PIL.Image.Image:
    return PIL.Image.fromarray(_pixels(np.uint8))


def _grey() -> PIL.Image.Image:
    return _picture().convert("L")


def _clear() -> PIL.Image.Image:
    return PIL.Image.fromarray(_pixels(np.uint8, 4))


def _facts() -> dict[str, Any]:
    """EXIF with an orientation, and a colour profile without the time at which it was made."""
    exif = PIL.Image.Exif()
    exif[274], exif[271] = 6, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)
    return {"exif": exif, "icc_profile": bytes(profile)}


def _saved(name: str, suffix: str, format: str, image: PIL.Image.Image, **options: Any) -> Sample:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return Sample(name, suffix, buffer.getvalue())


def _encoded(name: str, suffix: str, pixels: np.ndarray) -> Sample:
    return Sample(name, suffix, cv2.imencode(suffix, pixels)[1].tobytes())


def _pngs() -> list[Sample]:
    def png(name: str, image: PIL.Image.Image, **options: Any) -> Sample:
        return _saved(f"png {name}", ".png", "PNG", image, **options)

    return [
        png("rgb", _picture(), dpi=(300, 300), **_facts()),
        png("grey", _grey()),
        png("alpha", _clear()),
        png("grey and alpha", _clear().convert("LA")),
        png("palette", _picture().quantize(16), transparency=2),
        png("1 bit", _grey().convert("1")),
        png("colour key", _picture(), transparency=(1, 2, 3)),
        png("animated", _picture(), save_all=True, append_images=[_picture().rotate(180)]),
        _encoded("png 16 bit", ".png", _pixels(np.uint16)),
        _encoded("png 16 bit alpha", ".png", _pixels(np.uint16, 4)),
        Sample("png interlaced", ".png", _interlaced(_pixels(np.uint8))),
    ]


def _interlaced(pixels: np.ndarray) -> bytes:
    rows = b"".join(
        b"\0" + line.tobytes()
        for row, column, down, across in ADAM7
        for line in pixels[row::down, column::across]
        if line.size
    )
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _jpegs() -> list[Sample]:
    def jpeg(name: str, image: PIL.Image.Image, **options: Any) -> Sample:
        return _saved(f"jpeg {name}", ".jpg", "JPEG", image, **options)

    return [
        jpeg("rgb with exif", _picture(), dpi=(300, 300), comment="a comment", **_facts()),
        jpeg("grey", _grey()),
        jpeg("progressive", _picture(), progressive=True, quality=95, subsampling="4:2:0"),
        jpeg("restarts", _picture(), restart_marker_blocks=2, quality=60),
        jpeg("rgb coded", _picture(), keep_rgb=True),
        jpeg("cmyk", _picture().convert("CMYK"), icc_profile=cmyk_profile()),
    ]


def _tiffs() -> list[Sample]:
    def tiff(name: str, pixels: np.ndarray, **options: Any) -> Sample:
        buffer = BytesIO()
        colours = {} if pixels.shape[-1] != 3 else {"photometric": "rgb"}
        tifffile.imwrite(buffer, pixels, metadata=None, **colours | options)
        return Sample(f"tiff {name}", ".tif", buffer.getvalue())

    def pillow(name: str, image: PIL.Image.Image, **options: Any) -> Sample:
        return _saved(f"tiff {name}", ".tif", "TIFF", image, **options)

    rgb, deep, floats = _pixels(np.uint8), _pixels(np.uint16, 4), _pixels(np.float32, 1)[..., 0]
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    holes = floats.copy()
    holes[5, 5:9], holes[20, 3] = np.nan, np.inf
    return [
        pillow("with exif", _picture(), dpi=(300, 300), **_facts()),
        pillow("group 4", _grey().convert("1"), compression="group4"),
        pillow("group 3", _grey().convert("1"), compression="group3"),
        pillow("palette lzw", _picture().quantize(16), compression="tiff_lzw"),
        pillow("jpeg", _picture(), compression="jpeg"),
        pillow("cmyk", _picture().convert("CMYK"), icc_profile=cmyk_profile()),
        pillow("pages", _picture(), save_all=True, append_images=[_grey(), _clear()]),
        tiff("strips", rgb, rowsperstrip=7),
        tiff("strips lzw", rgb, rowsperstrip=7, compression="lzw", predictor=True),
        tiff("tiles deflate", deep, compression="deflate", predictor=True, tile=(16, 16), **alpha),
        tiff("big zstd", deep, compression="zstd", bigtiff=True, **alpha),
        tiff("big tiles", rgb, bigtiff=True, tile=(16, 32)),
        tiff("packbits big endian", deep, compression="packbits", byteorder=">", **alpha),
        tiff("planar", np.moveaxis(rgb, 2, 0), planarconfig="separate", photometric="rgb", rowsperstrip=9),
        tiff("planar tiles", np.moveaxis(rgb, 2, 0), planarconfig="separate", photometric="rgb", tile=(16, 16)),
        tiff("float", floats, compression="deflate", predictor=3),
        tiff("float with holes", holes),
        tiff("half float", floats.astype(np.float16)),
        tiff("jpeg tiles", rgb, compression="jpeg", tile=(16, 16)),
        tiff("lzma", rgb, compression="lzma"),
        tiff("white is zero", rgb[..., 0], photometric="miniswhite"),
        tiff("stack", np.stack([rgb, rgb[::-1], rgb // 2]), compression="deflate", rowsperstrip=16),
        tiff("deep stack", np.stack([deep[..., 0]] * 5), photometric="minisblack", rowsperstrip=11),
    ]


def _webps() -> list[Sample]:
    def webp(name: str, image: PIL.Image.Image, **options: Any) -> Sample:
        return _saved(f"webp {name}", ".webp", "WEBP", image, **options)

    return [
        webp("lossy", _picture(), **_facts()),
        webp("lossless", _picture(), lossless=True),
        webp("lossy alpha", _clear()),
        webp("lossless alpha", _clear(), lossless=True, exact=True),
        webp("animated", _picture(), save_all=True, append_images=[_picture().rotate(180)], duration=50),
    ]


def _bitmaps() -> list[Sample]:
    return [
        _saved("bmp rgb", ".bmp", "BMP", _picture(), dpi=(300, 300)),
        _saved("bmp grey", ".bmp", "BMP", _grey()),
        _saved("bmp palette", ".bmp", "BMP", _picture().quantize(16)),
        _saved("bmp 1 bit", ".bmp", "BMP", _grey().convert("1")),
        _encoded("bmp alpha", ".bmp", _pixels(np.uint8, 4)),
    ]


def _netpbms() -> list[Sample]:
    return [
        _saved("ppm", ".ppm", "PPM", _picture()),
        _saved("pgm", ".pgm", "PPM", _grey()),
        _saved("pbm", ".pnm", "PPM", _grey().convert("1")),
        _encoded("ppm 16 bit", ".ppm", _pixels(np.uint16)),
        Sample("pgm plain", ".pgm", b"P2\n# text\n3 2\n255\n0 1 2\n3 4 255\n"),
        Sample("pbm plain", ".pnm", b"P1\n3 2\n101\n010\n"),
    ]


def _raws() -> list[Sample]:
    return [Sample("dng", ".dng", dng(_pixels(np.float32).astype(float).clip(0, 1), orientation=6))]


def _heics() -> list[Sample]:
    deep = (_pixels(np.uint16) >> 6 << 6).tobytes()
    kinds = {
        "heic": pillow_heif.from_pillow(_clear()),
        "heic 10 bit": pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), deep),
    }
    found = []
    for name, image in kinds.items():
        image.info.update(exif=_facts()["exif"].tobytes(), icc_profile=_facts()["icc_profile"])
        buffer = BytesIO()
        image.save(buffer, quality=90)
        found.append(Sample(name, ".heic", buffer.getvalue()))
    return found
