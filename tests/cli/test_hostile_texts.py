"""Texts that a stranger's run brings, wherever they are shown: on their line, with nothing that a terminal obeys."""

from __future__ import annotations

import json
import unicodedata

import pytest

from runners.ledger import Ledger
from tests.conftest import Command
from tests.runners.exporting.made import keep, result_of, run_id

EVIL = "a\nforged row\r\x1b[2Jb\u200bc\u202ed\x9be\u2028f"


@pytest.fixture
def log(recipe: Command) -> Command:
    """Two runs of which every text is hostile, as an older recipe may have taken them in."""
    for number in (1, 2):
        texts = {
            "model__identifier": EVIL,
            "engine__name": EVIL,
            "engine__version": EVIL,
            "offer__accelerator": EVIL,
            "offer__provider": EVIL,
            "variant": {f"workload.{EVIL}": EVIL},
            "tags": [EVIL],
            "recipe_digest": f"{EVIL}{number}",
        }
        outcome = {"status": "completed", "phase": EVIL, "error": EVIL}
        result = result_of(run_id(number), outcome=outcome, **texts)
        result["release"] = {"name": EVIL, "state": "may-still-bill", "reason": EVIL}
        keep(recipe.home, result)
    return recipe


@pytest.mark.parametrize(
    "command",
    [
        ("runs",),
        ("runs", "--by", "tag"),
        ("runs", "--by", "model"),
        ("runs", "--by", "gpu"),
        ("runs", "--tag", "nothing\n\x1b"),
        ("compare", run_id(1), run_id(2)),
        ("compare", run_id(1), run_id(2), "--alone"),
        ("check", run_id(1), run_id(2)),
        ("check", run_id(1), "--require", "engine.name==x", "--baseline", run_id(2)),
        ("export", "--format", "markdown"),
    ],
)
def test_it_stays_on_its_line_and_is_seen(log: Command, command: tuple[str, ...]) -> None:
    ended = log(*command)
    assert ended.returncode in (0, 8), ended.stderr
    for line in (ended.stdout + ended.stderr).split("\n"):
        assert not line.lstrip().startswith("forged row")
        for character in line:
            assert unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp"), (command, line)


def test_machines_read_it_as_it_is(log: Command) -> None:
    assert json.loads(log("runs", "--json").stdout)["runs"][0]["model"]["identifier"] == EVIL
    assert Ledger(log.home).rows()[0].tags == (EVIL,)
