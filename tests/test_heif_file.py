"""HEIC: what another library encoded, without loss, comes out as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif
import pytest
from typer.testing import CliRunner

from denoise_se import decoder_process, image_io
from denoise_se.app.cli import app
from denoise_se.errors import ImageError
from denoise_se.srgb_profile import srgb_profile

LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}  # RGB itself, as YCbCr rounds


def picture(channels: int = 3, height: int = 70, width: int = 90) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    planes = [(2 * y + x) % 256, (y * x // 40) % 256, 255 - y, 40 + 2 * y][:channels]
    return np.stack(planes, axis=-1).astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, **packets: bytes) -> Path:
    image = pillow_heif.from_pillow(PIL.Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]))
    image.info.update(packets)
    image.save(path, **LOSSLESS)
    return path


def ten_bits(path: Path, values: np.ndarray, **options: object) -> Path:
    """A file of 10 bits with these `[H, W, 3]` of them."""
    data = (values << 6).astype(np.uint16).tobytes()
    pillow_heif.from_bytes("RGB;16", values.shape[1::-1], data).save(path, **LOSSLESS | options)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_and_alpha_are_those_that_were_encoded(tmp_path, channels):
    path = saved(tmp_path / "a.heic", picture(channels))
    probed, image = image_io.probe(path), image_io.read(path)
    assert (probed.width, probed.height, probed.channels, probed.bit_depth) == (90, 70, min(channels, 3), 8)
    assert probed.alpha == (image.alpha is not None) == (channels == 4) and image.format == "heif"
    assert np.array_equal(image.pixels, picture(min(channels, 3))) and image.notices == ()
    if channels == 4:
        assert np.array_equal(image.alpha, picture(4)[..., 3])


def test_a_grid_of_tiles_as_phones_write_it_is_one_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(pillow_heif.options, "GRID_TILE_SIZE", 64)
    path = saved(tmp_path / "a.heic", picture(height=150, width=200))
    assert b"grid" in path.read_bytes()
    assert np.array_equal(image_io.read(path).pixels, picture(height=150, width=200))


def test_ten_bits_fill_the_range_of_sixteen(tmp_path):
    ramp = np.repeat(np.arange(1024)[None, :, None], 64, axis=0).repeat(3, axis=2)
    image = image_io.read(ten_bits(tmp_path / "a.hif", ramp))
    assert image.bit_depth == 16 and np.array_equal(image.pixels, np.round(ramp * (65535 / 1023)))


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_turned_photo_is_upright_and_its_packets_are_kept(tmp_path, orientation, turned):
    exif = PIL.Image.Exif()
    exif[271], exif[274] = "Maker", orientation
    packets = {"exif": exif.tobytes(), "xmp": b"<x/>", "icc_profile": srgb_profile()}
    path = saved(tmp_path / "a.HEIC", picture(), **packets)
    probed, image = image_io.probe(path), image_io.read(path)
    assert np.array_equal(image.pixels, np.rot90(picture(), turned))
    assert (probed.height, probed.width) == image.pixels.shape[:2] and image.metadata.orientation == 1
    image_io.write(tmp_path / "a.png", image)
    with PIL.Image.open(tmp_path / "a.png") as written:
        assert dict(written.getexif()) == {271: "Maker", 274: 1} and written.info["icc_profile"] == srgb_profile()
        assert np.array_equal(np.asarray(written), image.pixels)
    assert image.metadata.xmp == b"<x/>"


def test_what_cannot_be_kept_is_told_or_refused(tmp_path):
    two = pillow_heif.from_pillow(PIL.Image.fromarray(picture()))
    two.add_from_pillow(PIL.Image.fromarray(picture()[::-1]))
    two.save(tmp_path / "two.heic")
    with pytest.raises(ImageError, match=r"two\.heic: has 2 frames: split it"):
        image_io.read(tmp_path / "two.heic")
    values = np.full((64, 64, 3), 512)
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        path = ten_bits(tmp_path / "hdr.hif", values, color_primaries=9, transfer_characteristics=transfer)
        with pytest.raises(ImageError, match=rf"hdr\.hif: its colours are HDR \({name}\)"):
            image_io.read(path)
    wide = ten_bits(tmp_path / "p3.hif", values, color_primaries=12)
    assert image_io.read(wide).notices == (
        "its colours are not those of sRGB (primaries 12 of H.273): they may look paler",
    )


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.heic", picture())
    real = subprocess.run

    def never_decoding(command: list[str], **options: object) -> object:
        assert command[-1] == "--facts"
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", never_decoding)
    with pytest.raises(ImageError, match=r"a\.heic.*6,300 pixels and exceeds 6,299 pixels"):
        image_io.read(path, max_pixels=6299)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.heic", picture())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r'a\.heic: .*pip install "denoise-se\[heic\]"'):
        image_io.read(path)


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.8])
def test_a_cut_file_is_refused_by_name_in_silence(tmp_path, capfd, kept):
    data = saved(tmp_path / "a.heic", picture()).read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=r"a\.heic"):
        image_io.read(tmp_path / "a.heic")
    assert capfd.readouterr().out == ""


def test_a_decoder_that_dies_costs_one_file(tmp_path, monkeypatch):
    real = subprocess.run

    def dying(command: list[str], **options: object) -> object:
        return real([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], **options)

    path = saved(tmp_path / "a.heic", picture())
    monkeypatch.setattr(decoder_process, "_KNOWN", {})
    monkeypatch.setattr(subprocess, "run", dying)
    with pytest.raises(ImageError, match=r"a\.heic: cannot be decoded.*-11"):
        image_io.read(path)


def denoise(*arguments: str | Path) -> int:
    return CliRunner().invoke(app, ["denoise", *map(str, arguments)]).exit_code


def test_a_folder_of_a_phones_photos_becomes_png_or_what_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    saved(Path("in/a.HEIC"), picture())
    saved(Path("in/b.heif"), picture(1))
    assert denoise("in", "-o", "out", "--strength", "0") == 0
    for name, channels in (("a", 3), ("b", 1)):
        with PIL.Image.open(f"out/{name}.png") as written:
            assert np.array_equal(np.asarray(written), picture(channels).squeeze())
    assert denoise("in/a.HEIC", "-o", "a.jpg") == 0
    with PIL.Image.open("a.jpg") as written:
        assert (written.format, written.size) == ("JPEG", (90, 70))


def test_under_the_name_of_a_jpeg_as_exports_are_often_named_it_becomes_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Path("b.jpg"), picture())
    assert denoise("b.jpg", "-o", "out", "--report", "report.json") == 0
    (row,) = json.loads(Path("report.json").read_text())["rows"]
    assert "its content is HEIF, not JPG" in str(row["notices"])
    with PIL.Image.open("out/b.jpg") as written:
        assert written.format == "JPEG"
