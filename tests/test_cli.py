"""The command line from outside: help, refusals, exit codes, and what is printed."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from tiny_model import save_tiny

from denoise_se.app import cli
from denoise_se.atomic_file import write_whole
from denoise_se.checkpoint import CHECKPOINTS, load_checkpoint
from denoise_se.errors import DenoiseError, ImageError, ProfileError, last_message, reason
from denoise_se.formats import FORMATS
from denoise_se.known_methods import CLASSICAL, PEERS

SHIPPED = all(
    Path(str(resources.files("denoise_se.checkpoints").joinpath(entry.file))).is_file()
    for entry in CHECKPOINTS.values()
)
needs_weights = pytest.mark.skipif(not SHIPPED, reason="the shipped weights are not there")
COMMANDS = (["denoise"], ["train"], ["evaluate"], ["models"], ["noise"], ["noise", "estimate"], ["noise", "profile"])
HEAVY = ("torch", "lightning", "gradio", "matplotlib", "scipy", "skimage", "pandas", "PIL", "tifffile", "cv2", "kornia")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`denoise-se ARGUMENTS` in an empty folder and in this process: a traceback would be an exception here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["denoise-se", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        printed = capsys.readouterr()
        code = caught.value.code
        return Result(0 if code is None else int(code), printed.out, printed.err)

    return call


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def save(name: str, seed: int = 0, shape: tuple[int, ...] = (20, 28, 3)) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(name)


def loaded_after(code: str, cwd: Path) -> list[str]:
    """Which of HEAVY a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()[1:]


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_is_there_for_every_command(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.code == 0 and "Usage" in result.out
    if command not in ([], ["models"], ["noise"]):
        assert f"denoise-se {' '.join(command)} " in plain(result.out), "an example"


def test_help_names_the_noise_models_and_formats_that_there_are(run: Run) -> None:
    from denoise_se.backends import BACKENDS, DEVICES, PRECISIONS
    from denoise_se.noise import NOISE_MODELS, parse_noise_spec
    from denoise_se.noise_spec import noise_help

    for name, kind in NOISE_MODELS.items():
        assert kind.example.startswith(f"{name}:") and kind.example in noise_help()
        if not kind.file:
            parse_noise_spec(kind.example)
    text = " ".join(plain(run("denoise", "--help").out).replace("│", " ").split())
    choices = {"format": {"same", *FORMATS}, "device": set(DEVICES), "backend": {"auto", *BACKENDS}}
    for option, known in {**choices, "precision": set(PRECISIONS)}.items():
        assert set(re.findall(r"\w+", text.partition(f"--{option}")[2].partition(".")[0])) >= known, option


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_help_names_the_methods_that_models_are_measured_against(run: Run, command: str) -> None:
    text = " ".join(plain(run(command, "--help").out).replace("│", " ").split())
    known = {"bm3d", "nlm", "wavelet", "tv", "dncnn=FILE", "ffdnet=FILE"}
    assert known == {*CLASSICAL, *(f"{peer}=FILE" for peer in PEERS)}
    assert set(re.findall(r"[\w=]+", text.partition("--against")[2].partition(";")[0])) >= known


DENOISE_OPTIONS = """--output -o --model --sigma --strength --reference --report --recursive --format --resume
--overwrite --tile --device --backend --precision --workers --engine --max-pixels --quiet --json"""
TRAIN_OPTIONS = """--output -o --pairs --clean --noise --noisy --init --val-pairs --rehearse --config --minutes --steps
--patch --batch --seed --resume --devices --num-nodes --strategy"""


@pytest.mark.parametrize(("command", "options"), [("denoise", DENOISE_OPTIONS), ("train", TRAIN_OPTIONS)])
def test_options_are_those_of_the_contract(run: Run, command: str, options: str) -> None:
    text = plain(run(command, "--help").out)
    assert [option for option in options.split() if option not in text] == []


def test_help_and_refusals_load_no_heavy_module(tmp_path: Path) -> None:
    calls = [["--help"], *([*command, "--help"] for command in COMMANDS), ["denoise", "x", "-o", "y", "--sigma", "abc"]]
    code = (
        "import sys, io, contextlib\n"
        "from denoise_se.app import cli\n"
        f"for arguments in {calls!r}:\n"
        "    sys.argv = ['denoise-se', *arguments]\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        cli.main()\n"
    )
    assert loaded_after(code, tmp_path) == []


@pytest.mark.slow
def test_denoising_loads_neither_the_web_app_nor_the_trainer(tmp_path: Path, tiny: Path) -> None:
    PIL.Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    code = (
        "import sys, contextlib\n"
        "from denoise_se.app import cli\n"
        f"sys.argv = ['denoise-se', 'denoise', 'a.png', '-o', 'out', '--model', {str(tiny)!r}]\n"
        "with contextlib.suppress(SystemExit):\n"
        "    cli.main()\n"
    )
    assert not {"lightning", "gradio", "matplotlib", "pandas", "kornia"} & set(loaded_after(code, tmp_path))
    assert (tmp_path / "out" / "a.png").is_file()


def test_the_last_message_of_a_program_is_read_back_with_all_its_lines(run: Run) -> None:
    said = "note: a library's\n" + run("denoise", "no-such-file", "-o", "out").err
    assert last_message(said) == said.partition("denoise-se: ")[2].strip() != ""
    assert last_message("denoise-se: first\ndenoise-se: a.png: has\n  - two\n") == "a.png: has\n  - two"
    assert last_message("Killed\n") is None


def test_the_reason_of_an_error_is_said_though_it_has_no_number() -> None:
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(OSError("the store said no")) == "the store said no"
    assert reason(TimeoutError()) == "TimeoutError"


def test_a_file_that_cannot_be_written_is_told_with_its_reason_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as raised:
        write_whole(tmp_path / "no" / "a.json", b"{}", ProfileError, "choose another place")
    assert str(raised.value) == (
        f"{tmp_path / 'no' / 'a.json'}: cannot be written (No such file or directory); choose another place"
    )
    with pytest.raises(DenoiseError, match=r"\(Is a directory\)$"):
        write_whole(tmp_path, b"")


# --- refusals --------------------------------------------------------------------------------------------------------


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


def test_a_file_without_an_image_suffix_wants_a_format(run: Run, tiny: Path) -> None:
    save("a.png")
    Path("a.png").rename("a")
    result = run("denoise", "a", "-o", "out", "--model", tiny)
    assert result.code == 2 and "a: without the suffix of an image; add --format png" in result.err
    assert not Path("out").exists()
    assert run("denoise", "a", "-o", "out", "--model", tiny, "--format", "png").code == 0 and Path("out/a.png").exists()


def test_a_sigma_that_a_blind_model_does_not_use_is_said_once(run: Run, tmp_path: Path) -> None:
    blind = save_tiny(tmp_path / "blind.safetensors", noise_map=False)
    for name in ("a", "b"):
        save(f"in/{name}.png")
    result = run("denoise", "in", "-o", "out", "--model", blind, "--sigma", 20)
    assert result.code == 0 and result.err.count("blind is blind and does not use --sigma") == 1
    assert "--sigma" not in run("denoise", "in", "-o", "other", "--model", blind).err


def test_resuming_leaves_files_alone_that_no_run_wrote(run: Run, tiny: Path) -> None:
    save("in/a.png")
    save("in/b.png", 1)
    save("out/a.png", 2)
    before = Path("out/a.png").read_bytes()
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--resume")
    assert result.code == 2 and "out/a.png: exists already, and no earlier run" in result.err
    assert Path("out/a.png").read_bytes() == before and not Path("out/b.png").exists()
    assert run("denoise", "in", "-o", "out", "--model", tiny, "--overwrite").code == 0
    assert run("denoise", "in", "-o", "out", "--model", tiny, "--resume", "--sigma", 9).code == 0


def test_at_strength_0_a_file_of_another_kind_than_its_name_stays_as_it_is(run: Run, tiny: Path) -> None:
    save("a.png")
    Path("in").mkdir()
    Path("a.png").rename("in/a.jpg")
    assert run("denoise", "in", "-o", "out", "--model", tiny, "--strength", 0).code == 0
    assert Path("out/a.jpg").read_bytes() == Path("in/a.jpg").read_bytes()


def test_alpha_that_is_opaque_everywhere_does_not_hinder_a_jpeg(run: Run, tiny: Path) -> None:
    opaque = np.dstack([np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8), np.full((24, 32), 255)])
    PIL.Image.fromarray(opaque.astype(np.uint8)).save("shot.png")
    result = run("denoise", "shot.png", "-o", "shot.jpg", "--model", tiny)
    assert result.code == 0 and "its alpha channel, opaque everywhere, is not written to JPG" in result.err
    opaque[0, 0, 3] = 254
    PIL.Image.fromarray(opaque.astype(np.uint8)).save("hole.png")
    result = run("denoise", "hole.png", "-o", "hole.jpg", "--model", tiny)
    assert result.code == 1 and "has transparency" in result.err


def test_a_report_that_cannot_be_written_is_refused_before_any_work(run: Run, tiny: Path) -> None:
    save("a.png")
    result = run("denoise", "a.png", "-o", "out", "--model", tiny, "--report", "/proc/r.csv")
    assert result.code == 2 and "--report /proc/r.csv: cannot be written" in result.err and not Path("out").exists()


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


def test_a_report_whose_name_is_too_long_is_refused(run: Run, tiny: Path) -> None:
    save("a.png")
    result = run("denoise", "a.png", "-o", "out", "--model", tiny, "--report", "x" * 300 + ".csv")
    assert result.code == 2 and "cannot be written (File name too long)" in result.err and not Path("out").exists()


def test_a_report_that_fails_at_the_end_costs_no_image(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ImageError("r.csv", "the report cannot be written (No space left on device)")

    save("in/a.png")
    Path("in/b.png").write_bytes(b"no image")
    monkeypatch.setattr("denoise_se.app.denoise_command.write_report", fail)
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--report", "r.csv")
    assert result.code == 1 and "1 of 2 image(s) failed" in result.err and "r.csv: the report cannot be" in result.err


def test_an_empty_name_is_not_the_current_folder(run: Run) -> None:
    save("a.png", 1)
    result = run("denoise", "", "-o", "out")
    assert result.code == 2 and 'the name "" is empty' in result.err and not Path("out").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 15), 129)]
)
@pytest.mark.parametrize("module", ["denoise_se.app.cli", "denoise_se.app.noise_command"])
def test_a_signal_while_the_program_starts_is_no_traceback(number: signal.Signals, code: int, module: str) -> None:
    script = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Hook())
sys.argv[1:] = ["noise", "estimate", "a.png"]
from denoise_se.app.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "denoise-se: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_is_answered_where_nobody_reads_the_messages_any_more() -> None:
    script = """
import os, signal
from denoise_se.stop import ending_at_signals
reader, writer = os.pipe()
os.dup2(writer, 2)
os.close(writer)
os.close(reader)
with ending_at_signals():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except OSError:
        print("taken for a bad file")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (143, "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_that_the_shell_had_ignored_stays_ignored() -> None:
    script = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from denoise_se.stop import ending_at_signals
with ending_at_signals():
    os.kill(os.getpid(), signal.SIGINT)
print("on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_a_profile_and_its_plot_never_replace_an_image(run: Run) -> None:
    save("shots/1.png", 1)
    before = Path("shots/1.png").read_bytes()
    result = run("noise", "profile", "shots/1.png", "-o", "p.json", "--plot", "shots/../shots/1.png")
    assert result.code == 2 and "is one of the images to measure" in result.err
    assert Path("shots/1.png").read_bytes() == before and not Path("p.json").exists()


def test_a_profile_names_every_image_that_does_not_fit(run: Run) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a.png": (80, 80, 3), "b.png": (80, 80, 3), "grey.png": (80, 80), "small.png": (80, 40, 3)}
    for name, shape in shapes.items():
        PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(name)
    Path("broken.png").write_bytes(b"no image")
    result = run("noise", "profile", *shapes, "broken.png", "-o", "p.json")
    assert result.code == 2 and not Path("p.json").exists()
    assert "broken.png: " in result.err
    assert "3 problem(s)" in result.err and "grey.png: is grey, most are colour" in result.err
    assert "small.png: has 40x80 pixels; a profile needs at least 64x64" in result.err


def test_noise_of_floats_of_any_range_is_told_in_their_own_units(run: Run) -> None:
    from denoise_se.noise_profile import NoiseProfile

    scene = np.linspace(-1000, 3000, 128)[:, None]
    tomogram = scene + np.random.default_rng(0).normal(0, 50, (128, 128))
    tifffile.imwrite("ct.tif", tomogram.astype(np.float32), photometric="minisblack")
    result = run("noise", "estimate", "ct.tif")
    (own,) = re.findall(r"\(([\d.]+) of 1\)", result.out)
    assert result.code == 0 and float(own) == pytest.approx(50, rel=0.1)
    result = run("noise", "profile", "ct.tif", "-o", "p.json")
    profile = NoiseProfile.load(Path("p.json"))
    assert result.code == 0 and "from -1" in profile.source
    (span,) = re.findall(r"in units of ([\d.e+]+) of", profile.source)
    assert float(profile.variance(0.5)[0]) ** 0.5 * float(span) == pytest.approx(50, rel=0.1)


def test_an_estimate_says_what_auto_gives_a_model_of_a_picture_with_coarse_grain(run: Run, tiny: Path) -> None:
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(128, 128)), (0, 0), 0.8)
    PIL.Image.fromarray(np.rint(128 + 8 * grain / grain.std()).astype(np.uint8)).save("a.png")
    line = next(line for line in run("noise", "estimate", "a.png").out.splitlines() if "a.png" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert run("denoise", "a.png", "-o", "b.png", "--model", tiny, "--report", "r.csv").code == 0
    row = next(csv.DictReader(Path("r.csv").read_text(encoding="utf-8").splitlines()))
    assert float(cells[-1]) == pytest.approx(float(row["sigma"]), abs=0.006)
    assert float(cells[-1]) > 1.5 * float(cells[1]) > 1.5 * 6


def test_an_estimate_says_that_noise_is_multiplicative_and_how_strong(run: Run) -> None:
    bright = np.linspace(0.1, 0.9, 256) * np.ones((256, 1))
    noisy = bright * (1 + 0.1 * np.random.default_rng(0).normal(size=bright.shape))
    assert cv2.imwrite("speckled.png", np.rint(65535 * noisy.clip(0, 1)).astype(np.uint16))
    assert "speckle:0.10" in "".join(run("noise", "estimate", "speckled.png").out.split())


def test_pictures_in_which_no_noise_is_found_are_told_of_where_it_was_asked_for(run: Run, tiny: Path) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        PIL.Image.new("RGB", (40, 40), (99, 99, 99)).save(f"in/{name}.png")
    save("in/noisy.png", shape=(64, 64, 3))
    result = run("denoise", "in", "-o", "out", "--model", tiny)
    assert result.code == 0 and result.err.count("no noise was found") == 1
    assert "note: in/a.png, in/b.png: no noise was found" in result.err
    for number, options in enumerate((["--sigma", "5"], ["--strength", "0"])):
        assert "no noise" not in run("denoise", "in", "-o", f"out{number}", "--model", tiny, *options).err


def test_measuring_names_every_file_that_cannot_be_read_before_any_work(run: Run) -> None:
    save("clean/a.png")
    Path("clean/b.png").write_bytes(b"")
    Path("clean/c.png").write_bytes(b"text")
    result = run("evaluate", "--clean", "clean", "--noise", "gaussian:25", "--against", "nlm")
    assert result.code == 2 and "2 file(s) cannot be measured" in result.err
    assert "b.png: is empty" in result.err and "c.png" in result.err


# --- what is printed -------------------------------------------------------------------------------------------------


def test_a_folder_is_denoised_reported_and_refused_the_second_time(run: Run, tiny: Path) -> None:
    save("in/a.png")
    save("in/b.png", 1)
    save("ref/a.png", 2)
    first = run("denoise", "in", "-o", "out", "--model", tiny, "--reference", "ref", "--report", "deep/r.csv")
    assert first.code == 0 and "a.png" in first.out and "1 of 2 inputs have no reference" in first.err
    with Path("deep/r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done"] and rows[0]["psnr"] and not rows[1]["psnr"]
    again = run("denoise", "in", "-o", "out", "--model", tiny)
    assert again.code == 2 and "--resume" in again.err and "--overwrite" in again.err
    assert "skipped" in run("denoise", "in", "-o", "out", "--model", tiny, "--resume").out.replace("done", "")
    assert "skipped" not in run("denoise", "in", "-o", "out", "--model", tiny, "--overwrite").out


@pytest.mark.parametrize("asked", [False, True])
def test_reports_hold_the_noise_always_and_a_csv_only_when_quality_is_to_be_estimated(
    run: Run, tiny: Path, asked: bool
) -> None:
    save("in/a.png")
    flag = ["--estimate-quality"] if asked else []
    for name in ("r.csv", "r.json", "r.html"):
        assert run("denoise", "in", "-o", "out", "--model", tiny, "--overwrite", "--report", name, *flag).code == 0
    columns = Path("r.csv").read_text().splitlines()[0]
    assert columns.endswith(",ssim") != asked and ("noise_before" in columns) == asked
    report = json.loads(Path("r.json").read_text())
    assert report["rows"][0]["noise_before"] > 0 and report["settings"]["model"] == str(tiny)
    told = report["rows"][0]["psnr_estimated"] is not None or report["rows"][0]["psnr_estimated_reason"] != ""
    assert told == asked
    page = Path("r.html").read_text()
    assert 'class="pair"' in page and ">noise before<" in page and f"<td>{tiny}</td>" in page
    resumed = run("denoise", "in", "-o", "out", "--model", tiny, "--resume", "--report", "r.html", *flag)
    assert "r.html: lacks the pictures, noise and estimates of 1 image(s)" in " ".join(resumed.err.split())


def test_one_bad_file_gives_exit_code_1_and_its_name_on_stderr(run: Run, tiny: Path) -> None:
    save("in/a.png")
    Path("in/bad.png").write_bytes(b"text")
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--quiet")
    assert result.code == 1 and result.out == ""
    assert "in/bad.png: failed: " in result.err and "1 of 2" in result.err and Path("out/a.png").exists()


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


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").out == f"denoise-se {importlib.metadata.version('denoise-se')}\n"
    assert "Remove the noise from images" in run("--help").out


def test_noise_of_files_is_estimated_and_bad_ones_are_named(run: Run) -> None:
    rng = np.random.default_rng(0)
    flat = np.clip(rng.normal(128, 10, (128, 128)), 0, 255).astype(np.uint8)
    PIL.Image.fromarray(flat).save("[b]flat.png")
    Path("bad.png").write_bytes(b"text")
    result = run("noise", "estimate", "[b]flat.png", "bad.png")
    assert result.code == 1 and "bad.png" in result.err
    row = next(line for line in result.out.splitlines() if "[b]flat.png" in line)
    assert float(row.split("│")[2]) == pytest.approx(10, abs=1)


def test_the_noise_of_a_folder_and_of_each_page_of_a_stack_is_estimated(run: Run) -> None:
    rng = np.random.default_rng(0)
    Path("shots").mkdir()
    pages = np.clip(rng.normal(30_000, 2570, (3, 128, 128)), 0, 65535).astype(np.uint16)
    tifffile.imwrite("shots/s.tif", pages, photometric="minisblack")
    result = run("noise", "estimate", "shots")
    assert result.code == 0 and not result.err
    for page in (1, 2, 3):
        row = next(line for line in result.out.splitlines() if f"shots/s.tif (page {page})" in line)
        sigma, counts, *_ = row.split("│")[2].split()
        assert float(sigma) == pytest.approx(10, abs=1) and float(counts.strip("(")) == pytest.approx(2570, rel=0.1)
    assert run("noise", "profile", "shots", "--series", "burst", "-o", "c.json").code == 0
    tifffile.imwrite("dim.tif", pages // 16, photometric="minisblack")
    assert "of their range from 0.0148 on" in " ".join(
        run("noise", "estimate", "dim.tif", "--series", "burst").out.split()
    )
    alone = run("noise", "estimate", "none.png")
    assert alone.code == 2 and not alone.out and "none.png: no such file or folder" in alone.err


def save_burst(folder: str, shots: int = 4, side: int = 96) -> list[str]:
    """16-bit shots of a slope with gain 0.004, read noise 0.01 and rows of 0.02, as PNG; their paths."""
    Path(folder).mkdir()
    rng = np.random.default_rng(0)
    clean = np.tile(np.linspace(0.2, 0.8, side), (side, 1))
    paths = []
    for shot in range(shots):
        noise = rng.normal(0, np.sqrt(0.004 * clean + 1e-4)) + rng.normal(0, 0.02, (side, 1))
        paths.append(f"{folder}/{shot}.png")
        cv2.imwrite(paths[-1], np.clip(np.rint(65535 * (clean + noise)), 0, 65535).astype(np.uint16))
    return paths


def test_a_burst_is_profiled_drawn_and_made_a_noise_model(run: Run) -> None:
    from denoise_se.noise_profile import NoiseProfile

    shots = save_burst("shots")
    result = run("noise", "profile", *shots, "--series", "burst", "-o", "c.json", "--plot", "c.png")
    assert result.code == 0 and "profile:c.json" in result.err and "grey" in result.out
    profile = NoiseProfile.load("c.json")
    assert profile.gain[0] == pytest.approx(0.004, rel=0.1) and profile.row[0] == pytest.approx(0.02, rel=0.2)
    assert cv2.imread("c.png").shape[1] > 1000
    shown = run("noise", "estimate", *shots, "--series", "burst")
    assert shown.code == 0 and f"{profile.gain[0]:.2e}" in shown.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "shots/0.png", "-o", "c.txt"], "c.txt: unknown kind of file; use .json"),
        (["profile", "shots/0.png", "-o", "no/c.json"], "name a file in a folder that exists"),
        (["profile", "shots/0.png", "-o", "c.json", "--plot", "c.bmp"], "--plot c.bmp: unknown kind"),
        (["profile", "shots/0.png", "-o", "c.json", "--series", "films"], "give burst or flats"),
        (["profile", "shots/0.png", "-o", "c.json", "--series", "burst"], "at least two shots"),
        (["estimate", "shots/0.png", "small.png", "--series", "burst"], "at least 64x64"),
        (["profile", "shots/0.png", "rgb.png", "-o", "c.json"], "profile them apart"),
    ],
)
def test_a_profile_that_cannot_be_measured_is_refused_and_nothing_written(
    run: Run, arguments: list[str], words: str
) -> None:
    save_burst("shots", 1)
    cv2.imwrite("small.png", np.zeros((20, 20), np.uint8))
    cv2.imwrite("rgb.png", np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8))
    result = run("noise", *arguments)
    assert result.code == 2 and words in result.err
    assert not list(Path().glob("c.*"))


# --- training's refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ([], "give one of: a folder, --pairs"),
        (["--pairs", "n", "c", "--clean", "c"], "give one of: a folder, --pairs"),
        (["c", "--noisy", "n"], "give one of: a folder, --pairs"),
        (["--clean", "c"], "--noise gaussian"),
        (["--noisy", "n", "--init", "none"], "n: no such folder"),
        (["--burst", "n", "--init", "none"], "n: no such folder"),
        (["gone"], "gone: no such folder"),
        (["--pairs", "c", "--quiet"], "--quiet: is an option, where a folder is wanted"),
        (["--pairs", "c", "c", "--rehearse", "gone"], "gone: no such folder"),
        (["--noisy", "n", "--noise", "gaussian:5"], "--noise goes with --clean"),
        (["--pairs", "n", "c", "--noise", "gaussian:5"], "--noise goes with --clean"),
        (["--clean", "c", "--noise", "gauss:5"], "one of gaussian"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "nothing"], "no such checkpoint"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "x.ckpt"], "best.safetensors"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "gone.yaml"], "gone.yaml"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "list.yaml"], "no mapping"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "broken.yaml"], "YAML"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "rate.yaml"], "0.001"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--config", "field.yaml"], "wdths"),
        (["--clean", "c", "--init", "none", "--config", "noise.yaml"], "noise is [5], not a text"),
        (["--clean", "gone", "--noise", "gaussian:5", "--init", "none"], "gone: no such folder"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none"], "holds no image"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--minutes", "0"], "--steps or --minutes"),
        (["--clean", "c", "--noise", "gaussian:5", "--init", "none", "--patch", "2"], "--patch"),
        (["--clean", "c", "--noise", "gaussian:5", "--steps", "many"], "--steps"),
        (["c", "--noise", "gaussian:5", "-o", "c/run"], "lies inside c"),
    ],
)
def test_training_that_cannot_start_exits_2_and_makes_no_folder(run: Run, arguments: list[str], mend: str) -> None:
    Path("c").mkdir()
    for name, text in (
        ("list", "[1, 2]"),
        ("broken", "a: [1"),
        ("rate", "learning_rate: 1e-3"),
        ("field", "network: {wdths: [4]}"),
        ("noise", "noise: [5]"),
    ):
        Path(f"{name}.yaml").write_text(text)
    result = run("train", *([] if "-o" in arguments else ["-o", "run"]), *arguments)
    assert result.code == 2 and mend in " ".join(plain(result.err).replace("│", " ").split()), result
    assert not Path("run").exists() and not Path("c/run").exists()


# --- training --------------------------------------------------------------------------------------------------------

SHORT = ("--steps", 2, "--patch", 16, "--batch", 2)


def deep_pairs(noisy: str, clean: str, seeds: range) -> None:
    """16-bit grey pictures with noise, as PNG."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        picture = cv2.resize(rng.uniform(1e4, 5e4, (4, 4)), (32, 32))
        for folder, values in ((clean, picture), (noisy, picture + rng.normal(0, 4000, picture.shape))):
            Path(folder).mkdir(exist_ok=True)
            cv2.imwrite(f"{folder}/{seed}.png", np.clip(values, 0, 65535).astype(np.uint16))


def test_pairs_of_16_bit_grey_files_train_a_colour_network_that_denoise_takes(run: Run, tiny: Path) -> None:
    deep_pairs("n", "c", range(3))
    deep_pairs("vn", "vc", range(3, 5))
    Path("recipe.yaml").write_text("{validations: 1, warmup_steps: 1, steps: 99, batch: 2}")
    arguments = ["--pairs", "n", "c", "--val-pairs", "vn", "vc", "--init", tiny, "--config", "recipe.yaml"]
    result = run("train", "-o", "[red]run", *arguments, "--steps", 3, "--patch", 16, "--seed", 5)
    assert result.code == 0, result.err
    best = Path("[red]run/best.safetensors")
    assert f"wrote {best}" in result.err and "3 images for training, 2 for validation" in result.err
    recipe = load_checkpoint(best).training["recipe"]
    assert (recipe["steps"], recipe["minutes"], recipe["patch"], recipe["batch"], recipe["seed"]) == (3, 0, 16, 2, 5)
    assert recipe["learning_rate"] == 5e-4 and recipe["noise"] is None
    again = run("train", "-o", "[red]run", *arguments, "--patch", 16)
    assert again.code == 2 and "--resume" in again.err
    result = run("denoise", "vn", "-o", "out", "--model", best, "--reference", "vc", "--report", "r.csv")
    assert result.code == 0, result.err
    assert cv2.imread("out/3.png", cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_a_grey_start_trains_a_colour_network_and_is_measured_as_one(run: Run, tmp_path: Path) -> None:
    start = save_tiny(tmp_path / "grey.safetensors", channels=1)
    for seed in range(4):
        coloured(f"c/{seed}.png", seed)
    network = "{channels: 3, widths: [4, 8], blocks: 1}"
    Path("recipe.yaml").write_text(f"{{network: {network}, noise: 'gaussian:10', warmup_steps: 1}}")
    result = run("train", "-o", "run", "--clean", "c", "--init", start, "--config", "recipe.yaml", *SHORT)
    assert result.code == 0, result.err
    assert load_checkpoint("run/best.safetensors").config.channels == 3
    assert "start (PSNR, SSIM)" in result.err


def test_noise_that_does_not_go_on_the_patches_is_refused_before_the_run_folder_is_made(run: Run, tiny: Path) -> None:
    for seed in range(4):
        coloured(f"c/{seed}.png", seed)
    arguments = ["--clean", "c", "--init", tiny, "--steps", 1, "--patch", 12]
    result = run(
        "train", "-o", "run", *arguments, "--noise", "gaussian:5|camera:gain=0.004,read=0.01,luma=0.5,chroma=4"
    )
    assert result.code == 2 and "more than 12 pixels a side" in result.err and not Path("run").exists()


def test_the_noise_of_a_recipe_makes_a_folder_of_pictures_clean_ones(run: Run, tiny: Path) -> None:
    for seed in range(4):
        coloured(f"c/{seed}.png", seed)
    Path("recipe.yaml").write_text("noise: gaussian:10")
    result = run("train", "-o", "run", "c", "--init", tiny, "--config", "recipe.yaml", *SHORT)
    assert result.code == 0 and "c: taken as clean images" in result.err, result.err
    assert load_checkpoint("run/best.safetensors").training["recipe"]["noise"] == "gaussian:10"


def test_files_of_the_same_name_in_several_folders_are_told_apart(run: Run, tiny: Path) -> None:
    for scene in range(3):
        coloured(f"n/scene{scene}/010.png", scene, 0)
        coloured(f"c/scene{scene}/010.png", scene)
    shutil.copytree("c/scene1", "vc/other")
    shutil.copytree("n/scene1", "vn/other")
    result = run("train", "-o", "run", "--pairs", "n", "c", "--val-pairs", "vn", "vc", "--init", tiny, "--patch", 16)
    assert result.code == 2 and "the same picture as scene1/010 of training" in result.err


def test_a_picture_is_known_again_when_only_its_side_holds_16_bit_files(run: Run, tiny: Path) -> None:
    for seed in range(3):
        coloured(f"n/{seed}.png", seed, 0)
        coloured(f"c/{seed}.png", seed)
    for folder in ("n", "c"):
        Path(f"v{folder}").mkdir()
        shutil.copy(f"{folder}/1.png", f"v{folder}/same.png")
        cv2.imwrite(f"v{folder}/deep.png", np.full((40, 40, 3), 4000, np.uint16))
    result = run("train", "-o", "run", "--pairs", "n", "c", "--val-pairs", "vn", "vc", "--init", tiny, "--patch", 16)
    assert result.code == 2 and "same: the same picture as 1 of training" in result.err


def test_broken_pairs_and_shared_pictures_are_listed_before_the_first_step(run: Run, tiny: Path) -> None:
    deep_pairs("n", "c", range(3))
    Path("n/1.png").write_bytes(b"x")
    Path("c/2.png").unlink()
    result = run("train", "-o", "run", "--pairs", "n", "c", "--init", tiny, "--steps", 1, "--patch", 16)
    assert result.code == 2 and "2 problem(s)" in result.err and "n/1.png" in result.err and "n/2.png" in result.err
    deep_pairs("n", "c", range(3))
    result = run("train", "-o", "run", "--pairs", "n", "c", "--val-pairs", "n", "c", "--init", tiny, "--patch", 16)
    assert result.code == 2 and all(f"{i}: the same picture as {i}" in result.err for i in range(3))
    assert not Path("run").exists()


def coloured(path: str, seed: int, noise_seed: int | None = None, rows: float = 0) -> None:
    """An 8-bit colour picture of 72x64, drawn from `seed`, with noise."""
    picture = cv2.resize(np.random.default_rng(seed).uniform(60, 190, (5, 5, 3)), (72, 64))
    if noise_seed is not None:
        rng = np.random.default_rng((seed, noise_seed))
        picture = picture + rng.normal(0, 12, picture.shape) + rng.normal(0, rows, (64, 1, 1))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(path, np.clip(np.rint(picture), 0, 255).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "way"), [(0, "so Neighbor2Neighbor"), (15, "so Recorrupted-to-Recorrupted")])
def test_noisy_pictures_alone_train_and_the_way_is_chosen_by_their_noise(
    run: Run, tiny: Path, rows: float, way: str
) -> None:
    for seed in range(8):
        coloured(f"d/{seed}.png", seed, 0, rows)
    result = run("train", "-o", "run", "d", "--init", "none", *SHORT)
    assert result.code == 0, result.err
    assert "d: taken as noisy pictures only" in result.err and way in result.err
    assert "7 images for training, 1 for validation" in result.err
    card = Path("run/card.md").read_text()
    assert "PSNR estimated without clean images" in card and "what tuned removes: sigma" in card and way in card
    assert cv2.imread("run/samples.png") is not None
    load_checkpoint(Path("run/best.safetensors"))


@pytest.mark.slow
def test_a_folder_of_bursts_trains_on_the_mean_of_the_other_shots(run: Run, tiny: Path) -> None:
    for seed in range(3):
        for shot in range(3):
            coloured(f"d/s{seed}/{shot}.png", seed, shot)
    result = run("train", "-o", "run", "d", "--init", tiny, *SHORT)
    assert result.code == 0, result.err
    assert "taken as bursts: 3 sub-folders" in result.err and "the mean of the other shots as the target" in result.err
    assert "6 images for training, 2 for validation" in result.err and "itself 2" in Path("run/card.md").read_text()


@pytest.mark.slow
def test_a_folder_of_pairs_says_what_is_wrong_and_what_was_gained(run: Run, tiny: Path) -> None:
    for seed in range(4):
        coloured(f"d/noisy/{seed}.png", seed, 0, rows=20)
        coloured(f"d/gt/{seed}.png", seed)
    result = run("train", "-o", "run", "d", "--init", tiny, *SHORT)
    assert result.code == 0, result.err
    assert "taken as pairs: noisy/ and gt/" in result.err and "flipped, but not turned" in result.err
    card = Path("run/card.md").read_text()
    assert all(line in card for line in ("- noisy (PSNR, SSIM): ", "- start (PSNR, SSIM): ", "- tuned (PSNR, SSIM): "))
    assert "BM3D" in card and load_checkpoint(Path("run/best.safetensors")).training["recipe"]["turns"] is False
    refused = run("train", "-o", "other", "d", "--noise", "gaussian:5", "--init", tiny)
    assert refused.code == 2 and "taken as pairs" in refused.err and not Path("other").exists()


# --- the shipped weights ---------------------------------------------------------------------------------------------


@needs_weights
def test_auto_takes_photo_for_colour_and_gray_for_grey(run: Run) -> None:
    save("in/colour.png")
    save("in/grey.png", shape=(20, 28))
    assert run("denoise", "in", "-o", "out", "--report", "r.csv").code == 0
    with Path("r.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["photo", "gray"]


@needs_weights
def test_the_catalogue_lists_every_model(run: Run) -> None:
    result = run("models")
    assert result.code == 0 and all(name in result.out for name in CHECKPOINTS)


def test_a_closed_standard_output_costs_neither_the_images_nor_the_report(tmp_path: Path, tiny: Path) -> None:
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 24, 3), 99, np.uint8))
    command = f"{sys.executable} -m denoise_se.app denoise a.png b.png c.png -o out --model {tiny}"
    for options in ("--report r.csv", "--json --report s.csv --overwrite", "--quiet --overwrite"):
        ended = subprocess.run(f"{command} {options} >&- <&-", shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0 and "Error" not in ended.stderr, ended.stderr
    assert len((tmp_path / "r.csv").read_text().splitlines()) == len((tmp_path / "s.csv").read_text().splitlines()) == 4
    assert all(cv2.imread(str(tmp_path / "out" / f"{name}.png")) is not None for name in "abc")


@pytest.mark.parametrize(
    "text",
    ["seed: 2020-99-99", "seed: 0b_", "[" * 20_000, "seed: " + "9" * 5000, "minutes: " + "9" * 400, "stepz: 3"],
)
def test_a_recipe_that_yaml_stumbles_over_is_refused_by_name(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    (tmp_path / "clean").mkdir()
    cv2.imwrite("clean/a.png", np.full((80, 80, 3), 99, np.uint8))
    words = ["train", "-o", "run", "--clean", "clean", "--noise", "gaussian:5", "--config", "recipe.yaml"]
    result = run(*words)
    assert result.code == 2 and "--config recipe.yaml: " in result.err, result.err


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


def test_pixels_that_are_no_numbers_are_told_of_when_noise_is_measured(run: Run, tmp_path: Path, tiny: Path) -> None:
    pixels = np.random.default_rng(0).uniform(0.2, 0.8, (96, 96)).astype(np.float32)
    pixels[3, :5] = np.nan
    for folder in ("noisy", "clean"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", pixels, photometric="minisblack")
    result = run("noise", "profile", str(tmp_path / "noisy" / "a.tif"), "-o", str(tmp_path / "p.json"))
    assert "a.tif: 5 non-finite" in result.err, result.err
    result = run("evaluate", "--pairs", str(tmp_path / "noisy"), str(tmp_path / "clean"), "--model", str(tiny))
    assert "5 non-finite" in result.out + result.err


def test_a_folder_is_resumed_into_itself_in_another_format(run: Run, tmp_path: Path, tiny: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 24, 3), 99, np.uint8))
    command = ["denoise", str(tmp_path), "-o", str(tmp_path), "--format", "tiff", "--model", str(tiny)]
    assert run(*command).code == 0
    cv2.imwrite(str(tmp_path / "b.png"), np.full((20, 24, 3), 99, np.uint8))
    result = run(*command, "--resume", "--json")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and [row["status"] for row in rows] == ["skipped", "done"], result.err
    assert "1 file(s) that an earlier run wrote are no inputs" in result.err
    assert "exists already; add --resume" in run(*command).err


@pytest.mark.parametrize("option", [("--backend", "foo"), ("--device", "foo"), ("--precision", "foo"), ("--tile", "x")])
def test_a_web_app_that_could_denoise_nothing_does_not_start(run: Run, option: tuple[str, str]) -> None:
    result = run("web", "--port", "47860", *option)
    assert result.code == 2 and option[1] in result.err
