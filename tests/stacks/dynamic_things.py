"""Dynamic resources for tests: things are files in a folder, and every call is written down.

What the tests want of a thing stands in its inputs: `fails` and `dies` make its creation go wrong, `waits` is a named
pipe that it reads before it exists. With THINGS_STAY in the environment their provider outlives its engine.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from stacks.lifeline import end_with_engine

Properties = dict[str, Any]


class ThingProvider(ResourceProvider):
    """A thing of another `kind` is another thing; of another `size`, the same one, changed."""

    def configure(self, req: ConfigureRequest) -> None:
        if "THINGS_STAY" not in os.environ:
            end_with_engine()
        self.world = Path(os.environ["THINGS_WORLD"])
        self.colour = req.config.get("colour")

    def check(self, _olds: Properties, news: Properties) -> CheckResult:
        self._called("check", news)
        wrong = [CheckFailure("size", "it is below zero")] if str(news.get("size")).startswith("-") else []
        return CheckResult({"place": _olds.get("place", "here"), **news}, wrong)

    def diff(self, _id: str, _olds: Properties, _news: Properties) -> DiffResult:
        self._called("diff", _news)
        if _olds.get("kind") != _news.get("kind"):
            return DiffResult(changes=True, replaces=["kind"], delete_before_replace=bool(_news.get("alone")))
        return DiffResult()

    def create(self, props: Properties) -> CreateResult:
        self._called("create", props)
        if pipe := props.get("waits"):
            Path(pipe).read_text()
        if props.get("dies"):
            os._exit(3)
        if props.get("fails"):
            raise RuntimeError(f"no room for {props['name']}")
        identity = f"{props['name']}-{uuid.uuid4().hex[:6]}"
        (self.world / identity).write_text(json.dumps({"size": props.get("size")}))
        print(f"made {identity}")
        return CreateResult(identity, self._outputs(props, identity))

    def read(self, id_: str, props: Properties) -> ReadResult:
        self._called("read", props)
        if not (self.world / id_).exists():
            return ReadResult("", {})
        size = json.loads((self.world / id_).read_text())["size"]
        return ReadResult(id_, {**props, "size": size}, {**_inputs(props), "size": size})

    def update(self, _id: str, _olds: Properties, _news: Properties) -> UpdateResult:
        self._called("update", _news)
        (self.world / _id).write_text(json.dumps({"size": _news.get("size")}))
        return UpdateResult(self._outputs(_news, _id))

    def delete(self, _id: str, _props: Properties) -> None:
        self._called("delete", _props)
        if _props.get("stays"):
            raise RuntimeError(f"{_id} does not want to go")
        (self.world / _id).unlink(missing_ok=True)

    def _outputs(self, props: Properties, identity: str) -> Properties:
        return {**props, "address": f"{identity}.example", "token": f"token-of-{props['name']}", "colour": self.colour}

    def _called(self, what: str, props: Properties) -> None:
        shown = {key: value for key, value in props.items() if key != "__provider"}
        with (self.world / "calls").open("a") as calls:
            calls.write(json.dumps([what, shown], default=str) + "\n")


class Thing(Resource):
    address: pulumi.Output[str]
    token: pulumi.Output[str]
    size: pulumi.Output[int]
    colour: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        known = {"address": None, "token": None, "colour": None, "size": None, **props, "name": name}
        super().__init__(ThingProvider(), name, known, opts)


def _inputs(props: Properties) -> Properties:
    return {key: value for key, value in props.items() if key not in ("address", "token", "colour")}
