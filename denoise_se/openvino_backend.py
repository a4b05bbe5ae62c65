"""OpenVINO as a backend: the fastest on x86 and ARM CPUs, and without torch once its network is in the cache."""

from __future__ import annotations

import copy
import platform
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from denoise_se.calibration import MOST_LOSS, read_calibration
from denoise_se.checkpoint import CheckpointFile
from denoise_se.errors import UsageError
from denoise_se.graph import INPUTS, Graph, trace
from denoise_se.graph_backend import GraphBackend
from denoise_se.graph_cache import Entry, cached
from denoise_se.openvino_core import core, properties
from denoise_se.quantisation import rounded
from denoise_se.threads import granted_cores

CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
CPU_INFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "AMD64")
MOST_LANES = 4  # each needs memory of its own


class OpenVinoBackend(GraphBackend):
    """OpenVINO on the CPU. "auto" precision is int8 on x86 when that is known to cost little, else fp32.

    Raises UsageError for a precision that the CPU has no instructions for, and for int8 of a checkpoint that has no
    calibration.
    """

    def __init__(self, checkpoint: CheckpointFile, precision: str = "auto", *, rough: bool = True) -> None:
        """`rough`: that what int8 leaves in float, sums and gates, may be in bf16 where the CPU has it. It takes less
        memory and time and costs 0.003 dB, but the order of its sums, so their rounding, depends on the window."""
        self.calibration = read_calibration(checkpoint) if precision in ("auto", "int8") else None
        if precision == "auto":
            harmless = self.calibration is not None and self.calibration.worst_loss <= MOST_LOSS
            precision = "int8" if harmless and platform.machine() in X86 else "fp32"
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
        self.rough = rough and precision == "int8" and "BF16" in able
        floats = precision if precision != "int8" else "bf16" if self.rough else "fp32"
        cores = granted_cores()
        self.lanes = max(count for count in range(1, MOST_LANES + 1) if cores % count == 0)  # as many cores for each
        self.properties = properties(floats, cores)
        self.weight_bits = 8 if has_vnni() else 7
        self.description = f"openvino cpu {precision}"
        self.gates_given: _Engine | None = None  # made when it is needed, as is the next
        self.finer: OpenVinoBackend | None = None
        self.making = threading.Lock()
        super().__init__(
            checkpoint,
            {
                "openvino": ov.get_version(),
                "cpu": self.core.get_property("CPU", "FULL_DEVICE_NAME"),
                "capabilities": sorted(able),
                "properties": self.properties,
                "ranges": None if self.calibration is None else dict(self.calibration.ranges),
                "weight bits": None if self.calibration is None else self.weight_bits,
            },
        )

    def in_lanes(self) -> OpenVinoBackend:
        shared = copy.copy(self)
        shared.pooling = self._imported(self.entry, self.lanes)
        shared.gates_given, shared.finer, shared.making = None, None, threading.Lock()
        return shared

    def fine(self) -> OpenVinoBackend:
        if not self.rough:
            return self
        with self.making:
            if self.finer is None:
                made = OpenVinoBackend(self.checkpoint, "int8", rough=False)
                self.finer = made if self.pooling.lanes == 1 else made.in_lanes()
            return self.finer

    def _imported(self, entry: Entry, lanes: int) -> _Engine:
        """What was kept, for so many threads; RuntimeError when OpenVINO refuses it."""
        shared = {} if lanes == 1 else {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": lanes}
        return _Engine(self.core.import_model(entry.data, "CPU", {**self.properties, **shared}), lanes)

    def _make(self) -> Entry:
        graph = self._trace()
        compiled = self.core.compile_model(self.core.read_model(graph.model), "CPU", self.properties)
        self.pooling = _Engine(compiled)
        return Entry({"halo": graph.halo}, compiled.export_model().getvalue())

    def _trace(self) -> Graph:
        network = self.checkpoint.load().network()
        if self.calibration is not None:
            network = rounded(network, self.calibration.ranges, self.weight_bits)
        return trace(network)

    def _accept(self, entry: Entry) -> bool:
        try:
            self.pooling = self._imported(entry, 1)
        except RuntimeError:
            return False
        return True

    def _inputs(self) -> Mapping[str, Any]:
        return {  # a port also bears the names of what was found to equal it
            (port.names & set(INPUTS)).pop(): [a.get_length() if a.is_static else None for a in port.partial_shape]
            for port in self.pooling.compiled.inputs
        }

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray:
        gates = super().squeeze(windows, level)
        self.pooling.release()  # tiles follow, which the other one works on
        return gates

    def _run(self, values: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        if self.gates and values["fixed"].all():
            return self._with_gates_given().run({k: value for k, value in values.items() if k != "fixed"}, output)
        return self.pooling.run(values, output)

    def _with_gates_given(self) -> _Engine:
        """The network without the pooling, which would be an eighth of its time."""
        with self.making:
            if self.gates_given is None:
                self.gates_given = self._make_with_gates_given()
            return self.gates_given

    def _make_with_gates_given(self) -> _Engine:
        made: list[_Engine] = []

        def make() -> Entry:
            model = without_pooling(self.core.read_model(self._trace().model))
            data = self.core.compile_model(model, "CPU", self.properties).export_model().getvalue()
            made.append(self._imported(Entry({}, data), self.pooling.lanes))
            return Entry({}, data)

        def accept(entry: Entry) -> bool:
            try:
                made.append(self._imported(entry, self.pooling.lanes))
            except RuntimeError:
                return False
            return True

        cached({**self.key, "gates": "given"}, make, accept)
        return made[-1]


class _Engine:
    """A compiled network for as many threads as it has lanes, each of which has the memory of a window."""

    def __init__(self, compiled: ov.CompiledModel, lanes: int = 1) -> None:
        self.compiled, self.lanes = compiled, lanes
        self.requests = [compiled.create_infer_request() for _ in range(lanes)]
        self.free = threading.Semaphore(lanes)

    def run(self, values: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        with self.free:
            request = self.requests.pop()
            try:
                request.infer(dict(values), share_inputs=True)
                return np.array(request.get_tensor(output).data)
            finally:
                self.requests.append(request)

    def release(self) -> None:
        """Let go of the memory of the last window, when no other thread can be at work."""
        if self.lanes == 1:
            with self.free:
                self.compiled.release_memory()


def without_pooling(model: ov.Model) -> ov.Model:
    """The graph of `denoise_se.graph` with the gates always given: it has neither `fixed` nor `pooled`."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Select":  # gates given or pooled
            node.output(0).replace(node.input_value(1))
    inputs = [port for port in model.get_parameters() if "fixed" not in port.output(0).get_names()]
    results = [result for result in model.get_results() if "restored" in result.input_value(0).get_names()]
    return ov.Model(results, inputs)


def has_vnni() -> bool:
    """Whether the CPU is known to multiply bytes and add them up in 32 bits; only Linux says so."""
    try:
        flags = next(line for line in CPU_INFO.read_text(encoding="ascii").splitlines() if line.startswith("flags"))
    except (OSError, ValueError, StopIteration):
        return False
    return bool({"avx512_vnni", "avx_vnni"} & set(flags.split()))
