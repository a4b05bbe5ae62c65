"""Speed and quality side by side in one run: our models on every engine, published peers, classical methods.

Times are of one picture, already in memory, and the methods take turns, round by round, so that whatever else the
machine does hits all of them; the fastest round counts. PSNR is `evaluation`'s. The share of the machine's peak is
against a product of two large float32 matrices in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from denoise_se.contender import Contender, noisy_picture
from denoise_se.errors import UsageError
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_methods import Method
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

    methods = {contender.name: contender.method() for contender in contenders}
    seconds, peak_gflops = _timed(contenders, methods, rounds, side, sigma, step)
    psnr, notes = _psnr(methods, clean, sigma)
    step("PSNR")
    peaks = _peaks(contenders, side, sigma, step) if memory else {}
    growth = _growth(contenders, methods, sizes, sigma, step)
    names = [contender.name for contender in contenders]
    return Benchmark(
        tuple(
            Result(contender, seconds[name], side * side, psnr.get(name, {}), peaks.get(name))
            for name, contender in zip(names, contenders, strict=True)
        ),
        growth,
        peak_gflops,
        processor(),
        torch.get_num_threads(),
        sigma,
        tuple(folder.name for folder in clean),
        notes,
    )


def _timed(
    contenders: Sequence[Contender],
    methods: Mapping[str, Method],
    rounds: int,
    side: int,
    sigma: float,
    step: Callable[[str], None],
) -> tuple[dict[str, float], float]:
    """The seconds of each method's fastest round, and the matrix product's best rate before, between and after them."""
    peaks = [matrix_gflops()]
    best: dict[str, float] = {}
    for number in range(-1, rounds):  # the first round warms up
        for contender in contenders:
            took = _seconds(contender, methods, side, sigma)
            if number >= 0:
                best[contender.name] = min(took, best.get(contender.name, took))
                step(f"{contender.name}, round {number + 1}")
        peaks.append(matrix_gflops())
    return best, max(peaks)


def _psnr(
    methods: Mapping[str, Method], clean: Sequence[Path], sigma: float
) -> tuple[dict[str, dict[int, float]], tuple[str, ...]]:
    """The mean over the sets of each method by channels, and what was left out."""
    if not clean:
        return {}, ()
    evaluation = evaluate(list(methods.values()), clean=clean, noises=[f"gaussian:{sigma:g}"])
    found: dict[str, dict[int, list[float]]] = {}
    for mean in evaluation.means():
        if mean.psnr is not None:
            found.setdefault(mean.method, {}).setdefault(mean.channels, []).append(mean.psnr)
    psnr = {name: {channels: sum(v) / len(v) for channels, v in sets.items()} for name, sets in found.items()}
    return psnr, tuple(evaluation.remarks())


def _peaks(
    contenders: Sequence[Contender], side: int, sigma: float, step: Callable[[str], None]
) -> dict[str, int | None]:
    peaks = {}
    for contender in contenders:
        peaks[contender.name] = contender.peak_bytes(side, sigma)
        step(f"{contender.name}, memory")
    return peaks


def _growth(
    contenders: Sequence[Contender],
    methods: Mapping[str, Method],
    sizes: Sequence[float],
    sigma: float,
    step: Callable[[str], None],
) -> tuple[Growth, ...]:
    """Of the first of our models for each kind of image."""
    growth = []
    leaders = {contender.channels: contender for contender in reversed(contenders) if contender.ours}
    for size in sizes:
        side = round((size * 1e6) ** 0.5)
        for contender in leaders.values():
            growth.append(Growth(contender.name, size, _seconds(contender, methods, side, sigma) * 1e6 / side**2))
        step(f"{size:g} megapixels")
    return tuple(growth)


def _seconds(contender: Contender, methods: Mapping[str, Method], side: int, sigma: float) -> float:
    """What a square picture of `side` pixels takes."""
    picture = noisy_picture(side, side, contender.channels or 3, sigma)
    began = time.perf_counter()
    methods[contender.name](picture, sigma)
    return time.perf_counter() - began


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
