"""Asks the Hub for descriptions and beginnings of files, lightly: the standard library only, no answer above 1 MB.

A file that is larger comes in ranges. The token goes to the Hub's own host only, never to where it redirects.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from provisioners.light_http import Answer, Connections, NeverSent
from recipes.errors import Refused
from runners.modelfacts.clean import printable
from runners.onhost import fetch_model

PIECE_BYTES = 1_000_000
DEFAULT_ENDPOINT = "https://huggingface.co"
_MOST_REDIRECTS = 5
_TIMEOUT_S = 10.0
_WRONG_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 (a message)
_CODES = {"RevisionNotFound": "revision-missing", "EntryNotFound": "file-missing", "GatedRepo": "gated"}
_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)


class NoAccess(Refused):
    """The Hub does not give the model, or its files, to this client."""

    code = "access"


class SilentHub(NoAccess):
    """It did not answer; what was kept of earlier answers may serve."""


class _Passing(Exception):
    """An answer or a fault that another try may mend."""


def token_of(env: Mapping[str, str] = os.environ) -> str | None:
    """The user's token, from where the Hub's own library looks for it."""
    if env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := env.get(name, "").strip():
            return token
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    path = Path(os.path.expandvars(env.get("HF_TOKEN_PATH") or Path(home) / "token")).expanduser()
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip() or None
    return None


def is_offline(env: Mapping[str, str] = os.environ) -> bool:
    stated = env.get("HF_HUB_OFFLINE") or env.get("TRANSFORMERS_OFFLINE") or ""
    return stated.upper() in ("1", "ON", "YES", "TRUE")


class HubClient:
    """Questions to one Hub. Connections are kept open between them; close it at the end."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        tries: int | None = None,
        pause: Callable[[float], None] = time.sleep,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self.token = token
        self.tries = tries
        self._pause = pause
        self._open = Connections(timeout_s)

    def wait(self, tries: int | None, timeout_s: float) -> None:
        """From now on ask so often, and wait so long for each answer."""
        self.tries, self._open.timeout_s = tries, timeout_s

    def close(self) -> None:
        self._open.close()

    def info(self, repo: str, revision: str, *, light: bool = False) -> dict[str, Any]:
        """The repository's description at a revision: commit, files with sizes, gated. Light: without the files."""
        query = urlencode({"expand": ["sha", "gated"]} if light else {"blobs": "true"}, doseq=True)
        path = f"/api/models/{repo}/revision/{quote(revision, safe='')}?{query}"
        answer = self._asked(path, repo, revision)
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SilentHub(
                f"{self.endpoint} answers for {repo}, but not as the Hub does",
                advice="check the network and HF_ENDPOINT",
            )
        return found

    def auth_check(self, repo: str) -> None:
        """Whether this client gets the files of a gated repository. Raises NoAccess."""
        self._asked(f"/api/models/{repo}/auth-check", repo, "main")

    def read(self, repo: str, commit: str, name: str, size: int | None = None) -> bytes:
        """A whole file, in ranges where it is larger than a piece. Raises NoAccess."""
        first, total = self.range(repo, commit, name, 0, min(PIECE_BYTES, size or PIECE_BYTES))
        pieces, length = [first], len(first)
        while length < total:
            piece, _ = self.range(repo, commit, name, length, min(PIECE_BYTES, total - length))
            if not piece:
                break
            pieces.append(piece)
            length += len(piece)
        if length != (size if size is not None else total):
            raise SilentHub(f"the Hub gave {length} bytes of {repo}'s {name} instead of {size}", advice="try again")
        return b"".join(pieces)

    def range(self, repo: str, commit: str, name: str, start: int, length: int) -> tuple[bytes, int]:
        """A part of a file (less at its end), and the length of the whole. Raises NoAccess."""
        path = f"/{repo}/resolve/{quote(commit, safe='')}/{quote(name)}"
        answer = self._asked(path, repo, commit, {"Range": f"bytes={start}-{start + length - 1}"}, file=name)
        if answer.status == 416:
            return b"", start
        if answer.status == 200:  # the whole file: somebody between does not know ranges
            return answer.body[start : start + length], len(answer.body)
        total = (answer.headers.get("content-range") or "").rpartition("/")[2]
        return answer.body, int(total) if total.isdigit() else start + len(answer.body)

    def _asked(
        self, path: str, repo: str, revision: str, headers: Mapping[str, str] | None = None, *, file: str = ""
    ) -> Answer:
        """An answer, asked for again where that helps. Raises NoAccess with the reason."""
        if not _is_name(repo):
            raise _no_access("invalid", repo, revision)
        tries = self.tries or fetch_model.TRIES
        for attempt in range(1, tries + 1):
            try:
                answer = self._get(self.endpoint + path, headers or {})
                if answer.status in (408, 429) or answer.status >= 500:
                    raise _Passing(f"it answered {answer.status}")
            except (OSError, http.client.HTTPException, _Passing) as error:
                cause = error.__cause__ if isinstance(error, NeverSent) else error
                if attempt == tries or fetch_model.no_such_address(cause) or isinstance(cause, ssl.SSLError):
                    raise SilentHub(
                        f"the Hub did not answer for {repo}: {printable(str(error))[:200] or type(error).__name__}",
                        advice="check the network and HF_ENDPOINT",
                    ) from error
                self._pause(min(20, 0.5 * 2**attempt) * (0.5 + random.random()))  # noqa: S311 (jitter)
                continue
            if answer.status < 400 or answer.status == 416:
                return answer
            raise _no_access(_reason(answer, path), repo, revision, status=answer.status, file=file)
        raise AssertionError("tries are at least one")

    def _get(self, url: str, headers: Mapping[str, str]) -> Answer:
        home = urlsplit(self.endpoint).netloc
        for _ in range(_MOST_REDIRECTS):
            own = {"Authorization": f"Bearer {self.token}"} if self.token and urlsplit(url).netloc == home else {}
            answer = self._open.get(url, {**headers, **own, "User-Agent": "gpu-recipe", "Accept-Encoding": "identity"})
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            url = urljoin(url, answer.headers.get("location", ""))
            if urlsplit(url).scheme not in ("http", "https"):
                break
        raise _Passing("it redirects without end")


def _is_name(repo: str) -> bool:
    """The Hub's rule for names of repositories."""
    plain = _NAME.fullmatch(repo) and len(repo) <= 96 and not repo.endswith(".git")
    parts = repo.split("/")
    return (
        bool(plain) and "--" not in repo and ".." not in repo and not any(p[0] in "-." or p[-1] in "-." for p in parts)
    )


def _reason(answer: Answer, path: str) -> str:
    """As the Hub's library reads an answer: an anonymous client may not know that a private repository exists."""
    code, message = answer.headers.get("x-error-code", ""), answer.headers.get("x-error-message", "")
    if code in _CODES:
        return _CODES[code]
    if code == "RepoNotFound":
        return "missing"
    if answer.status == 401 and message != _WRONG_TOKEN and path.startswith("/api/"):
        return "missing"
    return "refused"


def _no_access(code: str, repo: str, revision: str, *, status: int = 0, file: str = "") -> NoAccess:
    if code == "refused":
        what, detail = f"{file} of {repo}" if file else repo, str(status)
    else:
        what, detail = repo, file
    _, message, advice = fetch_model.reason(code, what, revision, detail=detail)
    return NoAccess(message, advice=advice)


def offline(repo: str) -> SilentHub:
    _, message, advice = fetch_model.reason("offline", repo, "")
    return SilentHub(message, advice=advice)
