"""The benchmark's arithmetic by hand, and one small run from the command line."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from denoise_se.app.cli import app
from denoise_se.benchmark import Benchmark, Growth, Result, run_benchmark
from denoise_se.benchmark_report import render, write_plot, write_report
from denoise_se.contender import Contender, OpenVinoDnCNN, noisy_picture
from denoise_se.errors import UsageError
from denoise_se.evaluation import evaluate
from denoise_se.evaluation_methods import parse_against
from denoise_se.markdown import markdown_table
from denoise_se.peers import Convolution, DnCNN


def benchmark_of(*results: Result) -> Benchmark:
    growth = (Growth("wavelet", 0.1, 2.0), Growth("wavelet", 1.0, 2.1))
    return Benchmark(results, growth, 100.0, "a machine", 1, 25.0, ("clean",), ("left out",))


def test_the_rate_counts_two_operations_for_a_multiply_add() -> None:
    row = Result(Contender("gray", True, "torch", "fp32"), seconds=0.5, pixels=1_000_000)
    assert row.seconds_per_megapixel == 0.5
    # head, ten blocks of two convolutions and tail, 3x3, at a quarter of the pixels; the gates add next to nothing
    convolutions = 9 * (5 * 64 + 20 * 64 * 64 + 64 * 4) / 4
    assert row.contender.macs_per_pixel == pytest.approx(convolutions, rel=1e-4)
    assert row.gflops == pytest.approx(2 * row.contender.macs_per_pixel * 1e6 / 0.5 / 1e9)


def test_the_front_holds_what_nothing_beats_in_both_time_and_psnr() -> None:
    wavelet, tv, nlm = (Contender(name, False) for name in ("wavelet", "tv", "nlm"))
    slow_but_best = Result(nlm, 3.0, 10, {1: 30.0, 3: 25.0})
    slower_and_worse = Result(tv, 2.0, 10, {1: 27.0})
    fastest = Result(wavelet, 1.0, 10, {1: 28.0, 3: 26.0})
    benchmark = benchmark_of(slow_but_best, slower_and_worse, fastest, Result(tv, 0.1, 10))
    assert benchmark.front(1) == [fastest, slow_but_best]
    assert benchmark.front(3) == [fastest], "in colour it is the best as well"


def test_psnr_is_the_mean_over_the_sets_of_grey_and_of_colour_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sets = {"a": (1, 40), "b": (1, 90), "c": (3, 60)}  # channels, contrast
    for name, (channels, contrast) in sets.items():
        (tmp_path / name).mkdir()
        shape = (40, 40) if channels == 1 else (40, 40, 3)
        cv2.imwrite(str(tmp_path / name / "x.png"), (127 + rng.uniform(-contrast, contrast, shape)).astype(np.uint8))
    (tv,) = parse_against("tv")
    scores = evaluate([tv], clean=[tmp_path / name for name in sets], noises=["gaussian:25"]).means()
    alone = {mean.test_set: mean.psnr for mean in scores if mean.method == "tv"}
    folders = [tmp_path / name for name in sets]
    (row,) = run_benchmark([Contender("tv", False)], folders, rounds=1, side=16, memory=False).results
    assert row.psnr == pytest.approx({1: (alone["a"] + alone["b"]) / 2, 3: alone["c"]})


def test_a_bar_in_a_cell_of_a_table_does_not_end_the_cell() -> None:
    lines = markdown_table(("noise", "a|b"), [["gaussian:15|gaussian:50", "1"]])
    assert lines == ["| noise | a\\|b |", "| --- | --- |", "| gaussian:15\\|gaussian:50 | 1 |"]


def test_a_picture_has_the_noise_that_was_asked_for() -> None:
    picture = noisy_picture(400, 300, 3, 25.0)
    assert picture.shape == (400, 300, 3)
    assert (picture - picture.mean(axis=(1, 2), keepdims=True)).std() * 255 == pytest.approx(25, rel=0.01)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        run_benchmark([], [])


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot_is_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot{suffix}"
    write_plot(path, benchmark_of(Result(Contender("wavelet", False), 1.0, 10, {1: 28.0})))
    assert path.stat().st_size > 5000


def test_reports_hold_what_the_terminal_shows(tmp_path: Path) -> None:
    benchmark = benchmark_of(Result(Contender("wavelet", False), 0.5, 1_000_000, {3: 29.0, 1: 28.0}, 123_000_000))
    write_report(tmp_path / "b.md", benchmark)
    text = (tmp_path / "b.md").read_text(encoding="utf-8")
    assert "| wavelet | both | 28.00 / 29.00 | 500 | 0.50 |  |  |  | 123 | yes |" in text
    assert "note: left out" in text
    console = Console(file=io.StringIO(), width=160)
    console.print(render(benchmark))
    assert isinstance(console.file, io.StringIO)
    shown = " ".join(console.file.getvalue().replace("│", " ").split())
    assert "wavelet both 28.00 / 29.00 500 0.50" in shown and "note: left out" in shown


def test_the_command_measures_models_and_classical_methods_in_one_run(tmp_path: Path) -> None:
    report = tmp_path / "b.json"
    options = ["--model", "gray", "--against", "wavelet", "--side", "48", "--rounds", "1", "--sizes", "0.01"]
    options += ["--backend", "torch", "--precision", "fp32"]
    result = CliRunner().invoke(app, ["benchmark", *options, "--report", str(report), "--quiet"])
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text(encoding="utf-8"))
    assert [row["name"] for row in found["results"]] == ["gray torch fp32", "wavelet"]
    ours, wavelet = found["results"]
    assert ours["psnr"]["grey"] > wavelet["psnr"]["grey"] > 20 and set(ours["psnr"]) == {"grey"}
    assert ours["peak_bytes"] is None or ours["peak_bytes"] > 50e6
    assert wavelet["gflops"] is None and ours["gflops"] > 0
    assert [row["megapixels"] for row in found["growth"]] == [0.01]


@pytest.mark.parametrize("channels", [1, 3])
def test_dncnn_gives_the_same_on_openvino(channels: int) -> None:
    pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    widths = [channels, 7, 7, channels]
    layers = tuple(
        Convolution(
            rng.normal(0, 0.2, (after, before, 3, 3)).astype(np.float32), rng.normal(0, 0.1, after).astype(np.float32)
        )
        for before, after in pairwise(widths)
    )
    network = DnCNN("tiny", layers)
    noisy = noisy_picture(37, 53, channels, 25.0)
    np.testing.assert_allclose(OpenVinoDnCNN(network)(noisy, 25.0), network(noisy, 25.0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "x"], "--sizes x"),
        (["--report", "b.txt"], "unknown kind of file"),
        (["--against", "magic"], "unknown method"),
        (["--plot", "nowhere/b.png"], "cannot be written there"),
    ],
)
def test_a_wrong_request_is_refused_by_name(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["benchmark", "--model", "gray", *options, "--quiet"])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
