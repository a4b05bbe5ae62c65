"""The page: header, tabs, theme, and the endpoints for programs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from denoise_se.app import web_parts as parts
from denoise_se.app.web_api import Endpoints
from denoise_se.app.web_batch_tab import BatchTab
from denoise_se.app.web_learn_tab import LearnTab
from denoise_se.app.web_photo_tab import PhotoTab
from denoise_se.app.web_service import Service

TITLE = "denoise-se: take the noise out of photos"


def make_page(service: Service) -> gr.Blocks:
    """The whole app as Blocks, its queue configured."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        Endpoints(service)  # first, so that the names are theirs
        gr.HTML(parts.HEADER, elem_id="top")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("One photo", id="one"):
                photo = PhotoTab(service)
            with gr.Tab("Many photos", id="many"):
                batch = BatchTab(service)
            with gr.Tab("Learn the noise", id="learn"):
                learn = LearnTab(service, [photo.model, batch.model])
        learn.connect(page)
    return page.queue(max_size=service.options.queue, default_concurrency_limit=service.options.jobs, api_open=False)


def looks() -> dict[str, Any]:
    """Theme, styles and scripts, for mounting the page; the fonts are the system's own."""
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="zinc",
        radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_900",
        block_background_fill="white",
        block_background_fill_dark="*neutral_800",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        border_color_primary_dark="*neutral_600",
        block_border_width="0px",
        block_shadow="none",
        input_background_fill="*neutral_100",
        input_background_fill_dark="*neutral_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        checkbox_label_background_fill="white",
        checkbox_label_background_fill_dark="*neutral_800",
    )
    return {"theme": theme, "css": parts.asset("web.css"), "js": parts.asset("web_page.js")}
