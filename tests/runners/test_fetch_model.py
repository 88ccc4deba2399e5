"""The download on the host: the real script and the real library against an emulated Hub."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import secrets
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from runners.onhost import fetch_model
from tests.emulators.hub import Hub, hub_emulator

REPO = "maker/small"
TOKEN = "hf_A-secret-that-nobody-sees"
FILES = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": b"weights " * 100}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_emulator() as emulator:
        yield emulator


@dataclass(frozen=True)
class Ended:
    status: int
    said: list[dict[str, Any]]
    printed: str

    @property
    def folder(self) -> Path:
        assert self.status == 0, self.printed
        return Path(self.said[-1]["path"])

    @property
    def error(self) -> dict[str, str]:
        assert self.status == 3, self.printed
        found: dict[str, str] = self.said[-1]["error"]
        return found


@dataclass(frozen=True)
class Fetcher:
    """Starts the script as a host would."""

    hub: Hub
    home: Path

    def start(
        self,
        revision: str,
        files: dict[str, bytes] | None = None,
        *,
        repo: str = REPO,
        token: str | None = None,
        environment: dict[str, Any] | None = None,
    ) -> subprocess.Popen[str]:
        """With an environment: by a Python that has no libraries."""
        wanted = [{"name": name, "bytes": len(data)} for name, data in (files or FILES).items()]
        request = self.home.parent / f"fetch-{secrets.token_hex(8)}.json"  # another may still have to read its own
        content = {"repo": repo, "revision": revision, "files": wanted, "hf_home": str(self.home)}
        request.write_text(json.dumps({**content, **({"environment": environment} if environment else {})}), "utf-8")
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_ENDPOINT": self.hub.url, **({"HF_TOKEN": token} if token else {})}
        argv = [sys.executable, *(["-S"] if environment else []), fetch_model.__file__, str(request)]
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, revision: str, files: dict[str, bytes] | None = None, **options: Any) -> Ended:
        process = self.start(revision, files, **options)
        out, err = process.communicate(timeout=120)
        said = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return Ended(process.returncode, said, out + err)


@pytest.fixture
def fetcher(hub: Hub, tmp_path: Path) -> Fetcher:
    return Fetcher(hub, tmp_path / "home")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_pinned_commit_is_fetched_whatever_its_branch_means_now(hub: Hub, fetcher: Fetcher) -> None:
    pinned = hub.push(REPO, {**FILES, "left out.bin": b"x"})
    hub.push(REPO, dict.fromkeys(FILES, b"a later commit"))
    ended = fetcher.run(pinned)
    assert content(ended.folder) == FILES
    assert ended.folder.is_relative_to(fetcher.home)
    total = sum(map(len, FILES.values()))
    assert ended.said[-2] == {"progress": {"bytes": total, "total": total}}
    assert not hub.asked("info")
    assert not hub.asked("get", "left%20out")


def test_what_is_there_already_costs_no_request(hub: Hub, fetcher: Fetcher) -> None:
    pinned = hub.push(REPO, FILES)
    first = fetcher.run(pinned).folder
    asked = len(hub.requests)
    assert fetcher.run(pinned).folder == first
    assert [r for r in hub.requests[asked:] if r.kind != "other"] == []


def test_a_file_is_fetched_by_its_name_not_by_a_pattern(hub: Hub, fetcher: Fetcher) -> None:
    files = {"part[1].bin": b"bracketed", "deep/er/config.json": b"{}"}
    pinned = hub.push(REPO, {**files, "part1.bin": b"what the name would match as a pattern"})
    assert content(fetcher.run(pinned, files).folder) == files


def test_a_cut_off_file_is_resumed_where_it_was_cut(hub: Hub, fetcher: Fetcher) -> None:
    # The library writes blocks of 10 MiB; less than one is thrown away when the connection ends.
    files = {"model.safetensors": random.Random(1).randbytes(12_000_000)}
    pinned = hub.push(REPO, files)
    hub.cut("model.safetensors", after=11_000_000)
    fetched = content(fetcher.run(pinned, files).folder)["model.safetensors"]
    assert hashlib.sha256(fetched).digest() == hashlib.sha256(files["model.safetensors"]).digest()
    first, second = hub.asked("get", "model.safetensors")
    assert first.range is None
    assert re.fullmatch(r"bytes=[1-9]\d*-", second.range or "")


def test_a_file_that_is_not_served_just_now_is_asked_for_again(hub: Hub, fetcher: Fetcher) -> None:
    pinned = hub.push(REPO, FILES)
    hub.fail("get", status=503)
    assert content(fetcher.run(pinned).folder) == FILES
    assert len(hub.asked("get")) == len(FILES) + 1


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, fetcher: Fetcher) -> None:
    pinned = hub.push(REPO, FILES, private=True)
    hub.let_in(TOKEN, REPO)
    ended = fetcher.run(pinned, token=TOKEN)
    assert content(ended.folder) == FILES
    assert all(request.authorized for request in hub.requests if REPO in request.path)
    assert [request.authorized for request in hub.asked("get", "/blobs/")] == [False]
    assert TOKEN not in ended.printed


def until_all_but_the_weights(process: subprocess.Popen[str]) -> None:
    """Reads what it says until it has told that they are there; never that there is more."""
    here, total = len(FILES["config.json"]) + len(FILES["tokenizer.json"]), sum(map(len, FILES.values()))
    assert process.stdout
    told = -1
    while told < here:
        progress = json.loads(process.stdout.readline())["progress"]
        assert told <= progress["bytes"] <= here, "the weights are held back"
        assert progress["total"] == total
        told = progress["bytes"]


def test_progress_is_told_while_a_file_is_under_way(hub: Hub, fetcher: Fetcher) -> None:
    other = {"config.json": b"of another commit" * 1000, "tokenizer.json": FILES["tokenizer.json"]}
    fetcher.run(hub.push(REPO, other), other)
    pinned, total = hub.push(REPO, FILES), sum(map(len, FILES.values()))
    event = hub.hold("model.safetensors", after=10)
    with fetcher.start(pinned) as process:
        until_all_but_the_weights(process)
        event.set()
        assert process.stdout
        later = [json.loads(line) for line in process.stdout]
    assert later[-2] == {"progress": {"bytes": total, "total": total}}


def test_of_two_at_once_one_downloads_and_the_other_waits_for_it(
    hub: Hub, fetcher: Fetcher, wait_until: Callable[..., Any]
) -> None:
    pinned = hub.push(REPO, FILES)
    event = hub.hold("model.safetensors", after=10)
    with fetcher.start(pinned) as first, fetcher.start(pinned) as second:
        wait_until(lambda: len(hub.asked("head", "model.safetensors")) == 2, what="both to ask for the file")
        event.set()
        said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in (first, second)]
    assert {content(Path(json.loads(line)["path"]))["model.safetensors"] for line in said} == {
        FILES["model.safetensors"]
    }
    assert len(hub.asked("get", "model.safetensors")) == 1


def environment_at(folder: Path, *, good: bool = True) -> dict[str, Any]:
    """An environment that is made without a network: it borrows the libraries of this one."""
    here = [path for path in sys.path if path.endswith("site-packages")]
    borrow = (
        "import pathlib, sysconfig; "
        f"pathlib.Path(sysconfig.get_path('purelib'), 'borrowed.pth').write_text({chr(10).join(here)!r})"
    )
    return {
        "directory": str(folder / "library-{python_tag}"),
        "python": sys.executable,
        "steps": [{"argv": ["{env}/bin/python", "-c", borrow if good else "raise SystemExit(1)"], "env": {}}],
        "check": ["{env}/bin/python", "-c", "import huggingface_hub"],
    }


@pytest.mark.real
def test_a_machine_without_the_library_gets_it_first(hub: Hub, fetcher: Fetcher, tmp_path: Path) -> None:
    pinned = hub.push(REPO, FILES)
    environment = environment_at(tmp_path / "tools")
    ended = fetcher.run(pinned, environment=environment)
    assert content(ended.folder) == FILES
    assert ended.folder.is_relative_to(fetcher.home)
    (made,) = [path for path in (tmp_path / "tools").iterdir() if path.is_dir()]
    assert made.name == f"library-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    assert "already installed" in fetcher.run(pinned, environment=environment).printed


@pytest.mark.real
def test_a_library_that_cannot_be_had_is_said(hub: Hub, fetcher: Fetcher, tmp_path: Path) -> None:
    ended = fetcher.run(hub.push(REPO, FILES), environment=environment_at(tmp_path / "tools", good=False))
    assert ended.error["code"] == "no-library"


def test_a_download_that_was_killed_keeps_what_is_finished(hub: Hub, fetcher: Fetcher) -> None:
    pinned = hub.push(REPO, FILES)
    event = hub.hold("model.safetensors", after=10)
    with fetcher.start(pinned) as process:
        until_all_but_the_weights(process)
        process.kill()
    event.set()
    before = len(hub.asked("get", "config.json"))
    assert content(fetcher.run(pinned).folder) == FILES
    assert len(hub.asked("get", "config.json")) == before


MISSING = ("missing", "for a private repository set HF_TOKEN")


@pytest.mark.parametrize(
    ("repo", "revision", "token", "code", "advice"),
    [
        ("maker/gated", "", None, "gated", "accept its licence"),
        ("maker/absent", "0" * 40, None, *MISSING),
        ("maker/private", "", TOKEN, *MISSING),
        (REPO, "0" * 40, None, "revision-missing", "use main, a tag or a commit"),
    ],
)
def test_each_refusal_has_its_reason_and_advice(
    hub: Hub, fetcher: Fetcher, repo: str, revision: str, token: str | None, code: str, advice: str
) -> None:
    commits = {
        REPO: hub.push(REPO, FILES),
        "maker/gated": hub.push("maker/gated", FILES, gated=True),
        "maker/private": hub.push("maker/private", FILES, private=True),
    }
    hub.let_in(TOKEN)
    ended = fetcher.run(revision or commits[repo], repo=repo, token=token)
    assert ended.error["code"] == code
    assert repo in ended.error["message"]
    assert advice in ended.error["advice"]
    assert (token or TOKEN) not in ended.printed


def test_a_refused_look_up_is_not_taken_for_a_lost_connection(hub: Hub, fetcher: Fetcher) -> None:
    pinned = hub.push(REPO, FILES)
    hub.fail("tree", status=403, times=100)
    assert fetcher.run(pinned).error["code"] == "refused"
    assert len(hub.asked("tree")) == 1


def test_a_full_disk_is_no_reason_to_try_again() -> None:
    code, message, advice = fetch_model.explain(OSError(28, "No space left on device"), REPO, "main")
    assert (code, message) == ("disk-full", f"no space left on the disk for {REPO}")
    assert "larger disk" in advice


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OfflineModeIsEnabled("offline"), "offline"),
        (errors.HFValidationError("bad"), "invalid"),
        (ConnectionResetError("reset"), None),
        (TimeoutError("late"), None),
    ],
)
def test_what_helps_not_is_told_from_what_may_pass(error: Exception, code: str | None) -> None:
    known = fetch_model.explain(error, REPO, "main")
    assert (known and known[0]) == code


def test_it_tries_again_with_longer_pauses_and_gives_up() -> None:
    pauses: list[float] = []
    calls: list[int] = []

    def call() -> str:
        calls.append(len(calls))
        raise ConnectionResetError(f"call {len(calls)}")

    with pytest.raises(ConnectionResetError, match=f"call {fetch_model.TRIES}"):
        fetch_model.persistently(call, REPO, "main", pause=pauses.append)
    assert len(pauses) == fetch_model.TRIES - 1
    assert all(0.25 * 2**i <= pause <= 0.75 * 2**i for i, pause in enumerate(pauses, start=1))


def test_a_known_reason_is_raised_at_once() -> None:
    def call() -> str:
        raise OSError(28, "No space left on device")

    def pause(seconds: float) -> None:
        raise AssertionError(f"paused {seconds} s")

    with pytest.raises(OSError, match="No space left"):
        fetch_model.persistently(call, REPO, "main", pause=pause)
