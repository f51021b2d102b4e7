"""Asks an engine double one question, as a client does."""

import asyncio

from doubles.engine import FakeEngine
from rubric_rl.grading.prompt import verdict_opening
from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Question

SCHEMA = {"type": "object"}
APIS = ["sglang", "openai"]
NOBODY = "http://127.0.0.1:9"


def question(**changes) -> Question:
    asked = {"messages": [{"role": "user", "content": "Is it?"}], "seed": 7, "schema": SCHEMA}
    return Question(**asked | changes)


def direct(**changes) -> Question:
    """The question for the probability of a verdict, as `direct` mode asks it."""
    return question(opening=verdict_opening(), **changes)


def ask(
    engine: FakeEngine,
    model: str,
    what: Question | None = None,
    times: int = 1,
    stopped=lambda: False,
    **settings,
):
    """Starts the engine, asks it `times` at once, and gives the reply.

    For several, the list of what became of each.
    """
    what = what or question()
    endpoint = Endpoint(**{"model": "m", "retries": 3} | settings)

    async def main():
        async with engine, Client(endpoint, engine.url, model, stopped) as client:
            asked = [client.ask(what) for _ in range(times)]
            return await asyncio.gather(*asked, return_exceptions=times > 1)

    replies = asyncio.run(main())
    return replies if times > 1 else replies[0]
