"""Endpoints that speak OpenAI's API in their own way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from recipes.spec import Workload
from runners.client import Answer, Client, Endpoint, open_transport


def serve(handler: Callable[[web.Request], Awaitable[web.StreamResponse]], path: str) -> Any:
    """A server with one page, for the time of a `with`."""

    @asynccontextmanager
    async def running() -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post(path, handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()

    return running()


def test_an_endpoint_that_does_not_stream_is_used_all_the_same() -> None:
    async def answer(request: web.Request) -> web.Response:
        del request
        choice = {"message": {"content": "Whole."}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    async def main() -> Answer:
        async with serve(answer, "/api/chat/completions") as url, open_transport() as transport:
            settings = Workload(inputs=("a",), api="chat")
            return await Client(transport, Endpoint(url, "m", base=f"{url}/api"), settings).complete("Hi")

    found = asyncio.run(main())
    assert (found.text, found.output_tokens, found.ttft_s, found.tries) == ("Whole.", 2, None, 1)


def test_an_endpoint_that_knows_no_stream_options_is_asked_without() -> None:
    asked: list[bool] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append("stream_options" in body)
        if asked[-1]:
            return web.json_response({"detail": "Extra inputs: stream_options"}, status=422)
        return web.Response(
            text='data: {"choices": [{"text": "Yes.", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
            content_type="text/event-stream",
        )

    async def main() -> list[Answer]:
        async with serve(answer, "/v1/completions") as url, open_transport() as transport:
            client = Client(transport, Endpoint(url, "m"), Workload(inputs=("a",)))
            return [await client.complete("Hi"), await client.complete("Hi")]

    assert [one.text for one in asyncio.run(main())] == ["Yes.", "Yes."]
    assert asked == [True, False, False]
