"""Files and folders on their way to a machine."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from provisioners.shell.connection import Lost, Shell, Target
from provisioners.shell.upload import digest, folder
from recipes.errors import HostCommandFailed
from tests.emulators.sshd import Sshd, Wire, wire

pytestmark = pytest.mark.real


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder of the machine."""
    return tmp_path / "there"


def using(target: Target, work: Callable[[Shell], Awaitable[None]], *, silence_s: float = 30) -> None:
    async def main() -> None:
        shell = Shell(target, connect_timeout_s=30, silence_s=silence_s)
        try:
            await asyncio.wait_for(work(shell), 60)
        finally:
            await shell.close()

    asyncio.run(main())


def tree(path: Path) -> dict[str, tuple[bytes, int]]:
    """What a folder holds: content and mode by name."""
    files = (one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): (one.read_bytes(), stat.S_IMODE(one.stat().st_mode)) for one in files}


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(3 << 20)], ids=["empty", "small", "large"])
def test_a_file_arrives_with_its_mode(target: Target, tmp_path: Path, there: Path, content: bytes) -> None:
    source = tmp_path / "it's a file"
    source.write_bytes(content)
    source.chmod(0o751)
    using(target, lambda shell: shell.put_file(source, str(there / "deep" / "a $file")))
    assert tree(there) == {"deep/a $file": (content, 0o751)}


def test_a_file_replaces_what_was_there(target: Target, tmp_path: Path, there: Path) -> None:
    there.mkdir()
    (there / "file").write_bytes(b"old and longer")
    (tmp_path / "new").write_bytes(b"new")
    using(target, lambda shell: shell.put_file(tmp_path / "new", str(there / "file")))
    assert (there / "file").read_bytes() == b"new"


def test_after_a_cut_only_the_rest_is_sent(server: Sshd, target: Target, tmp_path: Path, there: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(24 << 20))

    async def work(shell: Shell) -> None:
        line.cut_after(16 << 20)
        with pytest.raises(Lost):
            await shell.put_file(source, str(there / "file"))
        assert not (there / "file").exists()
        before = line.carried
        await shell.put_file(source, str(there / "file"))
        assert line.carried - before < 16 << 20

    with wire(server.port) as line:
        using(replace(target, port=line.port), work)
    assert tree(there) == {"file": (source.read_bytes(), stat.S_IMODE(source.stat().st_mode))}


def test_another_content_is_not_mixed_with_what_was_cut(
    server: Sshd, target: Target, tmp_path: Path, there: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(24 << 20))

    async def work(shell: Shell) -> None:
        line.cut_after(16 << 20)
        with pytest.raises(Lost):
            await shell.put_file(source, str(there / "file"))
        source.write_bytes(os.urandom(24 << 20))
        await shell.put_file(source, str(there / "file"))

    with wire(server.port) as line:
        using(replace(target, port=line.port), work)
    assert (there / "file").read_bytes() == source.read_bytes()


def test_what_was_damaged_there_is_sent_again(target: Target, tmp_path: Path, there: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(3 << 20))
    there.mkdir()

    async def work(shell: Shell) -> None:
        part = there / f"file.{digest(source)[:12]}.part"
        part.write_bytes(os.urandom(2 << 20))
        await shell.put_file(source, str(there / "file"))

    using(target, work)
    assert tree(there) == {"file": (source.read_bytes(), 0o644)}


def test_what_cannot_be_written_is_said(target: Target, tmp_path: Path, there: Path) -> None:
    there.write_bytes(b"a file, where a folder is needed")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(HostCommandFailed, match=r"cannot write .*there/file on the machine: .*(File exists|Not a dir)"):
        using(target, lambda shell: shell.put_file(tmp_path / "file", str(there / "file")))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder with everything that a folder may hold."""
    path = tmp_path / "many"
    for name in ("a", "b c", "d'e", "é", "new\nline", "-r", "sub/deep/f", "sub/exec", ".hidden"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    (path / "sub" / "exec").chmod(0o755)
    (path / "large").write_bytes(os.urandom(6 << 20))
    (path / "empty").mkdir()
    (path / "link").symlink_to(path / "sub" / "exec")
    (path / "loop").symlink_to(path)
    return path


def test_a_folder_arrives_as_it_is(target: Target, many: Path, there: Path) -> None:
    using(target, lambda shell: shell.put_folder(many, str(there / "many")))
    (many / "loop").unlink()
    assert tree(there / "many") == tree(many)
    assert (there / "many" / "empty").is_dir()
    assert not (there / "many" / "link").is_symlink()
    assert list(there.iterdir()) == [there / "many"]


def test_a_folder_replaces_what_was_there(target: Target, many: Path, there: Path) -> None:
    (there / "many").mkdir(parents=True)
    (there / "many" / "of before").write_bytes(b"")
    using(target, lambda shell: shell.put_folder(many, str(there / "many")))
    assert "of before" not in tree(there / "many")


def test_a_folder_goes_on_where_it_was_cut(server: Sshd, target: Target, tmp_path: Path, there: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"{number}").write_bytes(os.urandom(5 << 20))

    async def work(shell: Shell) -> None:
        line.cut_after(25 << 20)
        with pytest.raises(Lost):
            await shell.put_folder(source, str(there / "it"))
        assert not (there / "it").exists()
        before = line.carried
        await shell.put_folder(source, str(there / "it"))
        assert line.carried - before < 25 << 20

    with wire(server.port) as line:
        using(replace(target, port=line.port), work)
    assert tree(there / "it") == tree(source)


def test_a_frozen_machine_ends_an_upload(server: Sshd, target: Target, tmp_path: Path, there: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(24 << 20))

    async def work(shell: Shell) -> None:
        sending = asyncio.create_task(shell.put_file(source, str(there / "file")))
        await carried(line, 4 << 20)
        line.freeze()
        with pytest.raises(Lost, match="no answer for 5 s"):
            await sending
        line.cut()
        line.thaw()
        await shell.put_file(source, str(there / "file"))

    with wire(server.port) as line:
        using(replace(target, port=line.port), work, silence_s=5)
    assert (there / "file").read_bytes() == source.read_bytes()


def test_a_folders_digest_is_of_names_contents_and_modes(many: Path) -> None:
    seen = {folder(many).sha256}
    (many / "a").chmod(0o755)
    seen.add(folder(many).sha256)
    (many / "a").rename(many / "a2")
    seen.add(folder(many).sha256)
    (many / "a2").write_bytes(b"other")
    seen.add(folder(many).sha256)
    assert len(seen) == 4
    assert folder(many).sha256 in seen


async def carried(line: Wire, count: int) -> None:
    while line.carried < count:
        await asyncio.sleep(0.01)
