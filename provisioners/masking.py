"""Keeps secrets out of what is written and shown, also where an engine or an endpoint repeats them."""

from __future__ import annotations

from collections.abc import Iterable

MASK = "***"
_SHORTEST = 4  # a shorter one would be found in every other word


class Mask:
    """Replaces every secret in a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST}
        # The longest first: one secret may hold another.
        self._secrets = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def line(self, line: bytes) -> bytes:
        """The same for a line of output, whatever its encoding."""
        for secret in self._secrets:
            line = line.replace(secret.encode(), MASK.encode())
        return line
