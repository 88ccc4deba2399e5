"""Puts a recipe together before it is validated: `extends`, `--set` and `matrix`, on trees that know their places."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recipes import catalogue
from recipes.errors import InvalidRecipe, Problem
from recipes.explain import did_you_mean, problem_at
from recipes.source import MAX_DEPTH, Node, parse, read_text

MATRIX_LIMIT = 1000
# The code of a problem with `extends`: what the parent would have brought is missing.
EXTENDS = "extends"


@dataclass(frozen=True)
class Variant:
    """One run of a matrix: what it sets, and the tree with that set."""

    settings: dict[str, Any]
    tree: Node


def locate(reference: str, base: Path) -> Path:
    """The file that a reference means: a path, else a catalogue name. Raises InvalidRecipe."""
    try:
        path = base / Path(reference).expanduser()
        if path.is_file():
            return path
        if known := catalogue.recipe_path(reference):
            return known
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, the home of nobody
        what = getattr(error, "strerror", None) or str(error)
        raise InvalidRecipe([Problem(file=reference, code="not-found", message=what)]) from None
    if is_folder:
        problem = Problem(file=reference, code="not-found", message="is a folder", suggestion="name a file in it")
    else:
        hint = did_you_mean(Path(reference).name.removesuffix(".yaml"), catalogue.names())
        problem = Problem(
            file=reference,
            code="not-found",
            message="no such file, and no recipe of this name in the catalogue",
            suggestion=hint or "see recipe list",
        )
    raise InvalidRecipe([problem])


def read_tree(path: Path, problems: list[Problem], chain: tuple[Path, ...] = ()) -> Node:
    """The file's tree, merged over the ones it extends.

    What is wrong with it is added to `problems`, a cycle or a missing parent too; the tree is then what could be read.
    Raises InvalidRecipe if that is nothing.
    """
    tree = parse(read_text(path), file=_shown(path), base=path.parent, problems=problems)
    if tree.value is None:
        tree = replace(tree, value={})
    if not isinstance(tree.value, dict):
        raise InvalidRecipe([problem_at(tree.mark, (), "type", "a recipe is a mapping", "begin with name: …")])
    own = Node({key: child for key, child in tree.value.items() if key != "extends"}, tree.mark)
    parent = tree.value.get("extends")
    if parent is None:
        return own
    chain = (*chain, path.resolve())
    try:
        return merge(read_tree(_parent_of(parent, path, chain), problems, chain), own)
    except InvalidRecipe as error:
        problems.extend(error.problems)
        return own


def _parent_of(parent: Node, path: Path, chain: tuple[Path, ...]) -> Path:
    """The file that `extends` means. Raises InvalidRecipe."""
    if not isinstance(parent.value, str):
        raise InvalidRecipe([problem_at(parent.mark, ("extends",), EXTENDS, "must be a path or a catalogue name")])
    try:
        above = locate(parent.value, path.parent)
    except InvalidRecipe as error:
        found = error.problems[0]
        what = f"{parent.value}: {found.message}"
        raise InvalidRecipe([problem_at(parent.mark, ("extends",), EXTENDS, what, found.suggestion)]) from None
    if above.resolve() in chain:
        cycle = " → ".join(p.name for p in (*chain, above))
        raise InvalidRecipe([problem_at(parent.mark, ("extends",), EXTENDS, f"extends itself: {cycle}")])
    return above


def merge(below: Node, above: Node) -> Node:
    """Mappings are merged key by key; anything else is replaced."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged = dict(below.value)
    for key, child in above.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, above.mark, above.key_mark)


def apply_overrides(tree: Node, overrides: Sequence[str], base: Path) -> Node:
    """The tree with each `a.b=value` set; values are YAML. Raises InvalidRecipe."""
    problems: list[Problem] = []
    for text in overrides:
        path, equals, value = text.partition("=")
        label = f"--set {text}"
        if not equals or not path.strip():
            problems.append(
                Problem(
                    file=label,
                    code="override",
                    message="not PATH=VALUE",
                    suggestion="write --set workload.concurrency=8",
                )
            )
            continue
        try:
            tree = assign(tree, path.strip(), parse(value, file=label, base=base))
        except InvalidRecipe as error:
            problems.extend(replace(p, path=p.path or path) for p in error.problems)
    if problems:
        raise InvalidRecipe(problems)
    return tree


def assign(tree: Node, path: str, value: Node) -> Node:
    """The tree with the value at a dotted path such as `resources.any_of[0].cloud`. Raises InvalidRecipe."""
    words = [word for word in re.split(r"\.|\[|\]\.?", path) if word != ""]
    if not 0 < len(words) <= MAX_DEPTH:
        problem = problem_at(value.mark, (path,), "override", f"{path!r}: not a path", "write workload.concurrency")
        raise InvalidRecipe([problem])
    steps = tuple(int(word) if re.fullmatch("[0-9]{1,9}", word) else word for word in words)
    return _assigned(tree, steps, value, path)


def _assigned(node: Node, steps: tuple[str | int, ...], value: Node, path: str) -> Node:
    if not steps:
        return replace(value, key_mark=node.key_mark or value.mark)
    step, rest = steps[0], steps[1:]
    if isinstance(step, int) and isinstance(node.value, list):
        if step >= len(node.value):
            size = len(node.value)
            message = f"the list has only {size} {'entry' if size == 1 else 'entries'}"
            raise InvalidRecipe([problem_at(value.mark, (path,), "override", message)])
        children = list(node.value)
        children[step] = _assigned(children[step], rest, value, path)
        return replace(node, value=children)
    if isinstance(node.value, dict) or node.value is None:
        mapping = dict(node.value or {})
        mapping[str(step)] = _assigned(mapping.get(str(step), Node(None, value.mark, value.mark)), rest, value, path)
        return replace(node, value=mapping)
    raise InvalidRecipe([problem_at(value.mark, (path,), "override", f"there is no {step} in it", "see recipe schema")])


def expand_matrix(tree: Node, *, any_size: bool) -> list[Variant]:
    """One variant per run of the matrix; a single one without a matrix. Raises InvalidRecipe.

    Axes are dotted paths with lists of values. `exclude` drops each combination that has all the values of one of its
    entries; `include` adds each of its entries as a run.
    """
    assert isinstance(tree.value, dict)
    matrix = tree.value.get("matrix")
    rest = Node({key: child for key, child in tree.value.items() if key != "matrix"}, tree.mark)
    if matrix is None:
        return [Variant({}, rest)]
    axes, include, exclude = _axes(matrix)
    size = math.prod(len(values) for values in axes.values()) * bool(axes) + len(include)
    if size > MATRIX_LIMIT and not any_size:
        message = f"{size:,} runs, more than {MATRIX_LIMIT:,}"
        suggestion = "narrow an axis, or say --yes if you mean it"
        raise InvalidRecipe([problem_at(matrix.mark, ("matrix",), "matrix-size", message, suggestion)])
    runs = [
        combination for combination in _product(axes) if not any(_covers(e, combination) for e in exclude)
    ] + include
    if not runs:
        raise InvalidRecipe([problem_at(matrix.mark, ("matrix",), "empty", "no run is left", "loosen exclude")])
    return [_variant(rest, run) for run in runs]


Settings = dict[str, Node]


def _axes(matrix: Node) -> tuple[dict[str, list[Node]], list[Settings], list[Settings]]:
    """The axes, and the entries of include and exclude. Raises InvalidRecipe with everything that is wrong."""
    if not isinstance(matrix.value, dict):
        raise InvalidRecipe([problem_at(matrix.mark, ("matrix",), "type", "must be a mapping of paths to lists")])
    problems: list[Problem] = []
    axes: dict[str, list[Node]] = {}
    entries: dict[str, list[Settings]] = {"include": [], "exclude": []}
    for key, child in matrix.value.items():
        if not isinstance(child.value, list) or not child.value:
            what = "must be a list with at least one entry"
            problems.append(problem_at(child.mark, ("matrix", key), "type", what))
        elif key in entries:
            entries[key] = list(_settings(key, child.value, problems))
        else:
            axes[key] = child.value
    for i, settings in enumerate(entries["exclude"]):
        for key, value in settings.items():
            if key not in axes:
                mark, place = value.key_mark or value.mark, ("matrix", "exclude", i)
                problems.append(problem_at(mark, place, "unknown", f"{key} is not an axis", did_you_mean(key, axes)))
    if problems:
        raise InvalidRecipe(problems)
    return axes, entries["include"], entries["exclude"]


def _settings(key: str, nodes: list[Node], problems: list[Problem]) -> Iterator[Settings]:
    for i, node in enumerate(nodes):
        if isinstance(node.value, dict) and node.value:
            yield node.value
        else:
            problems.append(problem_at(node.mark, ("matrix", key, i), "type", "must be a mapping of paths to values"))


def _product(axes: dict[str, list[Node]]) -> Iterator[dict[str, Node]]:
    if axes:
        for values in itertools.product(*axes.values()):
            yield dict(zip(axes, values, strict=True))


def _covers(entry: dict[str, Node], combination: dict[str, Node]) -> bool:
    return all(key in combination and combination[key].data() == value.data() for key, value in entry.items())


def _variant(tree: Node, run: dict[str, Node]) -> Variant:
    for path, value in run.items():
        tree = assign(tree, path, value)
    return Variant({path: value.data() for path, value in run.items()}, tree)


def _shown(path: Path) -> str:
    """The path as people type it: relative to where they are, if that is shorter."""
    try:
        relative = str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)
