"""Grades one answer by its rubric: what is asked, in which order, and what comes of it."""

import time
from dataclasses import dataclass, replace

from rubric_rl.data.grader_template import load_template
from rubric_rl.data.schema import UNREADABLE, Criterion, Record, Row, TokenCounts, Verdict
from rubric_rl.grading.prompt import (
    AnswerPrompt,
    graded_text,
    label_of_prompt,
    verdict_opening,
)
from rubric_rl.grading.score import score
from rubric_rl.grading.settings import Grading, Scoring, check_together
from rubric_rl.grading.verdict import (
    is_unsure,
    majority,
    read_checklist,
    read_token,
    read_verdict,
    second_look,
)
from rubric_rl.serving.apis import SGLang
from rubric_rl.serving.client import Client, all_or_none
from rubric_rl.serving.endpoint import GRADER
from rubric_rl.serving.key import refuse_keys
from rubric_rl.serving.question import Question, Refused, Reply, TooLong, Unavailable
from rubric_rl.serving.verdict_text import VERDICT_SCHEMA, checklist_schema


@dataclass(frozen=True)
class Grader:
    """A served model that grades, and how it does so. Raises UserError where it cannot."""

    client: Client
    grading: Grading = Grading()
    scoring: Scoring = Scoring()
    name: str = "policy"
    by_policy: bool = False  # it is the model whose answers it grades

    def __post_init__(self):
        check_together(self.client.endpoint, self.grading)
        refuse_keys(self.grading.model_dump(), GRADER)
        load_template(self.grading.template)
        api = self.client.api
        if isinstance(api, SGLang):
            if self.grading.mode in ("direct", "cascade"):
                api.check_thoughtless("use grader_mode explain")
            if self.grading.mode == "cascade" or self.grading.reads_probability:
                api.check_choices()


async def grade(
    grader: Grader,
    row: Row,
    response: str,
    prompt: str = "",
    truncated: bool = False,
    routing_key: str = "",
) -> Record:
    """Grades `response` (raw, thoughts and special tokens included) by the row's rubric.

    `prompt` is the templated prompt it responds to; `truncated` says that it was cut at the length
    limit; requests with the same `routing_key` go to the same engine. If the endpoint stays
    unavailable the answer is ungraded (NaN), never 0. Raises Aborted when the rollout is being
    aborted.
    """
    record = unasked(grader, row, response, prompt, truncated)
    await fill_in(grader, record, routing_key)
    return record


def unasked(
    grader: Grader, row: Row, response: str, prompt: str = "", truncated: bool = False
) -> Record:
    """The record of an answer before `fill_in`, which asks where its status is graded."""
    answer = graded_text(response, prompt)
    if answer is None:
        return Record.of(row, "no_answer", None, score=0.0, grader=grader.name)
    if truncated and grader.scoring.truncated == "zero":
        return Record.of(row, "truncated", answer, score=0.0, grader=grader.name)
    return Record.of(row, "graded", answer, grader=grader.name)


async def fill_in(grader: Grader, record: Record, routing_key: str) -> None:
    """Fills in the verdicts of an unasked record, and its score."""
    if record.status == "graded":
        await ask_verdicts(grader, record, routing_key)
    if record.status == "graded":
        record.score = score(record.rubric, record.verdicts)


async def ask_verdicts(grader: Grader, record: Record, routing_key: str = "") -> Unavailable | None:
    """Fills in the record's verdicts, with calls, tokens and seconds; scores no verdict.

    If the endpoint stays unavailable the record becomes ungraded, with the error, which is also
    returned; too_long where the answer leaves the policy no room to grade it.
    """
    start = time.monotonic()
    failure = None
    async with grader.client.turn():
        try:
            record.verdicts = await _verdicts(grader, record, routing_key)
        except Unavailable as error:
            failure = error
            record.status, record.error, record.unreadable_causes = "ungraded", str(error), {}
            too_long = grader.by_policy and isinstance(error, TooLong)
            if too_long and await _fits_when_empty(grader, record, routing_key):
                record.status, record.score = "too_long", 0.0
    record.seconds = time.monotonic() - start
    return failure


async def _verdicts(grader: Grader, record: Record, routing_key: str) -> list[Verdict]:
    """Those of the record. What a policy's engine calls too long is asked once more: it may err."""
    try:
        return await _Asker(grader, record, routing_key).verdicts()
    except TooLong:
        if not grader.by_policy:
            raise
    record.unreadable_causes = {}
    return await _Asker(grader, record, routing_key).verdicts()


async def _fits_when_empty(grader: Grader, record: Record, routing_key: str) -> bool:
    """Whether the policy could grade an empty answer: then this one's length is its own doing.

    Left out as ungraded, it would be shielded from the low reward of a bad answer.
    """
    empty = replace(record, answer="", unreadable_causes={})
    try:
        await _Asker(grader, empty, routing_key).verdicts()
    except Unavailable:
        return False
    record.first_tokens = empty.first_tokens
    record.rest_tokens = empty.rest_tokens
    record.calls = empty.calls
    return True


class _Asker:
    """Makes all requests about one answer."""

    def __init__(self, grader: Grader, record: Record, routing_key: str):
        self.client, self.grading = grader.client, grader.grading
        self.by_policy = grader.by_policy
        self.record, self.routing_key = record, routing_key
        assert record.answer is not None  # an answer that is none is never asked about
        break_up = self.client.api.break_up
        self.prompt = AnswerPrompt(self.grading, record.messages, record.answer, break_up)
        record.template = label_of_prompt(self.grading)

    async def verdicts(self) -> list[Verdict]:
        """One verdict per criterion, in the rubric's order."""
        rubric = list(self.record.rubric)
        if self.grading.mode == "checklist":
            ballots = [await self._checklist(rubric, vote) for vote in range(self.grading.votes)]
            return [majority(list(votes)) for votes in zip(*ballots, strict=True)]
        # What all share is put into the engine's cache first: sent at once, all would miss it.
        first = await self._warm(rubric) if self.grading.warm_prefix else []
        rest = rubric[len(first) :]
        if self.grading.mode == "explain":
            return first + await self._in_words(rest)
        verdicts = first + await self._direct(rest)
        return await self._surer(rubric, verdicts) if self.grading.mode == "cascade" else verdicts

    async def _surer(self, rubric: list[Criterion], verdicts: list[Verdict]) -> list[Verdict]:
        """In `cascade` mode: the verdicts, asked for again in words where the token is unsure.

        The token's probability stays beside it, where the words bring none.
        """
        low, high = self.grading.cascade_low, self.grading.cascade_high
        unsure = []
        for place, criterion in enumerate(rubric):
            if is_unsure(criterion, verdicts[place], low, high):
                unsure.append(place)
        asked_again = [rubric[place] for place in unsure]
        in_words = await self._in_words(asked_again)
        for place, verdict in zip(unsure, in_words, strict=True):
            if self.grading.verdict == "reply":
                token = verdicts[place]
                verdict = replace(verdict, probability=token.probability, mass=token.mass)
            verdicts[place] = verdict
        return verdicts

    async def _warm(self, rubric: list[Criterion]) -> list[Verdict]:
        """Lets the engine read the first criterion's prompt, whose beginning all share.

        A reply may be long: where the engine can, it reads without one. Elsewhere that criterion is
        asked alone; its verdict is returned.
        """
        if self.grading.mode != "explain":
            return await self._direct(rubric[:1])
        if len(rubric) > 1 and (read := await self.client.read_ahead(self._question(rubric[:1]))):
            self._count(read, calls=0)
            return []
        return await self._in_words(rubric[:1])

    async def _direct(self, criteria: list[Criterion]) -> list[Verdict]:
        """The verdicts of `direct` mode: each is the probability of one token."""
        questions = []
        for criterion in criteria:
            opening = self.prompt.opening(criterion)
            question = replace(self._question([criterion]), opening=opening)
            questions.append(replace(question, thoughtless=self.grading.mode == "cascade"))
        replies = await self.client.ask_together(questions)
        verdicts = []
        for reply in replies:
            self._count(reply)
            verdicts.append(read_token(reply.probability, reply.mass))
        # Asking again would change nothing.
        self._note("other words", sum(verdict.met is None for verdict in verdicts))
        return verdicts

    async def _in_words(self, criteria: list[Criterion]) -> list[Verdict]:
        """The verdicts of replies of some words each, the majority's where there are votes.

        They come in one request where the endpoint takes lists of texts (SGLang's router 0.3 does
        not); with thoughts each in its own, so that none waits for the longest.
        """
        votes = range(self.grading.votes)
        asked = []
        for criterion in criteria:
            for vote in votes:
                asked.append(([criterion], self._question([criterion], VERDICT_SCHEMA, vote)))
        if self.client.api.takes_lists and not self.client.endpoint.thinking:
            found = await self._together(asked)
        else:
            found = await all_or_none(self._ask(*each) for each in asked)
        verdicts = [verdict for (verdict,) in found]
        majorities = []
        for start in range(0, len(verdicts), len(votes)):
            ballots = verdicts[start : start + len(votes)]
            majorities.append(majority(ballots))
        return majorities

    async def _together(self, asked: list[tuple[list[Criterion], Question]]) -> list[list[Verdict]]:
        """The verdicts of replies that come in one request."""
        questions = [question for _, question in asked]
        replies = await self.client.ask_together(questions)
        found = []
        others = {}  # by place, what a further request decides
        for (criteria, question), reply in zip(asked, replies, strict=True):
            self._count(reply)
            verdicts = self._read(criteria, reply)
            if not self._decides(verdicts):
                others[len(found)] = self._second_look(criteria, question, reply, verdicts)
            found.append(verdicts)
        looked_at = await all_or_none(others.values())
        for place, verdicts in zip(others, looked_at, strict=True):
            found[place] = verdicts
        return found

    async def _checklist(self, rubric: list[Criterion], vote: int) -> list[Verdict]:
        schema = checklist_schema(len(rubric))
        return await self._ask(rubric, self._question(rubric, schema, vote))

    async def _ask(self, criteria: list[Criterion], question: Question) -> list[Verdict]:
        reply = await self._reply(question)
        verdicts = self._read(criteria, reply)
        if self._decides(verdicts):
            return verdicts
        return await self._second_look(criteria, question, reply, verdicts)

    def _decides(self, verdicts: list[Verdict]) -> bool:
        """Whether the text of a reply is all that counts."""
        readable = all(verdict.met is not None for verdict in verdicts)
        return readable and self.grading.verdict == "reply"

    async def _second_look(
        self, criteria: list[Criterion], question: Question, reply: Reply, verdicts: list[Verdict]
    ) -> list[Verdict]:
        """The verdicts of a reply that is finished where it misses one, or else asked for again.

        Drawing again until there is a verdict would be rejection sampling: a policy that grades
        could choose what counts. With `grader_verdict: probability` every reply is read at its end.
        """
        unreadable = sum(verdict.met is None for verdict in verdicts)
        finishing = []
        if self.grading.mode != "checklist":
            finishing = self.client.api.continuations(question, reply, verdict_opening())
        if finishing:
            at_its_end, cause = await self._at_end(criteria[0], finishing)
            seen = replace(at_its_end, finished=bool(unreadable))
            if unreadable:
                verdicts = second_look(criteria, verdicts, [seen], self.by_policy)
            else:
                self._note(cause, int(seen.met is None))
                verdicts = [replace(seen, explanation=verdicts[0].explanation)]
        elif self.client.endpoint.temperature > 0:  # else it would reply the same
            for attempt in range(1, self.grading.rereads + 1):
                again = replace(question, seed=question.seed + attempt)
                drawn = self._read(criteria, await self._reply(again))
                if all(verdict.met is not None for verdict in drawn):
                    verdicts = second_look(criteria, verdicts, drawn, self.by_policy)
                    break
        self._note(reply.defect, unreadable)
        return verdicts

    def _read(self, criteria: list[Criterion], reply: Reply) -> list[Verdict]:
        """What the text of a reply says of the criteria."""
        if not reply.complete:
            return [UNREADABLE] * len(criteria)
        if self.grading.mode == "checklist":
            return read_checklist(reply.text, len(criteria))
        return [read_verdict(reply.text)]

    def _question(
        self, criteria: list[Criterion], schema: dict | None = None, vote: int = 0
    ) -> Question:
        return Question(
            messages=self.prompt.messages(criteria),
            seed=self.client.endpoint.seed + vote * (self.grading.rereads + 1),
            schema=schema if self.grading.json_schema else None,
            routing_key=self.routing_key,
        )

    async def _at_end(self, criterion: Criterion, asked: list[Question]) -> tuple[Verdict, str]:
        """The verdict by the two words at the end of a reply, and the cause where it is none.

        Of several ends the one counts where the word that helps the answer is the least probable.
        """
        try:
            replies = [await self._reply(question) for question in asked]
        except Refused:  # such as of a reply that fills the context: no way out of a bad verdict
            return UNREADABLE, "not continued"
        verdicts = [read_token(reply.probability, reply.mass) for reply in replies]
        helping = 1 if criterion.points < 0 else 0
        return min(verdicts, key=lambda verdict: verdict.of_words[helping]), "other words"

    async def _reply(self, question: Question) -> Reply:
        """The reply to a question, counted."""
        reply = await self.client.ask(question)
        self._count(reply)
        return reply

    def _note(self, cause: str, unreadable: int) -> None:
        """Adds to the causes of unreadable verdicts."""
        causes = self.record.unreadable_causes
        if unreadable:
            causes[cause] = causes.get(cause, 0) + unreadable

    def _count(self, reply: Reply, calls: int = 1) -> None:
        record = self.record
        tokens = TokenCounts(*reply.counts)
        if record.first_tokens == TokenCounts():
            record.first_tokens = tokens
        else:
            record.rest_tokens += tokens
        record.calls += calls
        version = reply.weight_version
        if version and version not in record.grader_versions:
            record.grader_versions.append(version)
