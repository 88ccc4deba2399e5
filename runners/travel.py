"""The driver as one file: recipe's own source, and a plug-in's where one is used. The same source, the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from provisioners.files import write_whole
from recipes.spec import digest_of

OLDEST = (3, 11)
"""The Python that the driver needs."""
ROOTS = ("pydantic", "PyYAML", "Jinja2", "tokenizers", "httptools", "orjson")
"""The distributions that the driver imports, besides what these need themselves."""
_BY_ITSELF = ("tokenizers",)
"""What these need is for other uses than ours."""
_OWN = ("recipes", "provisioners", "runners")
_KINDS = (".py", ".json", ".yaml", ".txt", ".csv")
_LEFT_OUT = ("models/", "__pycache__/")
_LARGEST = 1 << 20
_KEPT_S = 7 * 86400.0
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = '''\
"""Unpacks itself once, beside itself, and runs the driver."""
import os, shutil, sys, tempfile, zipfile

archive = os.path.abspath(sys.argv[0])
home = archive + ".unpacked"
if not os.path.isdir(home):
    part = tempfile.mkdtemp(dir=os.path.dirname(archive))
    with zipfile.ZipFile(archive) as file:
        file.extractall(part)
    try:
        os.rename(part, home)
    except OSError:  # another driver was quicker
        shutil.rmtree(part)
sys.path[0] = home
from runners.driver.main import main

sys.exit(main(sys.argv[1:]))
'''


def archive(folder: Path, plugins: Iterable[str] = ()) -> Path:
    """The driver's file in a folder of the client, made if it is not there. `plugins` are modules that it needs too.

    Raises OSError.
    """
    data = _zipped(_files(plugins))
    path = folder / f"driver-{hashlib.sha256(data).hexdigest()[:16]}.zip"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    _forget_others(path)
    return path


def _forget_others(path: Path) -> None:
    """Remove what earlier releases have left; what was used lately may be in use."""
    os.utime(path)
    for other in path.parent.glob("driver-*.zip"):
        with suppress(OSError):
            if other.stat().st_mtime < time.time() - _KEPT_S:
                shutil.rmtree(f"{other}.unpacked", ignore_errors=True)
                other.unlink()


def installation(python: str) -> tuple[str, dict[str, Any]]:
    """The driver's environment: its folder's name below the cache, and the request for `install_engine.py`.

    It holds this client's own releases. A machine whose Python has just these needs none.
    """
    pins = [f"{name}=={release}" for name, release in sorted(needed().items())]
    pip = ["{env}/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", *pins]
    request = {
        "python": python,
        "needs": list(OLDEST),
        "steps": [{"argv": pip, "env": {}}],
        "check": ["{env}/bin/python", "-c", _IMPORTS],
        "present": [python, "-c", _PRESENT.format(oldest=OLDEST, pins=json.dumps(pins))],
    }
    return f"engines/driver-{digest_of([pins, OLDEST])[:8]}-{{python_tag}}", request


_IMPORTS = "import pydantic, yaml, jinja2, tokenizers"
_PRESENT = (
    "import sys; from importlib.metadata import version; "
    "sys.exit(sys.version_info < {oldest} or any(version(p.split('==')[0]) != p.split('==')[1] for p in {pins}))"
)


def needed() -> dict[str, str]:
    """The distributions that the driver needs, and the releases that this client has of them."""
    found: dict[str, str] = {}
    todo = list(ROOTS)
    while todo:
        name = todo.pop()
        try:
            one = distribution(name)
        except PackageNotFoundError:  # of another platform, or for another Python
            continue
        if one.name not in found:
            found[one.name] = one.version
            todo += [] if name in _BY_ITSELF else _required(one.requires or ())
    return found


def _required(requirements: Iterable[str]) -> Iterator[str]:
    for requirement in requirements:
        if "extra ==" not in requirement and (name := re.match(r"[A-Za-z0-9._-]+", requirement)):
            yield name[0]


def _files(plugins: Iterable[str]) -> dict[str, bytes]:
    """Contents by path in the archive."""
    tops = dict.fromkeys([*_OWN, *(module.partition(".")[0] for module in plugins)])
    found = {name: data for top in tops for name, data in _files_of(top)}
    return {**found, "__main__.py": _MAIN.encode()}


def _files_of(top: str) -> Iterator[tuple[str, bytes]]:
    spec = find_spec(top)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if spec and spec.origin and not folders:
        yield Path(spec.origin).name, Path(spec.origin).read_bytes()
    for folder in map(Path, folders):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            wanted = path.suffix in _KINDS and path.is_file() and path.stat().st_size <= _LARGEST
            if wanted and not any(part in f"{name}/" for part in _LEFT_OUT):
                yield f"{top}/{name}", path.read_bytes()


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            file.writestr(info, files[name])
    return out.getvalue()
