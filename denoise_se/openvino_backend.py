"""OpenVINO as a backend: the fastest on x86 and ARM CPUs, and without torch once its network is in the cache."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from denoise_se.calibration import MOST_LOSS, read_calibration
from denoise_se.checkpoint import CheckpointFile
from denoise_se.errors import UsageError
from denoise_se.graph import INPUTS, trace
from denoise_se.graph_backend import GraphBackend
from denoise_se.graph_cache import Entry
from denoise_se.openvino_core import core
from denoise_se.quantisation import rounded
from denoise_se.threads import granted_cores

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
CPU_INFO = Path("/proc/cpuinfo")
MOST_LANES = 4  # each needs memory of its own


class OpenVinoBackend(GraphBackend):
    """OpenVINO on the CPU. "auto" precision is int8 where that is fast and known to cost little, else fp32.

    Raises UsageError for a precision that the CPU has no instructions for, and for int8 of a checkpoint that has no
    calibration.
    """

    def __init__(self, checkpoint: CheckpointFile, precision: str = "auto") -> None:
        self.calibration = read_calibration(checkpoint) if precision in ("auto", "int8") else None
        if precision == "auto":
            harmless = self.calibration is not None and self.calibration.worst_loss <= MOST_LOSS
            precision = "int8" if harmless and multiplies_bytes() else "fp32"
        if precision == "int8" and self.calibration is None:
            raise UsageError(
                f"--precision int8: {checkpoint.name} has no calibration for these weights; "
                f"denoise-se quantize {checkpoint.path} --clean FOLDER makes one"
            )
        if precision != "int8":
            self.calibration = None
        self.core = core()
        able = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if CAPABILITIES.get(precision) not in able:
            known = ", ".join(name for name in CAPABILITIES if CAPABILITIES[name] in able)
            raise UsageError(f"--precision {precision}: OpenVINO on this CPU has {known}; use one of these or auto")
        # what int8 leaves in float, sums and gates, is in bf16 where the CPU has it: less memory and time for 0.003 dB
        floats = precision if precision != "int8" else "bf16" if "BF16" in able else "fp32"
        cores = granted_cores()
        self.lanes = max(count for count in range(1, MOST_LANES + 1) if cores % count == 0)  # as many cores for each
        self.properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[floats],
            "INFERENCE_NUM_THREADS": cores,
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
                "ranges": None if self.calibration is None else dict(self.calibration.ranges),
            },
        )
        self._request(1)

    def _request(self, count: int) -> None:
        """Makes the requests of the compiled network: each holds the memory of a window and is used in turns."""
        self.requests = [self.compiled.create_infer_request() for _ in range(count)]
        self.free = threading.Semaphore(count)

    def in_lanes(self) -> OpenVinoBackend:
        shared = copy.copy(self)
        properties = {**self.properties, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.lanes}
        shared.compiled = self.core.import_model(self.entry.data, "CPU", properties)
        shared._request(self.lanes)
        return shared

    def _make(self) -> Entry:
        network = self.checkpoint.load().network()
        graph = trace(network if self.calibration is None else rounded(network, self.calibration.ranges))
        self.compiled = self.core.compile_model(self.core.read_model(graph.model), "CPU", self.properties)
        return Entry({"halo": graph.halo}, self.compiled.export_model().getvalue())

    def _accept(self, entry: Entry) -> bool:
        try:
            self.compiled = self.core.import_model(entry.data, "CPU", self.properties)
        except RuntimeError:
            return False
        return True

    def _inputs(self) -> Mapping[str, Any]:
        return {  # a port also bears the names of what was found to equal it
            (port.names & set(INPUTS)).pop(): [a.get_length() if a.is_static else None for a in port.partial_shape]
            for port in self.compiled.inputs
        }

    def _run(self, values: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        with self.free:
            request = self.requests.pop()
            try:
                request.infer(dict(values), share_inputs=True)
                return np.array(request.get_tensor(output).data)
            finally:
                self.requests.append(request)


def multiplies_bytes() -> bool:
    """Whether the CPU has instructions that multiply bytes and add up (VNNI), without which int8 gains little.

    Known on Linux only.
    """
    try:
        flags = next(line for line in CPU_INFO.read_text(encoding="ascii").splitlines() if line.startswith("flags"))
    except (OSError, ValueError, StopIteration):
        return False
    return bool({"avx512_vnni", "avx_vnni"} & set(flags.split()))
