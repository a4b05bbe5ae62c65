"""What images of one and of three channels are called, and their channels."""

from __future__ import annotations

KINDS = {1: "grey", 3: "colour"}
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
