"""Speed and quality side by side in one run: our models on every engine, published peers, classical methods.

Times are of one picture, already in memory, and the methods take turns, round by round, so that whatever else the
machine does hits all of them; the fastest round counts. PSNR is `evaluation`'s. The share of the machine's peak is
against a product of two large float32 matrices in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from denoise_se.contender import Contender
from denoise_se.errors import UsageError
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_set import check_files, clean_cases
from denoise_se.provenance import processor

OnProgress = Callable[[int, int, str], None]

SIDE = 512
MATRIX = 2048


@dataclass(frozen=True)
class Result:
    """One contender: `psnr` in dB of grey (1) and of colour (3), the mean over the test sets, each the mean over its
    images; `seconds` for the timed picture of `pixels`.

    `gflops` counts a multiply-add as two operations, for networks only; `peak_bytes` is the most memory that a process
    held which does nothing else.
    """

    contender: Contender
    seconds: float
    pixels: int
    psnr: Mapping[int, float] = field(default_factory=dict)
    peak_bytes: int | None = None

    @property
    def seconds_per_megapixel(self) -> float:
        return 1e6 * self.seconds / self.pixels

    @property
    def gflops(self) -> float | None:
        macs = self.contender.macs_per_pixel
        return None if macs is None else 2 * macs * self.pixels / self.seconds / 1e9


@dataclass(frozen=True)
class Growth:
    """The cost of one contender against the size of the image."""

    contender: str
    megapixels: float
    seconds_per_megapixel: float


@dataclass(frozen=True)
class Benchmark:
    """What a run measured. `peak_gflops` is the matrix product's; `notes` says in words what was left out."""

    results: tuple[Result, ...]
    growth: tuple[Growth, ...]
    peak_gflops: float
    machine: str
    threads: int
    sigma: float
    sets: tuple[str, ...]
    notes: tuple[str, ...]

    def front(self, channels: int) -> list[Result]:
        """The results for grey (1) or colour (3) that no other beats in both time and PSNR, fastest first."""
        best, front = float("-inf"), []
        rows = [row for row in self.results if channels in row.psnr]
        for row in sorted(rows, key=lambda row: row.seconds_per_megapixel):
            if row.psnr[channels] > best:
                best = row.psnr[channels]
                front.append(row)
        return front


def run_benchmark(
    contenders: Sequence[Contender],
    clean: Sequence[Path],
    *,
    sigma: float = 25.0,
    rounds: int = 5,
    side: int = SIDE,
    sizes: Sequence[float] = (),
    memory: bool = True,
    on_progress: OnProgress | None = None,
) -> Benchmark:
    """Measure all contenders; what `denoise-se benchmark` does.

    Args:
        clean: folders of clean images for PSNR under Gaussian noise of `sigma` (8-bit units); none: no PSNR.
        rounds, side: how often a square picture of `side` pixels is timed.
        sizes: megapixels at which the first contender of each kind of image is timed as well.
        memory: run each contender once more in a process of its own, for its peak memory (Linux; elsewhere none).
        on_progress: called with (done, total, what).

    Raises:
        UsageError: no contenders, or a folder without images.
        DenoiseError: a contender that fails.
    """
    import torch

    check_files(clean_cases(clean))
    if not contenders:
        raise UsageError("nothing to measure: no model and no method was given")
    total = rounds * len(contenders) + len(contenders) * memory + len(sizes) + 1
    done = 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total, what)

    peaks = [matrix_gflops()]
    methods = {contender.name: contender.method() for contender in contenders}
    best: dict[str, float] = {}
    for number in range(-1, rounds):  # the first round warms up
        for contender in contenders:
            picture = noisy_picture(side, side, contender.channels or 3, sigma)
            began = time.perf_counter()
            methods[contender.name](picture, sigma)
            took = time.perf_counter() - began
            if number >= 0:
                best[contender.name] = min(took, best.get(contender.name, took))
                step(f"{contender.name}, round {number + 1}")
        peaks.append(matrix_gflops())
    results = [Result(contender, best[contender.name], side * side) for contender in contenders]
    notes: list[str] = []
    if clean:
        evaluation = evaluate(list(methods.values()), clean=clean, noises=[f"gaussian:{sigma:g}"])
        found: dict[str, dict[int, list[float]]] = {}
        for mean in evaluation.means():
            if mean.psnr is not None:
                found.setdefault(mean.method, {}).setdefault(mean.channels, []).append(mean.psnr)
        for index, row in enumerate(results):
            sets = found.get(row.contender.name, {})
            results[index] = replace(row, psnr={channels: sum(v) / len(v) for channels, v in sets.items()})
        notes += evaluation.remarks()
    step("PSNR")
    if memory:
        for index, row in enumerate(results):
            results[index] = replace(row, peak_bytes=row.contender.peak_bytes(side, sigma))
            step(f"{row.contender.name}, memory")
    growth = []
    leaders = {contender.channels: contender for contender in reversed(contenders) if contender.ours}
    for size in sizes:
        for contender in leaders.values():
            height = round((size * 1e6) ** 0.5)
            picture = noisy_picture(height, height, contender.channels or 3, sigma)
            began = time.perf_counter()
            methods[contender.name](picture, sigma)
            growth.append(Growth(contender.name, size, (time.perf_counter() - began) * 1e6 / height**2))
        step(f"{size:g} megapixels")
    return Benchmark(
        tuple(results),
        tuple(growth),
        max(peaks),
        processor(),
        torch.get_num_threads(),
        sigma,
        tuple(folder.name for folder in clean),
        tuple(notes),
    )


def noisy_picture(height: int, width: int, channels: int, sigma: float) -> np.ndarray:
    """A gradient under noise, [H, W] or [H, W, 3] float32; how long a network takes does not depend on what it sees."""
    rng = np.random.default_rng(0)
    shape = (height, width) if channels == 1 else (height, width, channels)
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma / 255)
    gradient = np.linspace(0.1, 0.9, height, dtype=np.float32)
    return noise + gradient.reshape(-1, *[1] * (len(shape) - 1))


def matrix_gflops(repeats: int = 3) -> float:
    """The best rate of a product of two float32 matrices, in 1e9 operations a second."""
    import torch

    a, b = torch.rand(2, MATRIX, MATRIX).unbind()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * MATRIX**3 / best / 1e9
