"""Faults of forty kinds, anywhere in a run: each answer gets its score, or is ungraded by name."""

import asyncio
import gzip
import hashlib
import json
import math
import random
from collections.abc import Callable
from itertools import count

import pytest
from aiohttp import web
from doubles.engine import VERDICT, chat_model, is_list, questions_in, top_logprobs

from rubric_rl.data.schema import Criterion, Record, Row
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.grading.score import score
from rubric_rl.grading.settings import Grading
from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint

RUBRIC = tuple(Criterion(f"Says number {number}.", 3 if number else 5) for number in range(8))
RUBRIC += tuple(Criterion(f"Claims number {number}.", -4) for number in range(3))


def truth(answer: str, criterion: str) -> bool:
    """Any fixed verdict on this pair."""
    return hashlib.sha256(f"{answer}|{criterion}".encode()).digest()[0] % 2 == 0


# ---- a right reply, and what may happen to it

Change = Callable[[dict], dict | web.StreamResponse]


def raw(content: bytes = b"", status: int = 200, **headers: str) -> Change:
    """Another body, whatever the reply would have been."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda reply: web.Response(body=content, status=status, headers=named)


def body(change: Callable[[dict], bytes], **headers: str) -> Change:
    """The reply in other bytes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda reply: web.Response(body=change(reply), headers=named)


def said(text: object) -> Change:
    """Another text in the reply."""

    def change(reply: dict) -> dict:
        reply["text"] = reply["choices"][0]["message"]["content"] = text
        return reply

    return change


def ended(reason: object) -> Change:
    def change(reply: dict) -> dict:
        reply["meta_info"]["finish_reason"] = {"type": reason}
        reply["choices"][0]["finish_reason"] = reason
        return reply

    return change


def without(name: str) -> Change:
    """A reply that lacks a field, at the top or below."""

    def change(reply: dict) -> dict:
        reply.pop(name, None)
        reply.get("meta_info", {}).pop(name, None)
        for choice in reply.get("choices", []):
            choice.pop(name, None)
        return reply

    return change


def logged(true: object, false: object) -> Change:
    """Other log-probabilities; only direct mode reads them."""

    def change(reply: dict) -> dict:
        for entries in reply["meta_info"]["output_top_logprobs"]:
            entries[0][0], entries[1][0] = true, false
        for token in reply["choices"][0]["logprobs"]["content"]:
            token["top_logprobs"][0]["logprob"] = true
            token["top_logprobs"][1]["logprob"] = false
        return reply

    return change


def unlisted(reply: dict) -> dict:
    """No likeliest tokens at all; only direct mode reads them."""
    reply["meta_info"]["output_top_logprobs"] = [[]]
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = []
    return reply


def encoded(reply: dict) -> bytes:
    return json.dumps(reply).encode()


FAULTS: dict[str, Change] = {
    **{f"HTTP {status}": raw(b"no", status) for status in (408, 409, 425, 429, 500, 502, 503, 504)},
    "HTTP 529 with a page": raw(b"<html>overloaded</html>", 529),
    "HTTP 400": raw(b'{"error": {"message": "bad request"}}', 400),
    "HTTP 401": raw(b'{"detail": "who are you?"}', 401),
    "HTTP 404": raw(b"", 404),
    "HTTP 413": raw(b"too large", 413),
    "a redirect": raw(b"", 302, Location="http://127.0.0.1:9/elsewhere"),
    "an error in 200": raw(b'{"error": {"message": "upstream", "code": 502}}'),
    "a refusal in 200": raw(b'{"error": {"message": "no such model", "code": 404}}'),
    "a page": raw(b"<html>login</html>", Content_Type="text/html"),
    "nothing": raw(),
    "null": raw(b"null"),
    "a list": raw(b"[]"),
    "a number": raw(b"1"),
    "half the reply": body(lambda reply: encoded(reply)[:40]),
    "two replies": body(lambda reply: encoded(reply) * 2),
    "deep JSON": raw(b"[" * 50_000),
    "no UTF-8": raw(b"\xff\xfe{}"),
    "broken gzip": raw(b"\x1f\x8b no gzip", Content_Encoding="gzip"),
    "a gigabyte in a nutshell": raw(gzip.compress(b" " * 2**24), Content_Encoding="gzip"),
    "no text": without("text"),
    "no choices": without("choices"),
    "no message": without("message"),
    "no meta_info": without("meta_info"),
    "no choice": lambda reply: reply | {"choices": [], "text": None},
    "text of another type": said(5),
    "text that is an object": said({"criteria_met": True}),
    "aborted": ended("abort"),
    "an engine's error": ended("error"),
    "filtered": ended("content_filter"),
    "cut": ended("length"),
    "empty": said(""),
    "chatter": said("I think that it is met."),
    "a word for a boolean": said('{"explanation": "", "criteria_met": "true"}'),
    "no log-probabilities": logged(None, None),
    "not a number": logged(math.nan, -0.1),
    "probability above 1": logged(0.7, -5.0),
    "infinite": logged(math.inf, -math.inf),
    "more than all": logged(-0.01, -0.02),
    "less than any": logged(-9999.0, -9999.0),
    "no likeliest tokens": unlisted,
}
# What only looks odd: the verdict is as right as any.
HARMLESS: dict[str, Change] = {
    "a byte order mark": body(lambda reply: b"\xef\xbb\xbf" + encoded(reply)),
    "gzip": body(lambda reply: gzip.compress(encoded(reply)), Content_Encoding="gzip"),
    "another ending": ended("eos_token"),
    "no usage": without("usage"),
    "another charset": body(encoded, Content_Type="text/plain; charset=idna"),
}


class FaultyEngine:
    """Grades by `truth`, and lets the next of `faults` happen to every so many questions."""

    def __init__(self, faults: list[str], every: int, seed: int, model: str):
        self.model = model
        self.random = random.Random(seed)
        self.faults, self.every = list(faults), every
        self.random.shuffle(self.faults)
        self.happened: list[str] = []
        self.numbers = count()

    def reply(self, asked: dict) -> dict:
        prompt = asked["text"] if "text" in asked else asked["messages"][0]["content"]
        answer = prompt.partition("<answer ")[2].split("\n")[1]
        criterion = prompt.rpartition("] ")[2].split("<|im_end|>")[0].strip()
        met = truth(answer, criterion)
        true, false = (-0.1, -2.5) if met else (-2.5, -0.1)
        text = VERDICT % str(met).lower()
        top = [{"token": " true", "logprob": true}, {"token": " false", "logprob": false}]
        return {
            "text": text,
            "meta_info": {
                "finish_reason": {"type": "stop"},
                "prompt_tokens": 9,
                "cached_tokens": 0,
                "completion_tokens": 3,
                "output_top_logprobs": [top_logprobs(true, false)],
            },
            "choices": [
                {
                    "message": {"content": text},
                    "finish_reason": "stop",
                    "logprobs": {"content": [{"top_logprobs": top}]},
                }
            ],
            "usage": {},
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        replies = []
        for place, question in enumerate(questions_in(asked, self.model)):
            reply = self.reply(question)
            name = asked.get("rid")
            reply["meta_info"]["id"] = f"{name}_{place}" if is_list(asked) else name
            if next(self.numbers) % self.every == 0 and self.faults:
                name = self.faults.pop()
                self.happened.append(name)
                reply = (FAULTS | HARMLESS)[name](reply)
            if isinstance(reply, web.StreamResponse):
                return reply
            replies.append(reply)
        text = json.dumps(replies if is_list(asked) else replies[0])
        return web.Response(text=text, content_type="application/json")

    async def records(self, answers: int, mode: str, api: str) -> list[Record]:
        """The records of so many answers, graded by this engine."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/{path:.*}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        named = {"api": api, "url": url, "model": "m", "tokenizer": self.model}
        endpoint = Endpoint(**named, retries=2, concurrency=32)
        places = asyncio.Semaphore(64)

        async def one(grader: Grader, number: int) -> Record:
            row = Row(f"p{number}", ({"role": "user", "content": "Well?"},), RUBRIC)
            async with places:
                return await grade(grader, row, f"answer {number}")

        try:
            async with Client(endpoint) as client:
                grader = Grader(client, Grading(mode=mode))
                return await asyncio.gather(*(one(grader, number) for number in range(answers)))
        finally:
            await runner.cleanup()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "mode, api, answers, faults",
    [
        ("explain", "sglang", 100, 130),
        ("explain", "openai", 100, 130),
        ("direct", "sglang", 100, 130),
        ("direct", "openai", 100, 130),
        pytest.param("explain", "openai", 2000, 1200, marks=pytest.mark.slow),
        pytest.param("explain", "sglang", 2000, 1200, marks=pytest.mark.slow),
        pytest.param("direct", "sglang", 2000, 1200, marks=pytest.mark.slow),
        pytest.param("direct", "openai", 2000, 1200, marks=pytest.mark.slow),
    ],
)
def test_no_answer_is_wrong(model, monkeypatch, mode, api, answers, faults):
    monkeypatch.setattr("rubric_rl.serving.client._pause_seconds", lambda *_: 0.0)
    monkeypatch.setattr("rubric_rl.serving.client.LARGEST_REPLY", 2**20)
    assert len(FAULTS) >= 38
    kinds = [*FAULTS, *HARMLESS]
    names = (kinds * (faults // len(kinds) + 1))[:faults]
    engine = FaultyEngine(names, every=answers * len(RUBRIC) // faults, seed=0, model=model)
    records = asyncio.run(engine.records(answers, mode, api))
    assert len(engine.happened) >= faults * 0.95
    ungraded = 0
    for record in records:
        if record.status == "ungraded":
            assert math.isnan(record.score)
            assert record.error
            ungraded += 1
            continue
        assert record.answer is not None
        right = [truth(record.answer, criterion.text) for criterion in RUBRIC]
        assert record.mets == right
        assert record.score == score(RUBRIC, record.verdicts)
    # Faults that no other try can cure: five refusals, a redirect, a filter, and probabilities
    # that an endpoint seems not to have.
    assert 0 < ungraded < faults / 4
