"""Reads GraphQL documents: operations with fields, arguments and variables. Fragments and directives are not known.

Grammar: https://spec.graphql.org/October2021/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r'(?P<skip>[\s,\ufeff]+|\#[^\n\r]*)|(?P<block>"""(?:\\"""|(?!""").)*""")|(?P<text>"(?:\\.|[^"\\\n\r])*")'
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[_A-Za-z]\w*)|(?P<sign>[!$()\[\]{}:=@|&]|\.\.\.)",
    re.DOTALL,
)
_WORDS = {"true": True, "false": False, "null": None}


class SyntaxProblem(Exception):
    """A document that cannot be read."""


@dataclass(frozen=True)
class Variable:
    name: str


@dataclass(frozen=True)
class Field:
    """A field as it is asked for."""

    name: str
    alias: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class Operation:
    kind: str
    fields: tuple[Field, ...]
    defaults: Mapping[str, Any]
    """Values of variables that are not given."""


def read(document: str, name: str | None = None) -> Operation:
    """The document's operation, or the one of this name. Raises SyntaxProblem."""
    reader = _Reader(document)
    operations: dict[str, Operation] = {}
    while reader.peek():
        given, operation = reader.operation()
        operations[given] = operation
    if name is not None:
        if name not in operations:
            raise SyntaxProblem(f'Unknown operation named "{name}".')
        return operations[name]
    if len(operations) != 1:
        raise SyntaxProblem("Must provide an operation.")
    return next(iter(operations.values()))


def filled_in(value: Any, variables: Mapping[str, Any]) -> Any:
    """A value with its variables replaced; object fields whose variable is not given are left out."""
    if isinstance(value, Variable):
        return variables.get(value.name)
    if isinstance(value, dict):
        missing = {k for k, v in value.items() if isinstance(v, Variable) and v.name not in variables}
        return {key: filled_in(item, variables) for key, item in value.items() if key not in missing}
    if isinstance(value, list):
        return [filled_in(item, variables) for item in value]
    return value


class _Reader:
    """Goes through the tokens."""

    def __init__(self, document: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(document):
            match = _TOKEN.match(document, at)
            if match is None:
                line = document.count("\n", 0, at) + 1
                raise SyntaxProblem(f"Syntax Error: Unexpected character: {document[at]!r} in line {line}.")
            assert match.lastgroup is not None
            if match.lastgroup != "skip":
                self._tokens.append((match.lastgroup, match.group()))
            at = match.end()
        self._at = 0

    def peek(self) -> str:
        """The next token; nothing at the end."""
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def operation(self) -> tuple[str, Operation]:
        if self.peek() == "{":
            return "", Operation("query", self._selection(), {})
        kind = self._name()
        if kind not in ("query", "mutation"):
            raise SyntaxProblem(f'Syntax Error: Unexpected Name "{kind}".')
        name = "" if self.peek() in ("{", "(") else self._name()
        defaults = {}
        if self._skip("("):
            while not self._skip(")"):
                self._expect("$")
                variable = self._name()
                self._expect(":")
                self._type()
                if self._skip("="):
                    defaults[variable] = self._value()
        return name, Operation(kind, self._selection(), defaults)

    def _selection(self) -> tuple[Field, ...]:
        self._expect("{")
        found = []
        while not self._skip("}"):
            name = alias = self._name()
            if self._skip(":"):
                name = self._name()
            arguments = {}
            if self._skip("("):
                while not self._skip(")"):
                    argument = self._name()
                    self._expect(":")
                    arguments[argument] = self._value()
            found.append(Field(name, alias, arguments, self._selection() if self.peek() == "{" else ()))
        return tuple(found)

    def _type(self) -> None:
        if self._skip("["):
            self._type()
            self._expect("]")
        else:
            self._name()
        self._skip("!")

    def _value(self) -> Any:
        if self._skip("$"):
            return Variable(self._name())
        if self._skip("["):
            items = []
            while not self._skip("]"):
                items.append(self._value())
            return items
        if self._skip("{"):
            fields = {}
            while not self._skip("}"):
                name = self._name()
                self._expect(":")
                fields[name] = self._value()
            return fields
        kind, token = self._next()
        if kind == "name":
            return _WORDS.get(token, token)
        if kind == "block":
            return token[3:-3].replace('\\"""', '"""').strip("\n")
        if kind in ("text", "number"):
            try:
                return json.loads(token)
            except ValueError:
                pass
        raise SyntaxProblem(f"Syntax Error: Unexpected {token!r}.")

    def _name(self) -> str:
        kind, token = self._next()
        if kind != "name":
            raise SyntaxProblem(f"Syntax Error: Expected Name, found {token!r}.")
        return token

    def _expect(self, sign: str) -> None:
        _, token = self._next()
        if token != sign:
            raise SyntaxProblem(f'Syntax Error: Expected "{sign}", found {token!r}.')

    def _skip(self, sign: str) -> bool:
        if not self.peek():
            raise SyntaxProblem("Syntax Error: Unexpected <EOF>.")
        if self._tokens[self._at] != ("sign", sign):
            return False
        self._at += 1
        return True

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise SyntaxProblem("Syntax Error: Unexpected <EOF>.")
        self._at += 1
        return self._tokens[self._at - 1]
