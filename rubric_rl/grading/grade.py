"""Grades one answer against its rubric and leaves one record of it (stage 3, rubric grading, and stage 4, reward)."""

import asyncio
import math
import time
from dataclasses import dataclass, field

from rubric_rl.data.schema import Criterion, Row, rubrics_json
from rubric_rl.grading.client import GraderClient
from rubric_rl.grading.endpoints import Reply, Unavailable
from rubric_rl.grading.prompt import graded_text, grader_prompt
from rubric_rl.grading.score import Verdict, score
from rubric_rl.grading.verdict import Reading, read_checklist, read_verdict

_VERDICT = {
    "type": "object",
    "properties": {"explanation": {"type": "string"}, "criteria_met": {"type": "boolean"}},
    "required": ["explanation", "criteria_met"],
    "additionalProperties": False,
}


@dataclass
class Tokens:
    """Tokens of grading requests: in the prompt, of these found in the engine's cache, and generated."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def add(self, reply: Reply) -> None:
        self.prompt += reply.prompt_tokens
        self.cached += reply.cached_tokens
        self.completion += reply.completion_tokens


@dataclass
class Grading:
    """The result of grading one answer. `score` is NaN when it is ungraded; verdicts are in the rubric's order."""

    row: Row
    status: str  # graded, no_answer, truncated (both score 0 without a call) or ungraded
    answer: str | None
    score: float = math.nan
    verdicts: list[Verdict] = field(default_factory=list)
    probabilities: list[float | None] = field(default_factory=list)
    explanations: list[str] = field(default_factory=list)
    first_tokens: Tokens = field(
        default_factory=Tokens
    )  # of the first request, which warms the cache
    rest_tokens: Tokens = field(default_factory=Tokens)  # of all other requests
    calls: int = 0
    seconds: float = 0.0
    weight_versions: list[str] = field(default_factory=list)
    error: str = ""

    def record(self) -> dict:
        """The verdict record as JSON; rewards can be recomputed from it without the model."""
        return {
            "prompt_id": self.row.prompt_id,
            "theme": self.row.theme,
            "example_tags": list(self.row.example_tags),
            "status": self.status,
            "score": None if math.isnan(self.score) else self.score,
            "answer": self.answer,
            "rubrics": rubrics_json(self.row.rubric),
            "verdicts": self.verdicts,
            "unreadable": self.verdicts.count(None),
            "probabilities": self.probabilities,
            "explanations": self.explanations,
            "first_tokens": vars(self.first_tokens),
            "rest_tokens": vars(self.rest_tokens),
            "calls": self.calls,
            "seconds": round(self.seconds, 4),
            "weight_versions": self.weight_versions,
            "error": self.error,
        }


async def grade(
    client: GraderClient,
    row: Row,
    response: str,
    prompt: str = "",
    truncated: bool = False,
    routing_key: str = "",
) -> Grading:
    """Grades `response` (raw, thoughts and special tokens included) by every criterion of the row's rubric.

    `prompt` is the templated prompt it responds to; `truncated` says that it was cut at the length limit; requests with
    the same `routing_key` go to the same engine. If the endpoint stays unavailable the answer is ungraded (NaN), never
    0. Raises Aborted when the rollout is being aborted.
    """
    grading = Grading(row, "graded", graded_text(response, prompt))
    if grading.answer is None:
        grading.status, grading.score = "no_answer", 0.0
    elif truncated and client.settings.truncated == "zero":
        grading.status, grading.score = "truncated", 0.0
    else:
        start = time.monotonic()
        try:
            readings = await ask_verdicts(client, grading, routing_key)
            grading.verdicts = [reading.met for reading in readings]
            grading.probabilities = [reading.probability for reading in readings]
            grading.explanations = [reading.explanation for reading in readings]
            grading.score = score(row.rubric, grading.verdicts)
        except Unavailable as error:
            grading.status, grading.error = "ungraded", str(error)
        grading.seconds = time.monotonic() - start
    return grading


async def ask_verdicts(
    client: GraderClient, grading: Grading, routing_key: str = ""
) -> list[Reading]:
    """Asks the grader for its verdict on every criterion, in the rubric's order; scores nothing.

    Adds calls, tokens and weight versions to `grading`. Raises as `client.ask`.
    """
    return await _Asker(client, grading, routing_key).readings()


class _Asker:
    """Makes all requests about one answer."""

    def __init__(self, client: GraderClient, grading: Grading, routing_key: str):
        self.client, self.settings = client, client.settings
        self.grading, self.routing_key = grading, routing_key

    async def readings(self) -> list[Reading]:
        """One reading per criterion, in the rubric's order."""
        rubric = list(self.grading.row.rubric)
        if self.settings.mode == "checklist":
            ballots = [await self._checklist(rubric, vote) for vote in range(self.settings.votes)]
            return [majority(votes) for votes in zip(*ballots, strict=True)]
        # The first request puts the shared prefix into the engine's cache; sent all at once, every one would miss it.
        warm = 1 if self.settings.warm_prefix else 0
        first = [await self._criterion(criterion) for criterion in rubric[:warm]]
        rest = await _all_or_none(self._criterion(criterion) for criterion in rubric[warm:])
        return first + rest

    async def _criterion(self, criterion: Criterion) -> Reading:
        return majority([await self._vote(criterion, vote) for vote in range(self.settings.votes)])

    async def _vote(self, criterion: Criterion, vote: int) -> Reading:
        def read(reply: Reply) -> list[Reading]:
            if self.settings.mode == "direct":
                p = reply.probability
                return [Reading(None if p in (None, 0.5) else p > 0.5, probability=p)]
            return [read_verdict(reply.text) if reply.complete else Reading(None)]

        return (await self._ask([criterion], _VERDICT, read, vote))[0]

    async def _checklist(self, rubric: list[Criterion], vote: int) -> list[Reading]:
        count = len(rubric)
        verdicts = {"type": "array", "items": _VERDICT, "minItems": count, "maxItems": count}
        schema = {"type": "object", "properties": {"verdicts": verdicts}, "required": ["verdicts"]}

        def read(reply: Reply) -> list[Reading]:
            return read_checklist(reply.text, count) if reply.complete else [Reading(None)] * count

        return await self._ask(rubric, schema | {"additionalProperties": False}, read, vote)

    async def _ask(self, criteria: list[Criterion], schema: dict, read, vote: int) -> list[Reading]:
        """Asks until `read` finds every verdict in the reply: at most `rereads` times more, each with another seed."""
        row, settings = self.grading.row, self.settings
        content = grader_prompt(settings.mode, row.messages, self.grading.answer, criteria)
        # Asking again changes nothing at temperature 0, or when the probability itself is the verdict.
        rereads = 0 if settings.mode == "direct" or settings.temperature == 0 else settings.rereads
        for attempt in range(rereads + 1):
            seed = settings.seed + vote * (settings.rereads + 1) + attempt
            reply = await self.client.ask(content, schema, seed, self.routing_key)
            self._count(reply)
            readings = read(reply)
            if all(reading.met is not None for reading in readings):
                break
        return readings

    def _count(self, reply: Reply) -> None:
        grading = self.grading
        (grading.rest_tokens if grading.calls else grading.first_tokens).add(reply)
        grading.calls += 1
        if reply.weight_version and reply.weight_version not in grading.weight_versions:
            grading.weight_versions.append(reply.weight_version)


def majority(votes: list[Reading]) -> Reading:
    """The reading that more than half of all votes share, unreadable ones counted; else an unreadable one."""
    for verdict in (True, False):
        agreeing = [vote for vote in votes if vote.met is verdict]
        if 2 * len(agreeing) > len(votes):
            return agreeing[0]
    return Reading(None)


async def _all_or_none(coroutines) -> list:
    """Results in order; the first failure cancels the others, so that no request outlives its answer."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except* Exception as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
