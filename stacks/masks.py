"""What may show nowhere of an environment that is handed to Pulumi's engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from provisioners.masking import Mask

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIALS)$", re.IGNORECASE)
_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"


def secrets_of(env: Mapping[str, str]) -> list[str]:
    """The values of variables whose names say that they are secret, and Pulumi's passphrase."""
    found = [value for name, value in env.items() if _SECRET.search(name)]
    with suppress(OSError, UnicodeDecodeError):
        if path := env.get(_FILE):
            found.append(Path(path).read_text(encoding="utf-8").strip())
    return found


def mask_of(env: Mapping[str, str]) -> Mask:
    """Replaces all of them in a text, also where JSON writes one with escapes."""
    return Mask(
        form for secret in secrets_of(env) for form in (secret, secret.replace("\\", "\\\\").replace('"', '\\"'))
    )
