"""What the functions of the page take; Gradio answers a request for another one, or with other values, with 500."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

UPLOADED = '{"path": ..., "meta": {"_type": "gradio.FileData"}} of an upload; gradio_client.handle_file makes it'
Refusal = tuple[int, Any]  # a status and its detail


@dataclass(frozen=True)
class Function:
    """A function: its `name` for programs, "" where it is the page's own, and its `inputs`, as name and kind.

    kind: "file", "files", "number", "choice", or "any" for what the function itself looks at; required: the names of
    those that have no default.
    """

    name: str
    inputs: tuple[tuple[str, str], ...]
    required: frozenset[str] = frozenset()

    def refused(self, values: object) -> Refusal | None:
        """Why it does not take these values."""
        if not (isinstance(values, list) and len(values) == len(self.inputs)):
            return 422, f'{self.name or "this"} takes {{"data": [...]}} of {len(self.inputs)} value(s)'
        return wrong([(*taken, value) for taken, value in zip(self.inputs, values, strict=True)])

    def refused_by_name(self, values: object) -> Refusal | None:
        """Why it does not take these values, given as an object."""
        kinds = dict(self.inputs)
        if not (isinstance(values, dict) and self.required <= values.keys() <= kinds.keys()):
            needed = f"; it needs {', '.join(self.required)}" if self.required else ""
            return 422, f"{self.name} takes an object with {', '.join(kinds) or 'nothing'}{needed}"
        return wrong([(name, kinds[name], value) for name, value in values.items()])


def wrong(given: Sequence[tuple[str, str, object]]) -> Refusal | None:
    """The values that are not of their kind, in the words that Gradio's clients show."""
    told = [(name, message) for name, kind, value in given if (message := problem_of(kind, value))]
    if not told:
        return None
    return 422, [
        {"__type__": "validate", "is_valid": False, "parameter_name": name, "message": text} for name, text in told
    ]


def problem_of(kind: str, value: object) -> str:
    """What a value of this kind is, where this one is not; empty where it is."""
    if kind == "file" and not (value is None or is_file(value)):
        return f"give {UPLOADED}"
    if kind == "files" and not (value is None or (isinstance(value, list) and all(map(is_file, value)))):
        return f"give a list of {UPLOADED}"
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, (int, float))):
        return "give a number"
    if kind == "choice" and not isinstance(value, str):
        return "give one of the choices"
    return ""


def is_file(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str)


def functions_of(page: gr.Blocks) -> Mapping[int, Function]:
    """Those of a page that run on the server, by the number that its requests call them."""
    found = {}
    for number, function in page.fns.items():
        kinds = [_kind(component) for component in function.inputs]
        if function.fn is not None and function.api_visibility == "public":
            taken = list(inspect.signature(function.fn).parameters.values())[: len(kinds)]  # without the request
            names = [parameter.name for parameter in taken]
            required = frozenset(parameter.name for parameter in taken if parameter.default is parameter.empty)
            found[number] = Function(str(function.api_name), tuple(zip(names, kinds, strict=True)), required)
        elif function.fn is not None:
            names = [str(getattr(component, "label", "")) for component in function.inputs]
            found[number] = Function("", tuple(zip(names, kinds, strict=True)))
    return found


def _kind(component: Any) -> str:
    name = component.get_block_name()
    if name == "file":
        return "file" if component.file_count == "single" else "files"
    if name == "number":
        return "any" if component.value is None else "number"
    return {"slider": "number", "dropdown": "choice", "radio": "choice"}.get(name, "any")
