"""Decoders of formats so intricate that a file may bring them down, each in a Python process of its own.

A file must cost one image then, and not a night's batch. Such a module of this package is run with `-m`: the file comes
on its standard input; on its standard output go what it says of the image, as a line of JSON, and the bytes of its
parts; or the reason, with exit code 1. With `--facts` the parts are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np

from denoise_se.image import FormatError

SECONDS = 900
FACTS = "--facts"
MOST_KNOWN = 10_000
_KNOWN: dict[tuple[str, bytes], dict[str, Any]] = {}  # facts by module and the sha256 of a file


@dataclass(frozen=True)
class Decoded:
    """`facts` as the module tells them, "shape" and "dtype" of the pixels among them; `packets` by name."""

    facts: Mapping[str, Any]
    pixels: np.ndarray
    packets: Mapping[str, bytes]


def data_of(stream: BinaryIO, package: str, refusal: str) -> bytes:
    """All of a file, for a module that needs a package; FormatError with `refusal` where that is not installed."""
    if find_spec(package) is None:
        raise FormatError(refusal)
    stream.seek(0)
    return stream.read()


def facts_of(module: str, data: bytes) -> Mapping[str, Any]:
    """What a module says of a file without decoding it, asked once for each. Raises FormatError."""
    key = module, hashlib.sha256(data).digest()
    found = _KNOWN.get(key)
    if found is None:  # a file is asked for several times, and a process costs a quarter of a second
        found, _ = _asked(module, data, FACTS)
        if len(_KNOWN) >= MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = found
    return found


def decoded(module: str, data: bytes) -> Decoded:
    """A file decoded by a module. Raises FormatError."""
    facts, rest = _asked(module, data)
    parts = {}
    for name, length in facts["parts"].items():
        parts[name], rest = rest[:length], rest[length:]
    pixels = np.frombuffer(parts.pop("pixels"), facts["dtype"]).reshape(facts["shape"]).copy()  # that may be written to
    return Decoded(facts, pixels, {name: bytes(part) for name, part in parts.items()})


def _asked(module: str, data: bytes, *options: str) -> tuple[dict[str, Any], memoryview]:
    # -P: nothing is imported from the folder that the command runs in
    command = [sys.executable, "-P", "-m", module, *options]
    try:
        ended = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
            # Ctrl-C stops the batch after this image, not this image
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise FormatError(f"cannot be decoded within {SECONDS} s") from error
    if ended.returncode:
        reason = ended.stdout.decode(errors="replace").strip() or f"its decoder ended with {ended.returncode}"
        raise FormatError(f"cannot be decoded, it is damaged or of an unknown kind ({reason[:100]})")
    end = ended.stdout.index(b"\n") + 1
    return json.loads(ended.stdout[:end]), memoryview(ended.stdout)[end:]


def answer(facts: Callable[[bytes], dict[str, Any]], decode: Callable[[bytes], Decoded]) -> int:
    """The other side, in the process: the exit code. Nothing but the answer reaches the standard output, whatever the
    decoder prints."""
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)
        try:
            data = sys.stdin.buffer.read()
            if FACTS in sys.argv[1:]:
                told, parts = facts(data), dict[str, bytes]()
            else:
                made = decode(data)
                told, parts = dict(made.facts), {"pixels": made.pixels.tobytes(), **made.packets}
                told |= {"shape": made.pixels.shape, "dtype": made.pixels.dtype.str}
            told["parts"] = {name: len(part) for name, part in parts.items()}
        except Exception as error:
            reason = error.args[0] if error.args else error
            output.write((reason if isinstance(reason, bytes) else str(reason).encode())[:200])
            return 1
        output.write(json.dumps(told).encode() + b"\n")
        for part in parts.values():
            output.write(part)
    return 0
