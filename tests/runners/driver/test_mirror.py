"""What a driver writes is told row by row: each once, whole, and with the client's own paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners.driver.mirror import Mirror
from runners.run_folder import RunFolder

ROOT = '/cache/provided/abc/fil"es ü'


class Listener:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        self.lines.append(data)

    def said(self) -> list[dict[str, Any]]:
        assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in self.lines)
        said = [json.loads(line) for line in self.lines]
        self.lines.clear()
        return said


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "r")


def add(folder: RunFolder, name: str, text: str) -> None:
    with (folder.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(text)


def test_each_row_is_told_once_and_only_when_it_is_whole(folder: RunFolder) -> None:
    listener = Listener()
    mirror = Mirror(folder, "", listener)
    mirror.tell()
    add(folder, "answers", '{"id": 1}\n{"id"')
    mirror.tell()
    assert listener.said() == [{"file": "answers", "row": {"id": 1}}]
    mirror.tell()
    assert listener.said() == []
    add(folder, "answers", ": 2}\n\n")
    mirror.tell()
    assert listener.said() == [{"file": "answers", "row": {"id": 2}}]


def test_an_output_is_told_before_the_row_that_names_it(folder: RunFolder) -> None:
    listener = Listener()
    mirror = Mirror(folder, "", listener)
    (folder.outputs / "a-0000.json").write_text('{"summary": "é"}\n')
    (folder.outputs / "b.md").write_text("unnamed")
    (folder.outputs / ".c.part").write_text("not yet")
    add(folder, "documents", '{"document": "a.txt", "output": "a-0000.json"}\n')
    mirror.tell()
    mirror.tell_all()
    assert listener.said() == [
        {"output": "a-0000.json", "text": '{"summary": "é"}\n'},
        {"file": "documents", "row": {"document": "a.txt", "output": "a-0000.json"}},
        {"output": "b.md", "text": "unnamed"},
    ]


@pytest.mark.parametrize("plain", [True, False])
def test_paths_are_told_as_the_client_knows_them(folder: RunFolder, plain: bool) -> None:
    listener = Listener()
    path = f"{ROOT}/home/ana/über.txt"
    row = {"id": f"{path}/1/0", "document": path, "output": "a.json"}
    (folder.outputs / "a.json").write_text(json.dumps({"document": path}, ensure_ascii=not plain))
    add(folder, "documents", json.dumps(row, ensure_ascii=not plain) + "\n")
    Mirror(folder, ROOT, listener).tell()
    output, told = listener.said()
    assert json.loads(output["text"]) == {"document": "/home/ana/über.txt"}
    assert told["row"] == {"id": "/home/ana/über.txt/1/0", "document": "/home/ana/über.txt", "output": "a.json"}
