"""The part of the Hugging Face Hub that a download needs, on loopback, with faults on demand.

It speaks what huggingface_hub 2.4 asks for: a model's information and tree at a revision, the check of access, HEAD
and GET of files with ranges. As at the Hub, weights are redirected to another host (here: localhost), which must not
see the token, and what an anonymous client may not see looks as if it were missing.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

Kind = Literal["info", "tree", "auth-check", "head", "get", "other"]

_KINDS: dict[str | None, Kind] = {None: "info", "revision": "info", "tree": "tree", "auth-check": "auth-check"}
_LARGE_BYTES = 1_500_000
"""From this size on a file is kept outside of git, and its sha256 is known."""
_WEIGHTS = (".safetensors", ".gguf", ".bin")
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|auth-check)(?:/([^/]+))?)?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_BLOB = re.compile(r"/blobs/([0-9a-f]{64})/(.+)")


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    kind: Kind
    path: str
    range: str | None
    authorized: bool
    """Whether an Authorization header was there."""


class Denied(Exception):
    """An answer that is no content."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"}


class Beginning(bytes):
    """The beginning of a file that is `size` bytes long; the rest can be described, but not had."""

    size: int

    def __new__(cls, data: bytes, size: int) -> Beginning:
        made = super().__new__(cls, data)
        made.size = size
        return made


def size_of(data: bytes) -> int:
    return data.size if isinstance(data, Beginning) else len(data)


def blob(path: str, data: bytes) -> dict[str, Any]:
    """A file's size and digest, as descriptions with blobs have them."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found: dict[str, Any] = {"size": size_of(data), "blobId": git}
    if path.endswith(_WEIGHTS) or len(data) > _LARGE_BYTES:
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": size_of(data), "pointerSize": 130}
    return found


def elements_by_type(files: Mapping[str, bytes]) -> dict[str, int]:
    """As the Hub counts them, from the headers of all safetensors files that have one."""
    counted: Counter[str] = Counter()
    for name, data in files.items():
        if name.endswith(".safetensors"):
            try:
                header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
                rows = [row for key, row in header.items() if key != "__metadata__"]
                counted.update(Counter({row["dtype"]: 0 for row in rows}))
                for row in rows:
                    counted[row["dtype"]] += prod(row["shape"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return dict(counted)


@dataclass
class Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit_of(self, revision: str) -> str:
        """The commit that a branch or a commit's own hash means. Raises Denied."""
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            raise Denied(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit


class Hub:
    """The emulator's content and faults; tests talk to this object, clients to `url`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.blobs_url = f"http://localhost:{port}/blobs"
        self.requests: list[Request] = []
        self.answered: list[tuple[str, int]] = []
        """What was asked for, and the bytes of the answer's body."""
        self.counts_elements = True
        """Whether descriptions say how many elements of which types the safetensors files hold."""
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, frozenset[str]] = {}
        self.blobs: dict[str, bytes] = {}
        self._faults: Counter[tuple[Kind, int]] = Counter()
        self._cuts: dict[str, int] = {}
        self.holds: dict[str, tuple[int, threading.Event]] = {}
        self._lock = threading.Lock()

    def push(
        self, repo: str, files: Mapping[str, bytes], *, branch: str = "main", gated: bool = False, private: bool = False
    ) -> str:
        """Make a commit with just these files the head of a branch. Returns its hash."""
        found = self.repos.setdefault(repo, Repo())
        found.gated, found.private = gated, private
        content = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in sorted(files.items()))
        commit = hashlib.sha1(f"{repo} {len(found.commits)}\n{content}".encode()).hexdigest()
        found.commits[commit] = dict(files)
        found.branches[branch] = commit
        self.blobs |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        return commit

    def let_in(self, token: str, *repos: str) -> None:
        """Know an account's token, and show it these private or gated repositories."""
        self.tokens[token] = frozenset(repos)

    def fail(self, kind: Kind, *, status: int = 503, times: int = 1) -> None:
        """Answer the next requests of a kind with a status."""
        self._faults[kind, status] += times

    def cut(self, name: str, *, after: int) -> None:
        """Close the connection once, after this many bytes of a file."""
        self._cuts[name] = after

    def hold(self, name: str, *, after: int) -> threading.Event:
        """Send this many bytes of a file, and the others when the event is set."""
        self.holds[name] = (after, threading.Event())
        return self.holds[name][1]

    def asked(self, kind: Kind, part: str = "") -> list[Request]:
        """The requests of a kind whose path holds this part."""
        return [request for request in self.requests if request.kind == kind and part in request.path]

    def admit(self, request: Request) -> None:
        """Note a request. Raises Denied if a fault is due."""
        with self._lock:
            self.requests.append(request)
            for (kind, status), left in self._faults.items():
                if kind == request.kind and left > 0:
                    self._faults[kind, status] -= 1
                    raise Denied(status, message="injected")

    def repo_for(self, name: str, token: str | None, *, content: bool) -> Repo:
        """The repository, if this client may see it, or its content. Raises Denied as the Hub does."""
        if token is not None and token not in self.tokens:
            raise Denied(401, message="Invalid credentials in Authorization header")
        repo, let_in = self.repos.get(name), token is not None and name in self.tokens[token]
        if repo is None or (repo.private and not let_in):
            # An anonymous client gets 401; the code stands in for https, without which the library reads it otherwise.
            raise Denied(404 if token else 401, "RepoNotFound", "Repository not found")
        if content and repo.gated and not let_in:
            raise Denied(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        return repo

    def pieces(self, name: str, data: bytes) -> Iterator[bytes]:
        """A file's bytes in one or two pieces, with what was planned for it in between."""
        with self._lock:
            cut, (held, event) = self._cuts.pop(name, None), self.holds.get(name, (0, None))
        if event:
            yield data[:held]
            event.wait(60)
        yield data[held:cut]


class Handler(BaseHTTPRequestHandler):
    """Answers one client's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: Any) -> None:
        """Nothing: the requests are in the hub's list."""

    def _answer(self) -> None:
        path, given = urlsplit(self.path).path, self.headers.get("Authorization")
        token = given.removeprefix("Bearer ") if given else None
        api, file, blob = (pattern.fullmatch(path) for pattern in (_API, _FILE, _BLOB))
        content: Kind = "head" if self.command == "HEAD" else "get"
        kind: Kind = _KINDS[api[2]] if api else content if file or blob else "other"
        try:
            self.server.hub.admit(Request(kind, self.path, self.headers.get("Range"), given is not None))
            if api:
                body = json.dumps(self._api(api[1], kind, unquote(api[3] or "main"), token)).encode()
                self._content("", body, {"Content-Type": "application/json"})
            elif file:
                self._file(file[1], unquote(file[2]), unquote(file[3]), token)
            elif blob:
                self._content(unquote(blob[2]), self.server.hub.blobs[blob[1]], {})
            else:
                raise Denied(404)
        except Denied as denied:
            self._head(denied.status, {name: value for name, value in denied.headers.items() if value})

    def _api(self, name: str, kind: Kind, revision: str, token: str | None) -> object:
        repo = self.server.hub.repo_for(name, token, content=kind == "auth-check")
        commit = repo.commit_of(revision)
        files = repo.commits[commit]
        if kind == "tree":
            oids = {path: hashlib.sha1(data).hexdigest() for path, data in files.items()}
            return [{"type": "file", "path": p, "size": size_of(files[p]), "oid": oid} for p, oid in oids.items()]
        gated = "manual" if repo.gated else False
        if "expand=" in self.path:
            return {"id": name, "sha": commit, "gated": gated}
        sizes = "blobs=" in self.path
        siblings = [{"rfilename": path, **(blob(path, data) if sizes else {})} for path, data in files.items()]
        found = {"id": name, "sha": commit, "gated": gated, "private": repo.private, "siblings": siblings}
        if self.server.hub.counts_elements and (elements := elements_by_type(files)):
            found["safetensors"] = {"parameters": elements, "total": sum(elements.values())}
        return found

    def _file(self, name: str, revision: str, path: str, token: str | None) -> None:
        repo = self.server.hub.repo_for(name, token, content=True)
        commit = repo.commit_of(revision)
        data = repo.commits[commit].get(path)
        if data is None:
            raise Denied(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if not path.endswith(_WEIGHTS):
            self._content(path, data, headers)
            return
        digest = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Size": str(size_of(data)), "X-Linked-Etag": f'"{digest}"', "Content-Length": "0"}
        self._head(302, {**headers, **linked, "Location": f"{self.server.hub.blobs_url}/{digest}/{quote(path)}"})

    def _content(self, name: str, data: bytes, headers: Mapping[str, str]) -> None:
        """The file, or the range of it that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        wanted = data[start : int(match[2]) + 1] if match and match[2] else data[start:]
        span = {"Content-Range": f"bytes {start}-{start + len(wanted) - 1}/{size_of(data)}"} if match else {}
        self._head(206 if match else 200, {**headers, **span, "Content-Length": str(len(wanted))})
        if self.command == "HEAD":
            return
        self.server.hub.answered.append((self.path, len(wanted)))
        sent = 0
        for piece in self.server.hub.pieces(name, wanted):
            self.wfile.write(piece)
            sent += len(piece)
        self.close_connection = self.close_connection or sent < len(wanted)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = Hub(self.server_port)


@contextmanager
def hub_emulator() -> Iterator[Hub]:
    """A hub without repositories, for as long as the context lasts."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.hub
        finally:
            for _, event in server.hub.holds.values():
                event.set()
            server.shutdown()
            thread.join()
