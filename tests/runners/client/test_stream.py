"""Reading a stream quickly gives what reading it event by event gives, wherever it was cut and whatever it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.client.refusal import Unsuccessful
from runners.client.stream import Stream

TEXTS = st.text(max_size=6) | st.sampled_from(
    [
        '"',
        "\\",
        'a","b',
        'x"}]}',
        "\\u0041",
        "\n\n",
        "data: ",
        "é",
        "\U0001f600",
        "\ud83d",
        "",
        'content":"',
        "\r\n",
        "[DONE]",
    ]
)


def event(text: str, kind: str, *, ascii_only: bool, created: int, finish: str | None = None) -> bytes:
    content: dict[str, Any] = {"delta": {"content": text}} if kind == "chat" else {"text": text}
    data = {"id": "a", "created": created, "choices": [{"index": 0, **content, "finish_reason": finish}], "usage": None}
    try:
        said = json.dumps(data, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        said = json.dumps(data).encode()
    return b"data: " + said + b"\n\n"


def plainly(blocks: list[bytes]) -> tuple[list[str], list[int]]:
    """Event by event, with the number of the block in which each ended."""
    pieces, numbers, rest = [], [], b""
    for number, block in enumerate(blocks):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line.strip() != b"data: [DONE]":
                for choice in json.loads(line[5:])["choices"]:
                    text = choice.get("text") or choice.get("delta", {}).get("content")
                    if text:
                        pieces.append(text)
                        numbers.append(number)
    return pieces, numbers


def read(blocks: list[bytes], batch: int) -> Stream:
    stream = Stream()
    for start in range(0, len(blocks), batch):
        part = blocks[start : start + batch]
        stream.feed([float(start + n) for n in range(len(part))], part)
    return stream


@given(
    st.lists(TEXTS, max_size=25),
    st.sampled_from(["chat", "text"]),
    st.booleans(),
    st.integers(1, 9),
    st.integers(1, 30),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_the_same_as_event_by_event(
    texts: list[str], kind: str, ascii_only: bool, every: int, batch: int, cuts: list[int]
) -> None:
    """`created` changes now and then, as in llama.cpp's events; blocks are events, but for those that were cut."""
    blocks = [event(t, kind, ascii_only=ascii_only, created=n // every) for n, t in enumerate(texts)]
    blocks += [event("", kind, ascii_only=ascii_only, created=0, finish="stop"), b"data: [DONE]\n\n"]
    for cut in cuts:
        number = cut % len(blocks)
        at = cut // len(blocks) % (len(blocks[number]) + 1)
        blocks[number : number + 1] = [part for part in (blocks[number][:at], blocks[number][at:]) if part]
    stream = read(blocks, batch)
    pieces, numbers = plainly(blocks)
    assert stream.pieces == pieces
    assert stream.arrivals == [float(number) for number in numbers]
    assert stream.finish_reason == "stop"


def test_a_role_without_text_comes_first_in_a_chat() -> None:
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    stream = read([role, *(event(t, "chat", ascii_only=True, created=0) for t in ("One", " two", " three"))], 9)
    assert (stream.pieces, stream.arrivals) == (["One", " two", " three"], [1.0, 2.0, 3.0])


def test_pieces_of_one_block_share_its_moment() -> None:
    events = [event(t, "text", ascii_only=True, created=0) for t in "abcd"]
    stream = read([events[0], events[1] + events[2], events[3]], 9)
    assert (stream.pieces, stream.arrivals) == (list("abcd"), [0.0, 1.0, 1.0, 2.0])


def test_usage_in_every_event_is_read_from_the_last() -> None:
    blocks = [
        b'data: {"choices":[{"text":"%c","finish_reason":null}],"usage":{"completion_tokens":%d}}\n\n' % (97 + n, n + 1)
        for n in range(20)
    ]
    stream = read(blocks, 7)
    assert (len(stream.pieces), stream.usage) == (20, {"completion_tokens": 20})


def test_several_choices_are_all_read() -> None:
    block = b'data: {"choices":[{"text":"a"},{"text":"b"}]}\n\n'
    assert read([block] * 6, 3).pieces == ["a", "b"] * 6


@pytest.mark.parametrize("after", [b'"}]}\n\n', b'"}], "error": "worker died"}\n\n'])
def test_an_error_in_a_block_of_another_form_is_seen(after: bytes) -> None:
    said = [b'data: {"choices":[{"text":"%c"}]}\n\n' % letter for letter in b"abcdef"]
    blocks = [*said, b'data: {"choices":[{"text":"g' + after]
    if b"error" in after:
        with pytest.raises(Unsuccessful, match="worker died"):
            read(blocks, 9)
    else:
        assert read(blocks, 9).pieces == list("abcdefg")


@pytest.mark.parametrize(
    "junk",
    [
        b"data: {\n\n",
        b'data: {"choices": 3}\n\n',
        b'data: {"choices": ["x"]}\n\n',
        b'data: {"choices": [{"text": 5}]}\n\n',
        b"data: \xff\n\n",
    ],
)
def test_what_is_no_event_is_told(junk: bytes) -> None:
    said = [event(t, "text", ascii_only=True, created=0) for t in "abcdef"]
    with pytest.raises(Unsuccessful, match="the stream holds no event"):
        read([*said, junk], 9)
