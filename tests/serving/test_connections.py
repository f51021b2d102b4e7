"""Each reply is that of its own request, also of a server that says more than one to a request."""

import asyncio
import json

import pytest
from aiohttp import web
from doubles.asking import question
from doubles.engine import FakeEngine, Say, skip_pauses

from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint


def packed(text: str) -> bytes:
    """A reply of an OpenAI-compatible endpoint, as it is sent."""
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Twice:
    """Replies to each request, and once more when the first reply has been read."""

    def __init__(self):
        self.read, self.said_again = asyncio.Event(), asyncio.Event()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            said = asked["messages"][0]["content"]
            for words in (said, f"{said}, again"):
                writer.write(packed(words))
                await writer.drain()
                await self.read.wait()
            self.said_again.set()


async def replies_of(server: Twice, times: int) -> list[str]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    endpoint = Endpoint(api="openai", model="m", url=f"http://127.0.0.1:{port}", retries=0)
    texts = []
    async with Client(endpoint) as client:
        for number in range(times):
            server.read.clear(), server.said_again.clear()
            messages = [{"role": "user", "content": f"question {number}"}]
            texts.append((await client.ask(question(messages=messages))).text)
            server.read.set()
            await server.said_again.wait()
            await asyncio.sleep(0.05)  # until it has arrived
    listening.close()
    return texts


def test_a_second_reply_is_none_to_the_next_question():
    async def main() -> tuple[list[str], int]:
        server = Twice()
        async with asyncio.timeout(20):
            return await replies_of(server, 3), server.connections

    texts, connections = asyncio.run(main())
    assert texts == [f"question {number}" for number in range(3)]
    assert connections == 3


QUESTIONS = {"alone": ["1"], "together": ["1", "2"]}


class LateReplies(FakeEngine):
    """Says each second time once more what it said to the request before."""

    late: web.Response | None = None

    async def _handle(self, request):
        response = await super()._handle(request)
        late, self.late = self.late, None
        if late is None:
            self.late = response
        return web.Response(body=late.body if late else response.body)


@pytest.mark.parametrize("texts", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_of_sglang_a_late_reply_to_the_last_question_is_none_to_the_next(model, monkeypatch, texts):
    """It names each after its request, so that one is known that comes amid the next."""
    skip_pauses(monkeypatch)
    engine = LateReplies(lambda prompt: Say(prompt.partition("question ")[2].split("<")[0]))

    async def main() -> list[str]:
        said = []
        async with engine, Client(Endpoint(retries=9), engine.url, model) as client:
            for number in range(3):
                asked = [
                    [{"role": "user", "content": f"question {number}{text}"}] for text in texts
                ]
                questions = [question(messages=messages) for messages in asked]
                said += [reply.text for reply in await client.ask_together(questions)]
        return said

    assert asyncio.run(main()) == [f"{number}{text}" for number in range(3) for text in texts]


def test_of_sglang_the_name_of_a_list_of_one_is_that_of_its_question(model, monkeypatch):
    """As a gateway writes it that makes lists of all requests."""

    def placed(replies: list[dict], body: dict) -> None:
        for place, reply in enumerate(replies):
            reply["meta_info"]["id"] = f"{body['rid']}_{place}"

    monkeypatch.setattr("doubles.engine._name_by_place", placed)

    async def main() -> str:
        engine = FakeEngine(Say("well"))
        async with engine, Client(Endpoint(retries=0), engine.url, model) as client:
            return (await client.ask(question())).text

    assert asyncio.run(main()) == "well"


def test_a_header_of_a_gateway_may_be_long():
    header = b"X-A: %s\r\n" % (b"a" * 60_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(packed("well").replace(b"Content", header + b"Content", 1))
        writer.close()

    async def main() -> str:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        endpoint = Endpoint(api="openai", model="m", url=url, retries=0)
        async with listening, Client(endpoint) as client:
            return (await client.ask(question())).text

    assert asyncio.run(main()) == "well"
