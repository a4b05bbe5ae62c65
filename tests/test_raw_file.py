"""Raw files: a scene of known colours, photographed by hand, comes out as it was."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from dng_file import BLACK, NEUTRAL, WHITE, dng

from denoise_se import decoder_process, image_io, raw_file
from denoise_se.batch import Settings, run_batch
from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.errors import ImageError, UsageError
from denoise_se.plan import make_plan

FLAT = (0.2, 0.4, 0.1)


def scene(height: int = 48, width: int = 64, colour: tuple[float, ...] = FLAT) -> np.ndarray:
    return np.broadcast_to(np.array(colour), (height, width, 3)).copy()


def encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's transfer function (IEC 61966-2-1), in 16-bit values."""
    return 65535 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def saved(path: Path, **options: int) -> Path:
    path.write_bytes(dng(scene(), **options))
    return path


@pytest.mark.parametrize("colour", [FLAT, (0.5, 0.5, 0.5), (0.9, 0.02, 0.3), (0.05, 0.02, 0.01)])
def test_a_flat_field_has_the_colour_of_the_scene(tmp_path, colour):
    (tmp_path / "a.dng").write_bytes(dng(scene(colour=colour)))
    image = image_io.read(tmp_path / "a.dng")
    assert (image.bit_depth, image.channels, image.format) == (16, 3, "raw")
    # the sensor's counts are whole numbers; a few more codes for the matrices, which are of four digits
    step = 0.5 / (np.array(NEUTRAL) * (WHITE - BLACK))
    for sign in (-1, 1):
        assert (sign * (encoded(np.array(colour) + sign * step) + sign * 40 - image.pixels) >= 0).all()


def test_nothing_depends_on_the_rest_of_the_picture(tmp_path):
    lit = scene()
    lit[30:, 30:] = 1.0
    for name, linear in (("a", scene()), ("b", lit)):
        (tmp_path / f"{name}.dng").write_bytes(dng(linear))
    first, second = (image_io.read(tmp_path / f"{name}.dng").pixels for name in "ab")
    assert np.array_equal(first[:20, :20], second[:20, :20]) and second[40, 50].min() > 65000


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_the_image_is_upright_and_its_exif_says_so(tmp_path, orientation, corner):
    linear = scene()
    linear[:8, :8] = 0.9
    (tmp_path / "a.dng").write_bytes(dng(linear, orientation=orientation))
    image = image_io.read(tmp_path / "a.dng")
    probed = image_io.probe(tmp_path / "a.dng")
    assert (probed.width, probed.height) == (image.width, image.height) == ((64, 48) if orientation < 5 else (48, 64))
    assert image.pixels[corner].min() > 55_000 and image.metadata.orientation == 1


def test_exif_and_the_profile_reach_the_tiff(tmp_path):
    image = image_io.read(saved(tmp_path / "a.dng"))
    image_io.write(tmp_path / "a.tiff", image)
    with PIL.Image.open(tmp_path / "a.tiff") as written:
        tags = written.getexif()
        assert (tags[271], tags[272], tags[306]) == ("Maker", "Model", "2024:01:02 03:04:05")
        assert "sRGB" in PIL.ImageCms.getProfileDescription(io.BytesIO(written.info["icc_profile"]))
    assert np.array_equal(tifffile.imread(tmp_path / "a.tiff"), image.pixels)


def test_too_many_pixels_are_refused_before_developing(tmp_path, monkeypatch):
    real = subprocess.run

    def never_developing(command: list[str], **options: object) -> object:
        assert command[-1] == "--facts"
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", never_developing)
    with pytest.raises(ImageError, match=r"a\.dng.*3,072 pixels and exceeds 3,071 pixels"):
        image_io.read(saved(tmp_path / "a.dng"), max_pixels=3071)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r'a\.dng: .*pip install "denoise-se\[raw\]"'):
        image_io.read(saved(tmp_path / "a.dng"))


@pytest.mark.parametrize("length", [0, 9, 400, 3000])
def test_a_cut_raw_file_is_refused_by_name_in_silence(tmp_path, capfd, length):
    path = saved(tmp_path / "a.dng")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ImageError, match=r"a\.dng"):
        image_io.read(path)
    assert capfd.readouterr().out == ""


def test_a_decoder_that_dies_costs_one_file(tmp_path, monkeypatch):
    real = subprocess.run

    def dying(command: list[str], **options: object) -> object:
        return real([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], **options)

    path = saved(tmp_path / "a.dng")
    known = image_io.probe(path)
    monkeypatch.setattr(subprocess, "run", dying)
    assert image_io.probe(path) == known, "it is asked once only"
    with pytest.raises(ImageError, match=r"a\.dng: cannot be decoded.*-11"):
        image_io.read(path)
    monkeypatch.setattr(decoder_process, "_KNOWN", {})
    with pytest.raises(ImageError, match=r"a\.dng: cannot be decoded.*-11"):
        image_io.probe(path)


def test_content_decides_and_only_tiff_like_files_go_by_their_name(tmp_path):
    PIL.Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.nef")
    assert image_io.read(tmp_path / "a.nef").format == "png"
    with pytest.raises(ImageError, match="under the name of a TIFF"):
        image_io.read(saved(tmp_path / "a.tif"))
    assert not raw_file.is_raw(b"II*\0", ".tif") and raw_file.is_raw(b"IIRO", ".ORF")


def test_a_batch_develops_to_tiff_and_clashes_with_a_tiff_of_that_name(tmp_path, monkeypatch):
    from tiny_model import save_tiny

    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    saved(Path("in/photo.dng"))
    denoiser = Denoiser.load(save_tiny(Path("tiny.safetensors")), device="cpu")
    plan = make_plan([Path("in")], Path("out"))
    outcome = run_batch(plan, lambda channels: denoiser, Settings(25.0, Strength(0, 0)), fingerprint={})
    assert [row.output for row in outcome.rows] == ["out/photo.tiff"] and outcome.exit_code == 0
    assert np.array_equal(tifffile.imread("out/photo.tiff"), image_io.read("in/photo.dng").pixels)
    with pytest.raises(UsageError, match="exists already"):
        make_plan([Path("in")], Path("out"))
    tifffile.imwrite("in/photo.tiff", np.zeros((8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"photo\.dng.*photo\.tiff|photo\.tiff.*photo\.dng"):
        make_plan([Path("in")], Path("other"))
