"""Refusals: what the API says when it does not do what it was asked for, and the checks that lead there."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any


class AnswerLost(Exception):
    """The connection is closed without an answer."""


class Problem(Exception):
    """A request that is refused."""

    def __init__(
        self, status: int, detail: str, *, errors: Collection[str] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        title = HTTPStatus(self.status).phrase
        listed = {"errors": self.errors} if self.errors else {}
        return {"title": title, "status": self.status, "detail": self.detail, **listed}


class Checks:
    """Collects everything that is wrong with a body; paths look like $.gpu.id."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def raise_if_wrong(self) -> None:
        """Raises Problem 422 with everything that was found."""
        if self.errors:
            raise Problem(422, "Request validation failed.", errors=self.errors)

    def object(self, path: str, value: Any, allowed: Collection[str], required: Collection[str] = ()) -> dict[str, Any]:
        """The object's known fields; anything else, and what is missing, is wrong."""
        if not isinstance(value, dict):
            self.errors.append(f"{path}: must be an object")
            return {}
        unknown = [name for name in value if name not in allowed]
        if unknown:
            names = ", ".join(f"'{name}'" for name in unknown)
            self.errors.append(f"{path}: additional properties {names} not allowed")
        missing = [name for name in required if name not in value]
        if missing:
            names = ", ".join(f"'{name}'" for name in missing)
            self.errors.append(f"{path}: missing properties {names}")
        return {name: item for name, item in value.items() if name in allowed}

    def text(self, path: str, value: Any, *, least: int = 0, pattern: str | None = None) -> str:
        if not isinstance(value, str) or len(value) < least or (pattern and not re.search(pattern, value)):
            self.errors.append(f"{path}: must be a string" + (f" that matches {pattern}" if pattern else ""))
            return ""
        return value

    def whole(self, path: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
        wrong = isinstance(value, bool) or not isinstance(value, int)
        if wrong or (least is not None and value < least) or (most is not None and value > most):
            self.errors.append(f"{path}: must be an integer" + (f" of at least {least}" if least is not None else ""))
            return 0
        return int(value)

    def one_of(self, path: str, value: Any, allowed: Collection[str]) -> str:
        if value not in allowed:
            self.errors.append(f"{path}: value must be one of {', '.join(allowed)}")
            return ""
        return str(value)

    def flag(self, path: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.errors.append(f"{path}: must be a boolean")
        return bool(value)

    def items(self, path: str, value: Any, check: Callable[[str, Any], Any], *, most: int | None = None) -> list[Any]:
        if not isinstance(value, list) or (most is not None and len(value) > most):
            self.errors.append(f"{path}: must be an array" + (f" of at most {most}" if most is not None else ""))
            return []
        return [check(f"{path}[{index}]", item) for index, item in enumerate(value)]
