"""Many people at one server of the web app: `python tests/web_load.py --people 40 --requests 1000`.

Prints a line of JSON: requests, refusals of a full queue (clear answers that people come back after), errors, 5xx
answers, median and worst time, the slowest /health meanwhile, and the server's memory. Exits 1 when something failed,
/health took over a second, or memory stayed up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tiny_model import save_tiny
from web_server import Server, serving

from denoise_se.image import Image
from denoise_se.image_io import write

SIDE = 48  # pixels of the image that everyone sends
WARM = 40  # requests before memory is measured: libraries and pools are in place then
GROWTH = 60.0  # MB that memory may stay above its base


def resident(process: int) -> float:
    """Megabytes in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


class Person:
    """One caller with a connection of their own: sends a photo, and comes back when the queue is full."""

    def __init__(self, server: Server, photo: Path) -> None:
        from gradio_client import Client, handle_file

        self.client, self.file = Client(server.url, verbose=False), handle_file(str(photo))
        self.refused, self.errors = 0, list[str]()

    def ask(self) -> float:
        """Seconds until the result was there, waiting before a full queue included."""
        began = time.perf_counter()
        for _ in range(1000):
            try:
                self.client.predict(image=self.file, api_name="/denoise")
                break
            except Exception as error:
                if "queue is full" not in str(error).lower():
                    self.errors.append(str(error)[:200])
                    break
                self.refused += 1
                time.sleep(0.5)
        else:
            self.errors.append("the queue was full a thousand times")
        return time.perf_counter() - began


@contextmanager
def health_watched(server: Server) -> Iterator[list[float]]:
    """Asks /health four times a second; gives the seconds of each answer."""
    times: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            began = time.perf_counter()
            server.health()
            times.append(time.perf_counter() - began)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def run_load(folder: Path, people: int, requests: int, queue: int) -> dict[str, float]:
    """The figures of one run; see the module."""
    photo = folder / "small.png"
    pixels = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    write(photo, Image(pixels, None, "png"))
    model = save_tiny(folder / "tiny.safetensors")
    options = ("--model", str(model), "--queue", str(queue), "--tile", "32", "--keep", "2")
    with serving(folder, *options) as server:
        everyone = [Person(server, photo) for _ in range(people)]
        for person in everyone[: max(1, min(people, WARM))]:
            person.ask()
        before = resident(server.process.pid)
        with health_watched(server) as health, ThreadPoolExecutor(people) as crowd:
            began = time.perf_counter()
            times = sorted(crowd.map(lambda number: everyone[number % people].ask(), range(requests)))
            seconds = time.perf_counter() - began
        after = resident(server.process.pid)
        files = sum(path.is_file() for path in server.cache.rglob("*"))
        for person in everyone:
            person.client.close()
        ended = time.monotonic() + 240
        left = files
        while left and time.monotonic() < ended:  # past --keep the cache is emptied
            time.sleep(5)
            left = sum(path.is_file() for path in server.cache.rglob("*/files/*/*"))
        rest = resident(server.process.pid)
        state = server.health()
        log = (folder / "log").read_text()
    errors = [text for person in everyone for text in person.errors]
    for text in sorted(set(errors)):
        print(text, file=sys.stderr)
    if "Traceback" in log:
        print(log[log.index("Traceback") :][:20_000], file=sys.stderr)
    return {
        "people": people,
        "requests": requests,
        "refused": sum(person.refused for person in everyone),
        "errors": len(errors),
        "tracebacks": log.count("Traceback"),
        "seconds": round(seconds, 1),
        "median": round(times[len(times) // 2], 2),
        "worst": round(times[-1], 2),
        "health_worst": round(max(health), 3),
        "mb_before": before,
        "mb_after": after,
        "mb_at_rest": rest,
        "files": files,
        "results_left": left,
        "busy": int(str(state["working"])) + int(str(state["queued"])),
    }


def faults(figures: dict[str, float]) -> list[str]:
    """What must not be."""
    return [
        name
        for name, bad in {
            "errors": figures["errors"] > 0 or figures["tracebacks"] > 0,
            "health over a second": figures["health_worst"] > 1,
            "memory stays up": figures["mb_at_rest"] - figures["mb_before"] > GROWTH,
            "results are not deleted": figures["results_left"] > 0,
            "work goes on": figures["busy"] > 0,
        }.items()
        if bad
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--queue", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run_load(Path(folder), arguments.people, arguments.requests, arguments.queue)
    print(json.dumps(figures))
    found = faults(figures)
    print(", ".join(found) or "no faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
