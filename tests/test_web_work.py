"""Work on threads: its order, its limits and its end."""

from __future__ import annotations

import threading

import pytest
from web_server import wait_until

from denoise_se.app.web_work import Crew, FullError, Work
from denoise_se.watcher import CancelledError

pytest.importorskip("gradio", reason="the web extra is not installed")


def test_what_still_waits_when_the_server_ends_is_not_begun() -> None:
    crew, begun = Crew(1), threading.Event()

    def work_on(work: Work[None]) -> None:
        while True:
            begun.set()
            work.step(0.5, "working")

    with crew.started(work_on) as running:
        begun.wait(10)
        crew.end()
        with crew.started(work_on) as waiting:
            for work in (running, waiting):
                with pytest.raises(CancelledError):
                    work.future.result(timeout=10)
    crew.close()


def test_no_more_waits_than_may_and_what_waits_ends_at_once_when_it_is_stopped() -> None:
    crew, going = Crew(1, waiting=1), threading.Event()
    try:
        with crew.started(lambda work: going.wait(60), "ann") as running:
            wait_until(lambda: crew.running == 1, 10, "it does not begin")
            with crew.started(lambda work: None, "bob") as waiting:
                assert (crew.running, crew.waiting) == (1, 1)
                with pytest.raises(FullError, match="the queue is full, 1 requests wait"), crew.started(lambda work: 0):
                    pass
                crew.stop("bob")
                with pytest.raises(CancelledError):
                    waiting.result()
                assert (crew.running, crew.waiting, waiting.replaced) == (1, 0, False)
            with crew.started(lambda work: "newer", "ann", replaces=True) as newer:
                assert running.replaced and running.stopped.is_set()
                going.set()
                wait_until(newer.future.done, 10, "it does not begin")
                assert newer.result() == "newer"
    finally:
        going.set()
        crew.close()


def test_what_overtakes_an_older_stop_is_not_ended_by_it_nor_by_older_work() -> None:
    crew, going = Crew(1), threading.Event()
    try:
        with (
            crew.started(lambda work: going.wait(60), "ann", replaces=True, asked=1) as older,
            crew.started(lambda work: "newer", "ann", replaces=True, asked=3) as newer,
        ):
            assert older.replaced and older.stopped.is_set()
            crew.stop("ann", 2)
            assert crew.has_newer("ann", 2) and not crew.has_newer("ann", 3)
            with (
                crew.started(lambda work: "late", "ann", replaces=True, asked=2) as late,
                pytest.raises(CancelledError),
            ):
                late.result()
            going.set()
            assert late.replaced and not newer.replaced and newer.result() == "newer"
    finally:
        going.set()
        crew.close()
