"""What holds for every image file: content over name, limits, whole files or none, exact round trips."""

from __future__ import annotations

import errno
import os
import resource
import stat
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise_se import decoder_process, formats, image_io
from denoise_se.errors import ImageError
from denoise_se.image import Image
from denoise_se.plan import make_plan

LOSSLESS = [name for name in formats.WRITERS if name != "jpg"]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def random_image(format: str, shape: tuple[int, int], channels: int, depth: int, alpha: bool, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}[depth]
    if depth == 32:
        samples = rng.normal(0.5, 1, (*shape, channels + 1)).astype(dtype)
    else:
        samples = rng.integers(0, 1 << depth, (*shape, channels + 1), dtype=dtype)
    return Image(samples[..., :channels].copy(), samples[..., -1].copy() if alpha else None, format)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def photo(path: Path, **options: object) -> Path:
    rng = np.random.default_rng(7)
    PIL.Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(path, **options)
    return path


def one_bit_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    compressor = zlib.compressobj(1)
    rows = b"".join(compressor.compress(bytes(side // 8 + 1)) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@given(
    format=st.sampled_from(LOSSLESS),
    shape=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    channels=st.sampled_from([1, 3]),
    depth=st.sampled_from([8, 16, 32]),
    alpha=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_lossless_formats_give_every_pixel_and_alpha_back(
    tmp_path_factory, format, shape, channels, depth, alpha, seed
):
    limits = formats.WRITERS[format].limits
    if depth not in limits.depths or (alpha and not limits.alpha) or (channels == 1 and format == "webp"):
        return
    if format == "bmp" and alpha:
        channels = 3
    image = random_image(format, shape, channels, depth, alpha, seed)
    path = tmp_path_factory.mktemp("round") / f"a{formats.FORMATS[format][0]}"
    assert image_io.write(path, image).notices == ()
    back = image_io.read(path)
    assert back.pixels.dtype == image.pixels.dtype and np.array_equal(back.pixels, image.pixels)
    if not alpha:
        assert back.alpha is None
    elif back.alpha is None:
        assert format == "webp" and (image.alpha == 255).all(), "libwebp leaves out an opaque alpha, and no other"
    else:
        assert np.array_equal(back.alpha, image.alpha)
    probed = image_io.probe(path)
    assert (probed.format, probed.height, probed.width, probed.bit_depth) == (format, *shape, depth)
    assert probed.channels == channels or format == "bmp"


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 4096), (4096, 1), (101, 7)])
@pytest.mark.parametrize("format", LOSSLESS)
def test_odd_sizes_and_constant_images_round_trip(tmp_path, format, shape):
    path = tmp_path / f"a{formats.FORMATS[format][0]}"
    image = Image(np.full((*shape, 3), 77, np.uint8), None, format)
    image_io.write(path, image)
    assert np.array_equal(image_io.read(path).pixels, image.pixels)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "text"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\0\0\0\x18ftypheic", "cannot be decoded"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"PK\x03\x04" + bytes(30), "archive"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "XML"),
        (bytes(range(1, 64)), "not an image"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (b"II*\0\x08\0\0\0", "truncated"),
        (b"P6\n", "truncated"),
    ],
)
def test_what_is_no_image_is_refused_by_name_and_reason(tmp_path, content, reason):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as raised:
        image_io.read(path)
    assert str(path) in str(raised.value)


def test_no_outside_program_can_start_and_pillow_never_guesses_a_format():
    sources = {path.name: path.read_text() for path in Path(image_io.__file__).parent.glob("*_file.py")}
    assert len(sources) >= 6
    for name, source in sources.items():
        assert "Image.open(" not in source.replace("not Image.open:", ""), name
        assert "subprocess" not in source, name
    # the one exception is this very Python, with a module of our own
    source = Path(decoder_process.__file__).read_text()
    assert source.count("subprocess.run(") == 1
    assert 'command = [sys.executable, "-P", "-m", module, *options]' in source


def test_missing_files_folders_and_pipes_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, tmp_path / "none.png"):
        with pytest.raises(ImageError, match=path.name):
            image_io.read(path)


@pytest.mark.parametrize("format", list(formats.WRITERS))
def test_a_file_cut_anywhere_fails(tmp_path, format):
    whole = tmp_path / f"a{formats.FORMATS[format][0]}"
    image_io.write(whole, random_image(format, (24, 31), 3, 8, False))
    data = whole.read_bytes()
    cut = tmp_path / "cut"
    for size in {*range(0, len(data), 37), len(data) - 1, len(data) - 2, len(data) - 12}:
        cut.write_bytes(data[:size])
        with pytest.raises(ImageError):
            image_io.read(cut)


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "zstd", "packbits", "jpeg"])
def test_a_tiff_cut_anywhere_fails(tmp_path, compression):
    pixels = random_image("tiff", (48, 48), 3, 8, False).pixels
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, photometric="rgb", rowsperstrip=16)
    data = (tmp_path / "a.tif").read_bytes()
    for size in {*range(0, len(data), 211), len(data) - 1}:
        (tmp_path / "cut.tif").write_bytes(data[:size])
        with pytest.raises(ImageError):
            image_io.read(tmp_path / "cut.tif")


def test_pixel_limit_is_told_with_both_figures_and_the_option(tmp_path):
    path = photo(tmp_path / "a.png")
    assert image_io.read(path, max_pixels=48 * 32).width == 48
    with pytest.raises(ImageError, match=r"1,536 pixels and exceeds 1,535 pixels \(--max-pixels\)"):
        image_io.read(path, max_pixels=48 * 32 - 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_decompression_bomb_is_refused_from_its_header_in_little_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(one_bit_bomb(40_000))
    code = (
        "from pathlib import Path\nfrom denoise_se import image_io\nfrom denoise_se.errors import ImageError\n"
        "try:\n    image_io.read('bomb.png')\nexcept ImageError as error:\n    print(error)\n"
        # ru_maxrss would start from the peak of the process that forked this one
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(image_io.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    message, peak = result.stdout.splitlines()
    assert "1,600,000,000 pixels" in message and "--max-pixels" in message
    assert int(peak) < 200_000


@pytest.mark.parametrize("format", list(formats.WRITERS))
def test_absurd_sizes_in_a_header_are_refused_before_memory_is_taken(tmp_path, format):
    headers = {
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
        + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
        + bytes(4),
        "jpg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65535, 65535, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
        b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0\xff\xd9",
        "tiff": b"II*\0\x08\0\0\0\x03\0"
        + b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in ((256, 2**31), (257, 2**31), (262, 1)))
        + bytes(4),
        "webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6\n99999999 99999999\n255\n",
    }
    (tmp_path / "a").write_bytes(headers[format])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="--max-pixels"):
        image_io.read(tmp_path / "a")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_content_decides_and_a_wrong_suffix_is_told(tmp_path):
    photo(tmp_path / "a.jpg", quality=90)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    image = image_io.read(tmp_path / "a.png")
    assert image.format == "jpg" and "JPG, not PNG" in image.notices[0]
    written = image_io.write(tmp_path / "b.png", image)
    assert written.format == "png" and image_io.read(tmp_path / "b.png").notices == ()


def test_what_is_read_under_its_own_name_is_read_in_a_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    picture = PIL.Image.new("RGB", (9, 7), "red")
    picture.save("in/a.mpo", save_all=True, append_images=[picture])
    picture.convert("1").save("in/b.pbm", "PPM")
    plan = make_plan([Path("in")], Path("out"))
    assert [job.relative.as_posix() for job in plan.jobs] == ["a.jpg", "b.ppm"] and plan.notices == ()
    (tmp_path / "c.gif").write_bytes(b"GIF89a" + bytes(40))
    (job,) = make_plan([Path("c.gif")], Path("out")).jobs
    with pytest.raises(ImageError, match=r"c\.gif: is a GIF image, which is not read here"):
        image_io.read(job.source)


def test_what_is_wrong_with_a_copy_is_told_of_the_copy(tmp_path, monkeypatch):
    image_io.write(tmp_path / "a.png", random_image("png", (5, 6), 3, 8, False))

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_io.shutil, "copyfileobj", refuse)
    with pytest.raises(ImageError) as raised:
        image_io.copy(tmp_path / "a.png", tmp_path / "b.png")
    assert str(raised.value) == f"{tmp_path / 'b.png'}: cannot be read or written: No space left on device"


def test_suffixes_follow_the_table_and_same_keeps_the_case():
    assert formats.output_suffix("A.TIF", "same") == ".TIF"
    assert formats.output_suffix("a.bmp", "jpg") == ".jpg" and formats.output_suffix("a.x", "tiff") == ".tiff"
    assert formats.output_suffix("a.DNG", "same") == ".tiff" and formats.output_suffix("a.nef", "jpg") == ".jpg"
    written = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".pgm", ".pnm"}
    raw = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"}
    assert written | raw | {".heic", ".heif", ".hif", ".mpo", ".pbm"} == formats.READABLE_SUFFIXES
    assert set(formats.READERS) - {"raw", "heif"} == set(formats.WRITERS) == set(formats.FORMATS)


@pytest.mark.parametrize("name", ["é vacances.png", "画像 1.tiff", "x" * 240 + ".png", "ñ" * 120 + ".jpg", "-o.webp"])
def test_any_name_works(tmp_path, name):
    image = random_image("png", (5, 6), 3, 8, False)
    image_io.write(tmp_path / name, image)
    assert image_io.read(tmp_path / name).pixels.shape == (5, 6, 3)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = photo(tmp_path / "a.png")
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    with pytest.raises(ImageError, match=r"a\.png.*No space left"):
        image_io.write(path, random_image("png", (5, 6), 3, 8, False))
    assert names(tmp_path) == ["a.png"] and path.read_bytes() == before


@pytest.mark.parametrize("format", list(formats.WRITERS))
def test_a_write_that_fails_half_way_names_the_file_and_leaves_nothing(tmp_path, format):
    script = (
        "import resource, signal, sys, numpy as np\nfrom denoise_se import image_io\n"
        "from denoise_se.errors import ImageError\nfrom denoise_se.image import Image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)\n"
        "image = Image(pixels, None, sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n    image_io.write(sys.argv[1], image)\nexcept ImageError as error:\n    print(error)"
    )
    path = tmp_path / f"a{formats.FORMATS[format][0]}"
    environment = os.environ | {"PYTHONPATH": str(Path(image_io.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", script, path, format], env=environment, capture_output=True, text=True, check=True
    )
    assert str(path) in result.stdout and names(tmp_path) == []


def test_folders_missing_folders_and_unknown_suffixes_are_refused(tmp_path):
    image = random_image("png", (5, 6), 3, 8, False)
    (tmp_path / "a.png").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "none" / "a.png", tmp_path / "a.gif", tmp_path / "a"):
        with pytest.raises(ImageError, match=path.name):
            image_io.write(path, image)
    assert names(tmp_path) == ["a.png"] and names(tmp_path / "a.png") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to read-only folders")
def test_a_read_only_folder_is_refused_by_name(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ImageError, match=r"a\.png"):
        image_io.write(tmp_path / "a.png", random_image("png", (5, 6), 3, 8, False))


def test_decoders_print_nothing(tmp_path, capfd):
    for format in formats.WRITERS:
        path = tmp_path / f"a{formats.FORMATS[format][0]}"
        image_io.write(path, random_image(format, (24, 31), 3, 8, False))
        data = bytearray(path.read_bytes())
        for position in range(30, len(data), 97):
            data[position] ^= 0x55
        (tmp_path / "bad").write_bytes(data)
        with suppress(ImageError):
            image_io.read(tmp_path / "bad")
    assert capfd.readouterr() == ("", "")


def test_what_a_format_cannot_hold_is_converted_with_a_notice_or_refused(tmp_path):
    deep = random_image("png", (6, 7), 3, 16, False)
    written = image_io.write(tmp_path / "a.webp", deep)
    assert "16-bit image written as 8-bit WEBP" in written.notices
    expected = np.rint(deep.pixels / 257).astype(np.uint8)
    assert np.array_equal(image_io.read(tmp_path / "a.webp").pixels, expected)
    with pytest.raises(ImageError, match="transparency"):
        image_io.write(tmp_path / "b.jpg", random_image("png", (6, 7), 3, 8, True))
    with pytest.raises(ImageError, match="16,383 a side"):
        image_io.write(tmp_path / "b.webp", Image(np.zeros((1, 16384, 3), np.uint8), None, "png"))
    floats = Image(np.array([[[0.0], [0.5], [1.0], [1.25]]] * 8, np.float32).reshape(1, -1, 1), None, "tiff")
    with pytest.raises(ImageError, match="25% lie outside"):
        image_io.write(tmp_path / "b.png", floats)
    floats.pixels[0, 3:, 0] = 0.25
    image_io.write(tmp_path / "b.png", floats)
    assert image_io.read(tmp_path / "b.png").pixels[0, :4, 0].tolist() == [0, 32768, 65535, 16384]


def test_a_depth_that_its_own_format_does_not_hold_is_converted_too(tmp_path):
    bmp = Image(np.array([[[300], [65535], [128]]], np.uint16), None, "bmp")
    assert "16-bit image written as 8-bit BMP" in image_io.write(tmp_path / "a.bmp", bmp).notices
    assert image_io.read(tmp_path / "a.bmp").pixels.ravel().tolist() == [1, 255, 0]
    png = Image(np.array([[[0.0], [0.25], [1.0]]], np.float32), None, "png")
    image_io.write(tmp_path / "a.png", png)
    assert image_io.read(tmp_path / "a.png").pixels.ravel().tolist() == [0, 16384, 65535]


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    order = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    monkeypatch.setattr(Path, "replace", lambda self, target: order.append("named") or replace(self, target))
    image_io.write(tmp_path / "a.png", random_image("png", (5, 6), 3, 8, False))
    assert order == [False, "named", True]


@pytest.mark.parametrize("shape", [(4096, 1, 1), (4096, 2, 1), (4096, 4, 1), (4096, 1, 3), (200, 2, 1), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tall_png_of_few_columns_is_written(tmp_path, shape, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    image_io.write(tmp_path / "a.png", Image(pixels, None, "png"))
    assert np.array_equal(image_io.read(tmp_path / "a.png").pixels, pixels)
