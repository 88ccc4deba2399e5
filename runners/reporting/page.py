"""Templates to pages: one file with everything in it, that loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from provisioners.site import recipe_cache
from recipes.units import format_duration
from runners.reporting.figures import FORMS
from runners.terminal.words import plural
from runners.web.plotly import plotly

_HERE = Path(__file__).parent
_WEB = _HERE.parent / "web"
_UNSEEN = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
"""Controls, and what turns the direction of the text around it: shown by their number."""
_LIBRARY_STANDS = '<script type="application/gzip" id="plotly">'
_SCRIPT_ENDS = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def visible(text: str) -> str:
    """The text without anything that acts on what stands around it."""
    if text.replace("\n", "").isprintable():
        return text
    return re.sub(_UNSEEN, lambda found: f"‹{ord(found[0]):04X}›", text.replace("\r\n", "\n"))


def script_json(data: Any) -> Markup:
    """Data for a <script type="application/json">: nothing in it can end the script."""
    text = json.dumps(_visible_in(data), separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_SCRIPT_ENDS))  # noqa: S704


def _visible_in(data: Any) -> Any:
    match data:
        case str():
            return visible(data)
        case Mapping():
            return {key: _visible_in(value) for key, value in data.items()}
        case list():
            return [_visible_in(value) for value in data]
        case _:
            return data


def rendered(template: str, *, title: str, charts: Mapping[str, Any], **context: Any) -> bytes:
    """The page. `charts` is what report.js draws; without any, nor the library, the page has no script for them."""
    script = "\n".join([_asset(_WEB / "page.js"), *([_asset(_HERE / "report.js")] if charts else [])])
    library = plotly() if charts else None
    sources = [_csp_hash(script), *([library.csp] if library else [])]
    html = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            style=Markup(_asset(_WEB / "base.css") + _asset(_HERE / "report.css")),  # noqa: S704
            script=Markup(script),  # noqa: S704
            script_sources=Markup(" ".join(sources)),  # noqa: S704
            has_library=library is not None,
            data=script_json(charts),
            has_charts=bool(charts),
            **context,
        )
    )
    # The library is most of the page: it comes to the rest as the bytes that were kept.
    before, place, after = html.rpartition(_LIBRARY_STANDS) if library else (html, "", "")
    return b"".join([_encoded(before + place), library.packed if library else b"", _encoded(after)])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@cache
def _environment() -> jinja2.Environment:
    cached = recipe_cache() / "web" / "templates"
    try:
        cached.mkdir(parents=True, exist_ok=True)
        bytecode: jinja2.BytecodeCache | None = jinja2.FileSystemBytecodeCache(str(cached))
    except OSError:
        bytecode = None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
        finalize=_finalized,
        bytecode_cache=bytecode,
        auto_reload=False,
    )
    environment.filters.update(
        form=lambda value, name: "–" if value is None else FORMS[name](value),
        plural=plural,
        duration=format_duration,
        told=lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        pretty=lambda value: json.dumps(value, ensure_ascii=False, indent=2),
    )
    return environment


def _finalized(value: Any) -> Any:
    """What is printed: nothing for None, and foreign texts without hidden signs."""
    if value is None:
        return ""
    return visible(value) if type(value) is str else value


@cache
def _asset(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
