"""ONNX Runtime as a backend: for CPUs that OpenVINO does not serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from denoise_se.checkpoint import CheckpointFile
from denoise_se.errors import UsageError
from denoise_se.graph import trace
from denoise_se.graph_backend import GraphBackend
from denoise_se.graph_cache import Entry
from denoise_se.threads import granted_cores


class OnnxRuntimeBackend(GraphBackend):
    """ONNX Runtime on the CPU, fp32. Raises UsageError for another precision."""

    def __init__(self, checkpoint: CheckpointFile, precision: str = "auto") -> None:
        if precision not in ("auto", "fp32"):
            raise UsageError(f"--precision {precision} is not available with the onnxruntime backend; use fp32 or auto")
        self.description = "onnxruntime cpu fp32"
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = granted_cores()
        self.options.log_severity_level = 3
        self.options.enable_cpu_mem_arena = False  # it would keep the memory of the largest tile for good
        super().__init__(checkpoint, {"onnxruntime": ort.__version__})

    def _make(self) -> Entry:
        graph = trace(self.checkpoint.load().network())
        self._open(graph.model)
        return Entry({"halo": graph.halo}, graph.model)

    def _open(self, model: bytes) -> None:
        self.session = ort.InferenceSession(model, self.options, providers=["CPUExecutionProvider"])

    def _accept(self, entry: Entry) -> bool:
        try:
            self._open(entry.data)
        except Exception:  # the runtime's errors share no other base
            return False
        return True

    def _inputs(self) -> Mapping[str, Any]:
        return {port.name: port.shape for port in self.session.get_inputs()}

    def _run(self, values: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        return self.session.run([output], dict(values))[0]
