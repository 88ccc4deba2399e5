"""Where Pulumi keeps its state, what encrypts the secrets in it, and the engine's environment."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from provisioners.contract import Site
from recipes.errors import UsageError
from stacks.report import VARIABLE as REPORT

_URL = "PULUMI_BACKEND_URL"
_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 (a variable's name)
_PASSPHRASE_FILE = f"{_PASSPHRASE}_FILE"
_MISLEADING = ("VIRTUAL_ENV", "PULUMI_RUNTIME_VIRTUALENV", "PULUMI_STACK", "PULUMI_PROJECT", "PYTHONHOME")
"""Would send Pulumi to another Python, or to another stack."""
ASKING = "_"
"""In a stack's place: the folder from which a project's stacks are asked after. No stack has this name."""

WRONG_PASSPHRASE = "incorrect passphrase"  # noqa: S105 (what the engine says)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Where the state of all stacks lies."""

    url: str
    own: bool
    """Ours, below RECIPE_HOME; else one that the user has named."""
    env: Mapping[str, str] = field(repr=False)
    """What the engine needs to know of it."""


def backend_of(site: Site) -> Backend:
    """The backend that PULUMI_BACKEND_URL names, else one below RECIPE_HOME, made if it is not there yet.

    Raises UsageError where nobody has said with which passphrase secrets are encrypted.
    """
    url = site.env.get(_URL)
    has_passphrase = _PASSPHRASE in site.env or _PASSPHRASE_FILE in site.env
    if not url:
        _private(pulumi_home(site))
        state = _private(pulumi_home(site) / "state")
        own = {} if has_passphrase else {_PASSPHRASE_FILE: str(_passphrase(site))}
        return Backend(url=f"file://{state}", own=True, env={_URL: f"file://{state}", **own})
    if not url.startswith(("https://", "http://")) and not has_passphrase:
        message = f"{_URL} is {shown(url)}, and nobody has said with which passphrase its secrets are encrypted"
        raise UsageError(
            message, advice=f"export {_PASSPHRASE_FILE}=… (a file), or {_PASSPHRASE}=…; all of a team use the same"
        )
    return Backend(url=url, own=False, env={_URL: url})


def wrong_passphrase(stack: str) -> UsageError:
    """For WRONG_PASSPHRASE."""
    message = f"stack {stack} was encrypted with another passphrase than the one that is set here"
    return UsageError(message, advice=f"export {_PASSPHRASE_FILE}=…, or {_PASSPHRASE}=…, as whoever made it has it")


def shown(url: str) -> str:
    """The URL without what may be secret in it: a user's password, and the query."""
    return re.sub(r"//[^/@]*@", "//***@", url).partition("?")[0]


def pulumi_home(site: Site) -> Path:
    """Everything of Pulumi's that is ours."""
    return site.home / "pulumi"


def work_dir(site: Site, project: str, name: str) -> Path:
    """The folder that the engine works in, with its Pulumi.yaml; made if it is not there yet."""
    _private(pulumi_home(site))
    folder = _private(pulumi_home(site) / "work" / project / name)
    settings = folder / "Pulumi.yaml"
    text = f"name: {project}\nruntime: python\ndescription: made by recipe\n"
    if not settings.is_file() or settings.read_text(encoding="utf-8") != text:
        part = folder / f".{secrets.token_hex(4)}"
        part.write_text(text, encoding="utf-8")
        part.replace(settings)
    return folder


def engine_env(site: Site, backend: Backend, report: Path | None = None) -> dict[str, str]:
    """The whole environment of an engine's process."""
    env = {name: value for name, value in site.env.items() if name not in (*_MISLEADING, REPORT)}
    env |= {
        "PULUMI_PYTHON_CMD": sys.executable,  # the dynamic provider runs where recipe does
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "RECIPE_HOME": str(site.home),
        **backend.env,
    }
    return env if report is None else env | {REPORT: str(report)}


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        advice = "export RECIPE_HOME=… to a folder that you may write to"
        raise UsageError(f"{folder} cannot be made: {error.strerror}", advice=advice) from error
    return folder


def _passphrase(site: Site) -> Path:
    """A random one of our own. Whoever comes second reads the first one's: it appears whole, by a link."""
    path = pulumi_home(site) / "passphrase"
    if not path.is_file():
        part = path.with_name(f".{secrets.token_hex(8)}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_urlsafe(32).encode())
            os.fsync(handle)
            with suppress(FileExistsError):
                os.link(part, path)
        finally:
            os.close(handle)
            part.unlink()
    return path
