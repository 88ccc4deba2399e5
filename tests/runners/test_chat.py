"""A conversation with an engine: what is asked, what is remembered, and what is said of what goes wrong."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from recipes.errors import EngineFailed, NoMachine, UsageError
from runners.chat import Conversation, client_of, served_model, transcript
from runners.client import Endpoint
from tests.emulators.parrot import parrot


def conversation(url: str, key: str | None = None, **settings: Any) -> Conversation:
    return Conversation(client_of(Endpoint(url, "double", key)), "double", 50, 0.0, **settings)


def test_what_was_said_goes_along_with_the_next_question() -> None:
    with parrot() as bird:
        talk = conversation(bird.url, system="Be brief.")
        assert "".join(talk.ask("One?")) == "Two words"
        assert "".join(talk.ask("And?")) == "Two words"
        path, body = bird.heard[-1]
        assert path == "/v1/chat/completions"
        assert [(m["role"], m["content"]) for m in body["messages"]] == [
            ("system", "Be brief."),
            ("user", "One?"),
            ("assistant", "Two words"),
            ("user", "And?"),
        ]
        assert (body["max_tokens"], body["temperature"], body["stream"]) == (50, 0.0, True)
        talk.forget()
        list(talk.ask("Anew?"))
        assert [m["content"] for m in bird.heard[-1][1]["messages"]] == ["Be brief.", "Anew?"]


def test_an_engine_without_a_chat_template_is_given_a_transcript() -> None:
    with parrot(template=False) as bird:
        talk = conversation(bird.url)
        assert "".join(talk.ask("One?")) == "Two words"
        assert talk.api == "completions"
        list(talk.ask("And?"))
        assert [path for path, _ in bird.heard] == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]
        assert bird.heard[-1][1]["prompt"] == "USER: One?\nASSISTANT: Two words\nUSER: And?\nASSISTANT:"


def test_the_api_can_be_chosen() -> None:
    with parrot(template=False) as bird:
        with pytest.raises(UsageError, match="chat template"):
            list(conversation(bird.url, api="chat").ask("One?"))
        list(conversation(bird.url, api="completions").ask("One?"))
        assert bird.heard[-1][0] == "/v1/completions"


def test_an_answer_that_is_left_counts_as_far_as_it_came() -> None:
    with parrot(pieces=["Two", " words", " too many"]) as bird:
        talk = conversation(bird.url)
        with closing(talk.ask("One?")) as pieces:
            assert next(pieces) == "Two"
        assert [m["content"] for m in talk.messages] == ["One?", "Two"]


def test_an_answer_that_breaks_off_says_so_and_the_next_may_be_asked() -> None:
    with parrot(breaks_off=True) as bird:
        talk = conversation(bird.url)
        with pytest.raises(NoMachine, match="broke off"):
            list(talk.ask("One?"))
        bird.breaks_off = False
        assert "".join(talk.ask("And?")) == "Two words"


def test_nothing_of_an_answer_reaches_the_terminal_as_a_command() -> None:
    with parrot(pieces=["\x1b[2Jred\x07\x9b1m", "\n\tline"]) as bird:
        assert "".join(conversation(bird.url).ask("One?")) == "[2Jred1m\n\tline"


def test_a_question_that_is_refused_is_forgotten() -> None:
    with parrot(key="right") as bird:
        talk = conversation(bird.url, "wrong")
        with pytest.raises(NoMachine, match="refuses the key: invalid key"):
            list(talk.ask("One?"))
        assert talk.messages == []


def test_an_engine_that_is_not_there_is_no_machine() -> None:
    talk = conversation("http://127.0.0.1:9")
    with pytest.raises(NoMachine, match="cannot be reached"):
        list(talk.ask("One?"))
    with pytest.raises(NoMachine):
        served_model(talk.client, "double")


@pytest.mark.parametrize(
    ("models", "wanted", "found"),
    [(["a", "b"], "b", "b"), (["a"], "b", "a"), ([], "b", "b")],
)
def test_the_model_is_the_wanted_one_or_the_only_one(models: list[str], wanted: str, found: str) -> None:
    with parrot(models=models) as bird:
        assert served_model(client_of(Endpoint(bird.url, "x")), wanted) == found


def test_of_several_others_people_choose() -> None:
    with parrot(models=["a", "b"]) as bird, pytest.raises(EngineFailed) as caught:
        served_model(client_of(Endpoint(bird.url, "x")), "c")
    assert caught.value.advice == "it serves a, b"


def test_a_transcript_begins_with_what_the_model_is_told() -> None:
    assert transcript([{"role": "user", "content": " Hi "}], "Be brief.") == "Be brief.\nUSER: Hi\nASSISTANT:"
