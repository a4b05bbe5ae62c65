"""What is printed, letter for letter, and what becomes of the work where nothing can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from command_line import Result, Run, save


def test_the_images_are_done_though_nobody_reads_their_lines(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"in/{number}.png")
    command = [sys.executable, "-m", "denoise_se.app", "denoise", "in", "-o", "out", "--model", str(tiny), "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.wait(120) == 0, process.stderr.read()
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def palettes(folder: Path, count: int) -> None:
    """Images of which a note says that they are converted."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        PIL.Image.fromarray(pixels).quantize(16).save(folder / f"{number}.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_images_and_the_report_are_done_though_nothing_can_be_printed(
    tiny: Path, tmp_path: Path, stream: str
) -> None:
    palettes(tmp_path / "in", 4)
    command = [sys.executable, "-m", "denoise_se.app", "denoise", "in", "-o", "out", "--model", str(tiny)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "--report", "r.csv"], cwd=tmp_path, check=False, timeout=120, **{stream: full})
    assert done.returncode == 0 and len(list((tmp_path / "out").glob("*.png"))) == 4
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("command", [["--report", "r.csv"], ["--json", "--report", "r.csv"]])
def test_the_report_is_written_though_the_reader_of_the_table_is_gone(
    tiny: Path, tmp_path: Path, command: list[str]
) -> None:
    palettes(tmp_path / "in", 2)
    words = [sys.executable, "-m", "denoise_se.app", "denoise", "in", "-o", "out", "--model", str(tiny), *command]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.wait(120) == 0, process.stderr.read()
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3 and "Traceback" not in process.stderr.read()


def test_json_lines_go_where_they_went_when_an_engine_has_its_say(capsys: pytest.CaptureFixture[str]) -> None:
    from contextlib import redirect_stdout
    from io import StringIO

    from rich.progress import Progress

    from denoise_se.app.batch_watcher import ConsoleWatcher
    from denoise_se.app.console import message_console
    from denoise_se.report import Row

    console = message_console()
    watcher = ConsoleWatcher(console, Progress(console=console), 1, told=False, quiet=False, json_lines=True)
    with redirect_stdout(StringIO()):
        watcher.row(Row("a.png", "b.png", "done"))
    assert json.loads(capsys.readouterr().out)["input"] == "a.png"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_refusal_that_cannot_be_printed_keeps_its_code(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "denoise_se.app", "denoise", "nothing.png", "-o", "out"]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(words, cwd=tmp_path, stderr=full, check=False, timeout=60).returncode == 2


def test_notes_that_are_alike_are_counted(run: Run, tiny: Path) -> None:
    palettes(Path("in"), 9)
    result = run("denoise", "in", "-o", "out", "--model", tiny)
    assert result.err.count("in/") == 3 and "and 6 more files: " in result.err


def test_quiet_prints_nothing_when_all_is_well(run: Run, tiny: Path) -> None:
    save("a.png")
    assert run("denoise", "a.png", "-o", "out", "--model", tiny, "--quiet") == Result(0, "", "")


def test_json_gives_one_strict_line_per_image(run: Run, tiny: Path) -> None:
    save("in/é 画像.png")
    Path("ref").mkdir()
    Path("ref/é 画像.png").write_bytes(Path("in/é 画像.png").read_bytes())
    Path("in/bad.png").write_bytes(b"text")
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--json", "--strength", "0", "--reference", "ref")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in result.out.splitlines()]
    assert result.code == 1 and [row["status"] for row in rows] == ["failed", "done"]
    assert rows[1]["input"] == "in/é 画像.png" and rows[1]["psnr"] == "inf"


@pytest.mark.parametrize("name", ["[red]x.png", "[", "a]b[bold].png", ":smile:.png", "é 画像.png"])
def test_names_are_printed_letter_for_letter(run: Run, tiny: Path, name: str) -> None:
    name = name if name.endswith(".png") else f"{name}/[x].png"
    save(f"in/{name}")
    Path(f"in/{name}.bad.png").write_bytes(b"text")
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--recursive")
    assert result.code == 1
    assert f"in/{name}.bad.png: failed: " in result.err and Path(name).name in result.out


@pytest.mark.slow
def test_a_name_that_is_no_text_is_printed_as_far_as_it_goes(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        (folder / "caf\udce9.png").write_bytes(b"text")
    except OSError:
        pytest.skip("this file system takes text only")
    command = [
        sys.executable,
        "-m",
        "denoise_se.app",
        "denoise",
        "in",
        "-o",
        "out",
        "--model",
        tiny,
        "--report",
        "r.json",
    ]
    result = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == 1 and b"Traceback" not in result.stderr and b"caf\\udce9.png" in result.stderr
    assert json.loads(result.stdout)["input"] == "in/caf\udce9.png"
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["status"] == "failed"


def test_a_closed_standard_output_costs_neither_the_images_nor_the_report(tmp_path: Path, tiny: Path) -> None:
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 24, 3), 99, np.uint8))
    command = f"{sys.executable} -m denoise_se.app denoise a.png b.png c.png -o out --model {tiny}"
    for options in ("--report r.csv", "--json --report s.csv --overwrite", "--quiet --overwrite"):
        ended = subprocess.run(f"{command} {options} >&- <&-", shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0 and "Error" not in ended.stderr, ended.stderr
    assert len((tmp_path / "r.csv").read_text().splitlines()) == len((tmp_path / "s.csv").read_text().splitlines()) == 4
    assert all(cv2.imread(str(tmp_path / "out" / f"{name}.png")) is not None for name in "abc")
