"""Small questions to the engine: what comes of each of its answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from provisioners.site import site_of
from recipes.errors import RecipeError, UsageError
from stacks.asking import asked, asked_of
from stacks.reference import StackRef
from stacks.values import NoSuchStack, StackFailed

TRACEBACK = "Traceback (most recent call last):\\n  File x\\nValueError: broken by hush-hush"


def answer(tmp_path: Path, *lines: str) -> object:
    """What is made of the answer of an engine that does this."""
    command = tmp_path / "bin" / "pulumi"
    command.parent.mkdir()
    command.write_text("\n".join(["#!/bin/sh", '[ "$1" = version ] && echo v3.260.0 && exit', *lines, ""]))
    command.chmod(0o755)
    env = {"PATH": f"{command.parent}:/usr/bin:/bin", "RECIPE_HOME": str(tmp_path / "home"), "HF_TOKEN": "hush-hush"}
    site, ref = site_of(env), StackRef("gpu_pod", "ana")
    one = asyncio.run(asked_of(site, ref, "stack", "output", "--json"))
    assert one == asyncio.run(asked(site, ref.project, "stack", "ls", "--json"))
    return one


def test_an_answer_is_json(tmp_path: Path) -> None:
    assert answer(tmp_path, """echo '{"a": [1]}'""") == {"a": [1]}


@pytest.mark.parametrize(
    ("lines", "kind", "told"),
    [
        (["echo 'error: cannot list bucket: no route' >&2", "exit 255"], StackFailed, "cannot list bucket: no route"),
        ([f"printf '{TRACEBACK}' >&2", "exit 1"], StackFailed, r"ValueError: broken by \*\*\*"),
        (["exit 3"], StackFailed, "exit 3"),
        (["echo no JSON"], StackFailed, "Expecting value"),
        (["echo \"error: no stack named 'ana' found\" >&2", "exit 255"], NoSuchStack, "gpu_pod/ana does not exist"),
        (["echo 'error: incorrect passphrase' >&2", "exit 255"], UsageError, "gpu_pod/ana was encrypted with another"),
    ],
)
def test_what_is_no_answer_is_told_in_one_line(
    tmp_path: Path, lines: list[str], kind: type[RecipeError], told: str
) -> None:
    with pytest.raises(kind, match=told) as failed:
        answer(tmp_path, *lines)
    assert type(failed.value) is kind
    assert "\n" not in failed.value.message
    assert failed.value.advice
    if kind is StackFailed:
        assert failed.value.message.startswith("pulumi stack output of gpu_pod/ana: ")
        assert failed.value.advice == f"see whether file://{tmp_path}/home/pulumi/state can be reached, and read"
