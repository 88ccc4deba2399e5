"""Pulumi's protocol: the SDK's generated modules without the SDK, and protobuf's Struct as JSON.

`import pulumi` takes long and starts things that an engine has no use for; the generated modules need none of it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import struct_pb2


def _empty_packages() -> None:
    """Puts empty packages in the place of `pulumi` and `pulumi.runtime`, so that only what is named is loaded."""
    found = importlib.util.find_spec("pulumi")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    for name in ("pulumi", "pulumi.runtime", "pulumi.runtime.proto"):
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


_empty_packages()
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # else gRPC grumbles to stderr where a provider is started

import grpc  # noqa: E402

from pulumi.runtime.proto import (  # noqa: E402
    engine_pb2,
    engine_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

__all__ = [
    "OPTIONS",
    "engine_pb2",
    "engine_pb2_grpc",
    "events_pb2",
    "events_pb2_grpc",
    "from_struct",
    "grpc",
    "language_pb2",
    "language_pb2_grpc",
    "provider_pb2",
    "provider_pb2_grpc",
    "resource_pb2",
    "resource_pb2_grpc",
    "said",
    "to_struct",
]

OPTIONS = [("grpc.max_receive_message_length", 400 << 20), ("grpc.max_send_message_length", 400 << 20)]


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _from_value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_from_value(part) for part in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def to_struct(properties: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(properties)
    return struct


def said(error: grpc.RpcError) -> str:
    """What the other side says went wrong."""
    return error.details() or error.code().name
