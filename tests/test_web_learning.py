"""Learning on the server: one at a time, stopped when asked, kept only when better, under names that are safe."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from denoise_se.app.web_curve import draw_curve
from denoise_se.app.web_learning import Lesson, School
from denoise_se.app.web_models import Shelf, plain_name
from denoise_se.app.web_options import WebOptions
from denoise_se.blending import Strength
from denoise_se.errors import UsageError
from denoise_se.image import Image
from denoise_se.image_io import write

# stands for the training: writes the files of a run as it goes, and on SIGTERM ends as the real one does
STUB = """
import pathlib, signal, sys, time
run, gains, code = pathlib.Path(sys.argv[1]), [float(x) for x in sys.argv[2].split(",") if x], int(sys.argv[3])
run.mkdir(parents=True)
rows = ["step,seconds,loss,learning_rate,patches_per_second,val_psnr,val_ssim"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
for i, gain in enumerate(gains):
    rows.append(f"{i},{i},0,0,0,{30 + gain},0.9")
    (run / "metrics.csv").write_text("\\n".join(rows))
    (run / "best.safetensors").write_bytes(b"weights")
    (run / "last.ckpt").write_bytes(b"state")
print("noise of a library\\ndenoise-se:", run.parents[1] / "noisy" / "a.png: is too small", file=sys.stderr, flush=True)
if code == -1:
    time.sleep(60)
sys.exit(code)
"""


@pytest.fixture
def school(tmp_path: Path) -> School:
    return School(Shelf(tmp_path / "models"), tmp_path / "lessons", 10**8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "upload").mkdir()
    write(tmp_path / "upload" / "a.png", Image(np.zeros((16, 16, 3), np.uint8), None, "png"))
    return tmp_path / "upload" / "a.png"


def stubbed(monkeypatch: pytest.MonkeyPatch, gains: str, code: int) -> list[list[str]]:
    """Replaces the training process; gives the words it was to be called with."""
    asked: list[list[str]] = []

    def process(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
        asked.append(words)
        with (folder / "log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-c", STUB, words[1], gains, str(code)], stdout=log, stderr=log)

    monkeypatch.setattr(School, "_process", staticmethod(process))
    return asked


def ended(lesson: Lesson, seconds: float = 30) -> Lesson:
    limit = time.monotonic() + seconds
    while lesson.state == "running":
        assert time.monotonic() < limit, "the lesson does not end"
        time.sleep(0.05)
    return lesson


def test_a_better_model_is_offered_under_its_name_and_nothing_else_is_left(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = stubbed(monkeypatch, "0,0.4,1.25", 0)
    lesson = ended(school.start("lab-scope", [photo], [photo], 5, ""))
    assert lesson.state == "learned" and "31.25 dB" in lesson.message and "1.25 dB more" in lesson.message
    assert asked[0][2] == "--pairs" and asked[0][-4:] == ["--minutes", "5", "--max-pixels", "100000000"]
    assert sorted(path.name for path in (school.shelf.folder / "lab-scope").iterdir()) == [
        "best.safetensors",
        "metrics.csv",
    ]
    assert not any(school.home.iterdir())
    options = WebOptions(models_dir=school.shelf.folder)
    assert options.offered["lab-scope"] == "learned on this server"
    assert options.request("gray-fast", None, Strength(), "same").model == "gray"
    asked_for = options.request("lab-scope", None, Strength(), "same")
    assert Path(asked_for.model) == school.shelf.folder / "lab-scope" / "best.safetensors"


def test_without_clean_photos_noisy_ones_alone_are_trained_on(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = stubbed(monkeypatch, "0,1", 0)
    ended(school.start("alone", [photo], [], 5, ""))
    assert asked[0][2] == "--noisy" and "--pairs" not in asked[0]


@pytest.mark.parametrize(
    ("gains", "clean", "state"),
    [
        ("0,0.05", True, "learned"),
        ("0,0.05", False, "no better"),  # an estimate, for which the run keeps its start
        ("0,0.2", False, "learned"),
        ("0,nan,0.2", False, "learned"),
        ("nan,0.2", False, "no better"),  # what could not be judged before cannot be compared with
    ],
)
def test_a_model_is_offered_when_the_run_kept_it(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch, gains: str, clean: bool, state: str
) -> None:
    stubbed(monkeypatch, gains, 0)
    assert ended(school.start("mine", [photo], [photo] if clean else [], 5, "")).state == state
    assert school.shelf.names() == (["mine"] if state == "learned" else [])


@pytest.mark.parametrize("gains", ["0,-0.2,0", "0", ""])
def test_a_model_that_is_no_better_is_not_offered(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch, gains: str
) -> None:
    stubbed(monkeypatch, gains, 0)
    assert ended(school.start("same", [photo], [photo], 5, "")).state == "no better"
    assert school.shelf.names() == [] and not any(school.home.iterdir())


def test_stopping_keeps_what_was_reached_and_only_its_owner_can(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, "0,0.5", -1)
    lesson = school.start("mine", [photo], [photo], 5, "ann")
    while len(lesson.curve()) < 2:
        time.sleep(0.05)
    school.cancel("ben")
    assert not lesson.cancelled
    school.cancel("ann")
    assert ended(lesson).state == "learned" and school.shelf.names() == ["mine"]


def test_a_second_lesson_is_refused_with_the_time_that_is_left_until_the_first_has_ended(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, "0", -1)
    first = school.start("one", [photo], [photo], 7, "")
    with pytest.raises(UsageError, match="about 7 more minute"):
        school.start("two", [photo], [photo], 5, "")
    school.close()
    assert first.state == "no better" and first.process.poll() is not None
    stubbed(monkeypatch, "0,1", 0)
    assert ended(school.start("two", [photo], [photo], 5, "")).state == "learned"


def test_a_failure_is_told_with_its_reason_and_without_the_servers_folders(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, "", 2)
    lesson = ended(school.start("bad", [photo], [photo], 5, ""))
    assert lesson.state == "failed" and lesson.message == "noisy/a.png: is too small"


def test_a_run_that_does_not_heed_its_budget_is_ended(
    school: School, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denoise_se.app.web_learning.LATE", 0.5)
    stubbed(monkeypatch, "0", -1)
    lesson = ended(school.start("slow", [photo], [photo], 0.01, ""))
    assert lesson.process.returncode in (143, -signal.SIGTERM)


@pytest.mark.parametrize(
    "name", ["", "..", "../up", "a/b", "Lab", "photo", "gray-fast", "auto", ".hidden", "a" * 41, "a-", "nul\0", "é"]
)
def test_a_name_that_is_no_plain_word_or_taken_is_refused_before_anything_is_written(
    school: School, photo: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="model name"):
        school.start(name, [photo], [photo], 5, "")
    assert not school.home.exists() and not school.shelf.folder.exists()


@pytest.mark.parametrize(
    ("typed", "name"),
    [("My Canon 5D", "my-canon-5d"), ("  lab_scope ", "lab-scope"), ("Caméra/../2", "camera-2"), ("a" * 50, "a" * 40)],
)
def test_what_a_model_is_called_becomes_its_name(typed: str, name: str) -> None:
    assert plain_name(typed) == name
    with pytest.raises(UsageError, match="give the new model a name first"):
        plain_name(" /画像.")


def test_a_folder_for_models_that_cannot_be_written_is_told_before_the_training(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    school = School(Shelf(tmp_path / "file" / "models"), tmp_path / "lessons", 10**8)
    with pytest.raises(UsageError, match="--models-dir: nothing can be written there"):
        school.start("lost", [photo], [photo], 5, "")
    assert school.lesson is None


def test_a_learned_model_is_removed_whole_and_others_are_not(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "models")
    for name in ("one", "two"):
        (shelf.folder / name).mkdir(parents=True)
        (shelf.folder / name / "best.safetensors").write_bytes(b"weights")
    shelf.remove("one")
    assert shelf.names() == ["two"] and [path.name for path in shelf.folder.iterdir()] == ["two"]
    for name in ("one", "..", "../models/two", "gray"):
        with pytest.raises(UsageError, match="no learned model called"):
            shelf.remove(name)
    assert shelf.check_new("one") == "one"


def test_two_photos_of_one_name_are_refused_by_name(school: School, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "a.png"
    twin.write_bytes(photo.read_bytes())
    with pytest.raises(UsageError, match=r"two photos are called a\.png"):
        school.start("twins", [photo, twin], [], 5, "")
    assert not any(school.home.iterdir())


def test_training_outlives_the_upload_it_reads(school: School, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubbed(monkeypatch, "0", -1)
    lesson = school.start("links", [photo], [], 5, "")
    photo.unlink()
    assert (lesson.folder / "noisy" / "a.png").stat().st_size > 0
    school.close()


@pytest.mark.parametrize(
    ("options", "shared"),
    [({}, False), ({"host": "0.0.0.0"}, True), ({"host": "::1"}, False), ({"auth_file": Path("x")}, True),
     ({"root_path": "/denoise"}, True), ({"names": ("denoise.example",)}, True)],
)  # fmt: skip
def test_a_server_is_shared_when_anything_says_so(options: dict, shared: bool) -> None:
    assert WebOptions(**options).shared is shared


def test_the_curve_says_its_ends_in_words_and_stays_inside_its_picture() -> None:
    curve = draw_curve([(0, 30.0), (30, 31.5), (70, 31.25)], 60)
    assert "30.00 dB before, 31.25 dB after 70 seconds" in curve
    points = curve.split('points="')[1].split('"')[0]
    assert all(0 <= float(x) <= 640 and 0 <= float(y) <= 240 for x, y in (p.split(",") for p in points.split()))
    assert draw_curve([], 60) == ""


@pytest.mark.slow
def test_real_pairs_are_learned_from(school: School, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files: dict[str, list[Path]] = {"noisy": [], "clean": []}
    for index in range(3):
        clean = np.tile(np.linspace(40, 200, 96)[None, :, None], (96, 1, 3)) + 10 * index
        noisy = (clean + rng.normal(0, 25, clean.shape)).clip(0, 255)
        for kind, pixels in (("noisy", noisy), ("clean", clean)):
            (tmp_path / kind).mkdir(exist_ok=True)
            files[kind].append(tmp_path / kind / f"{index}.png")
            write(files[kind][-1], Image(pixels.astype(np.uint8), None, "png"))
    lesson = ended(school.start("real", files["noisy"], files["clean"], 0.1, ""), seconds=300)
    assert lesson.state in ("learned", "no better"), lesson.message
    assert lesson.seen and not any(school.home.iterdir())


def test_a_model_of_which_only_a_part_could_be_copied_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, run = Shelf(tmp_path / "models"), tmp_path / "run"
    run.mkdir()
    for name in ("best.safetensors", "card.md"):
        (run / name).write_bytes(b"x")
    copied = shutil.copyfile

    def copyfile(source: Path, target: Path) -> None:
        if source.name == "card.md":
            raise OSError(errno.ENOSPC, "No space left on device")
        copied(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(UsageError, match="mine cannot be written there"):
        shelf.add(run, "mine")
    assert list(shelf.folder.iterdir()) == []
    monkeypatch.undo()
    shelf.add(run, "mine")
    assert [path.name for path in shelf.folder.iterdir()] == ["mine"]
