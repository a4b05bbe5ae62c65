"""TIFF of every kind that is read, compared with what Pillow, OpenCV and tifffile see in the same files."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile

from denoise_se import image_io
from denoise_se.errors import ImageError

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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "deflate", "predictor": True},
        {"compression": "lzw", "byteorder": ">"},
        {"compression": "packbits"},
        {"compression": "zstd"},
        {"tile": (16, 32), "compression": "deflate"},
        {"planarconfig": "separate", "rowsperstrip": 5},
    ],
)
def test_tiff_is_exact_and_keeps_how_it_is_stored(tmp_path, dtype, options):
    pixels = RGB16.astype(dtype) if dtype != np.float32 else (RGB16 / 50000).astype(dtype)
    stored = pixels.transpose(2, 0, 1) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", metadata=None, **options)
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels, pixels) and image.notices == ()
    image_io.write(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert np.array_equal(after.pages[0].asarray(), pixels)
        assert after.byteorder == before.byteorder and after.is_bigtiff == before.is_bigtiff
        for name in ("compression", "predictor", "is_tiled", "bitspersample", "photometric"):
            assert getattr(after.pages[0], name) == getattr(before.pages[0], name), name


def test_16_bit_tiff_of_opencv_is_exact(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tiff"), RGB16[..., ::-1])
    image = image_io.read(tmp_path / "a.tiff")
    assert np.array_equal(image.pixels, RGB16)
    image_io.write(tmp_path / "b.tiff", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "b.tiff"), cv2.IMREAD_UNCHANGED)[..., ::-1], RGB16)


@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_the_fourth_channel_of_a_tiff_is_exact_and_keeps_its_meaning(tmp_path, extra, planar):
    stored = RGBA.transpose(2, 0, 1) if planar == "separate" else RGBA
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", extrasamples=[extra], planarconfig=planar, metadata=None
    )
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels, RGBA[..., :3]) and np.array_equal(image.alpha, RGBA[..., 3])
    image_io.write(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert np.array_equal(after.pages[0].asarray(), RGBA)
        assert [int(kind) for kind in after.pages[0].extrasamples] == [int(tifffile.EXTRASAMPLE[extra.upper()])]


def test_premultiplied_colours_are_divided_for_other_formats(tmp_path):
    samples = np.zeros((1, 2, 4), np.uint8)
    samples[0] = [(50, 100, 0, 128), (9, 9, 9, 0)]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    image_io.write(tmp_path / "a.png", image_io.read(tmp_path / "a.tif"))
    # 50 * 255 / 128 = 99.6, 100 * 255 / 128 = 199.2
    assert image_io.read(tmp_path / "a.png").pixels[0].tolist() == [[100, 199, 0], [9, 9, 9]]


def test_white_is_zero_is_turned_round_and_back(tmp_path):
    grey = RGB16[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite", metadata=None)
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels[..., 0], 65535 - grey)
    image_io.write(tmp_path / "b.tif", image)
    with tifffile.TiffFile(tmp_path / "b.tif") as after:
        assert np.array_equal(after.pages[0].asarray(), grey) and after.pages[0].photometric == 0


@pytest.mark.parametrize("compression", [None, "group4", "group3", "tiff_lzw"])
def test_1_bit_tiff_becomes_8_bit_grey_as_pillow_shows_it(tmp_path, compression):
    save(tmp_path / "a.tif", PIL.Image.fromarray(RGB[..., 0] > 99), compression=compression)
    image = image_io.read(tmp_path / "a.tif")
    shown = np.asarray(PIL.Image.open(tmp_path / "a.tif").convert("L"))
    assert np.array_equal(image.pixels[..., 0], shown) and "1-bit" in image.notices[0]


def test_12_bits_are_spread_over_16_to_the_nearest_value(tmp_path):
    codes = np.array([[0, 1, 777, 2048, 4095, 3]], np.uint16)
    packed = bytearray()
    for first, second in codes.reshape(-1, 2).tolist():
        packed += bytes((first >> 4, (first & 15) << 4 | second >> 8, second & 255))
    entries = {256: 6, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    directory = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in entries.items())
    head = b"MM\0*" + struct.pack(">IH", 8, len(entries))
    (tmp_path / "a.tif").write_bytes(head + directory + bytes(4) + bytes(packed))
    # 777 * 65535 / 4095 = 12,434.8; 2048: 32,775.5; 3: 48.01
    found = image_io.read(tmp_path / "a.tif").pixels.ravel().tolist()
    assert found == [0, 16, 12_435, 32_776, 65_535, 48]


def test_palette_tiff_becomes_rgb_as_pillow_shows_it(tmp_path):
    save(tmp_path / "a.tif", PIL.Image.fromarray(RGB).quantize(32))
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels, np.asarray(PIL.Image.open(tmp_path / "a.tif").convert("RGB")))
    assert "palette" in image.notices[0]


def test_jpeg_in_tiff_is_read_and_written_without_loss(tmp_path):
    save(tmp_path / "a.tif", SMOOTH, compression="jpeg", quality=90)
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels, np.asarray(PIL.Image.open(tmp_path / "a.tif")))
    written = image_io.write(tmp_path / "b.tif", image)
    assert "deflate" in written.notices[-1] and np.array_equal(image_io.read(tmp_path / "b.tif").pixels, image.pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].compression == 8 and file.pages[0].predictor == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32_with_a_notice(tmp_path, dtype):
    values = RNG.normal(0, 1, (9, 7)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels[..., 0], values.astype(np.float32)) and "32-bit float" in image.notices[0]


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib", "predictor": 2}])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64])
def test_other_integers_become_float32_with_a_notice(tmp_path, dtype, options):
    most = min(np.iinfo(dtype).max, 1 << 24)  # up to which float32 holds each integer
    values = RNG.integers(max(np.iinfo(dtype).min, -most), most, (9, 7), dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels[..., 0], values)
    bits, kind = 8 * values.itemsize, "signed" if values.dtype.kind == "i" else "unsigned"
    assert image.notices[0] == f"{bits}-bit {kind} integer samples written as 32-bit float"
    assert image_io.probe(tmp_path / "a.tif").bit_depth == 32
    image_io.write(tmp_path / "b.tif", image)
    written = tifffile.imread(tmp_path / "b.tif")
    assert written.dtype == np.float32 and np.array_equal(written, values)


@pytest.mark.parametrize(("dtype", "offset"), [(np.uint64, 10**15), (np.float64, 1e9), (np.uint32, 10**9)])
def test_values_that_32_bit_floats_can_hardly_tell_apart_are_told_of(tmp_path, dtype, offset):
    values = RNG.integers(0, 100, (19, 17))
    for name, pixels in (("near", values), ("far", values + offset)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels.astype(dtype), photometric="minisblack")
    told = "its values are larger than 32-bit floats can tell apart well: subtract an offset first"
    assert told in image_io.read(tmp_path / "far.tif").notices
    assert told not in image_io.read(tmp_path / "near.tif").notices


def test_complex_numbers_are_refused_with_the_reason(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((9, 7), np.complex64))
    with pytest.raises(ImageError, match="not supported here: convert it"):
        image_io.read(tmp_path / "a.tif")


def test_pages_stacks_volumes_and_many_channels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((5, 8, 8), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((7, 8, 8), np.uint8), imagej=True)
    tifffile.imwrite(tmp_path / "bands.tif", np.zeros((8, 8, 6), np.uint8), photometric="rgb", planarconfig="contig")
    tifffile.imwrite(
        tmp_path / "volume.tif",
        np.zeros((4, 16, 16), np.uint8),
        photometric="minisblack",
        volumetric=True,
        tile=(2, 16, 16),
    )
    reasons = {"pages": "5 pages", "stack": "7 pages", "bands": "6 channels", "volume": "volume"}
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            image_io.read(tmp_path / f"{name}.tif")


def test_an_imagej_stack_of_one_directory_is_counted(tmp_path):
    description = "ImageJ=1.54\nimages=9\nslices=9\n"
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., 0], description=description, metadata=None)
    assert image_io.probe(tmp_path / "a.tif").frames == 9


def test_directories_in_a_loop_are_refused(tmp_path):
    save(tmp_path / "a.tif", RGB)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError, match="loop"):
        image_io.read(tmp_path / "a.tif")


def test_nan_and_infinity_become_the_median_of_their_neighbours(tmp_path):
    values = np.arange(30, dtype=np.float32).reshape(5, 6) / 100
    values[2, 2], values[0, 5], values[4, 0] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    image = image_io.read(tmp_path / "a.tif")
    assert "3 non-finite pixels" in image.notices[0]
    mended = image.pixels[..., 0]
    # neighbours of (2, 2): 7 8 9 13 15 19 20 21; of (0, 5): 4 10 11; of (4, 0): 18 19 25
    assert mended[2, 2] == pytest.approx(0.14) and mended[0, 5] == pytest.approx(0.10)
    assert mended[4, 0] == pytest.approx(0.19)
    assert np.array_equal(mended[np.isfinite(values)], values[np.isfinite(values)])


@pytest.mark.parametrize(("counts", "told"), [(0, False), (4, False), (6, True), (100, True)])
def test_floats_that_count_photons_are_told_of_by_name_and_kept(tmp_path, counts, told):
    # the first of 100 rows hold counts, the others highlights of 1.4 and noise below black
    values = np.tile(np.float32([0, 1.4, -0.4, 0.5]), (100, 10))
    values[:counts] = 900
    tifffile.imwrite(tmp_path / "a.tif", values)
    image = image_io.read(tmp_path / "a.tif")
    assert np.array_equal(image.pixels[..., 0], values)
    found = [notice for notice in image.notices if "far outside of 0 to 1" in notice]
    assert [notice.startswith(f"{counts}% of its float values") for notice in found] == [True] * told


def test_a_large_hole_is_filled_from_its_edge_and_nothing_finite_is_refused(tmp_path):
    values = np.full((40, 40), 0.25, np.float32)
    values[5:35, 5:35] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert (image_io.read(tmp_path / "a.tif").pixels == 0.25).all()
    tifffile.imwrite(tmp_path / "b.tif", np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ImageError, match="no finite value"):
        image_io.read(tmp_path / "b.tif")


def one_strip(compression: int, body: bytes) -> bytes:
    """A 16 x 16 grey TIFF whose one strip is `body`."""
    values = {256: 16, 257: 16, 258: 8, 259: compression, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 16}
    values[279] = len(body)
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in sorted(values.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + bytes(4) + body


@pytest.mark.parametrize("kind", ["deflate", "jpeg"])
def test_a_strip_that_inflates_far_beyond_its_size_takes_no_memory(tmp_path, kind):
    if kind == "deflate":
        bomb = one_strip(8, zlib.compress(bytes(1 << 26)))
    else:
        save(tmp_path / "a.jpg", RGB[:16, :16, 0])
        data = (tmp_path / "a.jpg").read_bytes()
        frame = data.index(b"\xff\xc0")
        bomb = one_strip(7, data[: frame + 5] + struct.pack(">HH", 65500, 65500) + data[frame + 9 :])
    (tmp_path / "a.tif").write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError):
        image_io.read(tmp_path / "a.tif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
