"""Signals while the program starts, and where nobody reads its messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest


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
