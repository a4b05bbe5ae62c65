"""Every hazard of files and batches through the command line: what is done, what is refused, and what is left behind.

The modules' own tests go into the details; these are what a user sees.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile
from cmyk_profile import cmyk_profile
from PIL import ImageCms
from safetensors.numpy import load_file, save_file

from denoise_se.app import cli

RNG = np.random.default_rng(4)
RGB = RNG.integers(0, 256, (20, 28, 3), np.uint8)
needs_mounts = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="only the superuser of Linux may mount a disk"
)


class Result(NamedTuple):
    code: int
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`denoise-se denoise ARGUMENTS` in an empty folder; a traceback would be an exception here."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()

    def call(*arguments: object, model: object = tiny) -> Result:
        options = ["--model", model, "--sigma", "25", "--quiet"]
        monkeypatch.setattr(sys, "argv", ["denoise-se", "denoise", *map(str, [*arguments, *options])])
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        return Result(int(caught.value.code or 0), capsys.readouterr().err)

    return call


def save(name: str, pixels: np.ndarray = RGB, **options: object) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(name, **options)
    return Path(name)


def outputs() -> list[str]:
    """Everything below `out`, temporary files included, but the manifest."""
    return sorted(path.name for path in Path("out").rglob("*") if path.is_file() and path.suffix != ".jsonl")


def digests(folder: str) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).rglob("*") if path.is_file()
    }


def one_bit_bomb(side: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# --- damaged and hostile files ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(one_bit_bomb(40_000))
    (tmp_path / "small.png").write_bytes(one_bit_bomb(64))
    code = (
        "import atexit, sys\nfrom pathlib import Path\n"
        "atexit.register(lambda: print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]))\n"
        "from denoise_se.app.cli import main\nmain()"
    )

    def denoise(name: str) -> tuple[int, str, int]:
        """Exit code, errors and peak memory in MB."""
        options = ["-o", "out", "--overwrite", "--quiet", "--model", str(tiny)]
        command = [sys.executable, "-c", code, "denoise", name, *options]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr, int(ended.stdout.split()[-1]) // 1024

    first, *_ = denoise("small.png")  # what it leaves in the cache spares the others torch
    again, _, small_memory = denoise("small.png")
    status, message, memory = denoise("bomb.png")
    assert (first, again, status) == (0, 0, 1)
    assert "bomb.png" in message and "exceeds 500,000,000 pixels (--max-pixels)" in message
    assert memory < small_memory + 100  # even one bit a pixel would be 200


def test_bad_files_fail_by_name_and_reason_and_the_others_are_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **_: object) -> None:
        raise AssertionError(f"an outside program was started: {arguments}")

    for module, name in ((os, "system"), (os, "posix_spawn"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, started)
    data = save("in/good.png").read_bytes()
    save("in/other.jpg")
    bad = {
        "cut.png": (data[: len(data) // 2], "truncated"),
        "empty.png": (b"", "is empty"),
        "text.png": (b"Dear reader,\nno image.\n", "is text"),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "PostScript"),
    }
    for name, (content, _) in bad.items():
        Path("in", name).write_bytes(content)
    result = run("in", "-o", "out")
    assert result.code == 1 and outputs() == ["good.png", "other.jpg"]
    lines = result.err.splitlines()
    for name, (_, reason) in bad.items():
        assert any(name in line and reason in line for line in lines), (name, lines)
    assert "Traceback" not in result.err


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_animation_is_refused_with_its_number_of_frames(run: Run, suffix: str) -> None:
    frames = [PIL.Image.fromarray(part) for part in (RGB, RGB[::-1], RGB // 2)]
    frames[0].save(f"in/a{suffix}", save_all=True, append_images=frames[1:])
    result = run("in", "-o", "out")
    assert result.code == 1 and "3 frames" in result.err and outputs() == []


# --- what a pixel can be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_comes_out_with_every_value_and_stays_16_bit(run: Run, suffix: str) -> None:
    deep = RNG.integers(0, 65536, (20, 28, 3), np.uint16)
    cv2.imwrite(f"in/a{suffix}", deep[..., ::-1])
    assert run("in", "-o", "out", "--strength", "0").code == 0
    assert np.array_equal(cv2.imread(f"out/a{suffix}", cv2.IMREAD_UNCHANGED)[..., ::-1], deep)
    assert run("in", "-o", "out", "--overwrite").code == 0
    denoised = cv2.imread(f"out/a{suffix}", cv2.IMREAD_UNCHANGED)
    assert denoised.dtype == np.uint16 and len(np.unique(denoised)) > 256


def test_not_a_number_is_counted_replaced_and_never_spread(run: Run) -> None:
    floats = RNG.random((20, 28)).astype(np.float32)
    tifffile.imwrite("in/whole.tif", floats)
    floats[3, 4], floats[10, 11] = np.nan, np.inf
    tifffile.imwrite("in/holes.tif", floats)
    result = run("in", "-o", "out")
    assert result.code == 0 and "2 non-finite pixels" in result.err
    holes, whole = tifffile.imread("out/holes.tif"), tifffile.imread("out/whole.tif")
    assert holes.dtype == np.float32 and np.isfinite(holes).all()
    assert np.abs(holes - whole).max() < 1


def test_alpha_palette_grey_cmyk_and_bitmaps_keep_their_kind_or_say_so(run: Run) -> None:
    rgba = RNG.integers(0, 256, (20, 28, 4), np.uint8)
    save("in/alpha.png", rgba)
    PIL.Image.fromarray(rgba).convert("LA").save("in/grey alpha.png")
    PIL.Image.fromarray(RGB).quantize(8).save("in/palette.png")
    PIL.Image.fromarray(RGB[..., 0] > 99).save("in/bits.png")
    PIL.Image.fromarray(rgba, "CMYK").save("in/inks.jpg", icc_profile=cmyk_profile())
    PIL.Image.fromarray(rgba, "CMYK").save("in/unknown inks.jpg")
    result = run("in", "-o", "out")
    assert result.code == 1
    modes = {name: PIL.Image.open(Path("out", name)).mode for name in outputs()}
    assert modes == {
        "alpha.png": "RGBA",
        "bits.png": "L",
        "grey alpha.png": "LA",
        "inks.jpg": "RGB",
        "palette.png": "RGB",
    }
    assert np.array_equal(np.asarray(PIL.Image.open("out/alpha.png"))[..., 3], rgba[..., 3])
    assert np.array_equal(np.asarray(PIL.Image.open("out/grey alpha.png"))[..., 1], rgba[..., 3])
    lines = result.err.splitlines()
    for name, words in {
        "palette.png": "palette image written as RGB",
        "bits.png": "1-bit image written as 8-bit grey",
        "inks.jpg": "CMYK image written as sRGB",
        "unknown inks.jpg": "CMYK without a colour profile",
    }.items():
        assert any(name in line and words in line for line in lines), (name, lines)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_profile_exif_and_resolution_stay(run: Run, suffix: str, orientation: int) -> None:
    pixels = np.full((32, 48, 3), 40, np.uint8)
    pixels[:16, :16] = 220
    exif = PIL.Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(f"in/a{suffix}", pixels, exif=exif, icc_profile=profile, dpi=(300, 300))
    assert run("in", "-o", "out").code == 0
    before, after = PIL.Image.open(f"in/a{suffix}"), PIL.Image.open(f"out/a{suffix}")
    assert after.getexif()[271] == "Maker" and after.info["icc_profile"] == profile
    if suffix != ".webp":
        assert after.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    shown = [np.asarray(PIL.ImageOps.exif_transpose(image).convert("L")) for image in (before, after)]
    assert shown[0].shape == shown[1].shape
    assert (shown[1] > 130)[shown[0] > 130].mean() > 0.9 and (shown[1] < 130)[shown[0] < 130].mean() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 4096), (31, 37), (4096, 1)])
def test_any_size_comes_out_the_same_and_identical_images_are_infinitely_alike(run: Run, size: tuple[int, int]) -> None:
    save("in/a.png", np.full((*size, 3), 77, np.uint8))
    assert run("in", "-o", "out").code == 0
    assert PIL.Image.open("out/a.png").size == size[::-1]
    options = ["--strength", "0", "--overwrite", "--reference", "in", "--report", "report.csv"]
    assert run("in", "-o", "out", *options).code == 0
    (row,) = csv.DictReader(Path("report.csv").read_text().splitlines())
    assert row["psnr"] == "inf" and row["ssim"] == ("n/a" if min(size) < 7 else "1.0")


# --- names and places ------------------------------------------------------------------------------------------------


def test_clashes_outputs_in_place_and_links_in_a_circle_leave_the_inputs_as_they_are(run: Run) -> None:
    for name in ("in/a.png", "in/a.jpg", "in/sub/b.png"):
        save(name)
    Path("in/sub/up").symlink_to("..")
    before = digests("in")
    refused = (
        ["in", "-o", "out", "--format", "png"],
        ["in", "-o", "in", "--overwrite"],
        ["in/a.png", "-o", "in/a.png", "--overwrite"],
    )
    for arguments in refused:
        result = run(*arguments)
        assert result.code == 2 and "in/a.png" in result.err and not Path("out").exists(), arguments
    for _ in range(2):
        assert run("in", "-o", "in/out", "--recursive", "--overwrite").code == 0
    assert {name: digest for name, digest in digests("in").items() if not name.startswith("in/out")} == before
    made = {path.relative_to("in/out").as_posix() for path in Path("in/out").rglob("*.*g")}
    assert made == {"a.png", "a.jpg", "sub/b.png"}


@pytest.mark.parametrize("name", ["é/画像.png", "x" * 200 + ".png", "ñ" * 120 + ".jpg", "a b/'c\".tif", "-o.png"])
def test_any_name_works(run: Run, name: str) -> None:
    save(f"in/{name}")
    assert run("in", "-o", "out", "--recursive").code == 0
    assert outputs() == [Path(name).name]


@pytest.fixture
def mounted(run: Run) -> Iterator[Callable[..., None]]:
    """Mounts something on `out`; skips where that is not allowed."""
    Path("out").mkdir()
    mounts = 0

    def mount(*arguments: str) -> None:
        nonlocal mounts
        if subprocess.run(["mount", *arguments, "out"], capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounts += "remount" not in arguments[1]

    yield mount
    for _ in range(mounts):
        subprocess.run(["umount", "out"], check=True)


@needs_mounts
def test_an_image_without_room_for_its_output_fails_alone_and_at_once(run: Run, mounted: Callable[..., None]) -> None:
    save("in/large.bmp", RNG.integers(0, 256, (200, 300, 3), np.uint8))
    save("in/small.bmp", RNG.integers(0, 256, (20, 30, 3), np.uint8))
    mounted("-t", "tmpfs", "-o", "size=128k", "tmpfs")
    result = run("in", "-o", "out")
    assert result.code == 1 and outputs() == ["small.bmp"]
    assert "out: the outputs need at least 181.8 kB" in result.err
    assert "in/large.bmp: failed: there is no room for its output" in result.err


@needs_mounts
def test_a_disk_that_fills_up_fails_by_name_and_leaves_no_temporary_file(
    run: Run, mounted: Callable[..., None]
) -> None:
    # a JPEG of noise is small, and the PNG of it is not: more than can be foreseen
    for index in range(3):
        save(f"in/{index}.jpg", RNG.integers(0, 256, (150, 200, 3), np.uint8), quality=10)
    save("in/3.jpg", np.zeros((8, 8, 3), np.uint8))
    mounted("-t", "tmpfs", "-o", "size=128k", "tmpfs")
    result = run("in", "-o", "out", "--format", "png")
    assert result.code == 1 and result.err.count("No space left on device") == 2, result.err
    assert "in/1.jpg" in result.err and "in/2.jpg" in result.err
    assert outputs() == ["0.png", "3.png"]
    for name in outputs():
        PIL.Image.open(Path("out", name)).load()


def test_a_read_only_folder_fails_by_name(run: Run, request: pytest.FixtureRequest) -> None:
    save("in/a.png")
    if os.geteuid() == 0:
        mount = request.getfixturevalue("mounted")
        mount("--bind", "out")
        mount("-o", "remount,ro,bind")
    else:
        Path("out").mkdir(mode=0o500)
    result = run("in", "-o", "out")
    assert result.code == 1 and "a.png" in result.err and list(Path("out").iterdir()) == []


# --- checkpoints -----------------------------------------------------------------------------------------------------


class Attack:
    """What a pickle does when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("attacked",)


BAD_WEIGHTS = ("cut", "not a number", "wrong shape", "missing", "newer schema", "no schema")


def bad_checkpoint(kind: str, sound: Path) -> tuple[str, bytes, str]:
    """(name, content, a word of the refusal)."""
    if kind.startswith("pickle"):
        return f"bad{kind.removeprefix('pickle')}", pickle.dumps(Attack()), "bad"
    weights = load_file(sound)
    header = sound.read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    key = next(name for name, weight in weights.items() if weight.ndim == 4)
    if kind == "cut":
        return "bad.safetensors", header[:-9], "safetensors"
    if kind == "not a number":
        weights[key] = np.full_like(weights[key], np.nan)
    elif kind == "wrong shape":
        weights[key] = weights[key][:-1]
    elif kind == "missing":
        del weights[key]
    elif kind == "newer schema":
        metadata["schema_version"], key = "999", "schema_version"
    elif kind == "no schema":
        del metadata["schema_version"]
        key = "schema_version"
    save_file(weights, "made.safetensors", metadata)
    return "bad.safetensors", Path("made.safetensors").read_bytes(), key


@pytest.mark.parametrize(
    "kind",
    ["pickle.ckpt", "pickle.pth", "pickle.pt2", "pickle.safetensors", *BAD_WEIGHTS],
)
def test_a_bad_checkpoint_is_refused_by_its_key_and_runs_no_code(run: Run, tiny: Path, kind: str) -> None:
    save("in/a.png")
    name, content, word = bad_checkpoint(kind, tiny)
    Path(name).write_bytes(content)
    result = run("in", "-o", "out", model=name)
    assert result.code == 2 and name in result.err and word in result.err
    assert "Traceback" not in result.err and not Path("out").exists() and not Path("attacked").exists()
