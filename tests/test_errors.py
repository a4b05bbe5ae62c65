"""Messages: their reason, their mend, and how they are read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run

from denoise_se.atomic_file import write_whole
from denoise_se.errors import DenoiseError, ProfileError, last_message, reason


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
