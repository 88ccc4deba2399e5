"""Plotly's JavaScript for a page that needs no network: compressed once per version, unpacked by the browser."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from provisioners.files import write_whole
from provisioners.site import recipe_cache

_HEAD = 100
"""Bytes of what stands before the text in the cache's file."""


@dataclass(frozen=True)
class Plotly:
    """What a page holds of it; `recipePage.loadPlotly` of page.js makes it run."""

    packed: bytes
    """plotly.min.js, gzip, base64: for <script type="application/gzip" id="plotly">."""
    csp: str
    """The source for script-src that lets the unpacked script run, quotes included."""


def plotly() -> Plotly | None:
    """From the installed distribution, which is not imported; None if it is not there or holds no script."""
    source = _script()
    if source is None:
        return None
    stat = source.stat()
    kept = recipe_cache() / "web" / f"plotly-{stat.st_size}-{stat.st_mtime_ns}.gz.b64"
    with suppress(OSError, ValueError):
        return _unkept(kept)
    made = pack(source.read_bytes())
    with suppress(OSError):  # without the cache it is packed again the next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        head = f"{made.csp} {len(made.packed)}".ljust(_HEAD - 1) + "\n"
        write_whole(kept, head.encode() + made.packed)
    return made


def pack(script: bytes) -> Plotly:
    """A script as a page holds it. Without a time in it, so that the same script is the same text."""
    import gzip  # only when it is not kept yet

    text = script.removeprefix(b"\xef\xbb\xbf")
    packed = base64.b64encode(gzip.compress(text, 9, mtime=0))
    digest = base64.b64encode(hashlib.sha256(text).digest()).decode("ascii")
    return Plotly(packed, f"'sha256-{digest}'")


def _unkept(path: Path) -> Plotly:
    """What the cache's file holds: a line with the source and the length, and the text. Raises ValueError if torn."""
    with path.open("rb", buffering=0) as file:
        head = file.read(_HEAD)
        csp, length = head.decode("ascii").split()
        packed = file.read()
    if len(packed) != int(length):
        raise ValueError("torn")
    return Plotly(packed, csp)


def _script() -> Path | None:
    spec = find_spec("plotly")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        script = Path(folder) / "package_data" / "plotly.min.js"
        if script.is_file():
            return script
    return None
