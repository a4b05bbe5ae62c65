"""Profiles measured on noise that was made are the noise that was made."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from denoise_se.banding import row_covariance
from denoise_se.errors import UsageError
from denoise_se.noise_check import chart, check_estimates
from denoise_se.noise_measurement import measure_noise
from denoise_se.noise_plot import plot_measurement
from denoise_se.profile_noise import ProfileNoise
from denoise_se.value_range import WHOLE

GAIN, READ = 0.004, 0.02


def shots(count: int, clean: np.ndarray, gain: float = GAIN, read: float = READ, seed: int = 0) -> list[np.ndarray]:
    """Poisson counts and read noise, not clipped."""
    rng = np.random.default_rng(seed)
    return [
        (gain * rng.poisson(clean / gain) + rng.normal(0, read, clean.shape)).astype(np.float32) for _ in range(count)
    ]


@pytest.mark.slow
def test_estimates_of_every_kind_of_noise_are_near_the_truth() -> None:
    # relative, or absolute where the truth is 0; single pictures say less than bursts, a second round adds its error
    allowed = {"8 shots": (0.05, 0.01), "1 picture": (0.20, 0.03), "synthesised": (0.10, 0.02)}
    rows = list(check_estimates())
    assert {row.source for row in rows} == set(allowed) and len({row.quantity for row in rows}) == 8
    for row in rows:
        relative, absolute = allowed[row.source]
        if row.true:
            assert row.estimated == pytest.approx(row.true, rel=relative), row
        else:
            assert row.estimated == pytest.approx(0, abs=absolute), row


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_burst_gives_gain_and_read_noise_with_intervals_that_hold(count: int, channels: int) -> None:
    hits, trials = np.zeros(2), 6
    for seed in range(trials):
        found = measure_noise(shots(count, chart(channels, 160), seed=seed), "burst").profile
        assert found.gain == pytest.approx([GAIN] * channels, rel=0.12)
        assert found.variance(0.5) == pytest.approx([GAIN / 2 + READ**2] * channels, rel=0.04)
        assert all(high - low < 0.4 * GAIN for low, high in found.gain_interval)
        for name, truth in (("gain", GAIN), ("read_noise", READ)):
            inside = [low <= truth <= high for low, high in getattr(found, f"{name}_interval")]
            hits[name == "read_noise"] += np.mean(inside)
    assert (hits >= 0.66 * trials).all(), hits  # 95 % expected


def test_a_burst_of_small_crops_is_measured_too() -> None:
    """64x64 pixels are fewer than the usual bins of brightness would want."""
    found = measure_noise(shots(2, chart(1, 64)), "burst").profile
    assert found.variance(0.5) == pytest.approx([GAIN / 2 + READ**2], rel=0.15)


def test_exposure_that_flickers_over_a_burst_is_not_taken_for_noise() -> None:
    steady = shots(6, chart(1, 160))
    flicker = [frame * factor for frame, factor in zip(steady, (0.9, 0.95, 1, 1, 1.05, 1.1), strict=True)]
    plain, uneven = (measure_noise(frames, "burst").profile.variance(0.5)[0] for frames in (steady, flicker))
    assert uneven == pytest.approx(plain, rel=0.05)


def test_flats_and_darks_give_gain_and_read_noise_without_the_sensors_fixed_pattern() -> None:
    rng = np.random.default_rng(3)
    fixed = 1 + rng.normal(0, 0.03, (128, 128, 1))  # of pixels of unequal gain
    vignette = 1 - 0.2 * (np.hypot(*np.mgrid[-1:1:128j, -1:1:128j]) ** 2)[..., None] / 2
    levels = [0.0, 0.0, 0.1, 0.1, 0.25, 0.25, 0.5, 0.5, 0.7, 0.7]
    frames = [shots(1, level * vignette * fixed, seed=i)[0] + 0.1 for i, level in enumerate(levels)]
    found = measure_noise(frames, "flats").profile
    # the black level of 0.1 holds no photons: var = gain * (x - 0.1) + read^2
    assert found.gain[0] == pytest.approx(GAIN, rel=0.05)
    low, high = found.gain_interval[0]
    assert low <= GAIN <= high and high - low < 0.2 * GAIN
    assert found.variance(0.4)[0] == pytest.approx(GAIN * 0.3 + READ**2, rel=0.04)


def test_single_flats_are_measured_beneath_their_vignetting() -> None:
    vignette = 1 - 0.3 * (np.hypot(*np.mgrid[-1:1:160j, -1:1:160j]) ** 2)[..., None] / 2
    frames = [shots(1, level * vignette, seed=i)[0] for i, level in enumerate([0.05, 0.2, 0.4, 0.6, 0.8])]
    found = measure_noise(frames, "flats").profile
    assert found.gain[0] == pytest.approx(GAIN, rel=0.06) and found.read_noise[0] == pytest.approx(READ, rel=0.15)


@pytest.mark.parametrize("series", ["burst", None])
def test_what_a_camera_adds_to_its_counts_holds_no_photons(series: str | None) -> None:
    clean = np.maximum(0, 1.3 * (chart(1, 192) - 0.3))
    found = measure_noise([0.3 + shot for shot in shots(6, clean, read=0.003)], series).profile
    assert found.gain[0] == pytest.approx(GAIN, rel=0.08)
    assert found.black[0] == pytest.approx(0.3, abs=0.05)
    for light in (0.1, 0.4):
        assert found.variance(0.3 + light)[0] == pytest.approx(GAIN * light + 0.003**2, rel=0.1)
    again = ProfileNoise(found)(torch.full((1, 1, 200, 200), 0.4), torch.Generator().manual_seed(0)).image
    assert float(again.var()) == pytest.approx(GAIN * 0.1, rel=0.15)


def test_rounding_to_8_bits_and_clipping_are_not_counted_as_noise() -> None:
    clean = 0.5 + 1.1 * (chart(1, 160) - 0.5)
    clean[:40] = 1.0  # blown out: half of its noise is cut off
    frames = [np.clip(np.rint(255 * f), 0, 255).astype(np.uint8) for f in shots(6, clean, gain=0.0005, read=0.004)]
    found = measure_noise(frames, "burst").profile
    # rounding adds 1.28e-6 to a read variance of 1.6e-5
    assert found.gain[0] == pytest.approx(0.0005, rel=0.06) and found.read_noise[0] == pytest.approx(0.004, rel=0.1)


def test_channels_keep_their_own_gain_read_noise_and_correlation() -> None:
    rng = np.random.default_rng(0)
    clean = chart(3, 192)
    mix = np.linalg.cholesky(np.array([[1, 0.6, 0.3], [0.6, 1, 0.5], [0.3, 0.5, 1]]))
    gain, read = np.array([0.002, 0.004, 0.008]), np.array([0.01, 0.02, 0.03])
    frames = [
        (clean + np.sqrt(gain * clean + read**2) * (rng.normal(size=clean.shape) @ mix.T)).astype(np.float32)
        for _ in range(6)
    ]
    found = measure_noise(frames, "burst").profile
    assert found.gain == pytest.approx(gain, rel=0.06)
    assert found.read_noise == pytest.approx(read, abs=0.002)
    assert found.channel_correlation == pytest.approx(mix @ mix.T, abs=0.02)
    single = measure_noise(frames[:1]).profile
    assert single.variance(0.5) == pytest.approx(gain / 2 + read**2, rel=0.15)
    assert single.channel_correlation == pytest.approx(mix @ mix.T, abs=0.08)


def test_many_pictures_of_one_device_say_more_than_one() -> None:
    pictures = [shots(1, chart(1, 128 + 16 * i)[:, ::-1], seed=i)[0] for i in range(8)]
    found = measure_noise(pictures).profile
    assert found.gain[0] == pytest.approx(GAIN, rel=0.2)
    assert found.variance(0.5)[0] == pytest.approx(GAIN / 2 + READ**2, rel=0.06)
    alone = measure_noise(pictures[:1]).profile
    assert np.ptp(found.gain_interval[0]) < 0.9 * np.ptp(alone.gain_interval[0])


# --- banding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("textured", [False, True])
def test_rows_are_found_in_grain_ten_times_as_strong(textured: bool) -> None:
    rng = np.random.default_rng(1)
    grain = rng.normal(0, 0.05, (400, 500, 1)) + rng.normal(0, 0.005, (400, 1, 1))
    if textured:
        picture = np.repeat(np.repeat(chart(1, 250), 2, 0), 2, 1)[:400]
        picture[120:160] += 0.3  # two edges along the whole width
        grain = grain + picture
    assert row_covariance([grain])[0, 0] ** 0.5 == pytest.approx(0.005, rel=0.2)
    assert row_covariance([grain.swapaxes(0, 1)])[0, 0] == 0


@pytest.mark.parametrize("seed", range(5))
def test_pictures_and_grain_without_banding_have_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = chart(3, 256) + rng.normal(0, 0.05, (256, 256, 3))
    assert not row_covariance([noisy]).any() and not row_covariance([noisy.swapaxes(0, 1)]).any()


def test_rows_that_the_channels_share_are_told_from_those_of_their_own() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 0.02, (600, 1, 1)) * [1, 1, 0] + rng.normal(0, 0.02, (600, 1, 3)) * [0, 0, 1]
    found = row_covariance([rows + rng.normal(0, 0.05, (600, 300, 3))]) / 0.02**2
    assert found == pytest.approx(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), abs=0.15)


# --- what cannot be measured ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "series", "words"),
    [
        ([], None, "no image"),
        ([np.zeros((64, 64), np.uint8)], "film", "--series 'film': give burst or flats"),
        ([np.zeros((64, 63), np.uint8)], None, "at least 64x64"),
        ([np.zeros((64, 64, 4), np.uint8)], None, "C = 1 or 3"),
        ([np.zeros((64, 64), np.int32)], None, "int32"),
        ([np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8)], None, "profile them apart"),
        ([np.full((64, 64), np.nan, np.float32)], None, "NaN"),
        ([np.zeros((64, 64), np.uint8)], None, "constant or clipped"),
        ([np.zeros((64, 64), np.uint8)] * 3, "burst", "clipped to black or white"),
        ([np.zeros((64, 64), np.uint8)], "burst", "at least two shots"),
        ([np.zeros((64, 64), np.uint8), np.zeros((64, 65), np.uint8)], "burst", "64x64 with 1 .* and 65x64"),
        ([np.zeros((64, 64), np.uint8), np.zeros((64, 65), np.uint8)], "flats", "one size"),
    ],
)
def test_what_holds_no_noise_to_measure_is_refused(images: list[np.ndarray], series: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        measure_noise(images, series)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_without_variance_makes_a_profile_that_adds_none(channels: int) -> None:

    found = measure_noise([chart(channels, 96)] * 3, "burst").profile
    clean = torch.full((1, channels, 32, 32), 0.5)
    noisy = ProfileNoise(found)(clean, torch.Generator().manual_seed(0)).image
    assert float((noisy - clean).abs().max()) < 1e-4


def test_shots_of_two_scenes_are_no_burst() -> None:
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(30, 220, (8, 8)), np.ones((12, 12))) for _ in range(2)]
    frames = [np.rint(scene + rng.normal(0, 5, scene.shape)).astype(np.uint8) for scene in (*scenes, scenes[0])]
    with pytest.raises(UsageError, match="shot 2 of 3 shows another scene than the first"):
        measure_noise(frames, "burst")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_measurement_is_drawn(tmp_path, suffix: str) -> None:
    measurement = measure_noise(shots(3, chart(3, 96)), "burst")
    plot_measurement(tmp_path / f"a{suffix}", measurement)
    assert (tmp_path / f"a{suffix}").stat().st_size > 5000
    with pytest.raises(UsageError, match=r"use \.png"):
        plot_measurement(tmp_path / "a.jpg", measurement)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of the memory is read from /proc")
def test_a_burst_of_a_camera_fits_in_the_memory_of_a_laptop() -> None:
    # 8 shots of 24 megapixels in colour take 8 GB, besides the shots themselves
    script = """
from collections.abc import Iterator
from pathlib import Path
import numpy as np
from denoise_se.noise_measurement import measure_noise
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
shots = list(np.random.default_rng(0).integers(118, 139, (8, 1000, 1000, 3), dtype=np.uint8))
measure_noise([shot[:80, :80] for shot in shots], "burst")  # imports what it needs
before = peak()
measure_noise(shots, "burst")
print((peak() - before) * 1024 / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 350


def test_pictures_that_come_one_after_the_other_are_let_go_and_measured_as_if_all_were_there() -> None:
    pictures = shots(40, chart(1, 96))
    alive = [0]

    def one_by_one() -> Iterator[np.ndarray]:
        for picture in pictures:
            copy = picture.copy()
            weakref.finalize(copy, lambda: alive.append(alive[-1] - 1))
            alive.append(alive[-1] + 1)
            yield copy

    streamed = measure_noise(one_by_one(), used=WHOLE)
    assert streamed.profile == measure_noise(pictures).profile
    assert max(alive) <= 3


def test_more_patches_than_are_kept_are_thinned_out_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from denoise_se import noise_measurement

    pictures = shots(20, chart(1, 96))
    whole = measure_noise(pictures).profile
    monkeypatch.setattr(noise_measurement, "MAX_PATCHES", 16_000)
    few = measure_noise(pictures).profile
    assert few.variance(0.5)[0] == pytest.approx(whole.variance(0.5)[0], rel=0.1)


def test_counts_that_use_a_small_part_of_their_range_are_measured_as_they_are_denoised() -> None:
    random = np.random.default_rng(0)
    scene = np.linspace(200, 3800, 128)  # of 12 bits
    counts = [np.rint(scene + 40 * random.standard_normal((128, 128))).astype(np.uint16) for _ in range(4)]
    profile = measure_noise(counts, "burst").profile
    assert profile.variance(0.5)[0] ** 0.5 == pytest.approx(40 / 4096, rel=0.03)
    assert "1/16 of their range" in profile.source
    upon = measure_noise([50_000 + frame for frame in counts], "burst").profile  # seen from about 50,000 on
    assert "in units of 0.0604 of their range from 0.763 on" in upon.source
    assert upon.variance(0.5)[0] ** 0.5 == pytest.approx(40 / (0.0604 * 65535), rel=0.03)
    as_all = measure_noise([16 * frame for frame in counts], "burst").profile
    assert profile.variance(0.5)[0] == pytest.approx(as_all.variance(0.5)[0], rel=1e-3)
    assert "of their range" not in as_all.source
