"""Pulumi's engine, the command `pulumi`: found, installed, and asked small things. Imports nothing of Pulumi's SDK."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from provisioners.contract import Site
from stacks.backend import pulumi_home
from stacks.masks import mask_of
from stacks.values import NoEngine, StackFailed

OLDEST = (3, 200)
"""The oldest engine that is used: as the SDK's oldest."""
NEEDS_NONE = "provisioner: runpod needs none of it"
INSTALL_S = 600.0
_VERSION = re.compile(r"(\d+)\.(\d+)\.\d+(?:-[\w.-]+)?(?:\+[\w.-]+)?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ANSWER_S = 20.0
_VERSION_S = 30.0
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_FOR_INSTALLER = {"PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"}.union(
    _PROXIES, map(str.upper, _PROXIES)
)
"""What a script that was downloaded is told: no key, and no token."""
_INSTALLER = """
import socket, subprocess, sys
from pulumi.automation import PulumiCommand
socket.setdefaulttimeout(float(sys.argv[2]))
try:
    PulumiCommand.install(root=sys.argv[1])
except subprocess.CalledProcessError as error:
    sys.exit((error.output or b"").decode(errors="replace").strip() or str(error))
"""


@dataclass(frozen=True)
class Engine:
    """An engine that can be used."""

    path: Path
    version: str


def pinned() -> str:
    """The version that `install` gets: the SDK's own."""
    return metadata.version("pulumi")


def own_root(site: Site) -> Path:
    """Where `install` puts the engine."""
    return pulumi_home(site) / "engine"


def commands(site: Site) -> list[Path]:
    """Those that there are, as they are tried: on PATH, then the one that was installed below RECIPE_HOME."""
    found = shutil.which("pulumi", path=site.env.get("PATH", os.defpath))
    own = own_root(site) / "bin" / "pulumi"
    is_there = os.access(own, os.X_OK) and own.is_file()
    return [*([Path(found).absolute()] if found else []), *([own] if is_there else [])]


def need(site: Site) -> Engine:
    """The engine. Raises NoEngine if there is none, or none that can be used."""
    refused = list[NoEngine]()
    for path in commands(site):
        try:
            return _usable(path)
        except NoEngine as error:
            refused.append(error)
    none = NoEngine("Pulumi's engine is not on this machine", advice=f"recipe stack install gets it; {NEEDS_NONE}")
    raise (refused or [none])[0]


def _usable(path: Path) -> Engine:
    """Raises NoEngine."""
    try:
        stat = path.stat()
    except OSError as error:  # another one is being installed
        raise NoEngine(f"{path} is there no more", advice=f"recipe stack install; {NEEDS_NONE}") from error
    return Engine(path, _version_of(path, stat.st_mtime_ns, stat.st_size))


@lru_cache
def _version_of(path: Path, _changed_ns: int, _size: int) -> str:
    """What the command says of itself; asked once for each file.

    Below an engine, as in a plain project's program, it is told nothing that is meant for that engine's own helpers.
    The log that it writes even of this question goes with a home of its own.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
    try:
        with TemporaryDirectory(prefix="recipe-", ignore_cleanup_errors=True) as home:
            env = {"PATH": os.defpath, "HOME": "/", **others, "PULUMI_SKIP_UPDATE_CHECK": "true", "PULUMI_HOME": home}
            answer = subprocess.run(
                [path, "version"], env=env, capture_output=True, text=True, timeout=_VERSION_S, check=True
            )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise NoEngine(
            f"{path} does not work: {_last_line(said)}", advice=f"recipe stack install; {NEEDS_NONE}"
        ) from error
    said = answer.stdout.strip().removeprefix("v")
    version = _VERSION.fullmatch(said)
    if version is None:
        advice = f"see whether it is Pulumi's; {NEEDS_NONE}"
        raise NoEngine(f"{path} says no version, but {_last_line(said)!r}", advice=advice)
    found = (int(version[1]), int(version[2]))
    if found < OLDEST:
        message = f"Pulumi's engine {path} is {said}, older than {'.'.join(map(str, OLDEST))}"
        raise NoEngine(message, advice=f"recipe stack install gets another one beside it; {NEEDS_NONE}")
    if found[0] > OLDEST[0]:
        message = f"Pulumi's engine {path} is {said}; this recipe knows version {OLDEST[0]}"
        raise NoEngine(
            message, advice=f"upgrade recipe, or recipe stack install gets another one beside it; {NEEDS_NONE}"
        )
    return said


async def install(site: Site, *, installer: Sequence[str] = (sys.executable, "-c", _INSTALLER)) -> Engine:
    """Get the pinned engine by Pulumi's own installer, into RECIPE_HOME, whole or not at all.

    Downloads some 150 MB. Raises NoEngine where it cannot be had, after INSTALL_S at the latest. `installer` is
    the command that is given the folder to install into, and after how many seconds of silence to give up.
    """
    root = own_root(site)
    part, old = (root.with_name(f"engine.{os.getpid()}{end}") for end in ("", ".old"))
    try:
        root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await _run_installer([*installer, str(part), str(_ANSWER_S)], site)
        if not (part / "bin" / "pulumi").is_file():
            raise _not_installed("the installer left no command")
        with suppress(FileNotFoundError):
            root.rename(old)
        _put(part, root)
    except OSError as error:
        with suppress(OSError):
            old.rename(root)
        raise _not_installed(str(error)) from error
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
    return _usable(root / "bin" / "pulumi")


def _put(part: Path, root: Path) -> None:
    """Raises OSError, unless another process has put the same there meanwhile."""
    try:
        part.rename(root)
    except OSError:
        if not root.is_dir():
            raise


async def _run_installer(argv: Sequence[str], site: Site) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={name: value for name, value in site.env.items() if name in _FOR_INSTALLER},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(INSTALL_S):
            said, _ = await process.communicate()
    except TimeoutError:
        raise _not_installed(f"it was not there after {INSTALL_S / 60:.0f} minutes") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise _not_installed(_reason(mask_of(site.env)(said.decode(errors="replace"))))


def _not_installed(reason: str) -> NoEngine:
    advice = f"put a pulumi command on PATH (https://www.pulumi.com/docs/install); {NEEDS_NONE}"
    return NoEngine(f"Pulumi's engine {pinned()} cannot be had here: {reason}", advice=advice)


def _reason(said: str) -> str:
    """Of a script the line that it marks as the error; of a traceback the last, in people's words."""
    lines = _COLOUR.sub("", said).splitlines()
    marked = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    last = marked or _last_line("\n".join(lines))
    if "URLError" in last or "HTTPError" in last or "timed out" in last:
        inner = last.partition("urlopen error ")[2].rstrip(">") or last.partition(": ")[2] or last
        return f"get.pulumi.com did not answer ({inner.strip()})"
    return last


def _last_line(said: str) -> str:
    return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")


async def ask(
    engine: Engine, argv: Sequence[str], *, cwd: Path, env: dict[str, str], patience_s: float = 60.0
) -> tuple[int, str, str]:
    """A short question to the engine: its exit status and what it said on both streams. Raises StackFailed."""
    process = await asyncio.create_subprocess_exec(
        str(engine.path),
        *argv,
        "--non-interactive",
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(patience_s):
            out, err = await process.communicate()
    except TimeoutError:
        message = f"Pulumi's engine did not answer within {patience_s:.0f} s: pulumi {' '.join(argv)}"
        raise StackFailed(message, advice="see whether its backend can be reached") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
