"""What fixes a network's shape, readable without torch, so that a checkpoint's header can be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Norm = Literal["batch", "none"]
Layout = Literal["flat", "unet"]
Block = Literal["residual", "se_residual", "se_bottleneck", "mobile_se"]


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that fixes a network's shape; written into each checkpoint.

    Attributes:
        layout: "flat" keeps one resolution, "unet" halves it from stage to stage and comes back.
        channels: image channels, 1 to 4.
        noise_map: whether the noise-level map is an input; a network without it is blind.
        unshuffle: the image is folded into `unshuffle`^2 times the channels at 1/`unshuffle` of the size first.
        widths: channels of each stage, finest first; a flat network has one.
        blocks: blocks per stage; a U-shaped network has as many on the way down and again on the way up.
        block: which block.
        norm: "batch" or "none".
        se_ratio: SE's hidden width over its width.
        se_gate_scale: upper end of the gates; they start at half of it.
        se_every: "block", or "stage": only the last block of each run of blocks has SE, the others are residual.
        inner_skip, final_relu: the forms of RB + SE, see `SEResidualBlock`.
    """

    layout: Layout = "unet"
    channels: int = 1
    noise_map: bool = True
    unshuffle: int = 2
    widths: tuple[int, ...] = (64, 128, 256)
    blocks: int = 2
    block: Block = "se_residual"
    norm: Norm = "none"
    se_ratio: float = 1 / 16
    se_gate_scale: float = 2.0
    se_every: Literal["block", "stage"] = "block"
    inner_skip: bool = False
    final_relu: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed or type(value) is not type(allowed[0]):  # 1.0 equals True, but is no bool
                raise ValueError(f"{name} is {value!r}; one of {', '.join(map(repr, allowed))}")
        for name, low, high in (("channels", 1, 4), ("unshuffle", 1, 8), ("blocks", 1, 64)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; an integer from {low} to {high}")
        if not 1 <= len(self.widths) <= 6 or any(type(w) is not int or not 1 <= w <= 2048 for w in self.widths):
            raise ValueError(f"widths is {self.widths!r}; one to six integers from 1 to 2048")
        if self.layout == "flat" and len(self.widths) != 1:
            raise ValueError(f"widths is {self.widths!r}; a flat network has one width")
        for name, limit in (("se_ratio", 1.0), ("se_gate_scale", 4.0)):
            if not 0 < getattr(self, name) <= limit:
                raise ValueError(f"{name} is {getattr(self, name)!r}; above 0, at most {limit:g}")

    @property
    def multiple_of(self) -> int:
        """Inputs are padded to a multiple of this many pixels; tiles start at multiples of it."""
        return self.unshuffle * 2 ** (len(self.widths) - 1)

    @property
    def features(self) -> float:
        """How many features of a pixel the widest stage holds."""
        return max(width / (self.unshuffle * 2**stage) ** 2 for stage, width in enumerate(self.widths))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """The inverse of `to_dict`; ValueError names an unknown or ill-typed field."""
        if not isinstance(values, dict):
            raise ValueError("the network config is not a mapping")
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r} in the network config")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"ill-typed network config: {error}") from error


_CHOICES: dict[str, tuple[object, ...]] = {
    "layout": get_args(Layout),
    "block": get_args(Block),
    "norm": get_args(Norm),
    "se_every": ("block", "stage"),
    "noise_map": (True, False),
    "inner_skip": (True, False),
    "final_relu": (True, False),
}
