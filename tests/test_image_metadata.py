"""What a file says beside its pixels comes back, and an image is shown the same way up."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import pytest
import tifffile
from cmyk_profile import cmyk_profile
from PIL import ImageCms
from PIL.TiffImagePlugin import IFDRational

from denoise_se import formats, image_io
from denoise_se.errors import ImageError
from denoise_se.image import Image, Metadata

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="t"/></x:xmpmeta>'
MAKE, ORIENTATION, EXIF_IFD, GPS_IFD, EXPOSURE, LENS, LATITUDE = 271, 274, 34665, 34853, 33434, 42036, 2
PATTERN = np.full((48, 80, 3), 40, np.uint8)
PATTERN[:16, :24] = (220, 30, 30)
PATTERN[40:, 70:] = (30, 220, 30)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def exif(orientation: int = 6) -> PIL.Image.Exif:
    block = PIL.Image.Exif()
    block[ORIENTATION] = orientation
    block[MAKE] = "Maker"
    block.get_ifd(EXIF_IFD).update({EXPOSURE: IFDRational(1, 60), LENS: "50 mm", 40962: 80, 40963: 48})
    block.get_ifd(GPS_IFD)[LATITUDE] = (IFDRational(59), IFDRational(20), IFDRational(1, 3))
    return block


def exif_with_thumbnail() -> bytes:
    """Little-endian: orientation 6 in the first directory, a JPEG thumbnail in the second, behind both."""
    thumbnail = b"\xff\xd8thumbnail\xff\xd9"
    first = struct.pack("<HHHII", 1, 274, 3, 1, 6) + struct.pack("<I", 26)
    second = struct.pack("<H", 2) + struct.pack("<HHII", 513, 4, 1, 56) + struct.pack("<HHII", 514, 4, 1, 13)
    return b"II*\0\x08\0\0\0" + first + second + bytes(4) + thumbnail


def shown(path: Path) -> np.ndarray:
    return np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(path)).convert("RGB")).astype(int)


def facts(path: Path) -> dict[str, object]:
    with PIL.Image.open(path) as image:
        block = image.getexif()
        exposure = block.get_ifd(EXIF_IFD)
        return {
            "make": block.get(MAKE),
            "orientation": block.get(ORIENTATION, 1),
            "exposure": exposure.get(EXPOSURE),
            "lens": exposure.get(LENS),
            "latitude": block.get_ifd(GPS_IFD).get(LATITUDE),
            "icc": image.info.get("icc_profile"),
            "dpi": tuple(round(float(dpi)) for dpi in image.info.get("dpi", (0, 0))),
        }


def written_again(path: Path) -> Path:
    """Read and written with new pixels, as a denoiser does."""
    image = image_io.read(path)
    target = path.with_name(f"again{path.suffix}")
    image_io.write(target, image.with_pixels(image.pixels.copy()))
    return target


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_gps_icc_dpi_and_orientation_come_back(tmp_path, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    dpi = {} if suffix == ".webp" else {"dpi": (300, 150)}
    PIL.Image.fromarray(PATTERN).save(path, exif=exif(orientation).tobytes(), icc_profile=ICC, **dpi)
    again = written_again(path)
    before = facts(path)
    assert (
        before["make"] == "Maker"
        and before["lens"] == "50 mm"
        and before["orientation"] == orientation
        and before["icc"] == ICC
    )
    assert facts(again) == before
    assert np.abs(shown(path) - shown(again)).mean() < 3


@pytest.mark.parametrize(("source", "target"), permutations((".png", ".jpg", ".tif", ".webp"), 2))
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_another_format_is_shown_the_same_and_keeps_what_it_can(tmp_path, source, target, orientation):
    path = tmp_path / f"a{source}"
    PIL.Image.fromarray(PATTERN).save(path, exif=exif(orientation).tobytes(), icc_profile=ICC)
    written = image_io.write(tmp_path / f"b{target}", image_io.read(path))
    after = facts(tmp_path / f"b{target}")
    assert np.abs(shown(path) - shown(tmp_path / f"b{target}")).mean() < 3
    assert after["orientation"] == 1 and after["make"] == "Maker" and after["icc"] == ICC
    assert after["lens"] == "50 mm" and after["latitude"] == facts(path)["latitude"]
    assert any("upright" in notice for notice in written.notices) == (orientation != 1)


def test_upright_is_what_pillow_shows_and_states_its_own_size(tmp_path):
    for orientation in range(1, 9):
        path = tmp_path / "a.jpg"
        PIL.Image.fromarray(PATTERN).save(path, exif=exif(orientation), quality=95)
        image = image_io.read(path).upright()
        assert np.array_equal(image.pixels, shown(path)) and image.metadata.orientation == 1
        block = PIL.Image.Exif()
        block.load(image.metadata.exif)
        sizes = block.get_ifd(EXIF_IFD)
        assert (sizes[40962], sizes[40963]) == (image.width, image.height)


def test_the_resolution_turns_with_the_pixels(tmp_path):
    PIL.Image.fromarray(PATTERN).save(tmp_path / "a.jpg", exif=exif(6), dpi=(300, 150))
    image_io.write(tmp_path / "b.png", image_io.read(tmp_path / "a.jpg"))
    with PIL.Image.open(tmp_path / "b.png") as image:
        assert tuple(map(round, image.info["dpi"])) == (150, 300)


def test_xmp_comes_back_and_its_orientation_follows_the_pixels(tmp_path):
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        image = Image(PATTERN, None, "png", Metadata(xmp=XMP, exif=exif(6).tobytes()[6:]))
        kept = Image(PATTERN, None, formats.format_of_suffix(f"a{suffix}"), image.metadata)
        image_io.write(tmp_path / f"a{suffix}", kept)
        assert image_io.read(tmp_path / f"a{suffix}").metadata.xmp == XMP
        if suffix != ".png":
            image_io.write(tmp_path / f"b{suffix}", image)
            assert b'tiff:Orientation="1"' in image_io.read(tmp_path / f"b{suffix}").metadata.xmp


def test_an_orientation_that_xmp_holds_as_an_element_follows_the_pixels():
    packet = b"<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
    image = Image(PATTERN, None, "jpg", Metadata(xmp=packet, exif=exif(6).tobytes()[6:])).upright()
    assert image.metadata.xmp == packet.replace(b">6<", b">1<")


def test_the_thumbnail_of_the_old_pixels_goes_and_only_with_new_pixels(tmp_path):
    block = exif_with_thumbnail()
    image = Image(PATTERN, None, "jpg", Metadata(exif=block))
    image_io.write(tmp_path / "a.jpg", image)
    read = image_io.read(tmp_path / "a.jpg")
    assert read.metadata.exif == block, "unchanged pixels: EXIF byte for byte"
    changed = read.with_pixels(read.pixels).metadata
    assert b"thumbnail" not in changed.exif and changed.orientation == 6
    assert changed.exif[:22] == block[:22] and changed.exif[22:26] == bytes(4)


def test_png_text_colour_and_unknown_safe_chunks_come_back_and_unsafe_ones_go(tmp_path):
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("Author", "someone")
    info.add_itxt("Title", "画像", lang="ja", zip=True)
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"saFe", b"kept", after_idat=True)
    info.add(b"unSA", b"gone")
    PIL.Image.fromarray(PATTERN).save(tmp_path / "a.png", pnginfo=info)
    again = written_again(tmp_path / "a.png")
    data = again.read_bytes()
    with PIL.Image.open(again) as image:
        assert image.text == {"Author": "someone", "Title": "画像"} and image.info["gamma"] == pytest.approx(0.45455)
    assert b"saFekept" in data and b"unSA" not in data
    written = image_io.write(tmp_path / "a.jpg", image_io.read(tmp_path / "a.png"))
    assert "PNG text" in written.notices[-1]


def test_16_bit_png_keeps_its_metadata(tmp_path):
    pixels = np.arange(48 * 80 * 3, dtype=np.uint16).reshape(48, 80, 3) * 5
    image = Image(pixels, None, "png", Metadata(exif=exif().tobytes()[6:], icc=ICC, xmp=XMP, dpi=(300, 300)))
    image_io.write(tmp_path / "a.png", image)
    back = image_io.read(tmp_path / "a.png")
    assert np.array_equal(back.pixels, pixels) and back.metadata.icc == ICC and back.metadata.xmp == XMP
    assert back.metadata.exif == image.metadata.exif and back.metadata.dpi == pytest.approx((300, 300), abs=0.02)


def test_jpeg_comments_and_other_segments_come_back(tmp_path):
    PIL.Image.fromarray(PATTERN).save(tmp_path / "a.jpg", comment="a comment", quality=90)
    data = (tmp_path / "a.jpg").read_bytes()
    iptc = b"\xff\xed\x00\x12Photoshop 3.0\0IP"
    (tmp_path / "a.jpg").write_bytes(data[:2] + iptc + data[2:])
    again = written_again(tmp_path / "a.jpg")
    with PIL.Image.open(again) as image:
        assert image.info["comment"] == b"a comment"
    assert iptc in again.read_bytes()
    written = image_io.write(tmp_path / "a.png", image_io.read(again))
    assert "APP13 data, JPEG comment" in written.notices[-1]


def test_a_profile_of_many_segments_comes_back_whole(tmp_path):
    profile = ICC + np.random.default_rng(0).bytes(200_000)
    image_io.write(tmp_path / "a.jpg", Image(PATTERN, None, "jpg", Metadata(icc=profile)))
    assert image_io.read(tmp_path / "a.jpg").metadata.icc == profile
    with PIL.Image.open(tmp_path / "a.jpg") as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("density", [(0, 2, 1), (1, 300, 150), (2, 118, 118)])
def test_the_density_of_a_jpeg_comes_back_as_it_was_the_shape_of_its_pixels_too(tmp_path, density):
    PIL.Image.fromarray(PATTERN).save(tmp_path / "a.jpg")
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    assert data[6:11] == b"JFIF\0"
    data[13:18] = struct.pack(">BHH", *density)
    (tmp_path / "a.jpg").write_bytes(data)
    again = written_again(tmp_path / "a.jpg")
    assert struct.unpack(">BHH", again.read_bytes()[13:18]) == density


def test_photoshops_small_picture_of_the_noisy_one_goes_and_its_other_resources_stay(tmp_path):
    def resource(number, content):
        return b"8BIM" + struct.pack(">HHI", number, 0, len(content)) + content + bytes(len(content) % 2)

    PIL.Image.fromarray(PATTERN).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    others = resource(0x03ED, b"resolution, odd"), resource(0x0404, b"a caption.")
    for body, kept in (
        (others[0] + resource(0x040C, b"small picture") + others[1], others[0] + others[1]),
        (others[0][:-9], others[0][:-9]),  # damaged
    ):
        payload = b"Photoshop 3.0\0" + body
        segment = struct.pack(">BBH", 0xFF, 0xED, len(payload) + 2) + payload
        (tmp_path / "b.jpg").write_bytes(data[:2] + segment + data[2:])
        assert b"Photoshop 3.0\0" + kept in written_again(tmp_path / "b.jpg").read_bytes()
        assert b"small picture" not in written_again(tmp_path / "b.jpg").read_bytes()


def test_packets_too_large_for_jpeg_are_told(tmp_path):
    metadata = Metadata(xmp=b"x" * 70_000)
    written = image_io.write(tmp_path / "a.jpg", Image(PATTERN, None, "jpg", metadata))
    assert "XMP not kept" in written.notices[-1] and image_io.read(tmp_path / "a.jpg").metadata.xmp is None


def test_a_profile_of_more_segments_than_jpeg_can_count_is_told(tmp_path):
    profile = ICC + bytes(255 * 65_519)  # 255 segments hold 65,519 bytes each
    written = image_io.write(tmp_path / "a.jpg", Image(PATTERN, None, "jpg", Metadata(icc=profile)))
    assert "not kept" in written.notices[-1] and image_io.read(tmp_path / "a.jpg").metadata.icc is None


def test_tiff_descriptions_resolution_and_private_tags_come_back(tmp_path):
    geo = (33550, 12, 3, (0.5, 0.5, 0.0), True)
    tifffile.imwrite(
        tmp_path / "a.tif",
        PATTERN,
        photometric="rgb",
        metadata=None,
        description="a slice",
        software="scanner 3",
        datetime="2024:01:02 03:04:05",
        resolution=((2953, 25), (118, 1)),
        resolutionunit="CENTIMETER",
        extratags=[geo, (272, 2, 0, "Model", True)],
    )
    again = written_again(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(again) as after:
        for code in (270, 272, 282, 283, 296, 305, 306, 33550):
            assert after.pages[0].tags[code].value == before.pages[0].tags[code].value, code
    assert image_io.read(again).metadata.dpi == pytest.approx((2953 / 25 * 2.54, 118 * 2.54))


def test_formats_without_metadata_tell_what_is_lost(tmp_path):
    image = Image(PATTERN, None, "png", Metadata(exif=exif(1).tobytes()[6:], icc=ICC, dpi=(300, 300)))
    assert "EXIF, ICC profile" in image_io.write(tmp_path / "a.bmp", image).notices[-1]
    assert image_io.read(tmp_path / "a.bmp").metadata.dpi == pytest.approx((300, 300), abs=0.02)
    assert "EXIF, ICC profile, resolution" in image_io.write(tmp_path / "a.ppm", image).notices[-1]


def png_with(path: Path, *chunks: tuple[bytes, bytes]) -> Image:
    """A PNG with these chunks after its header, read."""
    PIL.Image.fromarray(PATTERN).save(path)
    data = path.read_bytes()
    made = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    path.write_bytes(data[:33] + b"".join(made) + data[33:])
    return image_io.read(path)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".bmp"])
def test_a_colour_space_that_only_png_can_name_is_not_lost_in_silence(tmp_path, suffix):
    hdr = png_with(tmp_path / "a.png", (b"cICP", bytes([9, 16, 0, 1])), (b"gAMA", struct.pack(">I", 100000)))
    assert "PNG colour space (cICP, gAMA)" in image_io.write(tmp_path / f"a{suffix}", hdr).notices[-1]
    usual = png_with(tmp_path / "b.png", (b"gAMA", struct.pack(">I", 45455)))
    assert image_io.write(tmp_path / f"b{suffix}", usual).notices == ()
    overruled = png_with(tmp_path / "c.png", (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45000)))
    assert image_io.write(tmp_path / f"c{suffix}", overruled).notices == ()


def test_a_grey_profile_is_not_put_on_the_rgb_of_webp(tmp_path):
    grey = b"\0" * 16 + b"GRAY" + b"\0" * 108
    image = Image(PATTERN[..., :1], None, "png", Metadata(icc=grey))
    written = image_io.write(tmp_path / "a.webp", image)
    assert "grey colour profile not kept" in written.notices[-1]
    assert image_io.read(tmp_path / "a.webp").metadata.icc is None


def test_damaged_exif_neither_stops_an_image_nor_is_lost_where_it_can_be_copied(tmp_path):
    rubbish = b"MM\0*\xff\xff\xff\xffrubbish"
    image_io.write(tmp_path / "a.png", Image(PATTERN, None, "png", Metadata(exif=rubbish)))
    back = image_io.read(tmp_path / "a.png")
    assert back.metadata.exif == rubbish and back.metadata.orientation == 1 and back.upright() is back
    assert "damaged EXIF" in image_io.write(tmp_path / "a.tif", back).notices[-1]


def block_of(*entries: tuple[int, int, bytes], second: bytes = b"") -> bytes:
    """Little-endian EXIF of entries of one value each: code, type, its four bytes; and a second directory."""
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", c, t, 1) + value for c, t, value in entries)
    end = 8 + len(table) + 4
    return b"II*\0\x08\0\0\0" + table + struct.pack("<I", end if second else 0) + second


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_turned_photo_is_shown_upright_also_where_its_exif_is_damaged(tmp_path, suffix):
    beyond = block_of((274, 3, struct.pack("<I", 6)), (34665, 4, struct.pack("<I", 5000)))
    image_io.write(tmp_path / f"a{suffix}", Image(np.zeros((40, 60, 3), np.uint8), None, "png", Metadata(exif=beyond)))
    image = image_io.read(tmp_path / f"a{suffix}").upright()
    assert (image.height, image.width, image.metadata.orientation) == (60, 40, 1)
    image_io.write(tmp_path / "b.png", image)
    assert shown(tmp_path / "b.png").shape == (60, 40, 3)


def test_numbers_that_no_exif_has_do_not_stop_an_image():
    from denoise_se import exif as exif_block

    eighth = struct.pack("<I", 8)
    no_unit = struct.pack("<f", float("nan"))
    assert exif_block.dpi(block_of((282, 5, eighth), (283, 5, eighth), (296, 11, no_unit))) is None
    for start, length in ((-30, 13), (30, -1)):
        second = struct.pack("<HHHIiHHIi", 2, 513, 9, 1, start, 514, 9, 1, length)
        block = block_of((271, 1, b"A\0\0\0"), second=second + bytes(20))
        assert len(exif_block.without_thumbnail(block)) == len(block)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile_with_the_inks_the_right_way_round(tmp_path, suffix):
    inks = np.zeros((32, 64, 4), np.uint8)
    inks[:, 32:, 3] = 255
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(inks, "CMYK").save(path, icc_profile=cmyk_profile())
    image = image_io.read(path)
    assert image.pixels[:, :24].min() > 250 and image.pixels[:, 40:].max() < 5
    assert "CMYK image written as sRGB" in image.notices[0]
    again = image_io.read(written_again(path))
    assert again.channels == 3 and again.metadata.icc == image.metadata.icc != cmyk_profile()
    assert image.metadata.icc[24:36] == bytes(12), "no date: the same input gives the same bytes on any day"
    PIL.Image.fromarray(inks, "CMYK").save(path, icc_profile=b"rubbish" * 30)
    with pytest.raises(ImageError, match="profile"):
        image_io.read(path)


def test_a_mutated_exif_block_never_stops_what_is_done_with_it():
    from denoise_se import exif as exif_block

    rng = np.random.default_rng(3)
    blocks = [exif().tobytes()[6:], exif_with_thumbnail()]
    for _ in range(1500):
        block = bytearray(blocks[rng.integers(2)])
        for position in rng.integers(0, len(block), rng.integers(1, 6)):
            block[position] = rng.integers(256)
        block = bytes(block[: rng.integers(0, len(block) + 1)] if rng.random() < 0.3 else block)
        assert 1 <= exif_block.orientation(block) <= 8
        for changed in (exif_block.made_upright(block), exif_block.without_thumbnail(block)):
            assert isinstance(changed, bytes)
        exif_block.dpi(block)


def test_png_crc_of_spliced_chunks_is_right(tmp_path):
    image_io.write(tmp_path / "a.png", Image(PATTERN, None, "png", Metadata(icc=ICC, xmp=XMP, dpi=(72, 72))))
    data, position = (tmp_path / "a.png").read_bytes(), 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : position + 8 + length]
        assert int.from_bytes(data[position + 8 + length : position + 12 + length], "big") == zlib.crc32(body)
        position += 12 + length


@pytest.mark.parametrize("fraction", [(1, 0), (0, 0)])
def test_a_resolution_that_is_no_number_does_not_cost_the_image(tmp_path, fraction):
    tifffile.imwrite(tmp_path / "a.tif", PATTERN, photometric="rgb", resolution=(72, 72), resolutionunit=2)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["XResolution"].overwrite(fraction)
    image = image_io.read(tmp_path / "a.tif")
    image_io.write(tmp_path / "b.tif", image)
    assert image.metadata.dpi is None and np.array_equal(image_io.read(tmp_path / "b.tif").pixels, PATTERN)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tif"])
def test_the_resolution_of_an_electron_microscope_is_kept_or_told_of(tmp_path, suffix):
    tifffile.imwrite(tmp_path / "a.tif", PATTERN, photometric="rgb", resolution=(10**8, 10**8), resolutionunit=3)
    image = image_io.read(tmp_path / "a.tif")
    assert image.metadata.dpi == pytest.approx((2.54e8, 2.54e8))
    image_io.write(tmp_path / f"b{suffix}", image)  # its EXIF holds it, too
    again = image_io.read(tmp_path / f"b{suffix}").metadata.dpi
    assert again == (pytest.approx((2.54e8, 2.54e8)) if suffix in (".jpg", ".tif") else None)
    bare = replace(image, metadata=Metadata(dpi=image.metadata.dpi))
    written = image_io.write(tmp_path / f"c{suffix}", bare)
    assert any("so fine a resolution" in notice for notice in written.notices) == (suffix != ".tif")
    assert image_io.read(tmp_path / f"c{suffix}").metadata.dpi == (
        pytest.approx((2.54e8, 2.54e8)) if suffix == ".tif" else None
    )
