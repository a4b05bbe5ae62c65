"""What a resumed run takes for done, and what it does again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from denoise_se.atomic_file import replacing
from denoise_se.errors import ImageError, UsageError
from denoise_se.manifest import NAME, Manifest, Stamp, file_digest

SETTINGS = {"sigma": 25.0, "weights": {"color": "abc"}}
JOB = Path("x/a.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"noisy")
    return path


def finish(home: Path, source: Path, settings: dict[str, object] = SETTINGS) -> Path:
    """What a batch does for one image."""
    target = home / JOB
    target.parent.mkdir(parents=True, exist_ok=True)
    stamp = Stamp.of(source)
    Manifest(home, settings).announce(JOB, target, stamp, {})
    with replacing(target) as file:
        file.write(b"clean")
    return target


def is_done(home: Path, source: Path, settings: dict[str, object] = SETTINGS) -> bool:
    return Manifest(home, settings).is_done(JOB, source, home / JOB)


def test_a_finished_output_is_done(tmp_path: Path, source: Path) -> None:
    assert not is_done(tmp_path, source)
    finish(tmp_path, source)
    assert is_done(tmp_path, source)


def test_the_digest_is_sha256_of_the_bytes_and_a_missing_file_is_an_image_error(source: Path) -> None:
    assert file_digest(source) == hashlib.sha256(b"noisy").hexdigest()
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read"):
        file_digest(source.with_name("gone.png"))


def test_other_content_other_settings_or_a_deleted_output_are_done_again(tmp_path: Path, source: Path) -> None:
    target = finish(tmp_path, source)
    assert not is_done(tmp_path, source, {**SETTINGS, "sigma": 26.0})
    source.write_bytes(b"other")
    assert not is_done(tmp_path, source)
    source.write_bytes(b"noisy")
    assert is_done(tmp_path, source), "a copy of the same bytes is the same input"
    target.unlink()
    assert not is_done(tmp_path, source)


def test_the_order_of_the_settings_does_not_matter(tmp_path: Path, source: Path) -> None:
    finish(tmp_path, source)
    assert is_done(tmp_path, source, dict(reversed(SETTINGS.items())))


def test_an_announced_output_that_was_not_replaced_is_not_done(tmp_path: Path, source: Path) -> None:
    target = tmp_path / JOB
    target.parent.mkdir()
    target.write_bytes(b"of an older run")
    Manifest(tmp_path, SETTINGS).announce(JOB, target, Stamp.of(source), {})
    assert not is_done(tmp_path, source)
    with replacing(target) as file:
        file.write(b"clean")
    assert is_done(tmp_path, source)


def test_an_input_that_changes_while_it_is_denoised_is_done_again(tmp_path: Path, source: Path) -> None:
    stamp = Stamp.of(source)
    source.write_bytes(b"saved anew by an editor")
    target = tmp_path / JOB
    target.parent.mkdir()
    Manifest(tmp_path, SETTINGS).announce(JOB, target, stamp, {})
    target.write_bytes(b"made from the old bytes")
    assert not is_done(tmp_path, source)


def test_a_line_cut_short_anywhere_costs_its_own_output_alone(tmp_path: Path, source: Path) -> None:
    first = finish(tmp_path, source)
    whole = (tmp_path / NAME).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / NAME).write_bytes(whole + b"\n" + whole.strip()[:length].replace(b"x/a.png", b"x/b.png"))
        assert is_done(tmp_path, source)
        Manifest(tmp_path, SETTINGS).announce(Path("x/c.png"), first, Stamp.of(source), {})
        assert "x/c.png" in Manifest(tmp_path, SETTINGS).entries


def test_foreign_lines_are_skipped(tmp_path: Path, source: Path) -> None:
    finish(tmp_path, source)
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'\n[]\n"text"\nnull\n{}\n\xff\xfe\n{"output": ["list"]}\n{"output": 5}\n' + b"[" * 100_000)
    assert is_done(tmp_path, source)


def test_names_that_are_no_text_are_kept(tmp_path: Path, source: Path) -> None:
    odd = Path(os.fsdecode(b"caf\xe9.png"))
    (tmp_path / odd).write_bytes(b"")
    Manifest(tmp_path, SETTINGS).announce(odd, tmp_path / "none", Stamp.of(source), {})
    assert odd.as_posix() in Manifest(tmp_path, SETTINGS).entries
    assert json.loads((tmp_path / NAME).read_bytes())["output"] == odd.as_posix()


def test_a_manifest_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(UsageError, match=NAME):
        Manifest(tmp_path, SETTINGS)
