"""Replies that are none: what the user is told of them, and whether they are asked for again."""

import asyncio
import gzip
import json

import pytest
from doubles.asking import ask, question
from doubles.engine import Fail, FakeEngine, Say, skip_pauses

from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Unavailable

PAGE = b'{"error": {"message": "who are you?"}}'
BROKEN_PAGES = {
    "labelled as packed": (b"Content-Encoding: gzip\r\nContent-Length: %d" % len(PAGE), PAGE),
    "packed, and cut": (b"Content-Encoding: gzip\r\nContent-Length: 20", gzip.compress(PAGE)[:20]),
    "cut by its length": (b"Content-Length: 90", PAGE),
    "cut amid a chunk": (b"Transfer-Encoding: chunked", b"40\r\n" + PAGE[:9]),
}


def attempts_at(model: str, sent: bytes) -> tuple[int, str]:
    """How often a server that sends just this is asked, and what is told in the end."""
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        asked.append(await reader.readexactly(length))
        writer.write(sent)
        writer.close()

    async def main() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Client(Endpoint(url=url, tokenizer=model, retries=2)) as client:
            with pytest.raises(Unavailable) as failed:
                await client.ask(question())
        return str(failed.value)

    told = asyncio.run(main())
    return len(asked), told


@pytest.mark.parametrize("broken", BROKEN_PAGES)
@pytest.mark.parametrize("status, attempts", [(401, 1), (404, 1), (400, 1), (503, 3), (429, 3)])
def test_a_failure_whose_page_cannot_be_read_keeps_its_status(
    model, monkeypatch, broken, status, attempts
):
    skip_pauses(monkeypatch)
    header, page = BROKEN_PAGES[broken]
    asked, told = attempts_at(
        model, b"HTTP/1.1 %d No\r\nConnection: close\r\n%s\r\n\r\n%s" % (status, header, page)
    )
    assert asked == attempts
    assert f"HTTP {status}" in told


@pytest.mark.parametrize(
    "text",
    [
        'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n',
        '{"choices": []}\n\ndata: [DONE]\n\n',
        ": still thinking\n\ndata: {}\n\n",
        "event: message_start\ndata: {}\n\n",
    ],
)
def test_a_server_that_streams_unasked_is_told_with_the_setting_to_change(model, text):
    with pytest.raises(Unavailable, match=r'set grader_extra_body to \{"stream": false\}'):
        ask(FakeEngine(Fail(200, text)), model, api="openai", retries=0)


@pytest.mark.parametrize("text", ["<html>data: none</html>", "no data:", '{"a": "\\ndata: x"'])
def test_any_other_text_is_no_stream(model, text):
    with pytest.raises(Unavailable, match=r"unexpected form: [^a]"):
        ask(FakeEngine(Fail(200, text)), model, api="openai", retries=0)


@pytest.mark.parametrize("choice", [{"text": "x"}, {"delta": {"content": "x"}}, {}])
def test_a_field_that_is_missing_is_named(model, choice):
    engine = FakeEngine(Say(meta={"choices": [choice]}))
    with pytest.raises(Unavailable, match="no field 'message'"):
        ask(engine, model, api="openai", retries=0)
    empty = Fail(200, json.dumps({"text": "x", "meta_info": {}}))
    with pytest.raises(Unavailable, match=r"no field 'finish_reason'"):
        ask(FakeEngine(empty), model, retries=0)
