"""The tab for one photo: what happens when a person does something."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from denoise_se.app import web_parts as parts
from denoise_se.app.request import LEFT_ALONE, Request
from denoise_se.app.web_photo import Photo, command_line
from denoise_se.app.web_photo_layout import VIEWS, PhotoLayout
from denoise_se.app.web_service import DENOISING, SAVING, Service, as_paths, blend
from denoise_se.app.web_work import FullError, Work
from denoise_se.errors import DenoiseError, UsageError
from denoise_se.restorer import Restorer
from denoise_se.watcher import CancelledError

TAGS = {
    "compare": ("Before", "After"),
    "residual": ("Before", "Removed noise"),
    "difference": ("Error before", "Error after"),
}
# the button that a person presses makes the file; this one, which they do not see, is a link to it
FETCH = "() => setTimeout(() => document.querySelector('#file a, a#file, button#file')?.click(), 50)"
# told in place of the last input: an event may overtake an older one, which is not to end what the newer one began
NOW = "(...given) => [...given.slice(0, -1), performance.now()]"
GONE = "this photo is no longer on the server, which deletes photos by their age; drop it again"
ALL = (blend(1, None), "same")  # strength and format that the network runs with; others are made of its result
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
Updates = dict[Any, Any]


class PhotoTab(PhotoLayout):
    """The laid out tab with its events; the methods below `connect` handle them."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.connect()

    def connect(self) -> None:
        blended = [self.strength, self.apart, self.chroma, self.format]
        look = [*blended, self.view, self.page]
        given = [self.photo, self.reference]
        asked = [*given, self.model, self.auto, self.sigma, *look, self.state, self.moment]
        shown = [
            self.status,
            self.cancel,
            self.viewer,
            self.facts,
            self.panel,
            self.view,
            self.state,
            self.examples,
            self.sigma,
            self.auto,
            self.page,
            self.apart,
            self.chroma,
            self.model,
        ]
        run: dict[str, Any] = {
            "inputs": asked,
            "outputs": shown,
            "js": NOW,
            **QUIET,
            **DENOISING,
            "trigger_mode": "multiple",  # the newer one ends the older one's work
        }
        again: dict[str, Any] = {
            "inputs": [*given, *look, self.state],
            "outputs": [self.status, self.viewer, self.facts, self.state, self.view],
            "trigger_mode": "always_last",
            **QUIET,
            **SAVING,
        }
        # not `input`, which a list of choices sends again whenever it is left
        self.model.change(self.explain, [self.model], [self.model], queue=False, **QUIET)
        for event in (self.photo.change, self.model.change, self.sigma.release, self.auto.input):
            event(self.denoise, **run).then(self.settle, **again)
        self.examples.pick(self.pick, None, given, queue=False, **QUIET)
        self.cancel.click(self.give_up, [self.photo, self.state, self.moment], given, js=NOW, queue=False, **QUIET)
        # first, and in the page itself: these were of the photo before, and the next one may come before an answer
        self.photo.clear(None, None, [self.reference, self.status], js="() => [null, '']", api_visibility="private")
        # not queued: it must not wait for what it is to end
        self.photo.clear(self.stop, self.moment, None, js=NOW, queue=False, **QUIET)
        self.apart.input(
            lambda apart, strength: gr.update(visible=apart, value=strength),
            [self.apart, self.strength],
            self.chroma,
            queue=False,
            **QUIET,
        )
        moved = [self.strength.change, self.chroma.change, self.format.change, self.view.input, self.page.change]
        gr.on(moved, self.look, **again)  # one event, so that the answer to the last move is the last
        self.reference.change(self.as_asked, **again)  # that of an example comes before its result
        self.download.click(self.save, [*blended, self.state], [self.status, self.file], **QUIET, **SAVING).success(
            None,
            None,
            None,
            js=FETCH,
            api_visibility="private",
        )

    async def denoise(
        self,
        photo: Any,
        reference: Any,
        model: str,
        auto: bool,
        sigma: float,
        strength: float,
        apart: bool,
        chroma: float,
        format: str,
        view: str,
        page: int,
        old: Photo | None,
        moment: float,
        request: gr.Request,
    ) -> AsyncIterator[Updates]:
        """Runs the network, with its progress; a newer event of the same person ends an older one's work."""
        owner = str(request.session_hash)
        if not photo:
            self.service.crew.stop(owner, moment)
            # its work, if there was some, says that it was cancelled
            yield {self.status: gr.skip()} if self.service.crew.has_newer(owner, moment) else self._emptied(old)
            return
        source, clean = as_paths(photo)[0], as_paths(reference)
        folders: list[Path] = []
        made, shown = None, False
        work: Work[Photo] | None = None
        try:
            asked = self.service.options.request(model, None if auto else sigma, *ALL)
            if old is not None and old.source == source and self._is_shown(old, asked, owner):
                yield {self.sigma: gr.update(visible=not auto)}
                return

            def work_on(work: Work[Photo]) -> Photo:
                folders.append(self.service.cache.folder())
                return Photo.denoised(source, folders[0], asked, clean[0] if clean else None, work)

            with self.service.crew.started(work_on, owner, replaces=True, asked=moment) as work:
                async for at in work.progress():
                    if work.stopped.is_set():
                        if not work.replaced:  # the page shows what came after it
                            yield {self.status: parts.note("Cancelling…"), self.cancel: gr.update(visible=False)}
                        continue
                    yield {
                        self.status: parts.progress(at),
                        self.cancel: gr.update(visible=True),
                        self.examples: gr.update(visible=False),
                    }
                made = work.result()
            # on a thread: it writes a file, for which nobody else is to wait
            looks = await asyncio.to_thread(self._looks_or_reason, made, strength, apart, chroma, format, view, 1)
            if old is not None:
                old.remove()
            shown = True
            yield {
                self.viewer: None,
                self.facts: "",
                **looks,
                self.state: made,
                self.cancel: gr.update(visible=False),
                self.panel: gr.update(visible=True),
                self.view: gr.update(visible=True, choices=VIEWS if made.reference else VIEWS[:2]),
                self.page: gr.update(visible=made.pages > 1, maximum=max(2, made.pages), value=1),
                self.apart: gr.update(visible=made.colour),
                self.chroma: gr.update(visible=made.colour and apart),
                **self._level(made.recorded[0], made, auto),
            }
        except CancelledError:
            if work is not None and work.replaced:
                yield {self.status: gr.skip()}
            else:
                back = self._as_it_was(old, source)
                yield {**back, self.status: parts.note("Cancelled."), self.cancel: gr.update(visible=False)}
        except Exception as error:
            # of a photo for which the server has no time now, what it has stays
            stays = isinstance(error, FullError) and old is not None and old.source == source
            rest = (
                self._as_it_was(old, source) | {self.cancel: gr.update(visible=False)} if stays else self._emptied(old)
            )
            yield {**rest, self.status: parts.problem(self.service.explained(error))}
            if not isinstance(error, DenoiseError):
                raise  # to the log
        finally:
            if folders and not shown:  # stopped, failed, or nobody waits for it any more
                shutil.rmtree(folders[0], ignore_errors=True)

    def _as_it_was(self, old: Photo | None, source: Path) -> Updates:
        """The controls as they were for what the page still shows, after other work on the same photo."""
        if old is None or old.source != source:
            return {}
        options, level = self.service.options, old.request.sigma
        models = [name for name in options.offered if options.request(name, level, *ALL).model == old.request.model]
        auto, blind = level is None, old.recorded[0].blind
        return {
            self.model: gr.update(value=models[0]) if models else gr.skip(),
            self.auto: gr.update(value=auto, visible=not blind),
            self.sigma: gr.update(value=self._slider_level(old) if auto else level, visible=not (auto or blind)),
        }

    def _is_shown(self, photo: Photo, asked: Request, owner: str) -> bool:
        """Whether there is nothing to run, as with a slider that stands at the level which was estimated."""
        estimated = photo.request.sigma is None and photo.pages == 1  # each page has a level of its own
        if estimated and asked.sigma == self._slider_level(photo):
            asked = replace(asked, sigma=None)
        return asked == photo.request and photo.folder.exists() and not self.service.crew.has_newer(owner, -math.inf)

    def _slider_level(self, photo: Photo) -> float:
        return float(min(self.sigma.maximum, round(photo.estimated.level, 1)))

    def _level(self, used: Restorer, photo: Photo, auto: bool) -> Updates:
        """The noise controls as this model needs them; a blind one takes no level."""
        if used.blind:
            return {self.auto: gr.update(visible=False), self.sigma: gr.update(visible=False)}
        label = f"Estimate the noise level ({parts.noise_level(photo.estimated.level, photo.ranges[0])})"
        level: dict[str, Any] = {"value": self._slider_level(photo)} if auto else {}
        return {
            self.auto: gr.update(visible=True, label=label),
            self.sigma: gr.update(visible=not auto, **level),
        }

    def _emptied(self, old: Photo | None) -> Updates:
        if old is not None:
            old.remove()
        return {
            self.cancel: gr.update(visible=False),
            self.viewer: None,
            self.facts: "",
            self.panel: gr.update(visible=False),
            self.view: gr.update(visible=False, value="compare"),
            self.page: gr.update(visible=False),
            self.state: None,
            self.examples: gr.update(visible=True),
        }

    def _looks(
        self, photo: Photo, strength: float, apart: bool, chroma: float, format: str, view: str, page: int
    ) -> Updates:
        """The viewer and the facts at one strength. Raises DenoiseError."""
        amount = blend(strength, chroma if apart else None)
        if view == "difference" and photo.reference is None:
            view = "compare"
        saved = photo.saved(amount, format)
        number = min(int(page), photo.pages) - 1
        pictures = photo.pictures(saved, view, number)
        tags = TAGS[view]
        value = {
            **pictures,
            "name": photo.source.name,
            "before_tag": tags[0],
            "after_tag": tags[1],
            "before_alt": f"{photo.source.name}, {tags[0].lower()}",
            "after_alt": f"{photo.source.name}, {tags[1].lower()}",
        }
        notices = [self.service.cache.without_folders(text) for text in saved.row.notices]
        if photo.at(amount, format).left_alone(saved.row):
            notices.append(f"{LEFT_ALONE.capitalize()}. If you see some, take “photo” or set its level.")
        seen = photo.ranges[number]
        if seen.span > 1:
            notices.append(f"It is shown with {_value(seen.black)} as black and {_value(seen.white)} as white.")
        elif seen.black:
            notices.append(f"It is shown with {seen.black:.3g} of its range as black and {seen.white:.3g} as white.")
        elif seen.span < 1:
            gain = 1 / seen.span
            notices.append(f"It uses 1/{gain:g} of its range, and is shown {gain:g} times brighter than it is.")
        command = command_line(photo, amount, format)
        return {
            self.status: "",
            self.viewer: value,
            self.facts: parts.facts(photo, saved.row, notices, command),
        }

    def _looks_or_reason(self, photo: Photo, *asked: Any) -> Updates:
        """What `_looks` gives, or why it cannot be saved so: another format may do."""
        try:
            return self._looks(photo, *asked)
        except DenoiseError as error:
            return {self.status: parts.problem(self.service.explained(error))}

    def look(self, given: Any, *asked: Any) -> Updates:
        """Another strength, format or view of what the network gave."""
        if given and asked[-1] is None:  # the controls are there when a result is
            return {self.status: parts.problem(GONE)}
        return self.as_asked(given, *asked)

    def settle(self, given: Any, *asked: Any) -> Updates:
        """What was moved while the network ran counts too; what was said last is left to be read."""
        shown = self.as_asked(given, *asked)
        return {**shown, self.status: shown[self.status] or gr.skip()}

    def as_asked(
        self,
        given: Any,
        reference: Any,
        strength: float,
        apart: bool,
        chroma: float,
        format: str,
        view: str,
        page: int,
        photo: Photo | None,
    ) -> Updates:
        """The photo as the controls stand; nothing is changed where another one is on its way."""
        if photo is None or as_paths(given) != [photo.source]:
            return {self.status: gr.skip()}
        clean = as_paths(reference)
        photo, turn = photo.compared_with(clean[0] if clean else None), photo.next_turn()
        views: dict[str, Any] = {"choices": VIEWS if clean else VIEWS[:2]}
        if not clean and view == "difference":  # set then alone: another one may have been clicked meanwhile
            views["value"] = view = "compare"
        shown = self._looks_or_reason(photo, strength, apart, chroma, format, view, page)
        if turn is not photo.turn:  # while this was made, something newer was asked for, or another photo came
            return {self.status: gr.skip()}
        return {**shown, self.state: photo, self.view: gr.update(**views)}  # the state's age counts from now

    def save(self, strength: float, apart: bool, chroma: float, format: str, photo: Photo | None) -> Updates:
        """The file to download."""
        try:
            if photo is None:
                raise UsageError(GONE)
            saved = photo.saved(blend(strength, chroma if apart else None), format)
            return {self.status: "", self.file: gr.update(value=str(saved.path))}
        except DenoiseError as error:
            raise gr.Error(self.service.explained(error), print_exception=False) from error

    def pick(self, event: gr.EventData) -> tuple[str, str]:
        """An example and its clean original."""
        name = event._data.get("name") if isinstance(event._data, dict) else None
        if name not in self.service.samples():
            raise gr.Error("There is no such example.", print_exception=False)
        samples = self.service.cache.samples
        return str(samples / "noisy" / name), str(samples / "clean" / name)

    def explain(self, model: str) -> Updates:
        return {self.model: gr.update(info=self.service.options.offered.get(model, ""))}

    def give_up(self, given: Any, photo: Photo | None, moment: float, request: gr.Request) -> Any:
        """Ends the work; a photo that has no result yet is taken out with its clean one, so that they cannot stand
        beside another's."""
        self.stop(moment, request)
        return (gr.skip(), gr.skip()) if photo is not None and as_paths(given) == [photo.source] else (None, None)

    def stop(self, moment: float, request: gr.Request) -> None:
        """Ends the work that was asked for before."""
        self.service.crew.stop(str(request.session_hash), moment)


def _value(number: float) -> str:
    """A value of a file of floats, with about four digits."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
