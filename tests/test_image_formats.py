"""Each format's modes, compared with what Pillow, OpenCV and tifffile see in the same files."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from denoise_se import image_io
from denoise_se.errors import ImageError
from denoise_se.image import Image

RNG = np.random.default_rng(11)
RGB = RNG.integers(0, 256, (24, 37, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (24, 37, 4), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (24, 37, 3), dtype=np.uint16)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8), (9, 9), 3)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def save(path: Path, pixels: np.ndarray | PIL.Image.Image, **options: object) -> Path:
    image = PIL.Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(path, **options)
    return path


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(path: Path, name: bytes, body: bytes) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[:33] + png_chunk(name, body) + data[33:])
    return path


# --- PNG


def test_16_bit_rgb_png_is_exact_both_ways(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), RGB16[..., ::-1])
    image = image_io.read(tmp_path / "a.png")
    assert image.bit_depth == 16 and np.array_equal(image.pixels, RGB16)
    image_io.write(tmp_path / "b.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)[..., ::-1], RGB16)


@pytest.mark.parametrize("alpha", [False, True])
def test_palette_png_becomes_rgb_as_pillow_shows_it(tmp_path, alpha):
    palette = PIL.Image.fromarray(RGB).quantize(16)
    options = {"transparency": 3} if alpha else {}
    image = image_io.read(save(tmp_path / "a.png", palette, **options))
    shown = np.asarray(PIL.Image.open(tmp_path / "a.png").convert("RGBA"))
    assert np.array_equal(image.pixels, shown[..., :3]) and "palette" in image.notices[0]
    assert np.array_equal(image.alpha, shown[..., 3]) if alpha else image.alpha is None


def test_colour_key_becomes_alpha_that_is_exact(tmp_path):
    pixels = RGB.copy()
    pixels[5:9] = (1, 2, 3)
    image = image_io.read(save(tmp_path / "a.png", pixels, transparency=(1, 2, 3)))
    assert np.array_equal(image.pixels, pixels)
    assert np.array_equal(image.alpha == 0, (pixels == (1, 2, 3)).all(axis=2))
    assert "alpha channel" in image.notices[0]


def test_1_bit_png_becomes_8_bit_grey_with_a_notice(tmp_path):
    bits = RGB[..., 0] > 99
    image = image_io.read(save(tmp_path / "a.png", bits))
    assert np.array_equal(image.pixels[..., 0], bits * np.uint8(255)) and "1-bit" in image.notices[0]


@pytest.mark.parametrize("size", [(24, 37), (1, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["rgb", "16 bit alpha", "1 bit", "palette"])
def test_interlaced_png_is_read_in_silence(tmp_path, capfd, size, kind):
    palette = RGB[:4, 0]
    stored, depth, colour, extra = {
        "rgb": (RGB, 8, 2, b""),
        "16 bit alpha": (RGB16.repeat(2, axis=2)[..., :4], 16, 6, b""),
        "1 bit": (RGB[..., :1] & 1, 1, 0, b""),
        "palette": (RGB[..., :1] & 3, 8, 3, png_chunk(b"PLTE", palette.tobytes()) + png_chunk(b"tRNS", b"\5\6")),
    }[kind]
    stored = stored[: size[0], : size[1]]
    # Adam7: first row, first column, row step, column step of the seven passes (PNG 8.2)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for row, column, down, across in passes:
        part = stored[row::down, column::across]
        part = np.packbits(part[..., 0], axis=1) if depth == 1 else part.astype(f">u{depth // 8}")
        rows += b"".join(b"\0" + line.tobytes() for line in part if line.size)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, 1)) + extra
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    image = image_io.read(tmp_path / "a.png")
    expected = stored[..., :3] * (255 if depth == 1 else 1)
    if kind == "palette":
        expected = palette[stored[..., 0]]
        assert np.array_equal(image.alpha, np.array([5, 6, 255, 255])[stored[..., 0]])
    elif kind == "16 bit alpha":
        assert np.array_equal(image.alpha, stored[..., 3])
    assert np.array_equal(image.pixels, expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("field", [26, 27, 28])
def test_a_png_of_an_unknown_way_of_coding_is_refused_in_silence(tmp_path, capfd, field):
    data = bytearray(save(tmp_path / "a.png", RGB).read_bytes())
    data[field] = 2
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.png.*does not exist in PNG"):
        image_io.read(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


def test_animated_png_is_refused_with_its_number_of_frames(tmp_path):
    frames = [PIL.Image.fromarray(RGB), PIL.Image.fromarray(RGB[::-1]), PIL.Image.fromarray(RGB // 2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert image_io.probe(tmp_path / "a.png").frames == 3
    with pytest.raises(ImageError, match="3 frames"):
        image_io.read(tmp_path / "a.png")


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    data = bytearray(path.read_bytes())
    for position in range(8, len(data) - 1, 101):
        damaged = data.copy()
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            image_io.read(path)


def test_an_inflating_profile_or_text_takes_no_memory_and_is_told(tmp_path):
    bomb = zlib.compress(bytes(100 << 20), 9)
    with_chunk(save(tmp_path / "a.png", RGB), b"iCCP", b"x\0\0" + bomb)
    with_chunk(tmp_path / "a.png", b"zTXt", b"x\0\0" + bomb)
    image = image_io.read(tmp_path / "a.png")
    assert image.metadata.icc is None and any("profile not kept" in notice for notice in image.notices)
    assert np.array_equal(image.pixels, RGB)


@pytest.mark.parametrize(("rows", "reason"), [(9, "fewer pixels"), (11, "more pixels"), (1 << 17, "more pixels")])
def test_png_pixels_of_another_amount_are_refused_at_once_and_in_silence(tmp_path, capfd, rows, reason):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 255, 10, 8, 0, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(bytes(256 * rows))) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    start = time.process_time()
    with pytest.raises(ImageError, match=reason):
        image_io.read(tmp_path / "a.png")
    assert time.process_time() - start < 0.05 and capfd.readouterr() == ("", "")


def test_chunks_that_libpng_warns_about_are_read_in_silence(tmp_path, capfd):
    path = save(tmp_path / "a.png", RGB)
    for name, body in ((b"iCCP", b"x\0\0rubbish"), (b"tRNS", b"\0"), (b"gAMA", b"\0"), (b"PLTE", b"\0\0")):
        with_chunk(path, name, body)
    assert np.array_equal(image_io.read(path).pixels, RGB)
    assert capfd.readouterr() == ("", "")


# --- JPEG


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_tables_subsampling_and_progression(tmp_path, subsampling, progressive):
    save(tmp_path / "a.jpg", SMOOTH, quality=83, subsampling=subsampling, progressive=progressive)
    image = image_io.read(tmp_path / "a.jpg")
    before = PIL.Image.open(tmp_path / "a.jpg")
    assert np.array_equal(image.pixels, np.asarray(before))
    image_io.write(tmp_path / "b.jpg", image)
    after = PIL.Image.open(tmp_path / "b.jpg")
    assert after.quantization == before.quantization and after.layer == before.layer
    assert bool(after.info.get("progressive")) == progressive
    assert np.abs(np.asarray(after).astype(int) - image.pixels).mean() < 0.5


def test_grey_and_rgb_coded_jpegs_stay_what_they_are(tmp_path):
    save(tmp_path / "grey.jpg", SMOOTH[..., 0], quality=90)
    save(tmp_path / "rgb.jpg", SMOOTH, quality=90, keep_rgb=True)
    for name in ("grey.jpg", "rgb.jpg"):
        image = image_io.read(tmp_path / name)
        before = PIL.Image.open(tmp_path / name)
        assert np.array_equal(image.pixels.squeeze(), np.asarray(before))
        image_io.write(tmp_path / "b.jpg", image)
        after = PIL.Image.open(tmp_path / "b.jpg")
        assert after.mode == before.mode and after.quantization == before.quantization and after.layer == before.layer
        assert np.abs(np.asarray(after).astype(int) - np.asarray(before)).mean() < 0.5


def test_cmyk_without_a_profile_is_refused_with_the_reason(tmp_path):
    cmyk = PIL.Image.fromarray(SMOOTH).convert("CMYK")
    for name in ("a.jpg", "a.tif"):
        with pytest.raises(ImageError, match="CMYK without a colour profile"):
            image_io.read(save(tmp_path / name, cmyk))


def test_additional_images_and_appended_data_are_told(tmp_path):
    first, second = PIL.Image.fromarray(SMOOTH), PIL.Image.fromarray(SMOOTH[::-1])
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    image = image_io.read(tmp_path / "a.jpg")
    assert image.pixels.shape == SMOOTH.shape and "additional images" in image.notices[0]
    save(tmp_path / "b.jpg", SMOOTH)
    with (tmp_path / "b.jpg").open("ab") as stream:
        stream.write(b"\0\0\0\x18ftypmp42" * 10)
    assert "120 bytes after the end" in image_io.read(tmp_path / "b.jpg").notices[0]


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    data = save(tmp_path / "a.jpg", SMOOTH, progressive=True).read_bytes()
    scan = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + scan * 200 + data[-2:])
    with pytest.raises(ImageError, match="more than 100 scans"):
        image_io.read(tmp_path / "a.jpg")


# --- WebP, BMP, PPM


def test_lossless_webp_stays_lossless_and_lossy_stays_lossy_with_exact_alpha(tmp_path):
    samples = RGBA.copy()
    samples[4:12, :, 3] = 0
    save(tmp_path / "a.webp", samples, lossless=True, exact=True)
    image = image_io.read(tmp_path / "a.webp")
    image_io.write(tmp_path / "b.webp", image)
    for read in (image, image_io.read(tmp_path / "b.webp")):
        assert np.array_equal(np.dstack([read.pixels, read.alpha]), samples), "transparent colours are kept"
    assert b"VP8L" in (tmp_path / "b.webp").read_bytes()[:64]
    smooth = np.dstack([SMOOTH, RNG.integers(0, 256, SMOOTH.shape[:2], dtype=np.uint8)])
    save(tmp_path / "c.webp", smooth, quality=80)
    image = image_io.read(tmp_path / "c.webp")
    image_io.write(tmp_path / "d.webp", image)
    back = image_io.read(tmp_path / "d.webp")
    assert np.array_equal(back.alpha, smooth[..., 3]) and b"VP8 " in (tmp_path / "d.webp").read_bytes()
    assert cv2.PSNR(back.pixels, image.pixels) > 40


def test_animated_webp_is_refused_with_its_number_of_frames(tmp_path):
    frames = [PIL.Image.fromarray(RGB), PIL.Image.fromarray(RGB[::-1])]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ImageError, match="2 frames"):
        image_io.read(tmp_path / "a.webp")


def test_bmp_is_what_pillow_shows_and_keeps_alpha(tmp_path):
    for pixels in (RGB, RGB[..., 0]):
        image = image_io.read(save(tmp_path / "a.bmp", pixels))
        assert np.array_equal(image.pixels.squeeze(), pixels)
        image_io.write(tmp_path / "b.bmp", image)
        assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "b.bmp")), pixels)
    image_io.write(tmp_path / "c.bmp", Image(RGBA[..., :3], RGBA[..., 3].copy(), "bmp"))
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "c.bmp")), RGBA)


def test_run_length_bmp_is_read_and_a_cut_one_is_refused(tmp_path):
    # a line of five times 1, end of line, a line of five times 2, end of bitmap; bottom line first
    runs = b"\5\1\0\0\5\2\0\1"
    palette = b"".join(bytes((n, 2 * n, 3 * n, 0)) for n in range(4))
    start = 54 + len(palette)
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", start + 8, 0, 0, start, 40, 5, 2, 1, 8, 1, 8, 0, 0, 4, 0)
    (tmp_path / "a.bmp").write_bytes(header + palette + runs)
    image = image_io.read(tmp_path / "a.bmp")
    assert image.pixels[:, :, 0].tolist() == [[6] * 5, [3] * 5] and "palette" in image.notices[0]
    (tmp_path / "a.bmp").write_bytes((header + palette + runs)[:-3])
    with pytest.raises(ImageError, match="truncated"):
        image_io.read(tmp_path / "a.bmp")


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"P1\n# text\n3 2\n101\n0 1 0\n", [0, 255, 0, 255, 0, 255]),
        (b"P4\n3 2\n\xa0\x40", [0, 255, 0, 255, 0, 255]),
        (b"P2\n3 2\n255\n0 1 2\n3 4 255\n", [0, 1, 2, 3, 4, 255]),
        (b"P5 3 2 255\n\0\1\2\3\4\xff", [0, 1, 2, 3, 4, 255]),
        (b"P5 3 2 15\n\0\1\2\3\4\x0f", [0, 17, 34, 51, 68, 255]),
        (b"P5 1 3 1023\n\0\0\0\1\x03\xff", [0, 64, 65535]),
        (b"P2 1 2 1000\n777 778\n", [50921, 50986]),  # 50,920.7 and 50,986.2
    ],
)
def test_netpbm_kinds_are_read(tmp_path, content, values):
    (tmp_path / "a.pnm").write_bytes(content)
    assert image_io.read(tmp_path / "a.pnm").pixels.ravel().tolist() == values


def test_an_odd_largest_value_is_written_back_exactly(tmp_path):
    content = b"P5\n1024 1\n1023\n" + np.arange(1024, dtype=">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(content)
    image_io.write(tmp_path / "b.pgm", image_io.read(tmp_path / "a.pgm"))
    assert (tmp_path / "b.pgm").read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"P5 1 1 255\n\0P5 1 1 255\n\0", b"P5 1 1 9\n\x0a", b"P2 2 1 9 1", b"P5 1 1 0\n\0"]
)
def test_several_images_and_wrong_values_in_netpbm_are_refused(tmp_path, content):
    (tmp_path / "a.ppm").write_bytes(content)
    with pytest.raises(ImageError):
        image_io.read(tmp_path / "a.ppm")
