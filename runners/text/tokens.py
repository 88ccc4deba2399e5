"""Token counts by the model's own tokenizer, with the beginning-of-sequence token that the engine adds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import Refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter:
    """Counts tokens; every text counts with its special tokens, as the reference does. Remembers short texts."""

    _REMEMBERED_LENGTH = 64

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, int] = {}
        self.name = name
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @classmethod
    def from_path(cls, path: Path) -> TokenCounter:
        """From a tokenizer.json, or a folder that holds one. Raises Refused."""
        from tokenizers import Tokenizer

        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise Refused(
                f"{file}: no tokenizer there, so chunks cannot be counted in tokens",
                advice="write workload.tokenizer: a tokenizer.json, a folder that holds one, or owner/name",
            )
        try:
            return cls(Tokenizer.from_file(str(file)), str(file))
        except Exception as error:  # tokenizers raises plain Exception for a file that it cannot read
            raise Refused(f"{file}: not a tokenizer: {error}", advice="name another workload.tokenizer") from error

    def count(self, text: str) -> int:
        return self.count_all([text])[0]

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._counts]
        fresh = {}
        if missing:
            encodings = self._tokenizer.encode_batch_fast(missing)
            fresh = {text: len(encoding) for text, encoding in zip(missing, encodings, strict=True)}
            self._counts |= {text: n for text, n in fresh.items() if len(text) <= self._REMEMBERED_LENGTH}
        return [fresh[text] if text in fresh else self._counts[text] for text in texts]

    def count_pieces(self, text: str, edges: Sequence[int]) -> list[int]:
        """Tokens of each piece of the text, as a text of its own: the pieces lie between neighbours of `edges`."""
        return self.count_all([text[start:end] for start, end in pairwise(edges)])


class RoughCounter(TokenCounter):
    """Four characters a token: a measure for planning where there is no tokenizer; nothing is run on it."""

    _CHARACTERS = 4

    def __init__(self) -> None:
        self.name = "four characters a token"

    def count_all(self, texts: Sequence[str]) -> list[int]:
        return [1 + -(-len(text) // self._CHARACTERS) for text in texts]
