"""The grading library against the real engine behind the real router."""

import asyncio
import json
import urllib.request

import pytest
from doubles.engine import FakeEngine, Say

from rubric_rl.data.schema import Criterion, Row
from rubric_rl.grading.client import GraderClient
from rubric_rl.grading.endpoints import Unavailable
from rubric_rl.grading.grade import Grading, grade
from rubric_rl.grading.settings import GraderSettings

pytestmark = pytest.mark.stack
RUBRIC = tuple(
    Criterion(f"Names remedy number {number}.", 5 - 2 * (number % 2) * 5) for number in range(6)
)
ROW = Row("p1", ({"role": "user", "content": "I have a fever. What should I do?"},), RUBRIC)
ANSWER = "Drink water, rest, and see a doctor when the fever stays for three days. " * 3


def graded(engine, answer: str, **settings) -> Grading:
    async def main():
        chosen = GraderSettings(**{"model": "default", "max_tokens": 48, "rereads": 0} | settings)
        async with GraderClient(chosen, engine.router_url, str(engine.model_dir)) as client:
            return await grade(client, ROW, answer, routing_key=answer[:20])

    return asyncio.run(main())


@pytest.mark.parametrize("api", ["sglang", "openai"])
@pytest.mark.parametrize("mode", ["explain", "direct", "checklist"])
def test_every_mode_grades_on_both_routes(engine, mode, api):
    grading = graded(engine, f"{mode} {api}. {ANSWER}", mode=mode, api=api)
    assert grading.status == "graded", grading.error
    assert len(grading.verdicts) == len(RUBRIC) and grading.calls == (
        1 if mode == "checklist" else len(RUBRIC)
    )
    assert grading.weight_versions and grading.first_tokens.prompt > 0


@pytest.mark.parametrize("mode", ["explain", "direct"])
def test_after_the_first_criterion_the_prefix_comes_from_the_cache(engine, mode):
    rest = graded(engine, f"{mode} once more. {ANSWER}", mode=mode).rest_tokens
    assert rest.cached >= 0.8 * rest.prompt


def test_both_routes_read_the_same_probability(engine):
    same_turn = {
        "chat_template_kwargs": {"enable_thinking": False}
    }  # as configs/grader.yaml says of continued turns
    one = graded(engine, ANSWER, mode="direct", api="sglang").probabilities
    other = graded(engine, ANSWER, mode="direct", api="openai", extra_body=same_turn).probabilities
    assert one == pytest.approx(other, abs=0.01)


def test_what_the_engine_refuses_is_ungraded_at_once(engine):
    grading = graded(engine, "word " * 40_000)
    assert grading.status == "ungraded" and "HTTP 400" in grading.error and grading.calls == 0


@pytest.mark.parametrize("api", ["sglang", "openai"])
def test_the_fake_engine_answers_in_the_shape_of_the_real_one(engine, api):
    """All unit tests of grading rest on the fake."""

    def ask(url: str, path: str, body: dict) -> dict:
        request = urllib.request.Request(
            url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def check(fake, real, where="answer"):
        assert isinstance(real, type(fake)) or (
            isinstance(fake, float) and isinstance(real, int)
        ), where
        if isinstance(fake, dict):
            for key in fake:
                check(fake[key], real[key], f"{where}.{key}")
        elif isinstance(fake, list) and fake:
            check(fake[0], real[0], f"{where}[0]")

    async def main(api: str):
        settings = GraderSettings(mode="direct", model="default", api=api)
        async with FakeEngine(Say(reason="length")) as fake:  # one token
            endpoint = GraderClient(settings, fake.url, str(engine.model_dir))._endpoint
            body = endpoint.body("Is it?", {}, 0)
            check(
                *[
                    await asyncio.to_thread(ask, url, endpoint.path, body)
                    for url in (fake.url, engine.router_url)
                ]
            )

    asyncio.run(main(api))


def test_an_unknown_route_is_a_refusal(engine):
    async def main():
        async with GraderClient(
            GraderSettings(), engine.router_url + "/nowhere", str(engine.model_dir)
        ) as client:
            await client.ask("Is it?", {}, 0)

    with pytest.raises(Unavailable, match="HTTP 404"):
        asyncio.run(main())
