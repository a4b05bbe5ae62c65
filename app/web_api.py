"""The named endpoints, for programs: /denoise, /denoise_many, /estimate and /models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from denoise_se.app import web_batch
from denoise_se.app.web_photo import page_of, refuse_many_pixels
from denoise_se.app.web_service import DENOISING, SAVING, Service, as_paths, blend
from denoise_se.app.web_work import T, Work
from denoise_se.batch import run_batch
from denoise_se.errors import DenoiseError, UsageError
from denoise_se.noise_estimation import estimate_noise
from denoise_se.plan import make_plan
from denoise_se.report import Row, as_json
from denoise_se.watcher import CancelledError


class Endpoints:
    """Builds the endpoints inside a Blocks. Their components are never seen: they name and check what is sent."""

    def __init__(self, service: Service) -> None:
        self.service = service
        options = service.options
        first = next(iter(options.offered))
        with gr.Column(visible=False):
            image = gr.File(label="image")
            images = gr.File(label="images", file_count="multiple")
            reference = gr.File(label="reference")
            model = gr.Textbox(first, label="model")
            sigma = gr.Number(None, label="sigma")
            strength = gr.Number(1.0, label="strength")
            chroma = gr.Number(None, label="chroma_strength")
            format = gr.Textbox("same", label="format")
            result, report, button = gr.File(label="result"), gr.JSON(label="report"), gr.Button()
        how = [model, sigma, strength, chroma, format]
        run: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "public", **DENOISING}
        button.click(
            self.denoise,
            [image, reference, *how],
            [result, report],
            api_name="denoise",
            **run,
            api_description="Denoise one image. sigma: 0 to 255, null estimates it; strength, chroma_strength: 0 to 1, "
            "chroma_strength null is that of strength; format: same, png, tiff, jpg, webp, bmp or ppm.",
        )
        button.click(
            self.denoise_many,
            [images, *how],
            [result, report],
            api_name="denoise_many",
            **run,
            api_description="Denoise several images; gives a zip and a report with a row for each.",
        )
        button.click(
            self.estimate,
            [image],
            [report],
            api_name="estimate",
            show_progress="hidden",
            **SAVING,
            api_description="The standard deviation of an image's noise, and the level models are told, 8-bit units.",
        )
        button.click(
            lambda: options.offered,
            None,
            [report],
            api_name="models",
            show_progress="hidden",
            api_description="The models on offer, with what they are for.",
        )

    async def denoise(
        self,
        image: str | None,
        reference: str | None = None,
        model: str = "auto",
        sigma: float | None = None,
        strength: float = 1.0,
        chroma_strength: float | None = None,
        format: str = "same",
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio always gives it
    ) -> AsyncIterator[tuple[Any, Any]]:
        def run(work: Work[tuple[str, Any]]) -> tuple[str, Any]:
            if image is None:
                raise UsageError("no image was given; upload one")
            given = [Path(image)] if reference is None else [Path(image), Path(reference)]
            if not all(path.is_file() for path in given):
                raise UsageError("an upload is a file that was sent here before")
            refuse_many_pixels(given, self.service.options.max_pixels)
            asked = self.service.options.request(model, sigma, blend(strength, chroma_strength), format)
            watcher = web_batch.Follower(work, 1)
            plan = make_plan(
                [Path(image)],
                self.service.cache.folder(),
                format=format,
                reference=Path(reference) if reference else None,
            )
            outcome = run_batch(
                plan, asked.denoiser_for, asked.settings(), fingerprint=asked.fingerprint(), watcher=watcher
            )
            if outcome.rows[0].status == "failed":
                raise UsageError(f"{Path(image).name}: {outcome.rows[0].error}")
            return str(plan.jobs[0].target), self._report(outcome.rows, watcher)

        async for update in self._followed(run, request):
            yield update

    async def denoise_many(
        self,
        images: list[str] | None,
        model: str = "auto",
        sigma: float | None = None,
        strength: float = 1.0,
        chroma_strength: float | None = None,
        format: str = "same",
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio always gives it
    ) -> AsyncIterator[tuple[Any, Any]]:
        def run(work: Work[tuple[str, Any]]) -> tuple[str, Any]:
            sources = self.service.options.check_files(as_paths(images))
            asked = self.service.options.request(model, sigma, blend(strength, chroma_strength), format)
            batch = web_batch.run(sources, self.service.cache.folder(), asked, work)
            rows = [replace(row, notices=tuple(self._told(row.notices))) for row in batch.rows]
            return str(batch.archive), {**json.loads(as_json(rows)), "notices": self._told(batch.notices)}

        async for update in self._followed(run, request):
            yield update

    def estimate(self, image: str | None) -> dict[str, float]:
        try:
            if image is None:
                raise UsageError("no image was given; upload one")
            page = page_of(Path(image), 0, self.service.options.max_pixels)
        except DenoiseError as error:
            raise self._refusal(error) from error
        noise = estimate_noise(page.pixels)
        return {"sigma": round(noise.sigma, 4), "level": round(noise.level, 4)}

    async def _followed(self, run: Callable[[Work[T]], T], request: gr.Request) -> AsyncIterator[Any]:
        """The result at last, and before it the progress: a generator ends within a tile when its caller leaves."""
        try:
            with self.service.crew.started(run, str(request.session_hash)) as work:
                async for at in work.progress():
                    yield gr.skip(), {"progress": round(at.share, 3), "step": at.label}
                yield work.result()
        except DenoiseError as error:
            raise self._refusal(error) from error
        except CancelledError as error:
            raise gr.Error("stopped", print_exception=False) from error

    def _report(self, rows: Sequence[Row], watcher: web_batch.Follower) -> dict[str, Any]:
        """The row as in a JSON report, with the names of files, and the notices."""
        named = [replace(row, input=Path(row.input).name, output=Path(row.output).name) for row in rows]
        return {**json.loads(as_json(named))["rows"][0], "notices": self._told(watcher.notices)}

    def _told(self, notices: Sequence[str]) -> list[str]:
        return [self.service.cache.without_folders(text) for text in notices]

    def _refusal(self, error: DenoiseError) -> gr.Error:
        return gr.Error(self.service.explained(error), print_exception=False)
