"""Turns the validator's findings into problems that say where, what and what next."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from recipes.errors import Problem

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from recipes.source import Mark, Node

_EXPECTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
_BOUNDS = {
    "greater_than": "must be more than",
    "greater_than_equal": "must be at least",
    "less_than": "must be less than",
    "less_than_equal": "must be at most",
}


def problem_from(error: ErrorDetails, tree: Node, model: type[BaseModel]) -> Problem:
    """One of pydantic's errors as a problem at its place in the file."""
    path = tuple(step for step in error["loc"] if step != "[key]")
    node = tree.find(path)
    code, message, suggestion = _what(error, path, model, node.written)
    mark = (node.key_mark or node.mark) if code in ("unknown", "missing") or path != error["loc"] else node.mark
    return problem_at(mark, path, code, message, suggestion)


def is_echo(error: ErrorDetails) -> bool:
    """Whether an error only follows from another: a list short of its wrong entries, a default that was not made."""
    if error["type"] == "default_factory_not_called":
        return True
    return error["type"] == "too_short" and bool(error["input"])


def problem_at(mark: Mark, path: Iterable[str | int], code: str, message: str, suggestion: str = "") -> Problem:
    return Problem(
        file=mark.file,
        line=mark.line,
        column=mark.column,
        path=dotted(path),
        code=code,
        message=message,
        suggestion=suggestion,
    )


def dotted(path: Iterable[str | int]) -> str:
    """`workload.inputs[0]` from its steps."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A suggestion, or the choices if they are few and none is near."""
    known = sorted(candidates)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"one of {', '.join(known)}" if 0 < len(known) <= 12 else ""


def _what(error: ErrorDetails, path: tuple[Any, ...], model: type[BaseModel], written: str) -> tuple[str, str, str]:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden" and path in (("extends",), ("matrix",)):
        return "unknown", "can be written in a recipe file only", ""
    if kind == "extra_forbidden":
        return "unknown", "unknown key", did_you_mean(str(path[-1]), _fields_at(model, path[:-1]))
    if kind == "missing":
        return "missing", "required, but missing", ""
    if kind == "value_error":
        return "value", *_split_advice(error["msg"].removeprefix("Value error, "))
    if kind == "literal_error":
        choices = [word.strip(" '") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        return "value", f"{given!r} is not one of {', '.join(choices)}", did_you_mean(str(given), choices)
    if kind in _EXPECTED:
        quoted = f"put it in quotes: {json.dumps(written)}" if kind == "string_type" and _scalar(given) else ""
        return "type", f"{_EXPECTED[kind]}, not {_kind_of(given)}", quoted
    if kind in _BOUNDS:
        (bound,) = error["ctx"].values()
        return "value", f"{given} is out of range: {_BOUNDS[kind]} {bound}", ""
    if kind in ("too_short", "string_too_short"):
        return "empty", "empty", "write at least one"
    if kind == "string_pattern_mismatch" and path[0] == "secrets":
        # What stands here by mistake may be a secret itself: it is not repeated.
        return "value", "not the name of a variable", "write its name alone; the value comes from the environment"
    if kind == "string_pattern_mismatch":
        return "value", f"{given!r} does not match {error['ctx']['pattern']}", ""
    return "value", f"{given!r}: {error['msg'][:1].lower()}{error['msg'][1:]}", ""


def _split_advice(message: str) -> tuple[str, str]:
    what, _, advice = message.partition("; ")
    return what, advice


def _scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _kind_of(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"{str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r}"
    return "a list" if isinstance(value, list) else "a mapping"


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> Iterable[str]:
    here: type[BaseModel] | None = model
    for step in path:
        if isinstance(step, str) and here is not None:
            field = here.model_fields.get(step)
            here = _model_in(field.annotation) if field else None
    above = ("extends", "matrix") if not path else ()
    return (*here.model_fields, *above) if here else ()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType, typing.Annotated):
        return next(filter(None, map(_model_in, typing.get_args(annotation))), None)
    return None
