"""What a report gathers while bands pass by: bounded samples, noise before and after, estimates, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny

from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.inspection import Inspector
from denoise_se.report import Row
from denoise_se.restorer import Band
from denoise_se.samples import SAMPLE_PIXELS, Sample, as_one, sample_windows
from denoise_se.scanlines import ArrayScanlines
from denoise_se.tiling import Span

ROW = Row("in/a.png", "out/a.png", "done")


@pytest.fixture
def denoiser(tmp_path: Path) -> Denoiser:
    return Denoiser.load(save_tiny(tmp_path / "tiny.safetensors", channels=1))


@pytest.mark.parametrize(
    "shape", [(1, 1), (1024, 1024), (1025, 1024), (4000, 6000), (20_000, 20_000), (3, 10**7), (10**7, 3)]
)
def test_samples_lie_inside_and_are_bounded(shape: tuple[int, int]) -> None:
    windows = sample_windows(*shape)
    assert len({(r.stop - r.start, c.stop - c.start) for r, c in windows}) == 1
    area = sum((r.stop - r.start) * (c.stop - c.start) for r, c in windows)
    assert min(shape[0] * shape[1], SAMPLE_PIXELS) * 0.7 <= area <= SAMPLE_PIXELS
    assert all(0 <= r.start < r.stop <= shape[0] and 0 <= c.start < c.stop <= shape[1] for r, c in windows)
    assert len(set(windows)) == len(windows)


def test_a_sample_does_not_depend_on_the_cut_into_bands() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (1500, 1200, 3), dtype=np.uint8)
    samples = []
    for rows in (1500, 7, 256):
        sample = Sample(1500, 1200, 3, noisy.dtype)
        for start in range(0, 1500, rows):
            sample.add(start, noisy[start : start + rows], 255 - noisy[start : start + rows])
        samples.append(sample)
    for sample in samples:
        assert np.array_equal(sample.noisy, samples[0].noisy) and np.array_equal(sample.clean, 255 - sample.noisy)
    row, column = samples[0].windows[3]
    assert np.array_equal(samples[0].noisy[3], noisy[row.slice, column.slice])
    assert as_one(samples[0].noisy).shape[1:] == samples[0].noisy.shape[2:]


def inspected(inspector: Inspector, denoiser: Denoiser, sigma: float | None = None) -> Row:
    random = np.random.default_rng(0)
    clean = np.full((200, 300, 1), 128, np.uint8)
    noisy = np.clip(np.rint(clean + random.normal(0, 12, clean.shape)), 0, 255).astype(np.uint8)
    inspection = inspector.begin(ArrayScanlines(noisy))
    inspection.add(Band(Span(0, 120), noisy[:120], clean[:120]))
    inspection.add(Band(Span(120, 200), noisy[120:], clean[120:]))
    return inspection.row(ROW, denoiser, sigma, 12.0, Strength())


def test_noise_before_and_after_is_in_8_bit_units(denoiser: Denoiser) -> None:
    inspector = Inspector(noise=True)
    row = inspected(inspector, denoiser)
    assert row.noise_before == pytest.approx(12, rel=0.03) and row.noise_after == 0
    assert row.psnr_estimated is None and row.psnr_estimated_reason == "" and not inspector.previews


def test_quality_gives_a_number_or_a_reason(denoiser: Denoiser) -> None:
    row = inspected(Inspector(quality=True), denoiser, 12.0)
    assert row.psnr_estimated is not None and row.psnr_margin is not None and row.noise_before is not None
    row = inspected(Inspector(quality=True), denoiser, 50.0)
    assert row.psnr_estimated is None and "does not fit" in row.psnr_estimated_reason


def test_pictures_go_by_the_row_s_output_and_nothing_else_is_done(denoiser: Denoiser) -> None:
    inspector = Inspector(picture_bytes=20_000)
    assert inspected(inspector, denoiser) == ROW
    assert inspector.previews["out/a.png"].size == (300, 200)


def test_counts_of_12_bits_in_16_are_shown_as_bright_as_they_would_be_alone() -> None:
    counts = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))[..., None]
    pictures = []
    for pixels in (counts, counts * 16):
        inspector = Inspector(picture_bytes=48 * 1024)
        inspection = inspector.begin(ArrayScanlines(pixels))
        inspection.add(Band(Span(0, 64), pixels, pixels))
        inspection.row(ROW, None, None, 12.0, Strength())  # type: ignore[arg-type]
        pictures.append(inspector.previews[ROW.output])
    assert pictures[0].crops == pictures[1].crops and pictures[0].thumbnails == pictures[1].thumbnails
