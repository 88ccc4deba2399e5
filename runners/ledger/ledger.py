"""The ledger as a whole: runs begin, are taken over and end in it, and are looked up."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recipes.errors import UsageError
from runners.events import Event
from runners.ledger.connection import connect, explained, may_be_written, opened
from runners.ledger.filters import Filter, order
from runners.ledger.rows import COLUMNS, Known, Row, chosen, complete, in_utc, lost_of, tags_of
from runners.ledger.schema import add, end, known_of, prepare
from runners.ledger.totals import Total, totals

UNFINISHED = ("lost", "failed", "interrupted")
"""How runs end whose answers another may go on from."""
_COLUMNS = ", ".join((*COLUMNS, "adopted_at"))
_BRIEF = "run_id, recipe, started_at, ended_at, status, phase, total_usd, pid, adopted_at"


class Ledger:
    """Opens for each call, so that many runs may write at once; `record` keeps its connection until the run ends."""

    def __init__(self, home: Path) -> None:
        self._events: sqlite3.Connection | None = None
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"RECIPE_HOME {home} cannot be made: {error.strerror}"
            raise UsageError(what, advice="export RECIPE_HOME=… to a folder that you may write to") from error
        self.path = home / "ledger.db"
        with explained(self.path), self._open() as db:
            prepare(db, self.path, _say)
            left = _left_results(db, home / "runs")
        if left and may_be_written(self.path):
            for result in left:
                with suppress(
                    UsageError, LookupError, TypeError, ValueError
                ):  # it stays to be taken in, or is no result
                    self.end(result)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(self.path)

    def _write(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(self.path, writing=True)

    def begin(
        self, run_id: str, recipe: str, digest: str, started_at: str, pid: int, known: Known | None = None
    ) -> None:
        """Raises sqlite3.IntegrityError if there is a run of this id."""
        known = known or Known()
        row: dict[str, Any] = {
            "run_id": run_id,
            "recipe": recipe,
            "recipe_digest": digest,
            "started_at": in_utc(started_at),
        }
        row |= {"status": "running", "pid": pid, **known.columns()}
        with explained(self.path):
            self._kept()
        with self._write() as db:
            if not add(db, row, None, known.tags):
                raise sqlite3.IntegrityError(f"{run_id} is in the ledger already")

    def adopt(self, run_id: str, pid: int) -> None:
        """Another process goes on with a run whose client died. Raises UsageError if one more was quicker."""
        with self._write() as db:
            db.execute("BEGIN IMMEDIATE")
            found = _brief(db, "WHERE run_id = ?", [run_id])
            if not found:
                raise UsageError(f"{run_id} is not in {self.path}", advice=f"recipe down {run_id} ends its machine")
            if found[0]["status"] != "lost":
                raise UsageError(
                    f"{run_id} was taken over meanwhile by process {found[0]['pid']}", advice=f"recipe logs -f {run_id}"
                )
            db.execute(
                "UPDATE experiments SET pid = ?, adopted_at = ? WHERE run_id = ?",
                (pid, datetime.now(UTC).isoformat(), run_id),
            )

    def lose(self, run_id: str) -> None:
        """The run has ended without a result: nobody minds it any more."""
        with self._write() as db:
            db.execute("UPDATE experiments SET pid = NULL WHERE run_id = ? AND status = 'running'", (run_id,))
        self._no_more_events()

    def record(self, run_id: str, event: Event) -> None:
        """Keep an event, if it is one that lasts."""
        if not event.lasting:
            return
        row = event.row(datetime.now(UTC))
        at, kind = row.pop("at"), row.pop("event")
        with explained(self.path):
            self._kept().execute("INSERT INTO events VALUES (?, ?, ?, ?)", (run_id, at, kind, json.dumps(row)))

    def _kept(self) -> sqlite3.Connection:
        """The run's own connection. While it is open, SQLite need not tidy up whenever another one is closed."""
        if self._events is None:
            # No transaction is ever open here, whoever calls: an event is one statement.
            self._events = connect(self.path, statement_by_statement=True)
            # They outlive this process, and need not outlive a power cut: events.jsonl has them as well.
            self._events.execute("PRAGMA synchronous = NORMAL")
        return self._events

    def _no_more_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def end(self, result: Mapping[str, Any]) -> None:
        with self._write() as db:
            end(db, result, json.dumps(result, ensure_ascii=False))
        self._no_more_events()

    def insert(self, result: Mapping[str, Any], *, origin: str | None) -> bool:
        """Add a run of another machine, or one of this (`origin` None); False, and nothing changes, if it is there."""
        return self.insert_all([result], origin=origin) == 1

    def insert_all(self, results: Iterable[Mapping[str, Any]], *, origin: str | None) -> int:
        """The same for many, all in one transaction; how many were not there yet."""
        with self._write() as db:
            added = 0
            for result in results:
                text = json.dumps(result, ensure_ascii=False)
                added += add(db, {**known_of(result), "origin": origin}, text, tags_of(result))
            return added

    def rows(self, filter: Filter | None = None, *, sort: str = "-started", limit: int | None = None) -> list[Row]:  # noqa: A002
        """The runs that are meant. Of those that have not ended, `phase` is the one that they are in, or were lost in.

        Raises UsageError for a `sort` that is none (`filters.SORTS`).
        """
        meant, order_by = filter or Filter(), order(sort)
        with self._open() as db:
            where, arguments = meant.where(lost(db) if meant.asks_who_lives else ())
            query = f"SELECT {_COLUMNS} FROM experiments WHERE {where} ORDER BY {order_by} LIMIT ?"  # noqa: S608 (bound)
            return complete(db, db.execute(query, [*arguments, -1 if limit is None else limit]).fetchall())

    def totals(self, by: str, filter: Filter | None = None) -> tuple[list[Total], Total]:  # noqa: A002
        """What the runs that are meant came to, by a word of `totals.BY`; and all together, each run counted once.

        Raises UsageError for another word.
        """
        standing = self.standing()
        usd = self.so_far_usd(standing)
        with self._open() as db:
            gone = {run_id for run_id, status in standing.items() if status == "lost"}
            return totals(db, by, filter or Filter(), gone, usd)

    def standing(self) -> dict[str, str]:
        """The runs that have not ended: "running" or "lost"."""
        with self._open() as db:
            gone = lost(db)
            running = db.execute("SELECT run_id FROM experiments WHERE status = 'running'")
            return {run_id: "lost" if run_id in gone else "running" for (run_id,) in running}

    def so_far_usd(self, run_ids: Collection[str]) -> dict[str, float]:
        """What runs that have not ended have cost by now, by the journal of leases, as far as it knows their prices."""
        if not run_ids or not may_be_written(self.path):  # a journal is made where there is none
            return {}
        from runners.ledger.leases import Journal, so_far  # they bring pydantic, which most lists do without

        return so_far(Journal(self.path).of_runs(run_ids), datetime.now(UTC))

    def ended_usd(self, *, since: datetime, until: datetime | None = None) -> float:
        """What the runs have cost that began at this moment or later, before the other, and have ended."""
        where, arguments = Filter(since=since, until=until).where()
        with self._open() as db:
            query = f"SELECT total(total_usd) FROM experiments WHERE status != 'running' AND {where}"  # noqa: S608
            usd: float = db.execute(query, arguments).fetchone()[0]
        return usd

    def values(self, column: str) -> list[str]:
        """What runs have there: of recipe, model, gpu, engine, provider or tag."""
        table = "tags" if column == "tag" else "experiments"
        with self._open() as db:
            found = db.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL")  # noqa: S608
            return sorted(row[0] for row in found)

    def results(self, run_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The whole results of these runs, in that order; of those that have none, nothing."""
        for text in self.result_texts(run_ids):
            if (result := _read(text)) is not None:
                yield result

    def result_texts(self, run_ids: Iterable[str]) -> Iterator[str | None]:
        """The same as JSON, unread; None for those that have none."""
        ids = list(run_ids)
        with self._open() as db:
            for begin in range(0, len(ids), 100):
                some = ids[begin : begin + 100]
                found = dict(chosen(db, some, "SELECT run_id, result FROM results WHERE run_id IN"))
                yield from (found.get(run_id) for run_id in some)

    def runs(self, *, limit: int | None = None, recipe: str | None = None) -> list[dict[str, Any]]:
        """The newest first, with their results. A run whose process is gone has the status "lost"."""
        where, arguments = ("WHERE recipe = ?", [recipe]) if recipe else ("", [])
        with self._open() as db:
            newest = f"{where} ORDER BY started_at DESC, rowid DESC LIMIT ?"
            return _with_results(db, _brief(db, newest, [*arguments, -1 if limit is None else limit]))

    def unfinished(self, recipe: str) -> list[str]:
        """The runs of this recipe since the last that was completed, the newest first; none that is still going on.

        Only this machine's: another's answers are not taken for one's own.
        """
        with self._open() as db:
            here = "recipe = ? AND origin IS NULL"
            completed = f"SELECT max(started_at) FROM experiments WHERE {here} AND status = 'completed'"  # noqa: S608
            since = db.execute(completed, (recipe,)).fetchone()[0] or ""
            found = _brief(
                db, f"WHERE {here} AND started_at >= ? ORDER BY started_at DESC, rowid DESC", [recipe, since]
            )
        statuses = [row["status"] for row in found]
        last = statuses.index("completed") if "completed" in statuses else len(found)
        return [row["run_id"] for row in found[:last] if row["status"] in UNFINISHED]

    def completed(self, *, model: str, engine: str, limit: int = 50) -> list[dict[str, Any]]:
        """Results of the newest runs of this model and engine that were completed, the newest first.

        Another machine's CPU, of which no more than a name is known, says nothing of this one's.
        """
        query = (
            "SELECT run_id FROM experiments WHERE status = 'completed' AND model = ? AND engine = ? "
            "AND (origin IS NULL OR gpu IS NOT NULL) "
            "ORDER BY started_at DESC, rowid DESC LIMIT ?"
        )
        with self._open() as db:
            run_ids = [row[0] for row in db.execute(query, (model, engine, limit))]
        return list(self.results(run_ids))

    def run(self, run_id: str) -> dict[str, Any] | None:
        """One run's row, as `runs` gives it."""
        with self._open() as db:
            found = _with_results(db, _brief(db, "WHERE run_id = ?", [run_id]))
        return found[0] if found else None


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 (whoever waits should know for what)


def _left_results(db: sqlite3.Connection, runs: Path) -> list[dict[str, Any]]:
    """Results of runs whose clients ended before they could write them here, as on a full disk."""
    going = db.execute("SELECT run_id FROM experiments WHERE status = 'running'")
    paths = [path for (run_id,) in going if (path := runs / run_id / "result.json").is_file()]
    gone = lost(db) if paths else ()
    left = [path for path in paths if path.parent.name in gone]
    found = ((path, _read(path.read_text(encoding="utf-8", errors="replace"))) for path in left)
    return [result for path, result in found if result and _is_end(result, path.parent.name)]


def _is_end(result: Mapping[str, Any], run_id: str) -> bool:
    outcome = result.get("outcome")
    ended = isinstance(outcome, dict) and outcome.get("status") in ("completed", "failed", "interrupted")
    return ended and result.get("run_id") == run_id


def lost(db: sqlite3.Connection) -> set[str]:
    """The runs that say they are going on, and whose processes have gone."""
    query = "SELECT run_id, pid, coalesce(adopted_at, started_at) FROM experiments WHERE status = 'running'"
    return lost_of(db.execute(query))


def _brief(db: sqlite3.Connection, rest: str, arguments: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of few columns, as plain data."""
    rows = db.execute(f"SELECT {_BRIEF} FROM experiments {rest}", arguments).fetchall()  # noqa: S608 (constants)
    found = [dict(zip(_BRIEF.split(", "), row, strict=True)) for row in rows]
    since = {row["run_id"]: row.pop("adopted_at") or row["started_at"] for row in found}
    gone = lost_of((row["run_id"], row["pid"], since[row["run_id"]]) for row in found if row["status"] == "running")
    return [{**row, "status": "lost" if row["run_id"] in gone else row["status"]} for row in found]


def _with_results(db: sqlite3.Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = [row["run_id"] for row in rows]
    texts = dict(chosen(db, ids, "SELECT run_id, result FROM results WHERE run_id IN"))
    return [{**row, "result": _read(texts.get(row["run_id"]))} for row in rows]


def _read(text: str | None) -> dict[str, Any] | None:
    """A result; None if there is none that can be read."""
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
