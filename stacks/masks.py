"""What may show nowhere of an environment that is handed to Pulumi's engine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from provisioners.masking import Mask

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|(?:^|_)PASS|PASSWORD|PASSPHRASE|CREDENTIALS)$", re.IGNORECASE)
_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"
_URL = "PULUMI_BACKEND_URL"
_PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 (a variable's name)
_PLAIN = re.compile(r"true|false|yes|none|null|\d{1,7}", re.IGNORECASE)
"""No secret, whatever the variable is called: a switch, or a number. Each would be found in many a text."""


def secrets_of(env: Mapping[str, str]) -> list[str]:
    """The values of variables whose names say that they are secret, Pulumi's passphrase, and what its URL holds."""
    named = (value for name, value in env.items() if _SECRET.search(name) and name != _PASSPHRASE)
    found = [value for value in (*named, *_in_url(env.get(_URL, ""))) if not _PLAIN.fullmatch(value)]
    found.append(env.get(_PASSPHRASE, ""))
    with suppress(OSError, UnicodeDecodeError):
        if path := env.get(_FILE):
            found.append(Path(path).read_text(encoding="utf-8").strip())
    return found


def mask_of(env: Mapping[str, str]) -> Mask:
    """Replaces all of them in a text, also where JSON writes one with escapes."""
    return Mask(
        form for secret in secrets_of(env) for form in (secret, secret.replace("\\", "\\\\").replace('"', '\\"'))
    )


def _in_url(url: str) -> Iterator[str]:
    """A password, and what is called a secret in the query; each as it is written there, and as it was before."""
    with suppress(ValueError):
        parts = urlsplit(url)
        named = (pair.partition("=") for pair in parts.query.split("&"))
        for secret in (parts.password or "", *(value for name, _, value in named if _SECRET.search(name))):
            yield from (secret, unquote(secret))
