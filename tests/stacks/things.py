"""A resource that does what a test says, in Pulumi's own provider process, and a program that makes it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import ConfigureRequest, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

import recipes.errors
from recipes.errors import RecipeError
from stacks import report
from stacks.lifeline import end_with_engine

SECRET = "hush-hush-hush"


class ThingProvider(ResourceProvider):
    """`does`: fail:CLASS, say:TEXT, break. `at`: a folder; a call is written to its ledger, and waits at its gate."""

    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:
        end_with_engine()

    def create(self, props: dict[str, Any]) -> CreateResult:
        does, at = props["does"], Path(props["at"])
        _note(at, f"create {props['text']}")
        _wait_at(at / "gate")
        what, _, more = does.partition(":")
        if what == "say":
            report.say(more)
        if what == "break":
            raise RuntimeError(f"broken {props['token']}")
        if what == "fail":
            kind: type[RecipeError] = getattr(recipes.errors, more)
            error = kind(f"no more of it for {SECRET}", advice="try another")
            report.tell_failed(error)
            raise error
        report.tell_created(props["text"], {"name": props["text"], "id": "1"})
        return CreateResult("thing-1", {"text": props["text"], "token": props["token"], "at": props["at"]})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        replaces = ["text"] if _news["text"].startswith("new") and _olds["text"] != _news["text"] else []
        return DiffResult(changes=_olds["text"] != _news["text"], replaces=replaces, delete_before_replace=True)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        _note(Path(_news["at"]), f"update {_news['text']}")
        return UpdateResult({"text": _news["text"], "token": _news["token"], "at": _news["at"]})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        _note(Path(_props["at"]), f"delete {_props['text']}")
        _wait_at(Path(_props["at"]) / "gate")
        report.tell_released(_props["text"], "looked for twice")


class Thing(Resource, module="recipe", name="Thing"):
    text: pulumi.Output[str]
    token: pulumi.Output[str]

    def __init__(self, name: str, text: str, at: Path, does: str) -> None:
        token = pulumi.Output.secret(SECRET)
        super().__init__(ThingProvider(), name, {"text": text, "at": str(at), "does": does, "token": token})


def program(at: Path, text: str = "a", does: str = "") -> Callable[[], None]:
    """Makes one, and puts out its text and its secret."""

    def run() -> None:
        thing = Thing("thing", text, at, does)
        pulumi.export("text", thing.text)
        pulumi.export("token", thing.token)
        pulumi.export("sizes", {"gb": 200})

    return run


def _note(at: Path, line: str) -> None:
    with (at / "ledger").open("a") as file:
        file.write(f"{line} {os.getpid()}\n")


def _wait_at(gate: Path) -> None:
    """As long as there is one."""
    while gate.exists():
        time.sleep(0.01)
