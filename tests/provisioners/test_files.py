"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioners.files import write_for_good, write_once, write_whole, written_whole


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_file_is_replaced_whole_and_is_its_owners_alone_if_it_is_to_be(
    tmp_path: Path, umask: None, private: bool, mode: int
) -> None:
    for content in ("one", "ein Büro", "ein Büro".encode()):
        write_whole(tmp_path / "file", content, private=private)
        assert (tmp_path / "file").read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_written_for_good_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[tuple[bool, bool]]()

    def fsync(handle: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_for_good(tmp_path / "file", "one")
    assert synced == [(False, False), (True, True)]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "old")
    with pytest.raises(TypeError), written_whole(tmp_path / "file") as file:
        file.writelines([b"new", None])  # type: ignore[list-item]
    assert (tmp_path / "file").read_text() == "old"
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
