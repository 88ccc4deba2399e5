"""Plans recipes and shows what came of it: one on a screen, several in a table, or one JSON document."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recipes.errors import ExitCode, Refused
from recipes.load import LoadedRecipe
from recipes.ranges import Range
from runners import registry
from runners.cli.common import console, print_json
from runners.cli.repeating import carrying
from runners.plan_document import document_of, refused_document
from runners.planning import make_plan
from runners.preflight.explanations import explanation

if TYPE_CHECKING:
    from rich.console import RenderableType

    from runners.forecast.month import MonthBudget


async def plan_all(
    loaded: tuple[LoadedRecipe, ...],
    *,
    as_json: bool,
    forced: Sequence[str] = (),
    explained: Sequence[str] = (),
    budget: MonthBudget | None = None,
    repeat: int = 1,
) -> int:
    """Plan every recipe, also after one that is refused, and show them. Returns the first exit code that is not 0.

    The runs of all of them together, each `repeat` times, are held against the `budget`.

    Raises UsageError for a word of `explained` that nobody explains, before anything is planned.
    """
    told = [(word, [_explanation(word, one) for one in loaded]) for word in explained]
    documents = []
    for one in loaded:
        document = await plan_document(one, forced, budget)
        documents.append(carrying(document, repeat, budget.limit_usd if budget else None))
        if budget and (usd := (documents[-1]["forecast"] or {}).get("total_usd")):
            budget = budget.after(Range(**usd), one.recipe.limits)
    if as_json:
        notes = [{"code": word, "texts": sorted(set(texts))} for word, texts in told]
        again = {"repeat": repeat} if repeat > 1 else {}
        print_json({"plans": documents, **again, **({"explanations": notes} if notes else {})})
    else:
        from runners.terminal.layout import width_of

        out = console()
        for line in _lines(documents, told, width_of(out), repeat):
            out.print(line)
    codes: Iterable[int] = (document["exit_code"] for document in documents)
    return next((code for code in codes if code), ExitCode.DONE)


async def plan_document(
    one: LoadedRecipe, forced: Sequence[str] = (), budget: MonthBudget | None = None
) -> dict[str, Any]:
    """A recipe's plan as plain data, also where its model cannot be had."""
    try:
        return document_of(await make_plan(one, os.environ, forced=forced, budget=budget))
    except Refused as error:
        return refused_document(one, error, os.environ)


def _explanation(word: str, one: LoadedRecipe) -> str:
    return explanation(word, registry.engine(one.recipe.engine.name))


def _lines(
    documents: list[dict[str, Any]], told: list[tuple[str, list[str]]], width: int | None, repeat: int
) -> Iterator[RenderableType]:
    from runners.terminal.explain_view import explanation_lines
    from runners.terminal.matrix_view import plans_lines
    from runners.terminal.plan_view import plan_lines

    if told:
        for word, texts in told:
            yield from explanation_lines(word, texts, documents, width)
    elif len(documents) == 1:
        yield from plan_lines(documents[0], width, repeat=repeat)
    else:
        yield from plans_lines(documents, width, repeat=repeat)
