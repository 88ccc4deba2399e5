"""A name that a stack makes once: it is in the stack's state before anything that bears it is asked for.

So that whoever goes on after a crash, from any computer, looks for the same name instead of asking for a second thing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, Resource

from stacks.providing import Provider, plain

STAMP = "%Y%m%d-%H%M%S"
_made: set[str] = set()
"""The ends of the names that this process has made: nobody can have asked for anything under one of them before."""


class UniqueNameProvider(Provider):
    """Asks nobody anything: the name is the clock's and chance's."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        now, suffix = datetime.now(UTC), secrets.token_hex(2)
        lasts_s = props.get("lasts_s")
        deadline = "" if lasts_s is None else (now + timedelta(seconds=lasts_s)).isoformat(timespec="seconds")
        stamp = now.strftime(STAMP)
        _made.add(f"{stamp}-{suffix}")
        made = {"stamp": stamp, "suffix": suffix, "made_at": now.isoformat(timespec="seconds"), "deadline": deadline}
        return CreateResult(f"{stamp}-{suffix}", {**_given(props), **made})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """A new name where what it is for has changed, or where its time is over."""
        replaces = ["keepers"] if _olds.get("keepers") != _news.get("keepers") else []
        if _is_over(str(_olds.get("deadline") or "")) or (not replaces and self.is_free(_olds, _news)):
            replaces.append("lasts_s")
        return DiffResult(changes=bool(replaces), replaces=replaces, delete_before_replace=False)

    def is_free(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        """Whether it is proven that nothing bears the name, so that another one with all of its time is had."""
        return False

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> Any:
        raise NotImplementedError("a name is kept or replaced, never changed")


class UniqueName(Resource, module="recipe", name="UniqueName"):
    """The parts of a name. Kept until `keepers` change, or `lasts_s` are over."""

    stamp: Output[str]
    """When it was made, UTC, as yyyymmdd-hhmmss."""
    suffix: Output[str]
    """Four hexadecimal digits."""
    made_at: Output[str]
    """ISO 8601."""
    deadline: Output[str]
    """ISO 8601; empty without `lasts_s`."""
    words: Output[dict[str, str]]
    """As they were when it was made, whoever goes on with it."""

    def __init__(
        self,
        name: str,
        *,
        keepers: Mapping[str, Input[Any]],
        lasts_s: Input[float] | None = None,
        words: Mapping[str, str] | None = None,
        provider: UniqueNameProvider | None = None,
        asks: Mapping[str, str] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """`keepers`: what bears the name is another thing once one of these has changed.

        `lasts_s`: from its creation on; how long a name lasts that exists already does not change.
        `words` belong to the name as well, such as whose it is; others make no other name.
        `asks`: what `provider` needs to know whether something bears it.
        """
        unknown = {"stamp": None, "suffix": None, "made_at": None, "deadline": None}
        props: dict[str, Any] = {
            "keepers": dict(keepers),
            "words": dict(words or {}),
            **(asks or {}),
            **({} if lasts_s is None else {"lasts_s": lasts_s}),
        }
        super().__init__(provider or UniqueNameProvider(), name, {**props, **unknown}, opts)


def made_here(name: str) -> bool:
    """Whether this process, and so this update, has made the unique end of the name."""
    return any(name.endswith(end) for end in _made)


def _given(props: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain(props).items() if value is not None}


def _is_over(deadline: str) -> bool:
    return bool(deadline) and datetime.fromisoformat(deadline) <= datetime.now(UTC)
