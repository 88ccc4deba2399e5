"""Where Pulumi keeps its state, what encrypts the secrets in it, and the engine's environment."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from provisioners.contract import Site
from provisioners.files import write_once, write_whole
from recipes.errors import UsageError
from stacks import agreed, report

BACKEND_URL = "PULUMI_BACKEND_URL"
OWN = "own"
"""What our own backend is called in names of files."""
_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 (a variable's name)
_PASSPHRASE_FILE = f"{_PASSPHRASE}_FILE"
_HANDED_ON = (BACKEND_URL, _PASSPHRASE, _PASSPHRASE_FILE, "PULUMI_ACCESS_TOKEN", "PULUMI_API", "PULUMI_HOME")
"""The user's that reach the engine, for a backend that is his. Others of Pulumi's may take away what a stack needs:
a state that is written at each step, a resource provider in recipe's own Python, secrets that are not logged."""
_MISLEADING = ("VIRTUAL_ENV", "PYTHONHOME")
"""Would send Pulumi to another Python."""
_FOR_PROVIDERS = (report.VARIABLE, report.CLIENT, agreed.VARIABLE)
"""What recipe tells resource providers of one update: of another's, or of a user's, nothing reaches them."""
_STARTER = Path(__file__).with_name("dynamic-provider")
"""Ends a provider with its engine from its first moment on; else it does so from the first request on."""
_SERVICE = ("https://", "http://")
_NO_URL = re.compile(r"[%?#\x00-\x1f\x7f]")
"""What would mean something else in file://…."""
_USER = re.compile(r"//[^/@]*@")
_WRONG_PASSPHRASE = "incorrect passphrase"  # noqa: S105 (what the engine says)
_OLD_LAYOUT = ("a stack name may only contain", "Legacy DIY state is deprecated")
"""What the engine says of a backend from before stacks had projects: older engines, and newer."""
_SETTINGS = """\
name: {project}
runtime:
  name: python
  options:
    toolchain: pip
description: made by recipe
"""
"""The toolchain is named: else Pulumi looks for one in all folders above."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Where the state of all stacks lies."""

    url: str
    own: bool
    """Ours, below RECIPE_HOME; else one that the user has named."""
    env: Mapping[str, str] = field(repr=False)
    """What the engine needs to know of it."""

    def stack(self, project: str, name: str) -> str:
        """What the engine calls a stack.

        In full where a backend may be so old that its stacks have no projects: there that is no name of a stack, while
        the short one would be that of the other program's stack.
        """
        return name if self.url.startswith(_SERVICE) else f"organization/{project}/{name}"


def backend_of(site: Site) -> Backend:
    """The backend that PULUMI_BACKEND_URL names, else one below RECIPE_HOME, made if it is not there yet.

    Raises UsageError where nobody has said with which passphrase secrets are encrypted, and for a RECIPE_HOME that
    Pulumi cannot be told of.
    """
    url = site.env.get(BACKEND_URL)
    if not url:
        return _own(site)
    has_passphrase = _PASSPHRASE in site.env or site.env.get(_PASSPHRASE_FILE)
    if not url.startswith(_SERVICE) and not has_passphrase:
        message = f"{BACKEND_URL} is {shown(url)}, and nobody has said with which passphrase its secrets are encrypted"
        raise UsageError(
            message, advice=f"export {_PASSPHRASE_FILE}=… (a file), or {_PASSPHRASE}=…; all of a team use the same"
        )
    return Backend(url=url, own=False, env={name: site.env[name] for name in _HANDED_ON if name in site.env})


def _own(site: Site) -> Backend:
    """Its secrets always have the passphrase beside it: the user's is another project's, and may change."""
    state = pulumi_home(site) / "state"
    if found := _NO_URL.search(str(state)):
        message = f"Pulumi cannot keep its state in {str(state)!r}: {found[0]!r} means something else in a URL"
        raise UsageError(message, advice="export RECIPE_HOME=… to a folder without it")
    _private(pulumi_home(site))
    env = {
        BACKEND_URL: f"file://{_private(state)}",
        _PASSPHRASE_FILE: str(_passphrase(site)),
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",  # they would stay when a run's stack is removed
    }
    return Backend(url=env[BACKEND_URL], own=True, env=env)


def refusal(site: Site, stack: str, said: str) -> UsageError | None:
    """What the engine's words mean, where it could not work with this backend at all; `stack` is what people say."""
    if _WRONG_PASSPHRASE in said:
        message = f"stack {stack} was encrypted with another passphrase than the one that is set here"
        advice = f"export {_PASSPHRASE_FILE}=…, or {_PASSPHRASE}=…, as whoever made it has it"
        if not site.env.get(BACKEND_URL):
            lost = f"without it recipe stack destroy {stack} ends what it holds, and forgets the stack"
            advice = f"put the {pulumi_home(site) / 'passphrase'} back that was there when it was made; {lost}"
        return UsageError(message, advice=advice)
    if any(words in said for words in _OLD_LAYOUT):
        url = shown(site.env.get(BACKEND_URL, ""))
        message = f"{BACKEND_URL} is {url}, where stacks have no projects: Pulumi's layout until 2023"
        return UsageError(message, advice="pulumi state upgrade changes that, for everybody who uses it")
    return None


def where(site: Site) -> str:
    """What people call the backend, however it is spelled. Nothing is made, and nothing is missed."""
    return shown(_spelled_once(site.env.get(BACKEND_URL) or f"file://{pulumi_home(site) / 'state'}"))


def shown(url: str) -> str:
    """The URL without what may be secret in it: a user's password, and the query."""
    return _USER.sub("//***@", url).partition("?")[0]


def key_of(site: Site) -> str:
    """The backend in names of files here: two of them may have stacks of the same name. Nothing secret is in it."""
    url = site.env.get(BACKEND_URL)
    if not url:
        return OWN
    return hashlib.sha256(_USER.sub("//", _spelled_once(url)).encode()).hexdigest()[:8]


def _spelled_once(url: str) -> str:
    """The same place by one name: without a slash at its end, and a file's without detours."""
    place, question, query = url.partition("?")
    if place.startswith("file:///"):
        place = f"file:///{os.path.normpath(place.removeprefix('file://')).lstrip('/')}"
    return place.rstrip("/") + question + query


def pulumi_home(site: Site) -> Path:
    """Everything of Pulumi's that is ours."""
    return site.home / "pulumi"


def work_dir(site: Site, project: str, name: str) -> Path:
    """The folder that the engine works in, with its Pulumi.yaml; made if it is not there yet."""
    folder = _private(pulumi_home(site))
    for part_of_it in ("work", key_of(site), project, name):
        folder = _private(folder / part_of_it)
    settings = folder / "Pulumi.yaml"
    text = _SETTINGS.format(project=project)
    if not settings.is_file() or settings.read_text(encoding="utf-8") != text:
        write_whole(settings, text, private=True)
    return folder


def engine_env(site: Site, backend: Backend, folder: Path) -> dict[str, str]:
    """The whole environment of an engine that works in this folder.

    With our own backend what Pulumi keeps for itself lies in the folder too, and goes with it.
    """
    env = {
        name: value
        for name, value in site.env.items()
        if not name.startswith("PULUMI_") and name not in (*_MISLEADING, *_FOR_PROVIDERS)
    }
    return {
        **env,
        "PULUMI_PYTHON_CMD": str(_STARTER if os.access(_STARTER, os.X_OK) else sys.executable),
        "RECIPE_PYTHON": sys.executable,  # the dynamic provider runs where recipe does
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",  # a colleague's folder has no salt of its own
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "RECIPE_HOME": str(site.home),
        **({"PULUMI_HOME": str(folder / "home")} if backend.own else {}),
        **backend.env,
    }


def drop_copies(site: Site, project: str, name: str) -> None:
    """What Pulumi leaves of a stack in our own backend when it is removed."""
    state = pulumi_home(site) / "state" / ".pulumi"
    for copy in (f"{name}.json.bak", f"{name}.json.bak.attrs"):
        with suppress(OSError):
            (state / "stacks" / project / copy).unlink()
    for empty in (state / "history" / project / name, state / "locks" / "organization" / project / name):
        with suppress(OSError):
            empty.rmdir()


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        advice = "export RECIPE_HOME=… to a folder that you may write to"
        raise UsageError(f"{folder} cannot be made: {error.strerror}", advice=advice) from error
    return folder


def _passphrase(site: Site) -> Path:
    """A random one of our own. Whoever comes second reads the first one's."""
    path = pulumi_home(site) / "passphrase"
    if not path.is_file():
        write_once(path, secrets.token_urlsafe(32))
    return path
