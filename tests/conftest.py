"""Every run of the tests, and what they start, has a cache of networks of its own; fixtures of several files."""

from __future__ import annotations

import signal
import sys

import pytest
from command_line import Result
from evaluation_sets import folder_of, picture
from tiny_model import save_tiny
from web_browser import browsing, opened
from web_server import serving

from denoise_se import control_group
from denoise_se.app import cli
from denoise_se.denoiser import Denoiser
from denoise_se.graph_cache import ENVIRONMENT


@pytest.fixture(scope="session", autouse=True)
def graphs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(tmp_path_factory.mktemp("graphs")))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The file of a network that is made in no time."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`denoise-se ARGUMENTS` in an empty folder and in this process: a traceback would be an exception here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["denoise-se", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        printed = capsys.readouterr()
        code = caught.value.code
        return Result(0 if code is None else int(code), printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny):
    """The web app with the tiny network, in tiles so small that its work takes a while."""
    with serving(tmp_path_factory.mktemp("web"), "--model", str(tiny), "--tile", "32") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of all steps without an interruption."""
    from training_runs import train

    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


@pytest.fixture
def handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.fixture(scope="module")
def denoiser(tiny):
    """Of the tiny network, on the CPU."""
    return Denoiser.load(tiny, device="cpu")


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gray_set(tmp_path):
    """A folder of three small grey images."""
    return folder_of(tmp_path / "Set12", {f"{i:02d}.png": picture(i, 20, 24 + i) for i in range(3)})


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """A machine without control groups; gives a function that writes their files, and which ones are this process's."""
    monkeypatch.setattr(control_group, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(control_group, "OWN_GROUPS", tmp_path / "own")

    def write(own="", **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write
