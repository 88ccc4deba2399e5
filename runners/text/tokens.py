"""Token counts by the model's own tokenizer, with the beginning-of-sequence token that the engine adds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from recipes.errors import Refused
from runners.text.kept import Kept, read_kept, write_kept
from runners.text.methods import Method, method_of
from runners.text.sums import BETWEEN_WORDS, PieceSums, Sums, WordSums

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REMEMBERED_LENGTH = 64
_REMEMBERED = 200_000
_BATCH = 1 << 18
"""Characters that the tokenizer is given at once: what it makes of them takes some hundred bytes for each token."""
_LOOK_BACK = 4096
"""Characters at a block's end in which the space between two words is looked for."""
_PROBES = (
    *(
        "a",
        " a",
        "a  b",
        "\n",
        "\n\na",
        "a\n",
        "a \n b",
        "\n a",
        "It's 1234 o'clock, isn't it?\n\n\n'Tis.",
        "a\tb\r\nc",
    ),
    *(
        "über naïve 漢字 🙂🙂 e\u0301",
        "  two   three    ",
        "x" * 40,
        "1.5e-3, (a+b)**2;\n    return {\n",
        "\u00a0 \u3000 ",
    ),
    *("a▁b ▁ ▁▁c", "▁", "'S'll'VE we'Re", "\0\1\x1f\x85", "word\n\nword, \n\n word.\n\n\n\nword"),
)


class TokenCounter:
    """Counts tokens; every text counts with its special tokens, as the reference does.

    The count is the tokenizer's own. Where its counts add up over words (`methods`), each word is shown to it once, and
    not even that if an earlier process kept what it said; the tokenizer is opened when something is new.
    """

    def __init__(self, name: str, tokenizer: Callable[[], Tokenizer], kept: Kept, file: Path | None = None) -> None:
        """What is known of the tokenizer, how to open it, and the file for what will be known."""
        self.name = name
        """Where it came from; for one that was read from a file, that file."""
        self._tokenizer, self._kept, self._file = tokenizer, kept, file
        self._counts: dict[str, int] = {}
        self._marks = _Marks(kept.method.added)
        kinds: dict[str, type[Sums]] = {"words": WordSums, "pieces": PieceSums}
        kind = kinds.get(kept.method.kind)
        self._sums = kind(kept.method, tokenizer, kept.known, kept.units) if kind else None
        self._loaded = len(kept.known) + len(kept.units)

    @classmethod
    def of(cls, tokenizer: Tokenizer, name: str) -> TokenCounter:
        """By a tokenizer at hand, which counts every text itself."""
        _plain(tokenizer)
        return cls(name, lambda: tokenizer, Kept(Method(kind="whole"), len(tokenizer.encode("").ids)))

    @classmethod
    def from_path(cls, path: Path, *, cache: Path | None = None) -> TokenCounter:
        """From a tokenizer.json, or a folder that holds one; counts are kept in `cache`. Raises Refused."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise Refused(
                f"{file}: no tokenizer there, so chunks cannot be counted in tokens",
                advice="write workload.tokenizer: a tokenizer.json, a folder that holds one, or owner/name",
            )
        content = file.read_bytes()
        kept_in = (cache or _kept_counts()) / f"{hashlib.sha256(content).hexdigest()[:32]}.counts"
        opened = _Opened(file, content)
        return cls(str(file), opened, read_kept(kept_in) or opened.examined(), kept_in)

    @property
    def method(self) -> str:
        """How it counts: words, pieces, or whole."""
        return self._kept.method.kind

    @property
    def reopened_from(self) -> tuple[Path, Path] | None:
        """The tokenizer.json and the folder of kept counts, by which another process makes the same counter."""
        return (Path(self.name), self._file.parent) if self._file else None

    def keep(self) -> None:
        """Put what was counted on disk: a single new word would cost the next process the opening of the tokenizer."""
        if self._file is None or self._sums is None or not self._sums.asked:
            return
        known, units = self._sums.known, self._sums.units
        if len(known) + len(units) > self._loaded:
            write_kept(self._file, Kept(self._kept.method, self._kept.special_tokens, known, units))
            self._loaded = len(known) + len(units)

    def count(self, text: str) -> int:
        return self.count_all([text])[0]

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included."""
        counts = self._counts
        fresh = dict.fromkeys(text for text in texts if text not in counts)
        if fresh:
            found = dict(zip(fresh, self._fresh(list(fresh)), strict=True))
            if len(counts) > _REMEMBERED:
                counts.clear()
            counts |= {text: tokens for text, tokens in found.items() if len(text) <= _REMEMBERED_LENGTH}
            return [found[text] if text in found else counts[text] for text in texts]
        return [counts[text] for text in texts]

    def count_pieces(self, text: str, edges: Sequence[int]) -> list[int]:
        """Tokens of each piece of the text, as a text of its own: the pieces lie between neighbours of `edges`."""
        if not edges:
            return []
        short = (edges[-1] - edges[0]) < _REMEMBERED_LENGTH // 2 * len(edges)
        if self._sums is None or short or self._marks.within(text[edges[0] : edges[-1]]):
            return self.count_all([text[start:end] for start, end in pairwise(edges)])
        special, count = self._kept.special_tokens, self._sums.count
        return [special + count(text, start, end) for start, end in pairwise(edges)]

    def count_within(self, text: str, edges: Sequence[int]) -> list[int]:
        """Tokens that each piece adds to what stands before it, without special ones; for pieces that begin with the
        white space between words. Exact where counts add up by words, else those of the piece by itself."""
        special = self.count("")
        if self._sums is None or self._marks.within(text[edges[0] : edges[-1]] if edges else ""):
            return [tokens - special for tokens in self.count_pieces(text, edges)]
        return [self._sums.count_within(text, start, end) for start, end in pairwise(edges)]

    def count_blocks(self, blocks: Iterable[str]) -> int:
        """Tokens of a text that comes in blocks. Exact where counts add up and the text has no added tokens; else the
        blocks are cut between words, which may be a token more or less for each."""
        total, held, first = self.count(""), "", True
        for block in blocks:
            held += block
            cuts = [match.start() for match in BETWEEN_WORDS.finditer(held, max(0, len(held) - _LOOK_BACK))]
            if cuts:
                total += self._block(held[: cuts[-1]], first=first)
                held, first = held[cuts[-1] + 1 :], False
        return total + self._block(held, first=first)

    def _block(self, text: str, *, first: bool) -> int:
        if self._sums is None or self._marks.within(text):
            return self.count(text) - self.count("")
        return self._sums.count(text, 0, len(text), first=first)

    def _fresh(self, texts: list[str]) -> list[int]:
        if self._sums is None:
            return list(self._whole(texts))
        special, sums, marked = self._kept.special_tokens, self._sums, self._marks.within
        if not any(map(marked, texts)):
            return [special + sums.count(text, 0, len(text)) for text in texts]
        whole = dict(zip(spoiled := [t for t in texts if marked(t)], self._whole(spoiled), strict=True))
        return [whole[t] if t in whole else special + sums.count(t, 0, len(t)) for t in texts]

    def _whole(self, texts: Sequence[str]) -> Iterator[int]:
        """By the tokenizer. Half a surrogate pair, which is no character, counts as the replacement character."""
        batch: list[str] = []
        characters = 0
        for text in texts:
            batch.append(text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
            characters += len(text)
            if characters > _BATCH:
                yield from map(len, self._tokenizer().encode_batch_fast(batch))
                batch, characters = [], 0
        yield from map(len, self._tokenizer().encode_batch_fast(batch))


class RoughCounter(TokenCounter):
    """Four characters a token: a measure for planning where there is no tokenizer; nothing is run on it."""

    _CHARACTERS = 4

    def __init__(self) -> None:
        self.name = "four characters a token"

    @property
    def method(self) -> str:
        return "whole"

    @property
    def reopened_from(self) -> tuple[Path, Path] | None:
        return None

    def keep(self) -> None:
        return

    def count_all(self, texts: Sequence[str]) -> list[int]:
        return [1 + -(-len(text) // self._CHARACTERS) for text in texts]

    def count_pieces(self, text: str, edges: Sequence[int]) -> list[int]:
        return [1 + -(-(end - start) // self._CHARACTERS) for start, end in pairwise(edges)]

    def count_blocks(self, blocks: Iterable[str]) -> int:
        return 1 + -(-sum(map(len, blocks)) // self._CHARACTERS)

    def count_within(self, text: str, edges: Sequence[int]) -> list[int]:
        return [-(-(end - start) // self._CHARACTERS) for start, end in pairwise(edges)]


class _Marks:
    """Finds the texts that are counted whole: they hold an added token, or half a surrogate pair."""

    def __init__(self, added: Sequence[str]) -> None:
        self._beginnings = "".join({text[0] for text in added})
        self._added = re.compile("|".join(map(re.escape, added))) if added else None

    def within(self, text: str) -> bool:
        if self._added and any(sign in text for sign in self._beginnings) and self._added.search(text):
            return True
        if text.isascii():
            return False
        try:
            text.encode()
        except UnicodeEncodeError:
            return True
        return False


class _Opened:
    """A tokenizer that is opened when it is first called."""

    def __init__(self, file: Path, content: bytes) -> None:
        self._file, self._content = file, content
        self._tokenizer: Tokenizer | None = None

    def __call__(self) -> Tokenizer:
        """The tokenizer. Raises Refused if the file is none."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_buffer(self._content)
            except Exception as error:  # tokenizers raises plain Exception for a file that it cannot read
                raise Refused(
                    f"{self._file}: not a tokenizer: {error}", advice="name another workload.tokenizer"
                ) from error
            _plain(self._tokenizer)
            self._content = b""
        return self._tokenizer

    def examined(self) -> Kept:
        """How its counts add up, tried on texts that would tell. Raises Refused."""
        content, method = self._content, Method(kind="whole")
        tokenizer = self()
        with suppress(ValueError):
            method = method_of(orjson.loads(content))
        special_tokens = len(tokenizer.encode("").ids)
        counter = TokenCounter(str(self._file), self, Kept(method, special_tokens))
        right = [len(encoding) for encoding in tokenizer.encode_batch_fast(list(_PROBES))]
        if counter.count_all(_PROBES) != right:
            method = Method(kind="whole")
        return Kept(method, special_tokens)


def _kept_counts() -> Path:
    """Where counts are kept."""
    from provisioners.site import recipe_cache  # takes as long to import as a book takes to cut

    return recipe_cache() / "tokens"


def _plain(tokenizer: Tokenizer) -> None:
    """Turn off what would change a text's count: truncation and padding."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
