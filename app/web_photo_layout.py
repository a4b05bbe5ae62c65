"""The tab for one photo: what stands where."""

from __future__ import annotations

import gradio as gr

from denoise_se.app import web_parts as parts
from denoise_se.app.web_service import Service
from denoise_se.formats import FORMATS, READABLE_SUFFIXES

VIEWS = [("Before / after", "compare"), ("Removed noise", "residual"), ("Error map", "difference")]
SUFFIXES = sorted(READABLE_SUFFIXES)


class PhotoLayout:
    """The components of the tab, made inside a Blocks; most are hidden until there is a result."""

    def __init__(self, service: Service) -> None:
        self.service = service
        keep = self.service.options.keep
        offered = self.service.options.offered
        self.state = gr.State(None, time_to_live=keep, delete_callback=lambda photo: photo and photo.remove())
        self.moment = gr.Number(0, visible=False)  # of an event, by the clock of its page
        with gr.Row(elem_classes="work"):
            with gr.Column(scale=3, min_width=300):
                self.photo = gr.File(
                    label="Drop a noisy photo here, paste one, or click to choose",
                    file_types=SUFFIXES,
                    elem_id="photo",
                    elem_classes="takes-files",
                    height=220,
                )
                self.status = gr.HTML("", elem_id="status")
                self.cancel = gr.Button("Cancel", visible=False, elem_id="cancel", size="sm")
                self.examples = gr.HTML(
                    parts.examples(self.service.samples(), str(self.service.cache.samples / "noisy")),
                    elem_id="examples",
                    js_on_load="element.addEventListener('click', event => {"
                    "const button = event.target.closest('[data-name]');"
                    "if (button) trigger('pick', {name: button.dataset.name}); });",
                )
                self.view = gr.Radio(
                    VIEWS, value="compare", label="View", elem_id="view", visible=False, container=False
                )
                self.page = gr.Slider(
                    1,
                    2,
                    1,
                    step=1,
                    precision=0,
                    label="Page",
                    info="The download has all pages; this chooses the one in view",
                    elem_id="page",
                    visible=False,
                    buttons=[],
                )
                self.viewer = gr.HTML(
                    None,
                    html_template=parts.asset("web_viewer.html"),
                    js_on_load=parts.asset("web_viewer.js"),
                    elem_id="viewer",
                )
                self.facts = gr.HTML("", elem_id="facts")
            with gr.Column(scale=1, min_width=280, visible=False, elem_id="panel") as self.panel:
                self.download = gr.Button("Download", variant="primary", elem_id="download")
                self.file = gr.DownloadButton("file", elem_id="file")
                self.strength = gr.Slider(
                    0, 1, 1, step=0.05, label="Strength", info="Less keeps some grain", elem_id="strength"
                )
                self.apart = gr.Checkbox(False, label="Set colour noise apart", elem_id="apart")
                self.chroma = gr.Slider(
                    0,
                    1,
                    1,
                    step=0.05,
                    label="Colour strength",
                    info="For blotches of colour",
                    visible=False,
                    elem_id="chroma",
                )
                first = next(iter(offered))
                self.model = gr.Dropdown(
                    list(self.service.options.offered),
                    value=first,
                    label="Model",
                    info=offered[first],
                    elem_id="model",
                    filterable=False,
                )
                self.auto = gr.Checkbox(True, label="Estimate the noise level", elem_id="auto")
                self.sigma = gr.Slider(
                    0,
                    100,
                    25,
                    step=0.1,
                    label="Noise level",
                    info="0 to 100, of 255; higher removes more",
                    visible=False,
                    elem_id="sigma",
                )
                self.format = gr.Dropdown(
                    [("Same as the photo", "same"), *((name.upper(), name) for name in FORMATS)],
                    value="same",
                    label="Save as",
                    elem_id="format",
                    filterable=False,
                )
                self.reference = gr.File(
                    label="Clean photo to compare with",
                    file_types=SUFFIXES,
                    elem_id="reference",
                    elem_classes=["takes-files", "small", "named"],
                    height=72,
                )
