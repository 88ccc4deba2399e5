"""The passphrase's secrets: nothing that is marked secret is written in clear.

The same construction as the real one's (PBKDF2-SHA256, AES-256-GCM, "v1:nonce:text"), with few rounds, so that a
command stays quick.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import CommandFailed
from .values import SECRET, SIGNATURE, is_secret, walk

ROUNDS = 1000
NEITHER = (
    'constructing secrets manager of type "passphrase": unable to find either `PULUMI_CONFIG_PASSPHRASE` nor '
    "`PULUMI_CONFIG_PASSPHRASE_FILE` when trying to access the Passphrase Secrets Provider; please ensure one of these "
    "environment variables is set to allow the operation to continue"
)


def passphrase() -> str:
    """The user's passphrase. Raises CommandFailed if the environment has none."""
    if (text := os.environ.get("PULUMI_CONFIG_PASSPHRASE")) is not None:
        return text
    if file := os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise CommandFailed(f"unable to read PULUMI_CONFIG_PASSPHRASE_FILE: {error}") from None
    raise CommandFailed(NEITHER)


@dataclass(frozen=True)
class Crypter:
    """Encrypts with the key that the passphrase and `state` (the salt, and a text to try the key on) give."""

    state: str

    @classmethod
    def new(cls) -> Crypter:
        salt = base64.b64encode(os.urandom(8)).decode()
        check = cls(f"v1:{salt}:").encrypt("pulumi")
        return cls(f"v1:{salt}:{check}")

    @cached_property
    def _key(self) -> bytes:
        salt = base64.b64decode(self.state.split(":")[1])
        return hashlib.pbkdf2_hmac("sha256", passphrase().encode(), salt, ROUNDS)

    def check(self) -> Crypter:
        """Itself. Raises CommandFailed if the passphrase is another one."""
        if self.decrypt(self.state.split(":", 2)[2]) != "pulumi":
            raise CommandFailed("incorrect passphrase")
        return self

    def encrypt(self, text: str) -> str:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        sealed = AESGCM(self._key).encrypt(nonce, text.encode(), None)
        return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, text: str) -> str:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        _, nonce, sealed = text.split(":")
        try:
            return AESGCM(self._key).decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()
        except InvalidTag:
            raise CommandFailed("incorrect passphrase") from None

    def sealed(self, value: Any) -> Any:
        """As it is written to the state."""
        return walk(value, lambda part: self._seal(part) if is_secret(part) and "value" in part else part)

    def _seal(self, part: Any) -> Any:
        return {SIGNATURE: SECRET, "ciphertext": self.encrypt(json.dumps(part["value"]))}

    def opened(self, value: Any) -> Any:
        """As it was before `sealed`."""
        return walk(value, lambda part: self._open(part) if is_secret(part) else part)

    def _open(self, part: Any) -> Any:
        if "ciphertext" in part:
            return {SIGNATURE: SECRET, "value": self.opened(json.loads(self.decrypt(part["ciphertext"])))}
        if "plaintext" in part:
            return {SIGNATURE: SECRET, "value": json.loads(part["plaintext"])}
        return part
