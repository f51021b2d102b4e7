"""An answer and its rubric, graded by an engine double."""

import asyncio

from doubles.engine import FakeEngine, Say, grader_settings, verdict
from rubric_rl.data.schema import Criterion, Record, Row
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.serving.client import Client

RUBRIC = (
    Criterion("Greets.", 6, ("axis:accuracy",)),
    Criterion("Insults.", -4),
    Criterion("Advises.", 2),
)
ROW = Row("p1", ({"role": "user", "content": "hi"},), RUBRIC, theme="t")
TRUTH = {"Greets.": True, "Insults.": False, "Advises.": False}
NO_VERDICT = Say('{"explanation": "no verdict"}', true=0.0, false=0.0)


def asked_for(prompt: str, replies: dict):
    """The reply to the criterion that a prompt ends with."""
    return next(reply for text, reply in replies.items() if f"] {text}" in prompt)


def by_truth(prompt: str) -> Say:
    return verdict(asked_for(prompt, TRUTH))


def graded(
    engine: FakeEngine,
    model: str,
    response: str = "Hello.",
    prompt: str = "",
    truncated: bool = False,
    routing_key: str = "",
    stopped=lambda: False,
    score_truncated: str = "zero",
    by_policy: bool = False,
    row: Row = ROW,
    **settings,
) -> Record:
    """Grades `response` with these settings; `score_truncated` is the one of Scoring."""
    named = {"model": "m", "retries": 1, "truncated": score_truncated} | settings
    chosen = grader_settings(**named)
    engine.model = model

    async def main():
        async with engine, Client(chosen.endpoint, engine.url, model, stopped) as client:
            grader = Grader(client, chosen.grading, chosen.scoring, "judge", by_policy)
            return await grade(grader, row, response, prompt, truncated, routing_key)

    return asyncio.run(main())
