"""Files on their way to a host and back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from provisioners.contract import Boot
from provisioners.shell.agent import Patience
from provisioners.shell.connection import Target
from provisioners.shell.fetching import Packed, unpack
from provisioners.shell.remote_host import RemoteHost
from recipes.errors import HostCommandFailed
from tests.emulators.sshd import Sshd, wire
from tests.provisioners.shell.booted import boot, end, using

real = pytest.mark.real


@real
def test_written(target: Target, machine: Path) -> None:
    async def work(host: RemoteHost) -> None:
        path = await host.write("deep/a file.json", '{"é": 1}')
        assert path == host.work_dir / "deep" / "a file.json"
        assert path.read_text() == '{"é": 1}'

    using(target, machine, work)


@real
def test_a_folder_is_sent_once(server: Sshd, target: Target, machine: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(6 << 20))
    (source / "config.json").write_text("{}")

    async def work(host: RemoteHost) -> None:
        line.cut_after(5 << 20)
        place = await host.provide(source)
        assert place.name == "model"
        assert place.is_relative_to(host.cache_dir)
        assert (place / "weights").read_bytes() == (source / "weights").read_bytes()
        before = line.carried
        assert await host.provide(source) == place
        assert line.carried - before < 1 << 20
        (source / "config.json").write_text('{"changed": 1}')
        other = await host.provide(source)
        assert other != place
        assert (place / "config.json").read_text() == "{}"

    with wire(server.port) as line:
        using(replace(target, port=line.port), machine, work)


@real
def test_a_file_keeps_its_name(target: Target, machine: Path, tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("print(1)")

    async def work(host: RemoteHost) -> None:
        place = await host.provide(tmp_path / "tool.py")
        assert place.name == "tool.py"
        assert place.read_text() == "print(1)"
        with pytest.raises(HostCommandFailed, match="cannot be read"):
            await host.provide(tmp_path / "not there")

    using(target, machine, work)


@real
def test_fetched(target: Target, machine: Path, tmp_path: Path) -> None:
    large = os.urandom(3 << 20)

    async def work(host: RemoteHost) -> None:
        (host.work_dir / "out" / "deep").mkdir(parents=True)
        (host.work_dir / "out" / "a.bin").write_bytes(large)
        (host.work_dir / "out" / "deep" / "b ü.txt").write_text("b")
        (host.work_dir / "leads out").symlink_to("/etc/passwd")
        into = tmp_path / "into"
        assert await host.fetch("out/**", into) == [into / "out/a.bin", into / "out/deep/b ü.txt"]
        assert (into / "out/a.bin").read_bytes() == large
        assert await host.fetch("nothing*", into) == []
        assert await host.fetch("leads out", into) == []
        assert list(into.iterdir()) == [into / "out"]

    using(target, machine, work)


@real
def test_fetched_after_a_cut(
    server: Sshd, target: Target, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts, progress = [server.kill_sessions], Patience.progress

    def progress_and_cut(patience: Patience) -> None:
        progress(patience)
        if cuts and any(path.stat().st_size for path in tmp_path.glob("into/.fetched-*/archive")):
            assert cuts.pop()()

    async def work(host: RemoteHost) -> None:
        (host.work_dir / "big").write_bytes(os.urandom(20 << 20))
        monkeypatch.setattr(Patience, "progress", progress_and_cut)
        assert await host.fetch("big", tmp_path / "into") == [tmp_path / "into" / "big"]
        assert cuts == []
        assert (tmp_path / "into" / "big").read_bytes() == (host.work_dir / "big").read_bytes()

    using(target, machine, work)


@real
def test_the_boots_files(target: Target, state: Path) -> None:
    async def work(host: RemoteHost) -> None:
        await host.ready_for(Boot(files={"a.json": '["{work}", "{cache}", "{python}"]', "b.txt": "{work}"}))
        written = json.loads((host.work_dir / "a.json").read_text())
        assert written == [str(host.work_dir), str(host.cache_dir), host.python]
        assert (host.work_dir / "b.txt").read_text() == "{work}"

    boot(state)
    (state / "booted").unlink()
    using(target, state, work)
    end(state)


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def packed(content: bytes) -> Packed:
    return Packed(len(content), hashlib.sha256(content).hexdigest())


def test_only_what_is_listed_is_unpacked(tmp_path: Path) -> None:
    source = archive(tmp_path / "a", ("wanted", b"1"), ("not wanted", b"2"))
    unpack(source, {"wanted": packed(b"1")}, tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["wanted"]


def test_a_file_that_shrank_while_it_was_packed(tmp_path: Path) -> None:
    source = archive(tmp_path / "a", ("log", b"12\0\0\0"))
    unpack(source, {"log": packed(b"12")}, tmp_path / "into")
    assert (tmp_path / "into" / "log").read_bytes() == b"12"


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out"])
def test_nothing_is_written_elsewhere(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "a", (name, b"1"))
    with pytest.raises(HostCommandFailed, match="no file of the work directory"):
        unpack(source, {name: packed(b"1")}, tmp_path / "into")
    assert not (tmp_path / "out").exists()


def test_what_is_damaged_missing_or_no_archive_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "a", ("a", b"1"))
    with pytest.raises(HostCommandFailed, match="did not arrive as it was"):
        unpack(source, {"a": packed(b"2")}, tmp_path / "into")
    with pytest.raises(HostCommandFailed, match="b did not come"):
        unpack(source, {"a": packed(b"1"), "b": packed(b"1")}, tmp_path / "into")
    content = os.urandom(100_000)
    whole = archive(tmp_path / "b", ("a", content)).read_bytes()
    for damaged in (whole[:50_000], whole[:50_000] + bytes(20_000) + whole[70_000:], b"no archive"):
        source.write_bytes(damaged)
        with pytest.raises(HostCommandFailed, match=r"cannot be unpacked|did not arrive"):
            unpack(source, {"a": packed(content)}, tmp_path / "into")
