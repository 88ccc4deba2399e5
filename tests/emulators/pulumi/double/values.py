"""Property values as JSON with Pulumi's signatures: secrets, unknowns, and how they are looked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT_VALUE = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Value = Any
Properties = dict[str, Value]


def secret(value: Value) -> Value:
    """The value as a secret, once."""
    return value if is_secret(value) else {SIGNATURE: SECRET, "value": value}


def is_secret(value: Value) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def walk(value: Value, change: Callable[[Value], Value]) -> Value:
    """The value with `change` applied to its parts first and then to itself."""
    if isinstance(value, dict):
        return change({key: walk(part, change) for key, part in value.items()})
    if isinstance(value, list):
        return change([walk(part, change) for part in value])
    return change(value)


def revealed(value: Value) -> Value:
    """Without the marks of secrets: for a provider that does not accept them."""
    return walk(value, lambda part: part["value"] if is_secret(part) else part)


def masked(value: Value) -> Value:
    """What people may see."""
    return walk(value, lambda part: "[secret]" if is_secret(part) else "[unknown]" if part == UNKNOWN else part)


def plain_outputs(value: Value) -> Value:
    """Output values as the SDK sends them (value, secret, dependencies), as plain values, secrets or unknowns."""

    def plain(part: Value) -> Value:
        if not (isinstance(part, dict) and part.get(SIGNATURE) == OUTPUT_VALUE):
            return part
        value = part.get("value", UNKNOWN)
        return secret(value) if part.get("secret") else value

    return walk(value, plain)


def has_unknown(value: Value) -> bool:
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    return any(map(has_unknown, value)) if isinstance(value, list) else value == UNKNOWN


def secret_like(outs: Value, ins: Value) -> Value:
    """What came back from a provider, secret where the same was secret on the way there."""
    if is_secret(ins):
        return secret(outs)
    if isinstance(outs, dict) and isinstance(ins, dict) and not is_secret(outs):
        return {key: secret_like(part, ins[key]) if key in ins else part for key, part in outs.items()}
    if isinstance(outs, list) and isinstance(ins, list) and len(outs) == len(ins):
        return [secret_like(out, given) for out, given in zip(outs, ins, strict=True)]
    return outs


def secret_keys(outs: Properties, keys: Iterable[str]) -> Properties:
    """The named outputs as secrets (the option additionalSecretOutputs)."""
    return {key: secret(part) if key in set(keys) else part for key, part in outs.items()}


def changed_keys(old: Properties, new: Properties) -> list[str]:
    """Names of the inputs that differ, secret or not."""
    old, new = revealed(old), revealed(new)
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
