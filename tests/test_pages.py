"""Files of several pages and files larger than memory should hold, through the batch: nothing is lost on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiny_model import save_tiny

from denoise_se import file_work, image_io, opened_file
from denoise_se.batch import Outcome, run_batch
from denoise_se.blending import Strength
from denoise_se.conveyor import AbandonedError
from denoise_se.denoiser import Denoiser
from denoise_se.errors import ImageError
from denoise_se.file_work import Settings
from denoise_se.plan import make_plan
from denoise_se.report import Row
from denoise_se.watcher import Watcher

RNG = np.random.default_rng(3)
STACK = RNG.integers(0, 65536, (5, 40, 56), dtype=np.uint16)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return Denoiser.load(save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors", channels=1), device="cpu")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Recorder(Watcher):
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.shares: list[float] = []

    def row(self, row: Row) -> None:
        self.notices += row.notices

    def tiles(self, done: int, total: int) -> None:
        self.shares.append(done / total)


def run(denoiser: Denoiser, source: str, target: str, watcher: Watcher | None = None, **settings: object) -> Outcome:
    plan = make_plan([Path(source)], Path(target), reference=settings.pop("reference", None))  # type: ignore[arg-type]
    return run_batch(
        plan,
        lambda _: denoiser,
        Settings(25.0, **settings),
        fingerprint={},
        watcher=watcher,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "compression": "deflate", "predictor": True},
        {"photometric": "minisblack", "tile": (16, 32), "byteorder": ">"},
        {"photometric": "minisblack", "bigtiff": True},
        {"imagej": True},
        {"ome": True},
    ],
)
def test_every_page_of_a_stack_is_denoised_as_if_it_were_alone(denoiser: Denoiser, options: dict[str, object]) -> None:
    tifffile.imwrite("a.tif", STACK, **options)
    outcome = run(denoiser, "a.tif", "b.tif")
    (row,) = outcome.rows
    assert outcome.exit_code == 0 and (row.width, row.height, row.bit_depth) == (56, 40, 16), row.error
    with tifffile.TiffFile("a.tif") as before, tifffile.TiffFile("b.tif") as after:
        assert len(after.pages) == 5 and after.series[0].shape == before.series[0].shape
        assert after.is_imagej == before.is_imagej and after.is_ome == before.is_ome
        assert after.pages[0].description == before.pages[0].description
        assert after.pages[0].compression == before.pages[0].compression
        for page, pixels in zip(after.pages, STACK, strict=True):
            assert np.array_equal(page.asarray(), denoiser(pixels, 25.0))


@pytest.mark.parametrize(("dtype", "kept"), [(np.int16, False), (np.float64, False), (np.uint16, True)])
def test_an_ome_tiff_names_the_type_of_the_numbers_that_it_holds_now(
    denoiser: Denoiser, dtype: type, kept: bool
) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.1, "SignificantBits": 12}
    tifffile.imwrite("a.tif", STACK.astype(dtype) // 16, photometric="minisblack", ome=True, metadata=metadata)
    assert run(denoiser, "a.tif", "b.tif").exit_code == 0
    before, after = (
        tifffile.xml2dict(tifffile.TiffFile(name).ome_metadata)["OME"]["Image"]["Pixels"] for name in ("a.tif", "b.tif")
    )
    expected = {"Type": "float"} if not kept else {}
    assert after == {key: value for key, value in before.items() if kept or key != "SignificantBits"} | expected
    assert tifffile.imread("b.tif").dtype == (dtype if kept else np.float32)


def test_an_imagej_stack_with_one_directory_is_read_to_its_end(denoiser: Denoiser) -> None:
    with tifffile.TiffWriter("a.tif", imagej=True) as writer:
        writer.write(STACK, contiguous=True)
    with image_io.open_pages("a.tif") as pages:
        assert len(pages) == 5
        assert all(np.array_equal(page.rows(0, 40)[..., 0], pixels) for page, pixels in zip(pages, STACK, strict=True))


def test_pages_of_different_kinds_keep_theirs(denoiser: Denoiser) -> None:
    grey, deep = RNG.integers(0, 256, (30, 20), dtype=np.uint8), RNG.random((25, 35), dtype=np.float32)
    with tifffile.TiffWriter("a.tif") as writer:
        writer.write(grey, photometric="minisblack", description="first", resolution=(72, 72))
        writer.write(deep, photometric="minisblack", description="second", compression="zstd")
        writer.write(255 - grey, photometric="miniswhite", subfiletype=2, metadata=None)
    assert run(denoiser, "a.tif", "b.tif", strength=Strength(1e-9, 1e-9)).exit_code == 0
    with tifffile.TiffFile("b.tif") as after:
        assert [page.description for page in after.pages] == ["first", "second", ""]
        assert [page.dtype for page in after.pages] == [np.uint8, np.float32, np.uint8]
        assert np.array_equal(after.pages[0].asarray(), grey)
        np.testing.assert_allclose(after.pages[1].asarray(), deep, atol=1e-6)
        assert np.array_equal(after.pages[2].asarray(), 255 - grey) and after.pages[2].photometric == 0
        assert after.pages[2].subfiletype == 2 and after.pages[0].tags[282].value == (72, 1)


def test_a_stack_is_measured_page_by_page_against_a_stack(denoiser: Denoiser) -> None:
    tifffile.imwrite("a.tif", STACK, photometric="minisblack")
    clean = STACK.copy()
    clean[1:] //= 2
    tifffile.imwrite("clean.tif", clean, photometric="minisblack")
    (row,) = run(denoiser, "a.tif", "b.tif", reference=Path("clean.tif")).rows
    errors = np.square(STACK[1:].astype(float) - clean[1:]).mean(axis=(1, 2))
    assert row.psnr_noisy == pytest.approx(np.mean(10 * np.log10(65535**2 / errors)), abs=1e-6)
    tifffile.imwrite("short.tif", clean[:4], photometric="minisblack")
    watcher = Recorder()
    (row,) = run(denoiser, "a.tif", "c.tif", watcher, reference=Path("short.tif")).rows
    assert row.status == "done" and row.psnr is None and any("4 page(s)" in text for text in watcher.notices)


def test_progress_runs_over_all_pages(denoiser: Denoiser) -> None:
    tifffile.imwrite("a.tif", STACK, photometric="minisblack")
    watcher = Recorder()
    run(denoiser, "a.tif", "b.tif", watcher)
    assert watcher.shares == sorted(watcher.shares) and watcher.shares[-1] == 1 and 0.2 in watcher.shares


def test_a_stack_into_another_format_is_refused_with_the_mend(denoiser: Denoiser) -> None:
    tifffile.imwrite("a.tif", STACK, photometric="minisblack")
    (row,) = run(denoiser, "a.tif", "b.png").rows
    assert row.status == "failed" and "5 pages" in row.error and "TIFF" in row.error and not Path("b.png").exists()


def test_a_damaged_page_fails_the_file_and_leaves_nothing(denoiser: Denoiser) -> None:
    tifffile.imwrite("a.tif", STACK, photometric="minisblack", compression="deflate")
    with tifffile.TiffFile("a.tif") as stack:
        offset = stack.pages[3].dataoffsets[0]
    data = bytearray(Path("a.tif").read_bytes())
    data[offset : offset + 40] = bytes(40)
    Path("a.tif").write_bytes(data)
    (row,) = run(denoiser, "a.tif", "out/b.tif").rows
    assert row.status == "failed" and "damaged" in row.error
    assert not [path for path in Path("out").iterdir() if path.suffix != ".jsonl"]


def test_a_disk_that_takes_no_more_fails_a_stack_by_name(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite("a.tif", STACK, photometric="minisblack")

    def refuse(*arguments: object) -> None:
        raise ImageError("b.tif", "cannot be written: No space left on device")

    monkeypatch.setattr(file_work, "write_pages", refuse)
    (row,) = run(denoiser, "a.tif", "b.tif").rows
    assert row.status == "failed" and "No space left" in row.error


@pytest.mark.timeout(60)
def test_a_watcher_that_is_abandoned_itself_ends_the_run(denoiser: Denoiser) -> None:
    class Gone(Watcher):
        def tiles(self, done: int, total: int) -> None:
            raise AbandonedError

    tifffile.imwrite("a.tif", STACK, photometric="minisblack")
    (row,) = run(denoiser, "a.tif", "b.tif", Gone()).rows
    assert row.status == "failed" and not Path("b.tif").exists()


def test_a_stack_of_grey_and_colour_names_the_models_of_both(denoiser: Denoiser) -> None:
    colour = Denoiser.load(save_tiny(Path("colour.safetensors")), device="cpu")
    with tifffile.TiffWriter("a.tif") as writer:
        writer.write(np.zeros((20, 30, 3), np.uint8), photometric="rgb")
        writer.write(np.zeros((20, 30), np.uint8), photometric="minisblack")
    plan = make_plan([Path("a.tif")], Path("b.tif"))
    (row,) = run_batch(plan, {1: denoiser, 3: colour}.__getitem__, Settings(25.0), fingerprint={}).rows
    assert row.model == "colour, tiny"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}, {"tile": (64, 64), "compression": "lzw"}])
def test_a_page_read_by_rows_gives_what_it_gives_as_a_whole(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, dtype: type, options: dict[str, object]
) -> None:
    pixels = (RNG.random((300, 90)) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    if dtype == np.float32:
        pixels[100:103, 20:30] = np.nan
    tifffile.imwrite("a.tif", pixels, photometric="minisblack", **options)
    assert run(denoiser, "a.tif", "whole.tif").exit_code == 0
    monkeypatch.setattr(opened_file, "WHOLE_BYTES", 0)
    denoiser = Denoiser(denoiser.checkpoint, denoiser.backend, tile=64)
    watcher = Recorder()
    assert run(denoiser, "a.tif", "rows.tif", watcher).exit_code == 0
    whole, rows = tifffile.imread("whole.tif"), tifffile.imread("rows.tif")
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows, whole.astype(float), atol=1 if dtype == np.uint8 else 1e-4)
    assert any("30 non-finite" in text for text in watcher.notices) == (dtype == np.float32)


@pytest.mark.slow
def test_memory_does_not_grow_with_a_tiff(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "tiny.safetensors", channels=1)
    peaks = []
    for number, height in enumerate((4000, 4000, 16_000)):  # the first makes the network's graphs
        tifffile.imwrite("a.tif", np.tile(STACK[0], (height // 40, 143))[:, :8000], compression="deflate")
        code = (
            # ru_maxrss would start from the peak of the process that forked this one
            "import sys; from pathlib import Path; from denoise_se.app.cli import main\n"
            "try: main()\n"
            "finally: print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0], file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "denoise", "a.tif", "-o", f"{number}.tif", "--model", model, "--sigma", "10"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stderr.split()[-1]) // 1024)
    assert peaks[2] - peaks[1] < 100, f"{peaks} MB, the last two for 64 and 256 MB of pixels"
