"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provisioners.files import write_once, write_whole


def test_a_file_is_replaced_whole_and_is_its_owners_alone(tmp_path: Path) -> None:
    for text in ("one", "ein Büro"):
        write_whole(tmp_path / "file", text)
        assert (tmp_path / "file").read_text(encoding="utf-8") == text
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_whoever_comes_first_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links on this file system")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    for text in ("first", "second"):
        write_once(tmp_path / "file", text)
    assert (tmp_path / "file").read_text() == "first"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [write_whole, write_once])
def test_a_text_that_cannot_be_written_leaves_nothing(tmp_path: Path, write: object) -> None:
    assert callable(write)
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "file", "\udcff")
    assert list(tmp_path.iterdir()) == []
