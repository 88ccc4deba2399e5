"""The kinds of fields that a recipe file has: sizes, durations, amounts, and sections of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from recipes import units


def _from_text(parse: Any, example: str, *, numbers: bool = False) -> BeforeValidator:
    def validate(value: Any) -> Any:
        if isinstance(value, str) or (numbers and isinstance(value, int) and not isinstance(value, bool)):
            return parse(value)
        raise ValueError(f"{value!r} has no unit; write {example}")

    return BeforeValidator(validate)


def _env_text(value: Any) -> Any:
    """Whole numbers as they are; others are not rewritten behind their owner's back (0.30 is not 0.3)."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _auto_or_count(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"{value!r} is neither auto nor a whole number of at least 1")


def _text_schema(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Text = Annotated[str, StringConstraints(min_length=1)]
TAG = r"^[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,79}$"
Tag = Annotated[str, StringConstraints(pattern=TAG)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
EnvText = Annotated[str, BeforeValidator(_env_text), WithJsonSchema({"type": ["string", "integer"]})]
SizeBytes = Annotated[
    int,
    _from_text(units.parse_size, "20GB"),
    PlainSerializer(units.format_size),
    _text_schema(units.SIZE_PATTERN, "20GB", "18GiB"),
]
DurationS = Annotated[
    float,
    _from_text(units.parse_duration, "90s or 3h"),
    PlainSerializer(units.format_duration),
    _text_schema(units.DURATION_PATTERN, "90s", "3h"),
]
AcceleratorCount = Annotated[
    units.Accelerators,
    _from_text(units.parse_accelerators, "A100-80GB:2"),
    PlainSerializer(str),
    _text_schema(units.ACCELERATORS_PATTERN, "A100-80GB:2"),
]
CoreCount = Annotated[
    units.Amount,
    _from_text(units.parse_count, "16 or 16+", numbers=True),
    PlainSerializer(units.format_amount),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[1-9]\d*\+?$"}]}),
]
MemoryAmount = Annotated[
    units.Amount,
    _from_text(units.parse_memory, "128GB+"),
    PlainSerializer(lambda amount: units.format_amount(amount, size=True)),
    _text_schema(units.SIZE_PATTERN.replace("$", r"\+?$"), "128GB+"),
]
AutoCount = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_auto_or_count),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of the file: its keys are these and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)
