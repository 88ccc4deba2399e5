"""YAML that a recipe must not hold is refused at its place; anything else is read, and nothing else happens."""

from __future__ import annotations

import contextlib
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.errors import InvalidRecipe
from recipes.source import Node, parse, read_text


def tree_of(text: str) -> Node:
    return parse(text, file="r.yaml", base=Path())


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidRecipe) as caught:
        tree_of(text)
    return [str(problem) for problem in caught.value.problems]


def bomb(levels: int = 9) -> str:
    """Nine levels of nine aliases each: a few hundred bytes that stand for 387 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def ladder(rungs: int) -> str:
    """Each value holds the one before: deep only once the aliases are followed."""
    return "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, rungs))


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("# nothing but a comment\n", None),
        ("a: 1\r\nb: two\r\n", {"a": 1, "b": "two"}),
        ("a: [yes, no, on, off, y, n]", {"a": ["yes", "no", "on", "off", "y", "n"]}),
        ("a: [true, False, ~, null]", {"a": [True, False, None, None]}),
        ("a: [1e-3, .5, -2, +3, 1_000]", {"a": [0.001, 0.5, -2, 3, 1000]}),
        ("a: [2024-01-01, 12:30:45, 0x10, 1.2.3]", {"a": ["2024-01-01", "12:30:45", "0x10", "1.2.3"]}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("on: 1\nünï.cödé: ☃", {"on": 1, "ünï.cödé": "☃"}),
        ('"1": x\n"<<": y', {"1": "x", "<<": "y"}),
        (f"{'k' * 1000}: v", {"k" * 1000: "v"}),
        (f"a: {'9' * 5000}", {"a": "9" * 5000}),
        ("[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", reduce(lambda inner, _: [inner], range(19), [])),
    ],
)
def test_reads_what_yaml_means(text: str, data: Any) -> None:
    assert tree_of(text).data() == data


def test_a_node_knows_where_it_and_its_key_were_written() -> None:
    node = tree_of("a:\n  - b: 0.30\n").find(("a", 0, "b"))
    assert node.key_mark
    assert (node.mark.line, node.mark.column, node.key_mark.column) == (2, 8, 5)
    assert (node.value, node.written) == (0.3, "0.30")


def test_the_nearest_node_stands_in_for_one_that_is_missing() -> None:
    tree = tree_of("a:\n  b: [1]\n")
    assert tree.find(("a", "x", "y")).mark.line == 2
    assert tree.find(("a", "b", 7)).mark.column == 6


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "r.yaml:3:1 a: duplicate key, first on line 1; keep one"),
        ("a: {b: 1, b: 2}", "r.yaml:1:11 a.b: duplicate key, first on line 1; keep one"),
        ("1: x", "r.yaml:1:1: a key must be text; put it in quotes"),
        ("a: {true: x}", "r.yaml:1:5 a: a key must be text; put it in quotes"),
        ("~: x", "r.yaml:1:1: a key must be text; put it in quotes"),
        ("? [a]\n: b", "r.yaml:1:3: a key must be text; put it in quotes"),
        (
            "x: &x {a: 1}\ny:\n  <<: *x",
            "r.yaml:3:3 y: merge keys are not allowed; write the values out, or use extends",
        ),
        ("a: &a [*a]", "r.yaml:1:4 a[0]: an alias of itself; write the values out"),
        ("a: &a {b: *a}", "r.yaml:1:4 a.b: an alias of itself; write the values out"),
        ("a: .nan", "r.yaml:1:4 a: .nan: not a finite number"),
        ("a: [-.inf]", "r.yaml:1:5 a[0]: -.inf: not a finite number"),
        ("a: 1e999", "r.yaml:1:4 a: 1e999: not a finite number"),
        ("a: *b", "r.yaml:1:4: not YAML: found undefined alias 'b'"),
        ("a: &x 1\nb: &x 2", "r.yaml:2:4: not YAML: found duplicate anchor 'x'"),
        (
            "a: 1\n---\nb: 2",
            "r.yaml:2:1: not YAML: expected a single document in the stream, but found another document",
        ),
        ("a: 1\n\tb: 2", "r.yaml:2:1: not YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: 'b", "r.yaml:1:6: not YAML: found unexpected end of stream"),
        ("a: [*.txt]", "put text that begins with * in quotes"),
        ("a: b: c", "r.yaml:1:5: not YAML: mapping values are not allowed here"),
        ("ab\ncd\0", "r.yaml:2:3: not YAML: U+0000 is not allowed"),
        ('a: "\\ud800"', "r.yaml:1:4: U+D800 is not text; remove it"),
        ('a: "x\\0"', "r.yaml:1:4: U+0000 is not text; remove it"),
        ('a: "\\U00110000"', "r.yaml:1:7: not YAML: there is no such character"),
        ('a: "\\UFFFFFFFF"', "r.yaml:1:7: not YAML: there is no such character"),
        ("%YAML 2.0\n---\na: 1", "r.yaml:1:1: not YAML: found incompatible YAML document"),
    ],
)
def test_refuses_with_the_place_and_the_way_out(text: str, problem: str) -> None:
    (found,) = problems_of(text)
    assert problem in found


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system", "!mine", "!", "!!str", "!!timestamp", "!!int", "!!bool", "!!binary", "!!set"],
)
def test_refuses_every_tag_whatever_it_would_do(tag: str) -> None:
    problems = problems_of(f'a: {tag} "x"\nb: {tag} ""\n')
    assert [p.split(" ")[0] for p in problems] == ["r.yaml:1:4:", "r.yaml:2:4:"]
    assert all("YAML tags are not allowed; remove the word that begins with !" in p for p in problems)


def test_reports_tags_duplicates_and_keys_together() -> None:
    text = "a: !x 1\nb: 1\nb: 2\n3: c\n"
    assert [problem.split(" ")[0] for problem in problems_of(text)] == ["r.yaml:1:4:", "r.yaml:3:1", "r.yaml:4:1:"]


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    (problem,) = problems_of(bomb())
    assert "aliases expand to more than 20,000 values" in problem


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "{a: " * 5000, "- " * 5000 + "x", "? " * 5000 + "x", "[{a: " * 3000, ladder(190), ladder(2000)],
    ids=["lists", "mappings", "dashes", "keys", "both", "ladder", "long-ladder"],
)
def test_deep_nesting_is_refused_not_followed(text: str) -> None:
    assert all("nested more than 50 deep" in p or "more than 20,000 values" in p for p in problems_of(text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ä".encode("latin-1"), "r.yaml: not UTF-8: byte 0 is 0xe4; save the file as UTF-8"),
        ("name: a".encode("utf-16"), "r.yaml: not UTF-8: byte 0 is 0xff; save the file as UTF-8"),
        (None, "r.yaml: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(InvalidRecipe) as caught:
        read_text(tmp_path / "r.yaml")
    assert str(caught.value).endswith(message)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_text(path) == "a: 1"


CHARACTERS = "ab1~é[]{},#%?|>:\"' \n\t\r\0"
WORDS = [": ", "- ", "? ", ".5", ".nan", "<<", "&a ", "*a", "!!int ", "!x ", "---\n", "...\n", "\\ud800", "\\U", "\\x"]
YAMLISH = st.lists(st.sampled_from([*CHARACTERS, *WORDS]), max_size=40).map("".join)


@given(st.text() | YAMLISH)
def test_any_text_is_read_or_refused_as_a_recipe(text: str) -> None:
    with contextlib.suppress(InvalidRecipe):
        tree_of(text).data()
