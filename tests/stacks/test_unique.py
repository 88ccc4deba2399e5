"""Names that a stack makes once."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from pulumi.dynamic.dynamic import serialize_provider

from provisioners.naming import lease_name, read_name
from stacks.unique import UniqueNameProvider

KEEPERS = {"image": "runpod/base", "count": 2.0}


def made(**props: Any) -> dict[str, Any]:
    outs = UniqueNameProvider().create({"keepers": KEEPERS, **props}).outs
    assert outs is not None
    return outs


def test_a_name_is_one_that_machines_can_bear() -> None:
    outs = made(lasts_s=3600.0)
    run = f"pod-{outs['stamp']}-{outs['suffix']}"
    said = read_name(lease_name("me", run, datetime.fromisoformat(outs["deadline"])))
    assert said is not None
    assert said.run == run
    assert abs(said.deadline - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=2)


def test_two_names_differ() -> None:
    assert len({UniqueNameProvider().create({"keepers": {}}).id for _ in range(20)}) > 18


def test_it_is_kept_while_what_it_is_for_is_the_same() -> None:
    diff = UniqueNameProvider().diff("x", made(lasts_s=3600.0), {"keepers": KEEPERS, "lasts_s": 60.0})
    assert (diff.changes, diff.replaces) == (False, [])


def test_its_words_stay_those_of_whoever_made_it() -> None:
    outs = made(words={"owner": "ana"})
    assert outs["words"] == {"owner": "ana"}
    assert not UniqueNameProvider().diff("x", outs, {"keepers": KEEPERS, "words": {"owner": "bob"}}).changes


def test_it_is_replaced_when_what_it_is_for_has_changed() -> None:
    diff = UniqueNameProvider().diff("x", made(), {"keepers": {**KEEPERS, "count": 4.0}})
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, ["keepers"], False)


def test_it_is_replaced_when_its_time_is_over() -> None:
    over = {**made(lasts_s=60.0), "deadline": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()}
    diff = UniqueNameProvider().diff("x", over, {"keepers": KEEPERS, "lasts_s": 60.0})
    assert (diff.changes, diff.replaces) == (True, ["lasts_s"])


def test_what_a_state_keeps_of_the_provider_is_a_reference() -> None:
    assert b"UniqueNameProvider" in base64.b64decode(serialize_provider(UniqueNameProvider()))
    assert len(base64.b64decode(serialize_provider(UniqueNameProvider()))) < 100
