"""The charts' library as a page holds it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from runners.web.plotly import pack, plotly


def test_it_is_packed_once_and_unpacks_to_what_the_hash_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = plotly()
    assert found is not None
    script = gzip.decompress(base64.b64decode(found.packed))
    assert script.startswith(b"/**\n* plotly.js")
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert found.csp == f"'sha256-{digest}'"
    (kept,) = (tmp_path / "recipe" / "web").iterdir()
    before = kept.stat().st_mtime_ns
    assert plotly() == found
    assert kept.stat().st_mtime_ns == before
    kept.write_text('{"packed": ')  # half of it, as a full disk leaves it
    assert plotly() == found


def test_the_same_script_is_packed_the_same_and_a_byte_order_mark_is_none_of_it() -> None:
    assert pack(b"\xef\xbb\xbflet a") == pack(b"let a")


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plotly() is not None


def test_the_library_is_not_imported_for_its_script() -> None:
    code = "import sys; from runners.web.plotly import plotly; plotly(); sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
