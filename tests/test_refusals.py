"""Mistakes on the command line: exit code 2, the mend, and nothing written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import Run, plain, save


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["--sigma", "-3"], "from 0 to 255"),
        (["--sigma", "abc"], "give auto or a number"),
        (["--sigma", "300"], "from 0 to 255"),
        (["--sigma", "nan"], "from 0 to 255"),
        (["--strength", "7"], "from 0"),
        (["--strength", "nan"], "from 0"),
        (["--strength", "much"], "--strength"),
        (["--tile", "0.5"], "give auto, 0"),
        (["--tile", "abc"], "give auto, 0"),
        (["--tile", "-64"], "give auto, 0"),
        (["--tile", "9" * 5000], "give auto, 0"),
        (["--model", "no-such-model"], "color, photo"),
        (["--model", "weights.pth"], "best.safetensors"),
        (["--reference", "missing"], "missing: no such file"),
        (["--report", "r.exe"], ".csv, .json, .html"),
        (["--report", "a.png"], ".csv, .json, .html"),
        (["--engine", "cloud"], "local"),
        (["--backend", "abacus"], "auto, torch, openvino, onnxruntime"),
        (["--precision", "int8"], "denoise-se quantize"),
        (["--precision", "int8", "--backend", "torch"], "fp32"),
        (["--precision", "fp12"], "fp32"),
        (["--device", "toaster"], "auto, cpu, cuda"),
        (["--format", "gif"], "png, jpg"),
        (["--workers", "0"], "--workers"),
        (["--max-pixels", "0"], "--max-pixels"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--no-such-option"], "No such option"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_exits_2_names_the_mend_and_writes_nothing(
    run: Run, tiny: Path, options: list[str], mend: str
) -> None:
    save("a.png")
    model = [] if "--model" in options else ["--model", tiny]
    result = run("denoise", "a.png", "-o", "out", *model, *options)
    assert result.code == 2, result
    assert mend in " ".join(plain(result.err).replace("│", " ").split()), result.err
    assert "Traceback" not in result.err and result.out == "" and not Path("out").exists()


def test_an_input_or_output_that_is_not_given_or_not_there_is_refused(run: Run, tiny: Path) -> None:
    save("a.png")
    for arguments, part in (
        (["a.png"], "-o"),
        (["-o", "out"], "INPUT"),
        (["gone.png", "-o", "out", "--model", tiny], "gone.png: no such file"),
        (["a.png", "-o", "a.png", "--model", tiny, "--overwrite"], "another -o"),
    ):
        result = run("denoise", *arguments)
        assert result.code == 2 and part in plain(result.err), result


def test_a_gpu_that_is_not_there_is_refused(run: Run, tiny: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    save("a.png")
    result = run("denoise", "a.png", "-o", "out", "--model", tiny, "--device", "cuda")
    assert result.code == 2 and "--device cpu" in result.err and not Path("out").exists()


def test_a_report_never_replaces_an_input_or_an_output(run: Run, tiny: Path) -> None:
    Path("table.csv").write_bytes(b"1,2\n")
    save("a.png")
    for arguments in (
        ["table.csv", "-o", "out", "--format", "png", "--report", "./table.csv"],
        ["a.png", "-o", "o.csv", "--report", "o.csv"],
    ):
        result = run("denoise", *arguments, "--model", tiny)
        assert result.code == 2 and "another name" in result.err
    assert Path("table.csv").read_bytes() == b"1,2\n"


def test_a_report_that_cannot_be_written_is_refused_before_any_work(run: Run, tiny: Path) -> None:
    save("a.png")
    result = run("denoise", "a.png", "-o", "out", "--model", tiny, "--report", "/proc/r.csv")
    assert result.code == 2 and "--report /proc/r.csv: cannot be written" in result.err and not Path("out").exists()


def test_a_report_whose_name_is_too_long_is_refused(run: Run, tiny: Path) -> None:
    save("a.png")
    result = run("denoise", "a.png", "-o", "out", "--model", tiny, "--report", "x" * 300 + ".csv")
    assert result.code == 2 and "cannot be written (File name too long)" in result.err and not Path("out").exists()


def test_an_empty_name_is_not_the_current_folder(run: Run) -> None:
    save("a.png", 1)
    result = run("denoise", "", "-o", "out")
    assert result.code == 2 and 'the name "" is empty' in result.err and not Path("out").exists()


def test_links_in_a_circle_are_refused_by_name(run: Run, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for command in (
        ["train", "-o", str(loop), "--clean", str(tmp_path), "--noise", "gaussian:25"],
        ["train", "-o", str(tmp_path / "run"), "--clean", str(loop), "--noise", "gaussian:25"],
        ["evaluate", "--clean", str(loop), "--noise", "gaussian:25"],
    ):
        result = run(*command)
        assert result.code == 2 and "Traceback" not in result.err, result.err


def test_pipes_in_the_place_of_files_are_refused_and_not_waited_for(run: Run, tmp_path: Path, tiny: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 24, 3), 99, np.uint8))
    result = run("evaluate", "--clean", str(tmp_path), "--noise", f"profile:{tmp_path / 'pipe.json'}")
    assert result.code == 2 and "pipe.json: is no file" in result.err
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(tiny, own / "tiny.safetensors")
    os.mkfifo(own / "tiny.int8.json")
    out = str(tmp_path / "out.png")
    result = run("denoise", str(tmp_path / "a.png"), "-o", out, "--model", str(own / "tiny.safetensors"))
    assert result.code == 2 and "tiny.int8.json" in result.err


def test_a_benchmark_of_no_images_is_refused_before_anything_is_timed(run: Run, tmp_path: Path, tiny: Path) -> None:
    result = run("benchmark", "--model", str(tiny), "--backend", "torch", "--precision", "fp32", "--clean", "nosuch")
    assert result.code == 2 and "nosuch" in result.err and "round" not in result.err


@pytest.mark.parametrize("option", [("--backend", "foo"), ("--device", "foo"), ("--precision", "foo"), ("--tile", "x")])
def test_a_web_app_that_could_denoise_nothing_does_not_start(run: Run, option: tuple[str, str]) -> None:
    result = run("web", "--port", "47860", *option)
    assert result.code == 2 and option[1] in result.err
