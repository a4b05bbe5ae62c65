"""The noise spec: a line of text that names noise models, and the one table of their names.

Grammar: ``name:value`` or ``name:key=value,key=value``, where a value is a number or a range ``low-high``, and
``profile:FILE.json`` for measured noise; models joined by ``+`` act in that order; chains joined by ``|`` are
alternatives, of which each image gets one. Examples: ``gaussian:25``, ``gaussian:5-50``,
``poisson-gaussian:gain=0.01,read=0.002+jpeg:40-95|gaussian:0-25``. A file's name may hold ``+`` and ``|``, except
right behind a ``.json``.

torch is imported when a spec is parsed, so that help can list the models without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING

from denoise_se.errors import NoiseSpecError, ProfileError

if TYPE_CHECKING:
    from denoise_se.noise import NoiseChain, NoiseMixture
    from denoise_se.noise_model import NoiseModel, Range


@dataclass(frozen=True)
class NoiseKind:
    """Where a noise model's class is (`module:Class` in this package), a spec as an example, and whether its argument
    is a .json file, which the class reads with `from_file`."""

    where: str
    example: str
    file: bool = False

    def load(self) -> type[NoiseModel]:
        """The class itself; imports torch."""
        module, _, name = self.where.partition(":")
        kind: type[NoiseModel] = getattr(import_module(f"denoise_se.{module}"), name)
        return kind


NOISE_MODELS: dict[str, NoiseKind] = {
    "gaussian": NoiseKind("noise:Gaussian", "gaussian:5-50"),
    "poisson-gaussian": NoiseKind("noise:PoissonGaussian", "poisson-gaussian:gain=0.01,read=0.002"),
    "speckle": NoiseKind("noise:Speckle", "speckle:0.1"),
    "salt-pepper": NoiseKind("noise:SaltPepper", "salt-pepper:0.02"),
    "banding": NoiseKind("noise:Banding", "banding:row=2,column=0-1"),
    "quantise": NoiseKind("noise:Quantise", "quantise:6"),
    "correlated": NoiseKind("noise:Correlated", "correlated:sigma=10,radius=0.8"),
    "camera": NoiseKind("camera_noise:Camera", "camera:gain=0.001,read=0.01,luma=0.6,chroma=1.5"),
    "raw": NoiseKind("camera_noise:Raw", "raw:gain=0.002,read=0.005,jpeg=85-95"),
    "jpeg": NoiseKind("noise:Jpeg", "jpeg:40-95"),
    "profile": NoiseKind("profile_noise:ProfileNoise", "profile:FILE.json", file=True),
}

FILE_BITS = 8  # rounded to so many, as files are, white Gaussian noise is still white Gaussian noise, but clipped

_FILE_NAMES = "|".join(name for name, kind in NOISE_MODELS.items() if kind.file)
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_VALUE = re.compile(rf"(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?\Z")
# a term ends at + or |, except for the + of 1e+1 and inside a file's name
_TERM = re.compile(rf"(?:{_FILE_NAMES}):.*?\.json(?=[+|]|\Z)|(?:(?<=[\d.]e)\+|[^+|])*", re.IGNORECASE | re.DOTALL)


def noise_help() -> str:
    """One sentence with an example of every model."""
    examples = ", ".join(kind.example for kind in NOISE_MODELS.values())
    return f"Noise spec: {examples}; joined by + in the order they happen, alternatives by |."


def parse_noise_spec(spec: str) -> NoiseChain | NoiseMixture:
    """The noise model that `spec` names.

    Raises:
        NoiseSpecError: with the spec, a caret under the mistake, and what would be right there.
    """
    from denoise_se.noise import NoiseChain, NoiseMixture

    chains: list[list[NoiseModel]] = [[]]
    for term, position, following in _terms(spec):
        chains[-1].append(_parse_term(spec, term, position))
        if following == "|":
            chains.append([])
    alternatives = tuple(NoiseChain(tuple(models)) for models in chains)
    return alternatives[0] if len(alternatives) == 1 else NoiseMixture(alternatives)


def strongest_gaussian(spec: str) -> float | None:
    """The largest sigma, in 8-bit units, of a spec all of whose alternatives are white Gaussian noise, as it is or as a
    file of at least FILE_BITS holds it; None for another. It needs no torch."""
    strongest = 0.0
    before = "|"
    for term, _, following in _terms(spec):
        name, _, argument = term.partition(":")
        match = _VALUE.match(argument.partition("=")[2] or argument)
        if match is None:
            return None
        low, high = float(match["low"]), float(match["high"] or match["low"])
        if name == "gaussian" and before == "|":
            strongest = max(strongest, high)
        elif not (name == "quantise" and before == "+" and following != "+" and low >= FILE_BITS):
            return None
        before = following
    return strongest


def _terms(spec: str) -> Iterator[tuple[str, int, str]]:
    """Each term, where it begins, and the + or | that follows it, nothing at the end."""
    position = 0
    while True:
        match = _TERM.match(spec, position)
        term = match[0] if match else ""
        end = position + len(term)
        yield term, position, spec[end : end + 1]
        if end == len(spec):
            return
        position = end + 1


def _fail(spec: str, position: int, reason: str) -> NoiseSpecError:
    return NoiseSpecError(f"noise spec: {reason}\n  {spec}\n  {' ' * position}^")


def _parse_term(spec: str, term: str, start: int) -> NoiseModel:
    name, colon, arguments = term.partition(":")
    if name not in NOISE_MODELS:
        known = ", ".join(NOISE_MODELS)
        raise _fail(spec, start, f"no noise model is called {name!r}; one of {known}")
    kind = NOISE_MODELS[name].load()
    position = start + len(name + colon)
    if NOISE_MODELS[name].file:
        if not arguments.lower().endswith(".json"):
            raise _fail(spec, position, f"{name} is written {NOISE_MODELS[name].example}, not {arguments!r}")
        try:
            return kind.from_file(arguments)  # type: ignore[attr-defined]
        except ProfileError as error:
            raise _fail(spec, position, str(error)) from error
    parameters = list(kind.limits)
    required = [field.name for field in fields(kind) if field.default is MISSING]  # type: ignore[arg-type]
    usage = f"{name}:" + _usage(parameters, required)
    given: dict[str, Range] = {}
    for argument in arguments.split(","):
        key, separator, value = argument.rpartition("=")
        if not separator and len(parameters) == 1:
            key = parameters[0]
        if key not in parameters or key in given:
            raise _fail(spec, position, f"{name} is written {usage}")
        at = position + len(argument) - len(value)
        given[key] = _parse_range(spec, value, at, key, kind.limits[key])
        position += len(argument) + 1
    missing = [p for p in required if p not in given]
    if missing:
        raise _fail(spec, start + len(term), f"{name} also needs {missing[0]}; it is written {usage}")
    return kind(**given)


def _usage(parameters: list[str], required: list[str]) -> str:
    first, *others = (f"{p}=VALUE" for p in parameters)
    return first + "".join(f",{text}" if text.partition("=")[0] in required else f"[,{text}]" for text in others)


def _parse_range(spec: str, text: str, at: int, key: str, limits: Range) -> Range:
    from denoise_se.noise_model import Range

    match = _VALUE.match(text)
    if match is None:
        raise _fail(spec, at, f"{key} is a number or a range low-high, not {text!r}")
    low = float(match["low"])
    high = float(match["high"] or low)
    if not limits.low <= low <= high <= limits.high:
        raise _fail(spec, at, f"{key} lies from {limits.low:g} to {limits.high:g}, low end first, not {text}")
    return Range(low, high)
