"""Which runs the words of a command line mean, and as which groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recipes.errors import UsageError
from recipes.explain import did_you_mean
from runners.comparing.groups import Group, base_of, groups_of, named, why_left_out
from runners.comparing.meant import of_one_matrix
from runners.ledger import Ledger
from runners.ledger.filters import Filter
from runners.ledger.rows import Row
from runners.run_folder import RUN_ID, RunFolder
from runners.terminal.words import plural

LAST = 30
"""So many repetitions are taken, the newest."""
_MOST_ROWS = 10_000
"""Older runs than so many of a recipe are not looked at."""
_TAG = "@"


@dataclass(frozen=True)
class Selection:
    """The groups that are meant, and what to say of those that are not among them."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Selector:
    """Finds runs by columns of the ledger, and reads the results only of those that are compared."""

    def __init__(
        self, ledger: Ledger, home: Path, *, since: datetime | None = None, last: int = LAST, alone: bool = False
    ) -> None:
        self._ledger, self._home = ledger, home
        self._since, self._last, self._alone = since, last, alone

    def select(self, references: Sequence[str]) -> Selection:
        """The groups that these mean, in their order, each once. Raises UsageError for what means no run."""
        single = len(references) == 1
        found = _Found()
        for reference in references:
            self._add(reference, found, single=single)
        groups = list({group.run_ids: group for group in found.groups}.values())
        if not single and len(groups) == 1:
            return self._run_by_run(references, groups[0])
        return Selection(tuple(named(groups)), tuple(dict.fromkeys(found.notes)))

    def _run_by_run(self, references: Sequence[str], group: Group) -> Selection:
        """Several words for one group: its runs that were named are what somebody wants to see side by side."""
        results = [r for r in group.results if any(r["run_id"].startswith(word) for word in references)]
        if len(results) < 2:
            return Selection((group,), ("these all mean the same group of repetitions",))
        note = "they are repetitions of one recipe on one kind of machine: compared run by run"
        groups = groups_of(reversed(results), alone=True)
        return Selection(tuple(named([replace(g, resolved=group.resolved) for g in groups])), (note,))

    def _add(self, reference: str, found: _Found, *, single: bool) -> None:
        if reference.startswith(_TAG):
            self._of_tag(reference, found)
        elif (run := self._run(reference)) is not None:
            self._of_run(run, found)
        elif rows := self._rows(recipe=f"{_stem(reference)}*"):
            self._of_recipe(_stem(reference), rows, found, single=single)
        elif rows := self._rows(digest=reference):
            self._newest(rows, found)
        elif (run := self._run(reference, day=r"\d{1,7}")) is not None:
            self._of_run(run, found)
        else:
            raise self._unknown(reference)

    def _unknown(self, reference: str) -> UsageError:
        if reference.startswith(_TAG):
            going = [row for row in self._going(tag=reference[1:]) if reference[1:] in row.tags]
        else:
            going = self._going_of(_stem(reference)) or self._going(digest=reference)
        if going:
            what = f"{reference}: no run has ended; {going[0].run_id} is still going on"
            return UsageError(what, advice=f"recipe watch {going[0].run_id}")
        if reference.startswith(_TAG):
            hint = did_you_mean(reference[1:], self._ledger.values("tag"))
            return UsageError(f"{reference}: no run has this tag", advice=hint or "see recipe runs")
        known = self._ledger.values("recipe")
        if self._since and (older := [*self._ledger.rows(Filter(recipe=_stem(reference)), limit=1)]):
            what = f"{reference}: no run has begun since {self._since.isoformat(timespec='minutes')}"
            return UsageError(what, advice=f"the newest is {older[0].run_id}")
        hint = did_you_mean(reference, known) if known else "nothing has run yet; try recipe up local-smoke"
        bounded = f" since {self._since.isoformat(timespec='minutes')}" if self._since else ""
        what = f"{reference}: no such run, and no recipe of this name has run{bounded}"
        return UsageError(what, advice=hint if hint.startswith(("did", "nothing")) else "see recipe runs")

    def _rows(self, **meant: Any) -> list[Row]:
        """The newest first; those that are still going on are not compared."""
        rows = self._ledger.rows(Filter(since=self._since, **meant), limit=_MOST_ROWS)
        return [row for row in rows if row.status != "running"]

    def _going(self, **meant: Any) -> list[Row]:
        """The runs that are still going on."""
        return self._ledger.rows(Filter(since=self._since, status=("running",), **meant), limit=_MOST_ROWS)

    def _going_of(self, name: str) -> list[Row]:
        """Those of this recipe, or of its matrix."""
        going = self._going(recipe=f"{name}*")
        return [row for row in going if name in (row.recipe, base_of(row.recipe, row.variant))]

    def _run(self, reference: str, *, day: str = r"\d{8}") -> Row | None:
        """The run of this id or unique beginning, which must say so much of its day. Raises UsageError."""
        begun = re.fullmatch(rf"(?P<recipe>.+)-(?P<day>{day})(-.*)?", reference)
        if begun is None:
            return None
        since, until = _around(begun["day"])
        rows = self._ledger.rows(Filter(recipe=begun["recipe"], since=since, until=until))
        same = [row for row in rows if row.run_id == reference] or [
            row for row in rows if row.run_id.startswith(reference)
        ]
        if len(same) > 1:
            raise UsageError(f"{reference}: {len(same):,} runs begin so", advice=f"the newest is {same[0].run_id}")
        if same and same[0].status == "running":
            raise UsageError(f"{same[0].run_id} is still going on", advice=f"recipe watch {same[0].run_id}")
        return same[0] if same else None

    def _of_run(self, run: Row, found: _Found) -> None:
        rows = [run] if self._alone else [run, *self._rows(digest=run.recipe_digest)]
        groups = self._groups(list({row.run_id: row for row in rows}.values()))
        own = next((group for group in groups if run.run_id in group.run_ids), None)
        if own is None:
            why = next((left.why for g in groups for left in g.left_out if left.run_id == run.run_id), "")
            if not groups:
                raise self._nothing(run.run_id, run, why)
            own = groups[0]
            found.notes.append(
                f"{run.run_id} is not counted ({why or run.status}); the other runs of its recipe stand for it"
            )
        found.groups.append(own)

    def _of_tag(self, reference: str, found: _Found) -> None:
        rows = [row for row in self._rows(tag=reference[1:]) if reference[1:] in row.tags]
        if not rows:
            raise self._unknown(reference)
        groups = self._groups(rows)
        if not groups:
            raise self._nothing(reference, rows[0])
        found.groups += sorted(groups, key=lambda group: str(group.newest["started_at"]))

    def _of_recipe(self, name: str, rows: Sequence[Row], found: _Found, *, single: bool) -> None:
        """The newest of what has the name: the recipe itself, or the variants of its matrix."""
        own = [row for row in rows if row.recipe == name]
        variants = [row for row in rows if row.variant and base_of(row.recipe, row.variant) == name]
        if not own and not variants:
            raise self._unknown(name)
        found.notes += [f"{row.run_id} is still going on, and is not counted" for row in self._going_of(name)]
        if variants and (not own or own[0].started_at < variants[0].started_at):
            self._of_matrix(name, variants, found)
        elif single and not self._alone:
            self._versions(own, found)
        else:
            self._newest(own, found)

    def _newest(self, rows: Sequence[Row], found: _Found) -> None:
        """The repetitions of the newest run that counts; runs that end later and do not count are named."""
        groups = self._groups(_of_digest(rows, _newest_digest(rows)))
        found.notes += _not_the_newest(rows)
        if not groups:
            raise self._nothing(rows[0].recipe, rows[0])
        found.groups.append(groups[0])
        found.notes += [] if self._alone else _elsewhere(groups[0], groups[1:])

    def _versions(self, rows: Sequence[Row], found: _Found) -> None:
        """A recipe alone: on each kind of machine that it ran on; on one, as it is now and as it was before."""
        digests = list(dict.fromkeys(row.recipe_digest for row in rows if row.status == "completed"))
        groups = self._groups(_of_digest(rows, _newest_digest(rows)))
        found.notes += _not_the_newest(rows)
        if not groups:
            raise self._nothing(rows[0].recipe, rows[0])
        if len(groups) > 1 or len(digests) < 2:
            found.groups += reversed(groups)
            return
        before = self._groups(_of_digest(rows, digests[1]))
        found.groups += [*before[:1], groups[0]]
        found.notes.append(f"{groups[0].recipe} as it is now, against how it was before its last change")
        if len(digests) > 2:
            found.notes.append(f"{plural(len(digests) - 2, 'older version')} not shown: name one of the runs")

    def _of_matrix(self, name: str, rows: Sequence[Row], found: _Found) -> None:
        """The variants of the newest matrix: of one text, and alike but for what the matrix sets."""
        newest: dict[str, list[Row]] = {}
        for row in rows:
            newest.setdefault(row.recipe_digest, []).append(row)
        completed = [row for row in rows if row.status == "completed"]
        if not completed:
            raise self._nothing(name, rows[0])
        variants = of_one_matrix(self._home, completed)
        groups = [mine[0] for row in variants if (mine := self._groups(newest[row.recipe_digest]))]
        found.groups += sorted(groups, key=lambda group: str(group.results[-1]["started_at"]))
        text, done = self._text(completed[0]), {row.recipe_digest for row in completed}
        lost = [own[0] for digest, own in newest.items() if digest not in done and self._text(own[0]) == text]
        found.notes += [f"{row.recipe} has no completed run ({row.status})" for row in lost]

    def _text(self, row: Row) -> str | None:
        path = self._home / "runs" / row.run_id / "recipe.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def _resolved(self, run_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = RunFolder(self._home / "runs" / run_id).read_json("resolved.json")
        return found

    def _groups(self, rows: Sequence[Row]) -> list[Group]:
        """Groups of the newest repetitions, the group of the newest run first."""
        taken: list[str] = []
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.recipe_digest] = counts.get(row.recipe_digest, 0) + (row.status == "completed")
            if counts[row.recipe_digest] <= self._last:
                taken.append(row.run_id)
        results = list(self._ledger.results(taken))
        if self._alone:
            completed = [result for result in results if result["outcome"]["status"] == "completed"]
            results = completed or results
        groups = groups_of(results, alone=self._alone)
        return [replace(group, resolved=self._resolved_of(group)) for group in groups]

    def _nothing(self, reference: str, run: Row, why: str = "") -> UsageError:
        """That nothing counts of what is meant, and why its newest run does not."""
        if run.status == "completed" and not why:
            why = next(filter(None, map(why_left_out, self._ledger.results([run.run_id]))), "")
        how = why or _end(run)
        if RUN_ID.fullmatch(reference):
            told = f"{reference} {how}"
        else:
            counted = "run that counts" if run.status == "completed" else "completed run"
            told = f"{reference}: no {counted}; the newest, {run.run_id}, {how}"
        return UsageError(f"{told}: nothing to compare", advice=f"recipe report {run.run_id}")

    def _resolved_of(self, group: Group) -> dict[str, Any] | None:
        found = (self._resolved(run_id) for run_id in group.run_ids[:3])
        return next((tree for tree in found if tree is not None), None)


def _around(day: str) -> tuple[datetime | None, datetime | None]:
    """When runs began that were named on this day: a moment before the name was given."""
    try:
        named_on = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None, None
    return named_on - timedelta(days=1), named_on + timedelta(days=1)


def _stem(reference: str) -> str:
    """A recipe's name, also where its file is named."""
    return Path(reference).name.removesuffix(".yaml").removesuffix(".yml")


def _newest_digest(rows: Sequence[Row]) -> str:
    return next((row.recipe_digest for row in rows if row.status == "completed"), rows[0].recipe_digest)


def _not_the_newest(rows: Sequence[Row]) -> list[str]:
    """That the newest version of a recipe has no completed run."""
    newest = rows[0]
    if newest.recipe_digest == _newest_digest(rows):
        return []
    return [f"{newest.run_id}, of a newer version, is not compared: {_end(newest)}"]


def _end(run: Row) -> str:
    return f"failed in {run.phase}" if run.status == "failed" and run.phase else run.status


def _of_digest(rows: Sequence[Row], digest: str) -> list[Row]:
    return [row for row in rows if row.recipe_digest == digest]


def _elsewhere(group: Group, others: Sequence[Group]) -> list[str]:
    """Runs of the same recipe that are no repetitions of these."""
    return [
        f"{plural(len(other.results), 'run')} of {group.recipe} {_how_else(group, other)} not counted: "
        f"{other.run_ids[0]}{' …' if len(other.results) > 1 else ''}"
        for other in others
    ]


def _how_else(group: Group, other: Group) -> str:
    if other.machine != group.machine:
        return f"on {other.machine}"
    return f"with {other.engine}" if other.engine != group.engine else "of other texts, another model or offer"
