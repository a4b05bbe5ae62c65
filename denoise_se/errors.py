"""What can go wrong, as exceptions whose text is the message a person reads.

Library code raises these with a message that names the file, the reason and the mend; one boundary (`app/cli.py`, and
its like in the web app) turns them into a line on stderr and an exit code. Anything else that escapes is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence

PREFIX = "denoise-se: "  # of a message on stderr
EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
# as engines say it
OUT_OF_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "create a memory",
    "memory object",
    "memoryallocation",
    "bad_alloc",
)


def exit_code_of(number: int) -> int:
    """What a program that a signal ended returns."""
    return 128 + number


def last_message(stderr: str) -> str | None:
    """The message with which a program of ours ended, without the prefix; None where it gave none."""
    _, found, message = stderr.rpartition(PREFIX)
    return message.strip() if found else None


def reason(error: OSError) -> str:
    """Why, in the system's words; of an error that has no number its own."""
    return error.strerror or str(error) or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, PyTorch or another engine says that there is not enough memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)


class DenoiseError(Exception):
    """A problem with a known cause; `exit_code` is what the command line returns when nothing else was done."""

    exit_code = EXIT_SOME_FAILED


class UsageError(DenoiseError):
    """The request as a whole cannot be carried out; raised before any work, so nothing was read or written."""

    exit_code = EXIT_REFUSED


class ImageError(DenoiseError):
    """One image cannot be read or written. The other images of a batch go on.

    `reason` says why without the file's name; `str()` gives both.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class CheckpointError(UsageError):
    """A checkpoint is missing, of an unknown schema, damaged, or not of a kind that is loaded at all."""


class NoiseSpecError(UsageError):
    """A noise spec cannot be understood; the message shows the position of the mistake."""


class ProfileError(UsageError):
    """A noise profile is missing, of a newer schema, or wrong; the message names the file and the key."""


class DatasetError(UsageError):
    """A training set has problems; all of them are listed, so that one round of mending is enough."""

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        super().__init__("\n".join([summary, *(f"  - {problem}" for problem in problems)]))
        self.problems = tuple(problems)


class TrainingError(DenoiseError):
    """Training stopped for a reason that the last checkpoint survives (memory, a full disk)."""


class DivergedError(TrainingError):
    """Losses or outputs that are not finite; all processes of a run raise it together."""


class Interrupted(DenoiseError):
    """Training was asked to stop; all processes of a run raise it together. `exit_code` says by which signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code_of(number)
