"""What the engines that run a graph of `denoise_se.graph` share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from denoise_se.backends import WHOLE, Backend, WindowPlace
from denoise_se.checkpoint import CheckpointFile
from denoise_se.graph import sources_digest
from denoise_se.graph_cache import Entry, cached


class GraphBackend(ABC):
    """A backend whose network comes from the cache, or is traced once and put there; see `Backend` for its use."""

    description: str
    lanes = 1

    def __init__(self, checkpoint: CheckpointFile, depends_on: Mapping[str, Any]) -> None:
        """`depends_on`: what the kept bytes depend on besides the weights and the way of tracing."""
        self.checkpoint = checkpoint
        self.key = {"weights": checkpoint.digest, "sources": sources_digest(), **depends_on}
        self.entry = cached(self.key, self._make, self._accept)
        self.halo = int(self.entry.facts["halo"])
        self.inputs = self._inputs()
        self.gates = int(self.inputs["gates"][1]) if "gates" in self.inputs else 0

    def in_lanes(self) -> Backend:
        return self

    def fine(self) -> Backend:
        return self

    def unquantised(self) -> Backend:
        return self

    @abstractmethod
    def _make(self) -> Entry:
        """Trace the network, take it into use, and give what is to be kept; the facts hold `halo`."""

    @abstractmethod
    def _accept(self, entry: Entry) -> bool:
        """Take what was kept into use; False when the engine refuses it."""

    @abstractmethod
    def _inputs(self) -> Mapping[str, Any]:
        """The graph's inputs: their shapes by name, None or a text for a free length."""

    @abstractmethod
    def _run(self, values: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        """One output, for contiguous values of all inputs."""

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray:
        if not self.gates:
            return np.zeros((1, 0), np.float32)
        return self._run(self._values(windows, level, None), "pooled")

    def denoise(
        self, window: np.ndarray, level: np.ndarray, gates: np.ndarray | None, place: WindowPlace = WHOLE
    ) -> np.ndarray:
        return self._run(self._values(window, level, gates, place), "restored")

    def _values(
        self, image: np.ndarray, level: np.ndarray, gates: np.ndarray | None, place: WindowPlace = WHOLE
    ) -> dict[str, np.ndarray]:
        values = {
            "image": image,
            "level": level,
            "cut": np.array(place.cut, np.int64),
            "gates": np.ones((1, self.gates), np.float32) if gates is None else gates,
            "fixed": np.array([gates is not None]),
        }
        return {name: np.ascontiguousarray(values[name]) for name in self.inputs}
