"""The recipe of a training run: everything that decides its result besides the images."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from denoise_se.errors import UsageError
from denoise_se.network_config import NetworkConfig

Optimizer = Literal["adamw", "muon"]
Loss = Literal["l1", "charbonnier", "psnr"]
Precision = Literal["auto", "fp32", "bf16"]
CHOICES = {"optimizer": get_args(Optimizer), "loss": get_args(Loss), "precision": get_args(Precision)}
# dB by which a PSNR that is estimated must rise before the start is replaced: on PolyU's noisy photos alone estimates
# rose by 0.05 where the truth fell by 0.4
LEAST_ESTIMATED_GAIN = 0.1
ENDLESS = 1e9  # steps, or minutes, that no run makes
KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


@dataclass(frozen=True)
class TrainingConfig:
    """A training recipe; every field can stand in the YAML file that `denoise-se train --config` reads.

    Attributes:
        network: the network's shape.
        noise: noise spec for clean images; None when noisy/clean pairs are given.
        steps, minutes: the budget, whichever ends first; 0 is no limit. The learning rate follows its used share.
        batch, patch: patches per step, and their side in pixels.
        optimizer: "adamw", or "muon" for the convolutions, see `denoise_se.muon`.
        learning_rate, warmup_steps, weight_decay, clip: the rate after the linear warm-up (cosine to zero from there),
            the decoupled decay, and the gradient norm that is clipped to.
        loss: "l1"; "charbonnier": sqrt(d^2 + 1e-6); or "psnr": half the log of each patch's mean square error (plus
            that of half a code), so that patches of weak noise weigh as much as in a mean PSNR (Chen et al., "Simple
            Baselines for Image Restoration", ECCV 2022). Its gradient is some fifty times that of l1: raise `clip`.
        ema: decay of the exponential moving average of the weights, which is what is validated and written.
        seed: of the initial weights, the patches and the noise.
        precision: "auto" takes bf16 on a GPU, and on CPUs that multiply it in hardware; "fp32" or "bf16" outright.
        validations: how many times a run validates.
        turns: whether patches are turned by 90 degrees besides being flipped; off where rows or columns are noisy.
        drawings: share of the patches of clean images that have lettering, lines or checks drawn on them, or lie in
            whole under a drawing, see `denoise_se.drawings`.
        greyed: share of the patches of a colour network whose noise is the same in all channels, half of them grey
            themselves: black and white pictures in RGB, and sepia, have such noise.
        darkened: share of the patches that are made up to eight times darker before noise is added.
        rehearsal: share of the steps on clean images with the noise that the start was trained on, against forgetting.
        compile: whether the network is compiled by torch first: faster steps after a minute or so.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    noise: str | None = "gaussian:0-55"
    steps: int = 0
    minutes: float = 30.0
    batch: int = 16
    patch: int = 64
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    clip: float = 1.0
    loss: Loss = "l1"
    ema: float = 0.999
    seed: int = 0
    precision: Precision = "auto"
    validations: int = 10
    turns: bool = True
    drawings: float = 0.0
    greyed: float = 0.0
    darkened: float = 0.0
    rehearsal: float = 0.15
    compile: bool = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, kinds = getattr(self, entry.name), KINDS.get(str(entry.type))
            if kinds and (not isinstance(value, kinds) or isinstance(value, bool) != (kinds == (bool,))):
                power = isinstance(value, str) and EXPONENT.fullmatch(value)
                hint = "; YAML takes 1e-3 for text, write 0.001" if power else ""
                raise UsageError(f"{entry.name} is {value!r}, not {WORDS[str(entry.type)]}{hint}")
        if not isinstance(self.noise, str | None):
            raise UsageError(f"noise is {self.noise!r}, not a text such as gaussian:5-50")
        for name in ("batch", "patch", "validations"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1")
        if not 0 <= self.seed < 2**63 or self.warmup_steps < 0:
            raise UsageError(f"seed is {self.seed}, warmup_steps {self.warmup_steps}; from 0, a seed below 2**63")
        if self.network.channels not in (1, 3):
            raise UsageError(f"the network has {self.network.channels} channels; images have 1 (grey) or 3 (RGB)")
        if not 0 <= self.steps < ENDLESS or not 0 <= self.minutes < ENDLESS or not (self.steps or self.minutes):
            raise UsageError("a training run needs --steps or --minutes above 0, not endless")
        if not 0 <= self.rehearsal < 1:
            raise UsageError(f"rehearsal is {self.rehearsal}; it is a share of the steps, from 0 to below 1")
        for name in ("drawings", "greyed", "darkened"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it is a share of the patches, from 0 to 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r} is unknown; one of {', '.join(choices)}")
        if not (0 < self.learning_rate < 1 and 0 <= self.ema < 1 and self.clip > 0 and self.weight_decay >= 0):
            raise UsageError("learning_rate lies in (0, 1), ema in [0, 1), clip is above 0, weight_decay not below 0")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"network": self.network.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """The inverse of `to_dict`; UsageError names what is unknown or out of range."""
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"{key!r} is no field of a recipe; those are {', '.join(known)}")
        values = dict(values)
        try:
            network = NetworkConfig.from_dict(values.pop("network", {}))
        except (TypeError, ValueError) as error:
            raise UsageError(f"network: {error}") from error
        return cls(network=network, **values)
