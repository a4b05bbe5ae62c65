"""OpenVINO as a backend: the fastest on x86 and ARM CPUs, and without torch once its network is in the cache."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov

from denoise_se.checkpoint import CheckpointFile
from denoise_se.errors import UsageError
from denoise_se.graph import trace
from denoise_se.graph_backend import GraphBackend
from denoise_se.graph_cache import Entry
from denoise_se.threads import granted_cores

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


class OpenVinoBackend(GraphBackend):
    """OpenVINO on the CPU. "auto" precision is fp32.

    Raises UsageError for a precision that the CPU has no instructions for.
    """

    def __init__(self, checkpoint: CheckpointFile, precision: str = "auto") -> None:
        precision = "fp32" if precision == "auto" else precision
        self.core = ov.Core()
        able = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision not in HINTS or CAPABILITIES[precision] not in able:
            known = ", ".join(name for name in HINTS if CAPABILITIES[name] in able)
            raise UsageError(f"--precision {precision}: OpenVINO on this CPU has {known}; use one of these or auto")
        self.properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": granted_cores(),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        }
        self.description = f"openvino cpu {precision}"
        super().__init__(
            checkpoint,
            {
                "openvino": ov.get_version(),
                "cpu": self.core.get_property("CPU", "FULL_DEVICE_NAME"),
                "capabilities": sorted(able),
                "properties": self.properties,
            },
        )
        self.request = self.compiled.create_infer_request()
        self.lock = threading.Lock()  # a request holds the memory of a whole tile, so there is one, used in turns

    def _make(self) -> Entry:
        graph = trace(self.checkpoint.load().network())
        self.compiled = self.core.compile_model(self.core.read_model(graph.model), "CPU", self.properties)
        return Entry({"halo": graph.halo}, self.compiled.export_model().getvalue())

    def _accept(self, entry: Entry) -> bool:
        try:
            self.compiled = self.core.import_model(entry.data, "CPU", self.properties)
        except RuntimeError:
            return False
        return True

    def _inputs(self) -> Mapping[str, Any]:
        shapes = {port.any_name: port.partial_shape for port in self.compiled.inputs}
        return {
            name: [axis.get_length() if axis.is_static else None for axis in shape] for name, shape in shapes.items()
        }

    def _run(self, values: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        with self.lock:
            self.request.infer(dict(values), share_inputs=True)
            return np.array(self.request.get_tensor(output).data)
