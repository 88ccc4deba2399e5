"""Stacks as people read them."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from runners.stacking.billing import Billing
from runners.stacking.rows import StackRow
from runners.terminal.stack_view import Happening, changes_lines, outputs_lines, stacks_lines
from stacks.events import bare, kind_of, last_error
from stacks.reference import StackRef
from stacks.values import Changes, Step


def shown(lines: object, width: int = 60) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    for line in lines:  # type: ignore[attr-defined]
        console.print(line)
    return out.getvalue().splitlines()


def step(op: str, type_: str = "Volume", name: str = "cache", *changed: str) -> Step:
    return Step(op=op, type=type_, name=name, changed=changed)


def test_changes_stand_below_each_other_with_their_sign_and_reason() -> None:
    steps = (
        step("create", "Model", "me/lead"),
        step("update", "Volume", "cache", "size_gb"),
        step("replace", "GpuPod", "pod", "image", "wanted"),
        step("delete", "Model", "old"),
        step("same", "Model", "kept"),
        step("create", "UniqueName", "name"),
    )
    assert shown(changes_lines(Changes(steps), "costs", ["$14.00/month", "and more"], 60)) == [
        "+   create   Model    me/lead",
        "~   update   Volume   cache     size_gb",
        "-/+ replace  GpuPod   pod       image, wanted",
        "-   delete   Model    old",
        "1 to create, 1 to change, 1 to replace, 1 to delete, 1 ",
        "unchanged",
        "costs     $14.00/month",
        "          and more",
    ]


def test_why_something_is_replaced_stands_in_place_of_the_names_of_inputs() -> None:
    steps = (step("replace", "GpuPod", "pod", "run", "wanted"), step("update", "Volume", "cache", "size_gb"))
    why = [("because", "resources.accelerators A40:1 → L40S:1"), ("ends", "pod x at $0.44/h first")]
    assert shown(changes_lines(Changes(steps), "costs", ["$0.79/h"], 60, why)) == [
        "-/+ replace  GpuPod   pod",
        "~   update   Volume   cache   size_gb",
        "1 to change, 1 to replace",
        "because   resources.accelerators A40:1 → L40S:1",
        "ends      pod x at $0.44/h first",
        "costs     $0.79/h",
    ]


@pytest.mark.parametrize("steps", [(), (step("same"),), (step("read"), step("same", "UniqueName"))])
def test_nothing_changes(steps: tuple[Step, ...]) -> None:
    assert shown(changes_lines(Changes(steps), "costs", [], 60)) == ["nothing changes"]
    assert not Changes(steps).any


def test_names_of_strangers_obey_nobody() -> None:
    (line,) = shown(changes_lines(Changes((step("create", "Model", "me\x1b[2J"),)), "costs", [], 60))
    assert line == "+   create   Model   me\\x1b[2J"


def test_outputs_and_stacks_wrap_under_themselves() -> None:
    told = [("volume", "k3j9 (recipe-cache-main-20261121)"), ("size", "200 GB in EU-RO-1")]
    assert shown(outputs_lines(told, 40), 40) == [
        "volume   k3j9",
        "         (recipe-cache-main-20261121)",
        "size     200 GB in EU-RO-1",
    ]
    at, pod = datetime(2026, 11, 21, 15, 12, tzinfo=UTC), StackRef("gpu_pod")
    bill = Billing(what="pod x at $3.61/h", id="x", way_out="recipe down r ends it")
    rows = [
        StackRow(ref=pod, resources=3, bill=bill, busy=True),
        StackRow(ref=StackRef("model_cache"), resources=0, updated_at=at),
        StackRow(ref=StackRef("gpu_pod", "ana"), resources=3, unfinished=True),
    ]
    assert shown(stacks_lines(rows, 60)) == [
        "gpu_pod       pod x at $3.61/h",
        "              is being changed",
        "model_cache   holds nothing",
        "              as of its last update, 2026-11-21 15:12 UTC",
        "gpu_pod/ana   nobody knows what bills: its update has not",
        "              come to its end; recipe stack up gpu_pod/ana",
        "              RECIPE goes on, recipe stack destroy",
        "              gpu_pod/ana ends it",
        "              never updated",
    ]


def test_a_row_tells_what_is_gone_what_ends_it_without_pulumi_and_what_goes_on() -> None:
    bill = Billing(what="pod x at $3.61/h", id="x", way_out="recipe down r ends it")
    seen = StackRow(ref=StackRef("gpu_pod"), bill=bill, is_kept=True)
    assert (seen.says, seen.way_out) == ("pod x at $3.61/h", "recipe down r ends it")
    assert seen.document().keys() == StackRow(ref=seen.ref).document().keys(), "always of one shape"
    gone = replace(seen, bill=replace(bill, gone="absent from the lists"))
    assert (gone.says, gone.way_out) == ("bills nothing: absent from the lists", "")
    assert gone.document()["bills"] is None
    run = StackRow(ref=StackRef("gpu_pod", "recipe-ana-smoke-20261122-032318-483f-167m"), unfinished=True)
    assert run.ways == f"recipe stack destroy {run.ref} ends it", "nobody goes on with a run by its stack"


def test_what_happens_is_plain_lines_in_a_pipe() -> None:
    out = io.StringIO()
    with Happening(Console(file=out, width=60), "makes model_cache").shown() as heard:
        heard("makes Volume cache")
        heard("two\nlines")
    assert out.getvalue() == "  0:00   makes Volume cache\n  0:00   two\\nlines\n"


def test_what_the_engine_says_is_made_readable() -> None:
    assert kind_of("pulumi-python:dynamic/recipe:Volume") == "Volume"
    assert kind_of("pulumi:pulumi:Stack") == "Stack"
    assert bare("<{%fg 9%}>error: <{%reset%}>\x1b[31mno\x1b[0m") == "error: no"
    assert last_error(["Traceback:\n  File x\nValueError: too small\n", "update failed"]) == "ValueError: too small"
    assert last_error(["", "\n"]) == ""
