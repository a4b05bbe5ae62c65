"""The tab for many photos: layout and events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from denoise_se.app import web_batch
from denoise_se.app import web_parts as parts
from denoise_se.app.web_photo_layout import SUFFIXES
from denoise_se.app.web_photo_tab import QUIET, Updates
from denoise_se.app.web_service import DENOISING, Service, as_paths, blend
from denoise_se.app.web_work import Work
from denoise_se.errors import DenoiseError
from denoise_se.formats import FORMATS
from denoise_se.watcher import CancelledError


class BatchTab:
    """Builds the tab inside a Blocks; the methods below `connect` are its event handlers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.build()
        self.connect()

    def build(self) -> None:
        offered = self.service.options.offered
        first = next(iter(offered))
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=300):
                self.photos = gr.File(
                    label="Drop photos here, or click to choose several",
                    file_count="multiple",
                    file_types=SUFFIXES,
                    elem_id="photos",
                    elem_classes="takes-files",
                    height=220,
                )
                self.start = gr.Button("Denoise all", variant="primary", elem_id="start")
                self.status = gr.HTML("", elem_id="batch-status")
                self.cancel = gr.Button("Cancel", visible=False, elem_id="batch-cancel", size="sm")
                self.archive = gr.DownloadButton("Download all (zip)", variant="primary", visible=False, elem_id="zip")
                self.gallery = gr.Gallery(
                    visible=False,
                    columns=4,
                    object_fit="contain",
                    label="Results",
                    show_label=False,
                    elem_id="gallery",
                    buttons=[],
                    allow_preview=False,
                    height="auto",
                )
                self.table = gr.HTML("", elem_id="table")
            with gr.Column(scale=1, min_width=280):
                self.strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="Less keeps some grain")
                self.model = gr.Dropdown(
                    list(self.service.options.offered),
                    value=first,
                    label="Model",
                    info=offered[first],
                    filterable=False,
                )
                self.format = gr.Dropdown(
                    [("Same as each photo", "same"), *((name.upper(), name) for name in FORMATS)],
                    value="same",
                    label="Save as",
                    filterable=False,
                )

    def connect(self) -> None:
        self.start.click(
            self.denoise,
            [self.photos, self.strength, self.model, self.format],
            [self.status, self.cancel, self.archive, self.gallery, self.table],
            **QUIET,
            **DENOISING,
        )
        self.cancel.click(self.stop, None, None, queue=False, **QUIET)
        results = [self.status, self.archive, self.gallery, self.table]  # are of the photos that were there
        hidden = gr.update(visible=False)
        self.photos.clear(lambda: ("", hidden, hidden, ""), None, results, queue=False, **QUIET)
        self.model.change(self.explain, [self.model], [self.model], queue=False, **QUIET)

    async def denoise(
        self, photos: Any, strength: float, model: str, format: str, request: gr.Request
    ) -> AsyncIterator[Updates]:
        """Runs the batch, with its progress; another click takes its place, as the second of a double one does."""
        idle = {self.cancel: gr.update(visible=False)}
        work: Work[web_batch.Batch] | None = None
        try:
            sources = self.service.options.check_files(as_paths(photos))
            asked = self.service.options.request(model, None, blend(strength, None), format)

            def work_on(work: Work[web_batch.Batch]) -> web_batch.Batch:
                return web_batch.run(sources, self.service.cache.folder(), asked, work)

            with self.service.crew.started(work_on, f"batch {request.session_hash}", replaces=True) as work:
                # what an earlier batch gave is not that of these photos
                yield {self.archive: gr.update(visible=False), self.gallery: gr.update(visible=False), self.table: ""}
                async for at in work.progress():
                    if work.stopped.is_set():
                        if not work.replaced:  # the page shows what came after it
                            yield {self.status: parts.note("Cancelling…"), self.cancel: gr.update(visible=False)}
                        continue
                    yield {self.status: parts.progress(at), self.cancel: gr.update(visible=True)}
                batch = work.result()
            yield {
                **idle,
                self.status: web_batch.as_summary(batch.rows)
                + "".join(parts.note(self.service.cache.without_folders(text)) for text in batch.notices),
                self.archive: gr.update(visible=True, value=str(batch.archive)),
                self.gallery: gr.update(visible=bool(batch.thumbnails), value=list(batch.thumbnails)),
                self.table: web_batch.as_table(batch.rows),
            }
        except CancelledError:
            if work is not None and work.replaced:
                yield {self.status: gr.skip()}
            else:
                yield {**idle, self.status: parts.note("Cancelled.")}
        except Exception as error:
            yield {**idle, self.status: parts.problem(self.service.explained(error))}
            if not isinstance(error, DenoiseError):
                raise  # to the log

    def explain(self, model: str) -> Updates:
        return {self.model: gr.update(info=self.service.options.offered.get(model, ""))}

    def stop(self, request: gr.Request) -> None:
        self.service.crew.stop(f"batch {request.session_hash}")
