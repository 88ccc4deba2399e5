"""recipe split as a user calls it: tables, lines and documents of chunks, and what is wrong on one screen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from recipes import catalogue
from tests.conftest import RECIPE, Command

LEAD = str(catalogue.builtin_model("lead"))
BOOK = "".join(f"Sentence {i} of the book is here.\n{'' if i % 7 else chr(10)}" for i in range(900))


@pytest.fixture
def book(recipe: Command) -> Path:
    path = recipe.cwd / "book.txt"
    path.write_text(BOOK)
    return path


def test_a_table_has_a_row_for_each_file_and_one_for_all(recipe: Command, book: Path) -> None:
    (recipe.cwd / "note.txt").write_text("A short note.")
    ended = recipe("split", "*.txt", "--tokenizer", LEAD, "--chunk-size", "500")
    assert ended.returncode == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert rows[0] == ["file", "characters", "tokens", "chunks", "smallest", "median", "largest"]
    assert [row[0] for row in rows[1:]] == ["book.txt", "note.txt", "total"]
    assert int(rows[3][3]) == int(rows[1][3]) + 1
    assert "at most 500 tokens a chunk, 125 shared" in ended.stderr


def test_each_chunk_comes_as_a_line_that_says_where_it_lies(recipe: Command, book: Path) -> None:
    ended = recipe("split", "book.txt", "--chunk-size", "300", "--chunk-overlap", "0", "--jsonl")
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(rows) > 10
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert all(row["text"] == BOOK[row["start"] : row["end"]] and row["tokens"] <= 300 for row in rows)
    assert "".join("".join(row["text"] for row in rows).split()) == "".join(BOOK.split())


def test_one_document_holds_files_total_and_spans(recipe: Command, book: Path) -> None:
    ended = recipe("split", "book.txt", "--chunk-size", "300", "--balanced", "--whole-sentences", "--json")
    document = json.loads(ended.stdout)
    (file,) = document["files"]
    assert file["chunks"] == len(file["spans"]) == document["total"]["chunks"]
    sizes = [span["tokens"] for span in file["spans"]]
    assert (file["chunk_tokens"]["min"], file["chunk_tokens"]["max"]) == (min(sizes), max(sizes))
    assert max(sizes) <= 300
    assert min(sizes) > 200
    assert all(BOOK[span["start"] :].startswith("Sentence ") for span in file["spans"])


def test_a_text_may_come_through_a_pipe(recipe: Command, book: Path) -> None:
    argv = [str(RECIPE), "split", "-", "--jsonl"]
    ended = subprocess.run(argv, input=BOOK, capture_output=True, text=True, env=recipe.environment(), timeout=60)
    assert {json.loads(line)["file"] for line in ended.stdout.splitlines()} == {"-"}
    assert ended.stdout.count("\n") > 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing.txt"], 2, "nothing.txt: no such file"),
        (["."], 2, "is a folder"),
        (["empty.txt"], 2, "empty.txt is empty"),
        (["latin.txt", "blank.txt"], 2, "latin.txt: 1 problem\n  not UTF-8: byte 3 is 0xe9; save it as UTF-8"),
        (["latin.txt", "blank.txt"], 2, "blank.txt: 1 problem\n  only white space; remove it"),
        (["book.txt", "--chunk-overlap", "3000"], 2, "smaller than --chunk-size 3000"),
        (["book.txt", "--chunk-overlap", "-1"], 2, "must be at least 0"),
        (["book.txt", "--chunk-size", "1"], 2, "must be at least 2"),
        (["book.txt", "--chunk-size", "0"], 2, "whole number of at least 1"),
        (["book.txt", "--seperators", "sentences"], 2, "did you mean --separators?"),
        (["book.txt", "--json", "--jsonl"], 2, "not allowed with"),
        (["book.txt", "--tokenizer", "nowhere.json"], 2, "nowhere.json: no tokenizer there"),
        (["book.txt", "--tokenizer", "book.txt"], 2, "not a tokenizer"),
        ([], 2, "required"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(
    recipe: Command, book: Path, arguments: list[str], code: int, words: str
) -> None:
    (recipe.cwd / "empty.txt").write_text("")
    (recipe.cwd / "blank.txt").write_text(" \n ")
    (recipe.cwd / "latin.txt").write_bytes(b"caf\xe9")
    ended = recipe("split", *arguments)
    assert ended.returncode == code
    assert words in ended.stderr
    assert ended.stdout == "" or "--json" in arguments
    assert "Traceback" not in ended.stderr
