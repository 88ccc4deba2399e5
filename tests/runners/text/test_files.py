"""Files: cut in processes or here, in memory or block by block, always the same; and what is no text."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runners.text.files as files
import runners.text.source as source_module
import runners.text.stream as stream_module
from recipes import catalogue
from recipes.errors import InvalidRecipe
from recipes.prompts import load_prompt
from runners.text.files import Cut, cut_files
from runners.text.source import NotText, TextFile, TextInMemory
from runners.text.splitter import SEPARATORS, Splitter
from runners.text.stream import stream
from runners.text.tokens import TokenCounter
from tests.runners.text.making import random_text

LEAD = catalogue.builtin_model("lead")
COUNTER = TokenCounter.from_path(LEAD, cache=Path("/nonexistent"))
TEMPLATE = load_prompt("builtin:summarize")


def lines_as_python_reads(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(3, 80),
    share=st.floats(0, 0.95),
    separators=st.sampled_from(sorted(SEPARATORS)),
    block=st.sampled_from([1, 2, 7, 50, 1000]),
    long=st.sampled_from([3, 20, 100, 1 << 20]),
)
def test_a_stream_makes_the_same_chunks(
    seed: int, size: int, share: float, separators: str, block: int, long: int
) -> None:
    choose = random.Random(seed)
    text = lines_as_python_reads(random_text(seed, choose.choice([2, 20, 90])))
    text = choose.choice([text, text.replace("\n\n", "\n"), text.replace("\n", " "), text.replace(" ", "")])
    splitter = Splitter(COUNTER, size, int(size * share), SEPARATORS[separators])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream_module, "_LONG_PIECE", long)
        found = list(stream(splitter, TextInMemory(text, block)))
    assert found == [(span, text[span.start : span.end]) for span in splitter.spans(text)]


@settings(max_examples=60)
@given(text=st.text(st.sampled_from("aé漢🙂\r\n "), max_size=60), start=st.integers(0, 60), length=st.integers(0, 60))
def test_a_file_is_read_from_any_place_as_python_reads_it(
    tmp_path_factory: pytest.TempPathFactory, text: str, start: int, length: int
) -> None:
    path = tmp_path_factory.mktemp("file") / "text"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source_module, "_BLOCK", 5)
        file = TextFile(path)
        whole = path.read_text(encoding="utf-8")
        for _ in range(2):  # also when it is known where its blocks begin
            assert file.read(start, start + length) == whole[start : start + length]
            assert "".join(file.blocks()) == whole


@pytest.mark.parametrize(
    "content", [b"abcdefgh\xe9", b"ab\xe6\xbc", b"\xff\xfe\x00", "aaaé漢漢".encode() + b"\xa9 more"]
)
def test_a_byte_that_is_no_text_is_named_with_its_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(UnicodeDecodeError) as wrong:
        path.read_text(encoding="utf-8")
    for block in (2, 1 << 20):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(source_module, "_BLOCK", block)
            with pytest.raises(NotText) as found:
                list(TextFile(path).blocks())
        assert str(found.value) == f"not UTF-8: byte {wrong.value.start} is 0x{content[wrong.value.start]:02x}"


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(6):
        path = tmp_path / f"{seed}.txt"
        path.write_text(random_text(seed, 20 + 200 * seed), encoding="utf-8", newline="")
        paths.append(path)
    return paths


def plain(cut: Cut) -> tuple[object, ...]:
    return cut.path, cut.characters, cut.tokens, list(cut.starts), list(cut.ends), list(cut.prompt_tokens)


def test_a_cut_says_what_a_plan_needs(corpus: list[Path]) -> None:
    splitter = Splitter(COUNTER, 200, 40)
    for cut in cut_files(corpus, splitter, template=TEMPLATE):
        text = cut.path.read_text(encoding="utf-8")
        assert (cut.characters, cut.tokens) == (len(text), COUNTER.count(text))
        assert cut.spans == splitter.spans(text) if cut.tokens >= 200 else [(0, len(text))]
        prompts = [TEMPLATE.render(text[a:b]) for a, b in cut.spans]
        assert list(cut.prompt_tokens) == COUNTER.count_all(prompts)


def test_in_memory_and_block_by_block_are_the_same(corpus: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clean = [path for path in corpus if path.write_text(path.read_text(encoding="utf-8").replace("<", "("))]
    splitter = Splitter(COUNTER, 200, 40)
    at_once = list(map(plain, cut_files(clean, splitter, template=TEMPLATE)))
    monkeypatch.setattr(files, "_IN_MEMORY", 100)
    monkeypatch.setattr(source_module, "_BLOCK", 64)
    assert list(map(plain, cut_files(clean, splitter, template=TEMPLATE))) == at_once


@pytest.mark.parametrize("chosen", [{}, {"balanced": True, "whole_sentences": True}])
def test_processes_cut_as_one_does_also_from_a_thread(
    corpus: list[Path], tmp_path: Path, chosen: dict[str, bool]
) -> None:
    counter = TokenCounter.from_path(LEAD, cache=tmp_path / "counts")
    splitter = Splitter(counter, 200, 40, **chosen)
    alone = list(map(plain, cut_files(corpus, splitter, template=TEMPLATE, processes=1)))
    found: list[object] = []
    thread = threading.Thread(
        target=lambda: found.extend(map(plain, cut_files(corpus, splitter, template=TEMPLATE, processes=3)))
    )
    thread.start()
    thread.join(240)
    assert found == alone


def test_processes_end_when_nobody_wants_more(corpus: list[Path], tmp_path: Path) -> None:
    import psutil

    counter = TokenCounter.from_path(LEAD, cache=tmp_path / "counts")
    before = {child.pid for child in psutil.Process().children()}
    cuts = cut_files(corpus * 5, Splitter(counter, 200, 40), processes=2)
    next(cuts)
    assert len({child.pid for child in psutil.Process().children()} - before) == 2
    cuts.close()  # type: ignore[attr-defined]
    assert not {child.pid for child in psutil.Process().children()} - before


def test_every_file_that_is_no_text_is_reported_after_the_others(corpus: list[Path], tmp_path: Path) -> None:
    bad, blank, gone = (tmp_path / name for name in ("bad.txt", "blank.txt", "gone.txt"))
    bad.write_bytes(b"caf\xe9")
    blank.write_text(" \n\u3000")
    counter = TokenCounter.from_path(LEAD, cache=tmp_path / "counts")
    for processes in (1, 2):
        cuts = cut_files([bad, corpus[0], blank, gone, corpus[1]], Splitter(counter, 200, 40), processes=processes)
        assert [next(cuts).path, next(cuts).path] == corpus[:2]
        with pytest.raises(InvalidRecipe) as caught:
            next(cuts)
        messages = [problem.message for problem in caught.value.problems]
        assert messages == ["not UTF-8: byte 3 is 0xe9", "only white space", "No such file or directory"]


# A process's own peak: ru_maxrss would also hold that of the process which started it.
STREAMED = """
import sys
from pathlib import Path
from runners.text.files import cut_files
from runners.text.splitter import Splitter
from runners.text.tokens import TokenCounter

counter = TokenCounter.from_path(Path(sys.argv[1]), cache=Path(sys.argv[2]))
(cut,) = cut_files([Path(sys.argv[3])], Splitter(counter, 3000, 512))
peak_kib = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(len(cut), cut.characters, int(peak_kib) // 1024)
"""


@pytest.mark.parametrize(("kind", "size"), [("paragraphs", 40_000_000), ("one line after a paragraph", 12_000_000)])
def test_a_large_file_is_cut_in_little_memory(tmp_path: Path, kind: str, size: int) -> None:
    """Cut block by block: a process that holds the text and its pieces at once takes more than is allowed."""
    lines = "".join(f"Sentence {i} of it is here, and goes on for a while.\n" for i in range(20_000))
    part = lines.replace("0 of", "0\n\nof") if kind == "paragraphs" else lines.replace("\n", " ")
    path = tmp_path / "large.txt"
    with path.open("w") as file:
        file.write("A beginning.\n\n")
        for _ in range(size // len(part)):
            file.write(part)
    argv = [sys.executable, "-c", STREAMED, str(LEAD), str(tmp_path), str(path)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    chunks, characters, peak_mib = map(int, ended.stdout.split())
    assert characters == path.stat().st_size
    assert chunks > 2000
    assert peak_mib < 130
