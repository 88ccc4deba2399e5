"""A conversation with an engine, through OpenAI's own client: what people see of it is what their programs will."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from recipes.errors import EngineFailed, NoMachine, RecipeError, UsageError
from runners.client import Endpoint

if TYPE_CHECKING:
    from openai import OpenAI

Api = Literal["chat", "completions"]
_CONNECT_S, _ANSWER_S = 10.0, 600.0
_NO_TEMPLATE = ("chat template", "chat_template")
_STOP = "\nUSER:"
# What would move the cursor, or worse, where it is shown; tabs and ends of lines stay.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass
class Conversation:
    """Asks, and remembers what was said. Answers come piece by piece; one that is cut short counts as far as it came.

    An engine without a chat template is asked over the completions API, as a transcript of USER: and ASSISTANT:.
    """

    client: OpenAI
    model: str
    max_tokens: int
    temperature: float
    system: str | None = None
    api: Api | None = None
    """None until it is known which the engine has."""
    messages: list[Any] = field(default_factory=list)
    """As the chat API takes them."""

    def ask(self, question: str) -> Iterator[str]:
        """The pieces of the answer, fit to be shown. Raises NoMachine, EngineFailed and UsageError."""
        self.messages.append({"role": "user", "content": question})
        answer = ""
        try:
            with explained(self.client):
                for piece in self._pieces():
                    answer += piece
                    yield piece.translate(_CONTROL)
        except NoMachine as error:
            if answer:
                raise NoMachine(f"the answer broke off: {error.message}", advice=error.advice) from error
            raise
        finally:
            if answer:
                self.messages.append({"role": "assistant", "content": answer})
            else:
                self.messages.pop()

    def forget(self) -> None:
        """Begin anew."""
        self.messages.clear()

    def _pieces(self) -> Iterator[str]:
        import openai

        if self.api != "completions":
            try:
                yield from self._chat()
            except (openai.BadRequestError, openai.NotFoundError, openai.InternalServerError) as error:
                absent = isinstance(error, openai.NotFoundError) and self.api is None
                if self.api is not None or not (absent or any(words in str(error) for words in _NO_TEMPLATE)):
                    raise
            else:
                return
        yield from self._completion()

    def _chat(self) -> Iterator[str]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        messages: list[Any] = [*first, *self.messages]
        stream = self.client.chat.completions.create(
            model=self.model,
            messages=messages,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stream=True,
        )
        with stream:
            self.api = "chat"
            for event in stream:
                for choice in event.choices:
                    if choice.delta.content:
                        yield choice.delta.content

    def _completion(self) -> Iterator[str]:
        with self.client.completions.create(
            model=self.model,
            prompt=transcript(self.messages, self.system),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stop=[_STOP],
            stream=True,
        ) as stream:
            self.api = "completions"
            for event in stream:
                for choice in event.choices:
                    if choice.text:
                        yield choice.text


def transcript(messages: Sequence[Mapping[str, str]], system: str | None) -> str:
    """What was said, for a model that knows no roles, up to where it goes on."""
    lines = [system] if system else []
    lines += [f"{message['role'].upper()}: {message['content'].strip()}" for message in messages]
    return "\n".join([*lines, "ASSISTANT:"])


def client_of(endpoint: Endpoint) -> OpenAI:
    """OpenAI's client of an endpoint. Importing it takes half a second."""
    from openai import OpenAI, Timeout

    timeout = Timeout(_ANSWER_S, connect=_CONNECT_S)
    return OpenAI(base_url=endpoint.api_url, api_key=endpoint.key or "none", timeout=timeout, max_retries=1)


def served_model(client: OpenAI, wanted: str) -> str:
    """The name under which the engine serves the model: the wanted one, or its only one.

    Raises NoMachine if it cannot be reached, and EngineFailed if it serves several others.
    """
    with explained(client):
        names = [model.id for model in client.models.list()]
    if wanted in names or not names:
        return wanted
    if len(names) == 1:
        return names[0]
    raise EngineFailed(f"the endpoint does not serve {wanted}", advice=f"it serves {', '.join(names[:10])}")


@contextmanager
def explained(client: OpenAI) -> Iterator[None]:
    """Turns what OpenAI's client raises into errors that say what to do."""
    import openai

    try:
        yield
    except openai.APITimeoutError as error:
        raise NoMachine(f"{client.base_url} did not answer in time", advice="see recipe logs -f") from error
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        raise NoMachine(f"{client.base_url} cannot be reached: {cause}", advice="see recipe ps") from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        advice = "the variable that engine.api_key_env names must hold its key"
        raise NoMachine(f"{client.base_url} refuses the key: {_said(error)}", advice=advice) from error
    except openai.APIStatusError as error:
        raise _refused(error) from error
    except openai.OpenAIError as error:
        raise EngineFailed(f"the engine's answer cannot be read: {error}") from error
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):  # whose errors older clients let through
            raise
        raise NoMachine(f"{client.base_url} cannot be reached: {error}", advice="see recipe ps") from error


def _refused(error: Any) -> RecipeError:
    if error.status_code < 500:
        return UsageError(f"the engine refuses it: {_said(error)}", advice="/new begins a new conversation")
    return EngineFailed(f"the engine failed: {_said(error)}", advice="see recipe logs")


def _said(error: Any) -> str:
    """The server's own words."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split())[:300]
