"""The tab for the noise of one device: see it, then teach a model to remove it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from denoise_se.app import web_parts as parts
from denoise_se.app.web_curve import draw_curve
from denoise_se.app.web_learning import Lesson, gain
from denoise_se.app.web_models import plain_name
from denoise_se.app.web_photo import refuse_many_pixels
from denoise_se.app.web_photo_layout import SUFFIXES
from denoise_se.app.web_photo_tab import QUIET, Updates
from denoise_se.app.web_profile import as_html, enough, measure
from denoise_se.app.web_service import Service, as_paths
from denoise_se.errors import DenoiseError, UsageError

LOOK = 2.0  # seconds between two looks at a lesson
INTRO = """<p class=intro>Every camera, scanner and microscope has its own noise. Give photos from yours: see what
its noise is like, and teach a model exactly that.</p>"""
SURE = "(name, ...others) => [name && confirm(`Remove the model ${name} for good?`) ? name : null, ...others]"
OFF = "Teaching models is switched off on this server; its noise can be measured all the same."


class LearnTab:
    """Builds the tab inside a Blocks; the methods below `connect` are its event handlers.

    dropdowns: of the other tabs, which then offer what was learned.
    """

    def __init__(self, service: Service, dropdowns: Sequence[gr.Dropdown]) -> None:
        self.service, self.dropdowns = service, list(dropdowns)
        self.build()

    def build(self) -> None:
        allowed, most = self.service.options.training, self.service.options.max_minutes
        gr.HTML(INTRO)
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=300):
                self.noisy = self._photos("Noisy photos of one device", "learn-noisy")
                self.clean = self._photos("The same photos without noise (optional)", "learn-clean")
                self.measure = gr.Button("Show the noise", elem_id="measure")
                self.profile = gr.HTML("", elem_id="profile")
            with gr.Column(scale=1, min_width=280):
                if not allowed:
                    gr.HTML(parts.note(OFF))
                self.name = gr.Textbox(
                    label="Name of the new model",
                    placeholder="lab-microscope",
                    max_length=40,
                    elem_id="learn-name",
                    visible=allowed,
                )
                self.minutes = gr.Slider(
                    1,
                    most,
                    min(10, most),
                    step=1,
                    label="Minutes",
                    info="More teaches more",
                    elem_id="learn-minutes",
                    visible=allowed,
                )
                self.start = gr.Button("Start learning", variant="primary", elem_id="learn-start", visible=allowed)
                self.status = gr.HTML("", elem_id="learn-status")
                self.curve = gr.HTML("", elem_id="learn-curve")
                self.stop = gr.Button("Stop", visible=False, elem_id="learn-cancel", size="sm")
                names = self._removable()
                self.learned = gr.Dropdown(
                    names, label="Models learned here", elem_id="learned", visible=bool(names), interactive=True
                )
                self.remove = gr.Button("Remove", elem_id="learned-remove", visible=bool(names), size="sm")
        self.timer = gr.Timer(LOOK, active=False)

    @staticmethod
    def _photos(label: str, name: str) -> gr.File:
        return gr.File(
            label=label,
            file_count="multiple",
            file_types=SUFFIXES,
            elem_id=name,
            elem_classes=["takes-files", "named"],
            height=150,
        )

    def connect(self, page: gr.Blocks) -> None:
        """Ties the events, those of the page being opened too: a lesson goes on when its page is closed."""
        told = [self.status, self.curve, self.start, self.stop, self.timer, self.learned, self.remove, *self.dropdowns]
        now: dict[str, Any] = {"queue": False, **QUIET}
        self.measure.click(
            self.show, [self.noisy], [self.profile], concurrency_id="measuring", concurrency_limit=1, **QUIET
        )
        self.start.click(self.begin, [self.noisy, self.clean, self.name, self.minutes], told, **now)
        self.stop.click(self.end, None, None, **now)
        self.remove.click(self.take_away, [self.learned, *self.dropdowns], told, js=SURE, **now)
        self.timer.tick(self.look, None, told, **now)
        page.load(self.look, None, told, **now)

    async def show(self, noisy: Any) -> AsyncIterator[str]:
        """The noise of the photos, as a table and a plot."""
        try:
            photos = self.service.options.check_files(as_paths(noisy))
            yield parts.note("Measuring the noise; this takes some seconds.")
            taken = enough(photos, self.service.options.max_pixels)
            profile, plot = await measure(taken, await asyncio.to_thread(self.service.cache.folder))
            yield as_html(profile, plot, len(taken))
        except Exception as error:
            yield parts.problem(self.service.explained(error))
            if not isinstance(error, DenoiseError):
                raise  # to the log

    def begin(self, noisy: Any, clean: Any, name: str, minutes: float, request: gr.Request) -> Updates:
        """Starts a lesson."""
        options = self.service.options
        try:
            if not options.training:
                raise UsageError("teaching models is switched off on this server (--allow-training)")
            if not 0 < minutes <= options.max_minutes:
                raise UsageError(f"{minutes:g} minutes; give 1 to {options.max_minutes:g}")
            name = plain_name(name)
            if name in options.offered:
                raise UsageError(f"model name {name!r} is taken; choose another")
            photos, originals = options.check_files(as_paths(noisy)), as_paths(clean)
            if originals:
                options.check_files(originals)
            refuse_many_pixels([*photos, *originals], options.max_pixels)
            self.service.school.start(name, photos, originals, minutes, _owner(request))
        except DenoiseError as error:
            return {self.status: parts.problem(self.service.explained(error))}
        return self.look(request)

    def end(self, request: gr.Request) -> None:
        self.service.school.cancel(_owner(request))

    def take_away(self, name: str | None, *chosen: str) -> Updates:
        """Removes a model that was learned here, when that was confirmed; tabs that had it take the first one."""
        if not name or name not in self._removable():
            return {self.status: gr.skip()}
        try:
            self.service.options.shelf.remove(name)
        except DenoiseError as error:
            return {self.status: parts.problem(self.service.explained(error))}
        offered = list(self.service.options.offered)
        return {
            **{
                dropdown: gr.update(choices=offered, value=offered[0] if value == name else value)
                for dropdown, value in zip(self.dropdowns, chosen, strict=True)
            },
            **self._learned(value=None),
            self.status: parts.note(f"{name} is removed."),
        }

    def _removable(self) -> list[str]:
        """Learned models that the one person at this machine may remove."""
        options = self.service.options
        return options.shelf.names() if options.training and not options.shared else []

    def _learned(self, **chosen: None) -> Updates:
        """The models that may be removed; what was chosen of them stays, as it may be chosen before this arrives."""
        names = self._removable()
        return {
            self.learned: gr.update(choices=names, visible=bool(names), **chosen),
            self.remove: gr.update(visible=bool(names)),
        }

    def look(self, request: gr.Request) -> Updates:
        """How far the lesson is, and what may be chosen now."""
        lesson = self.service.school.lesson
        offered = gr.update(choices=list(self.service.options.offered))
        seen: Updates = dict.fromkeys(self.dropdowns, offered)
        running = lesson is not None and lesson.state == "running"
        if not running:  # while one is learned, none may be removed
            seen |= self._learned()
        if lesson is None:
            return seen
        return {
            **seen,
            self.status: parts.bar(*_progress(lesson)) if running else _told(lesson),
            self.curve: draw_curve(lesson.curve() if running else lesson.seen, 60 * lesson.minutes),
            self.start: gr.update(interactive=not running),
            self.stop: gr.update(visible=running and lesson.owner == _owner(request)),
            self.timer: gr.Timer(active=running),
        }


def _owner(request: gr.Request) -> str:
    """Who may stop a lesson: its account, and anyone where there are no accounts."""
    return str(request.username or "")


def _progress(lesson: Lesson) -> tuple[float, str]:
    curve = lesson.curve()
    if lesson.cancelled:
        return 1.0, f"Stopping {lesson.name}, and keeping what it has learned"
    if not curve:
        return 0.0, f"Reading the photos for {lesson.name}"
    if curve[-1][0] >= 60 * lesson.minutes:
        return 0.99, f"{lesson.name}: trained, measuring what it has learned, {gain(curve):+.2f} dB"
    minute = min(lesson.seconds / 60, lesson.minutes)
    text = f"{lesson.name}: minute {minute:.0f} of {lesson.minutes:g}, {gain(curve):+.2f} dB"
    return min(0.99, lesson.seconds / (60 * lesson.minutes)), text


def _told(lesson: Lesson) -> str:
    if lesson.state == "learned":
        return parts.note(f"Learned. {lesson.message} Choose it under Model in the other tabs.")
    return parts.problem(lesson.message) if lesson.state == "failed" else parts.note(lesson.message)
