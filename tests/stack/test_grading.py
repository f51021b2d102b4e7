"""The grading library against the real engine behind the real router."""

import asyncio
import json
import os
import urllib.request

import pytest
from doubles.engine import FakeEngine, Say, grader_settings

from rubric_rl.data.schema import Criterion, Record, Row
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.grading.prompt import verdict_opening
from rubric_rl.serving.address import request_url
from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Question, Unavailable

pytestmark = pytest.mark.stack
RUBRIC = tuple(
    Criterion(f"Names remedy number {number}.", -5 if number % 2 else 5) for number in range(6)
)
ROW = Row("p1", ({"role": "user", "content": "I have a fever. What should I do?"},), RUBRIC)
ANSWER = "Drink water, rest, and see a doctor when the fever stays for three days. " * 3
KINDS: list[dict] = [
    {"mode": "direct"},
    {"mode": "explain", "verdict": "probability"},
    {"mode": "cascade", "cascade_low": 0.0, "cascade_high": 1.0},
    {"mode": "checklist"},
]
MESSAGES = [{"role": "user", "content": "Is it?"}]


def graded(engine, answer: str, **settings) -> Record:
    named = {"model": "default", "max_tokens": 48, "rereads": 0} | settings
    chosen = grader_settings(**named)

    async def main():
        async with Client(chosen.endpoint, engine.router_url, str(engine.model_dir)) as client:
            grader = Grader(client, chosen.grading)
            return await grade(grader, ROW, answer, routing_key=answer[:20])

    return asyncio.run(main())


@pytest.mark.parametrize("api", ["sglang", "openai"])
@pytest.mark.parametrize("mode", ["explain", "direct", "checklist"])
def test_every_mode_grades_on_both_routes(engine, mode, api):
    record = graded(engine, f"{mode} {api}. {ANSWER}", mode=mode, api=api)
    assert record.status == "graded", record.error
    assert len(record.verdicts) == len(RUBRIC)
    assert record.calls == (1 if mode == "checklist" else len(RUBRIC))
    assert record.grader_versions
    assert record.first_tokens.prompt > 0


@pytest.mark.parametrize("settings", [{}, {"thinking": True}, {"api": "openai"}])
def test_a_cascade_asks_for_a_token_and_where_it_is_unsure_in_words(engine, settings):
    asked = {"mode": "cascade", "cascade_low": 0.0, "cascade_high": 1.0} | settings
    record = graded(engine, f"cascade {settings}. {ANSWER}", **asked)
    assert record.status == "graded", record.error
    readable = [verdict for verdict in record.verdicts if verdict.probability is not None]
    assert len(readable) == len(RUBRIC)
    assert record.first_tokens.completion == 1
    assert record.calls >= 2 * len(RUBRIC), "and once more for each reply that is finished"
    asked |= {"cascade_low": 0.5, "cascade_high": 0.5}
    narrow = graded(engine, f"narrow {settings}. {ANSWER}", **asked)
    assert narrow.calls == len(RUBRIC)
    assert narrow.first_tokens.completion + narrow.rest_tokens.completion == len(RUBRIC)


@pytest.mark.parametrize("mode", ["explain", "direct"])
def test_after_the_first_criterion_the_prefix_comes_from_the_cache(engine, mode):
    rest = graded(engine, f"{mode} once more. {ANSWER}", mode=mode).rest_tokens
    assert rest.cached >= 0.8 * rest.prompt


def test_a_prompt_that_is_only_read_is_in_the_cache_of_the_next_request(engine):
    asked = Question([{"role": "user", "content": f"A text to read. {ANSWER}"}], 0)

    async def main():
        endpoint = Endpoint(max_tokens=4)
        async with Client(endpoint, engine.router_url, str(engine.model_dir)) as client:
            return await client.read_ahead(asked), await client.ask(asked)

    read, reply = asyncio.run(main())
    assert read and (read.completion_tokens, read.text) == (0, "")
    assert read.cached_tokens < 0.5 * read.prompt_tokens
    assert reply.cached_tokens == reply.prompt_tokens - 1, (
        "all but the last, which is computed anew"
    )


def test_both_routes_read_the_same_probability(engine):
    # as configs/grader.yaml says of continued turns
    same_turn = {"chat_template_kwargs": {"enable_thinking": False}}
    one = graded(engine, ANSWER, mode="direct", api="sglang")
    other = graded(engine, ANSWER, mode="direct", api="openai", extra_body=same_turn)
    expected = [verdict.probability for verdict in other.verdicts]
    most = 0.02 if "ENGINE_URL" in os.environ else 0.01  # bfloat16 on a GPU: 0.012 apart
    assert [verdict.probability for verdict in one.verdicts] == pytest.approx(expected, abs=most)


def test_requests_of_all_kinds_can_share_a_batch(engine):
    """Where some name tokens and some do not, SGLang 0.5.10 to 0.5.20 ends; newer ones do not."""

    async def main():
        endpoint = grader_settings(model="default", max_tokens=48).endpoint
        async with Client(endpoint, engine.router_url, str(engine.model_dir)) as client:
            gradings = [
                grade(Grader(client, grader_settings(**chosen).grading), ROW, f"{number} {ANSWER}")
                for number, chosen in enumerate(KINDS * 4)
            ]
            answers = asyncio.gather(*map(answer, range(8)))
            return await asyncio.gather(asyncio.gather(*gradings), answers)

    async def answer(number: int) -> dict:
        sampling = {"max_new_tokens": 24, "temperature": 1.0}
        body = {"text": f"{number} water", "sampling_params": sampling, "return_logprob": True}
        return await asyncio.to_thread(ask, engine.router_url + "/generate", body)

    records, answers = asyncio.run(main())
    assert {record.status for record in records} == {"graded"}
    assert all(len(answer["meta_info"]["output_token_logprobs"]) > 0 for answer in answers)


def test_what_the_engine_refuses_is_ungraded_at_once(engine):
    record = graded(engine, "word " * 40_000)
    assert record.status == "ungraded"
    assert "HTTP 400" in record.error
    assert record.calls == 0


def ask(url: str, body: dict) -> dict:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def check_shape(fake, real, where: str = "answer") -> None:
    """Everything in the fake answer is in the real one, and of the same type."""
    number = isinstance(fake, float) and isinstance(real, int)
    assert number or isinstance(real, type(fake)), where
    if isinstance(fake, dict):
        for key in fake:
            check_shape(fake[key], real[key], f"{where}.{key}")
    elif isinstance(fake, list) and fake:
        check_shape(fake[0], real[0], f"{where}[0]")


@pytest.mark.parametrize("api", ["sglang", "openai"])
def test_the_fake_engine_grades_in_the_shape_of_the_real_one(engine, api):
    """All unit tests of grading rest on the fake."""

    async def main():
        async with FakeEngine(Say(reason="length")) as fake:  # one token
            endpoint = Endpoint(model="default", api=api)
            client = Client(endpoint, fake.url, str(engine.model_dir))
            question = Question(MESSAGES, 0, {}, verdict_opening())
            body = client.api.body(question)
            return [
                await asyncio.to_thread(ask, request_url(url, api, "grader_"), body)
                for url in (fake.url, engine.router_url)
            ]

    check_shape(*asyncio.run(main()))


def test_the_fake_engine_answers_in_the_shape_of_the_real_one(engine):
    """All unit tests of the rollout rest on it."""
    sampling = {"max_new_tokens": 1, "temperature": 1.0}
    body = {"input_ids": [5, 6, 7], "sampling_params": sampling, "return_logprob": True}

    async def main():
        async with FakeEngine(Say(reason="length", tokens=1)) as fake:
            return [
                await asyncio.to_thread(ask, url + "/generate", body)
                for url in (fake.url, engine.router_url)
            ]

    check_shape(*asyncio.run(main()))


def test_an_unknown_route_is_a_refusal(engine):
    async def main():
        url = engine.router_url + "/nowhere"
        async with Client(Endpoint(), url, str(engine.model_dir)) as client:
            await client.ask(Question(MESSAGES, 0))

    with pytest.raises(Unavailable, match="HTTP 404"):
        asyncio.run(main())
