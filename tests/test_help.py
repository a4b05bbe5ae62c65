"""What is told of commands and options, and what that loads."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import Run, needs_weights, plain

from denoise_se.checkpoint import CHECKPOINTS
from denoise_se.formats import FORMATS
from denoise_se.known_methods import CLASSICAL, PEERS

COMMANDS = (["denoise"], ["train"], ["evaluate"], ["models"], ["noise"], ["noise", "estimate"], ["noise", "profile"])


HEAVY = ("torch", "lightning", "gradio", "matplotlib", "scipy", "skimage", "pandas", "PIL", "tifffile", "cv2", "kornia")


def loaded_after(code: str, cwd: Path) -> list[str]:
    """Which of HEAVY a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()[1:]


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


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").out == f"denoise-se {importlib.metadata.version('denoise-se')}\n"
    assert "Remove the noise from images" in run("--help").out


@needs_weights
def test_the_catalogue_lists_every_model(run: Run) -> None:
    result = run("models")
    assert result.code == 0 and all(name in result.out for name in CHECKPOINTS)
