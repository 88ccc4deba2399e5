"""YAML text to a tree that remembers where each thing was written, refusing what a recipe must not hold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from recipes.errors import InvalidRecipe, Problem

MAX_NODES = 20_000
MAX_DEPTH = 50
_STRING = "tag:yaml.org,2002:str"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
# Codes of problems after which the tree is not the file any more.
_LOSING = ("alias", "depth", "encoding")
_TOO_DEEP = (f"nested more than {MAX_DEPTH} deep", "a recipe needs a few levels only")


@dataclass(frozen=True)
class Mark:
    """A place in a file or on the command line. Relative paths written there start at `base`."""

    file: str
    line: int
    column: int
    base: Path


@dataclass(frozen=True)
class Node:
    """A value with its place; a mapping's children carry the places of their keys as well."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    mark: Mark
    key_mark: Mark | None = None
    written: str = ""
    """A scalar as it stands in the file: 0.30 where the value is 0.3."""

    def data(self) -> Any:
        """The plain Python value."""
        if isinstance(self.value, dict):
            return {key: child.data() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.data() for child in self.value]
        return self.value

    def places(self, above: str = "") -> dict[str, str]:
        """Where each value of a mapping is written, by its dotted path."""
        found: dict[str, str] = {}
        for key, child in (self.value if isinstance(self.value, dict) else {}).items():
            path = f"{above}.{key}" if above else key
            found |= {path: f"{child.mark.file}:{child.mark.line}:{child.mark.column}", **child.places(path)}
        return found

    def find(self, path: tuple[str | int, ...]) -> Node:
        """The node at the path, or the nearest one above it that exists."""
        node = self
        for step in path:
            below = node.child(step)
            if below is None:
                break
            node = below
        return node

    def child(self, step: str | int) -> Node | None:
        """The node under a key or an index."""
        if isinstance(self.value, dict):
            return self.value.get(step) if isinstance(step, str) else None
        if isinstance(self.value, list) and isinstance(step, int) and step < len(self.value):
            return self.value[step]
        return None


class _Loader(yaml.SafeLoader):
    """YAML's core schema: no dates, no base-60 numbers, and 1e-3 is a number."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def read_text(path: Path) -> str:
    """The file's text. Raises InvalidRecipe if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise InvalidRecipe(
            [Problem(file=str(path), code="encoding", message=message, suggestion="save the file as UTF-8")]
        ) from None
    except OSError as error:
        raise InvalidRecipe(
            [Problem(file=str(path), code="unreadable", message=error.strerror or str(error))]
        ) from None


def parse(text: str, *, file: str, base: Path, problems: list[Problem] | None = None) -> Node:
    """Parse one YAML document into a tree; an empty one is null.

    Raises InvalidRecipe with the syntax error, or with every tag, duplicate key and non-text key found. Those are added
    to `problems` instead, if it is given, so that the reader can go on and find what else is wrong.
    """
    reader = _Reader(file, base)
    try:
        reader.survey(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InvalidRecipe([_syntax_problem(error, file, text)]) from None
    node = reader.read(root) if root else Node(None, Mark(file, 1, 1, base))
    lost = any(problem.code in _LOSING for problem in reader.problems)
    if reader.problems and (problems is None or lost):
        raise InvalidRecipe(reader.problems)
    if problems is not None:
        problems.extend(reader.problems)
    return node


class _Reader:
    def __init__(self, file: str, base: Path) -> None:
        self.file, self.base = file, base
        self.problems: list[Problem] = []
        self.nodes = 0
        self.scalars = _Loader("")

    def mark(self, at: yaml.Mark) -> Mark:
        return Mark(self.file, at.line + 1, at.column + 1, self.base)

    def complain(self, at: yaml.Mark, code: str, message: str, suggestion: str = "", path: str = "") -> None:
        self.problems.append(
            Problem(
                file=self.file,
                line=at.line + 1,
                column=at.column + 1,
                path=path,
                code=code,
                message=message,
                suggestion=suggestion,
            )
        )

    def survey(self, text: str) -> None:
        """Find tags and what is no text; stop before the parser does where the text nests too deep for it."""
        loader, depth = _Loader(text), 0
        try:
            while token := loader.get_token():  # type: ignore[no-untyped-call]
                depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
                if depth > MAX_DEPTH:
                    self.complain(token.start_mark, "depth", *_TOO_DEEP)
                    raise InvalidRecipe(self.problems)
                if isinstance(token, yaml.TagToken):
                    what = "YAML tags are not allowed"
                    self.complain(token.start_mark, "tag", what, "remove the word that begins with !")
                elif isinstance(token, yaml.ScalarToken) and (found := _NO_TEXT.search(token.value)):
                    self.complain(token.start_mark, "encoding", f"U+{ord(found[0]):04X} is not text", "remove it")
        except (ValueError, OverflowError):  # from chr()
            raise ScannerError(None, None, "there is no such character", loader.get_mark()) from None

    def read(self, node: yaml.Node, path: str = "", above: tuple[int, ...] = ()) -> Node:
        mark = self.mark(node.start_mark)
        self.nodes += 1
        if self.nodes == MAX_NODES or id(node) in above:
            why = f"aliases expand to more than {MAX_NODES:,} values" if id(node) not in above else "an alias of itself"
            self.complain(node.start_mark, "alias", why, "write the values out", path)
        if self.nodes >= MAX_NODES or id(node) in above:
            return Node(None, mark)
        above = (*above, id(node))
        if len(above) > 2 * MAX_DEPTH:  # a file may hold half of it in aliases
            self.complain(node.start_mark, "depth", *_TOO_DEEP, path)
            return Node(None, mark)
        if isinstance(node, yaml.MappingNode):
            return Node(dict(self.children(node, path, above)), mark)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.read(child, f"{path}[{i}]", above) for i, child in enumerate(node.value)], mark)
        return Node(self.scalar(node, path), mark, written=node.value)

    def children(self, node: yaml.MappingNode, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Node]]:
        seen: dict[str, yaml.Mark] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _STRING:
                self.complain(key.start_mark, "key", "a key must be text", "put it in quotes", path)
                continue
            if key.value == "<<" and key.style is None:
                what = "write the values out, or use extends"
                self.complain(key.start_mark, "key", "merge keys are not allowed", what, path)
                continue
            here = f"{path}.{key.value}" if path else key.value
            if key.value in seen:
                first = seen[key.value].line + 1
                self.complain(key.start_mark, "duplicate", f"duplicate key, first on line {first}", "keep one", here)
                continue
            seen[key.value] = key.start_mark
            yield key.value, replace(self.read(value, here, above), key_mark=self.mark(key.start_mark))

    def scalar(self, node: yaml.Node, path: str) -> Any:
        try:
            value = self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):  # a tag that does not fit its text
            return node.value
        if isinstance(value, float) and not math.isfinite(value):
            self.complain(node.start_mark, "value", f"{node.value}: not a finite number", path=path)
        return value


def _syntax_problem(error: yaml.YAMLError, file: str, text: str) -> Problem:
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        what = f"U+{ord(text[error.position]):04X} is not allowed"
    else:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    context = getattr(error, "context", None) or ""
    if context.startswith(("expected a single document", "found duplicate anchor")):
        what = f"{context}, {what}".removesuffix("; first occurrence, second occurrence")
    suggestion = "indent with spaces" if "\\t" in what else ""
    if context.endswith("an alias"):
        suggestion = "put text that begins with * in quotes"
    return Problem(
        file=file, line=line, column=column, code="syntax", message=f"not YAML: {what}", suggestion=suggestion
    )
