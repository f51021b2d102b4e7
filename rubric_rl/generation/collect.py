"""Asks for all that a prompt's rubric is made of: answers, drafts, verdicts and verdicts again."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rubric_rl.common.plain_text import as_shown
from rubric_rl.common.progress import work_through
from rubric_rl.data.readers.pieces import prompt_hash
from rubric_rl.data.schema import Criterion, Record, Row, Verdict
from rubric_rl.evaluation.answers import Answer, AnswerFile, Policy
from rubric_rl.evaluation.resume import EvaluationFolder, StoringClient
from rubric_rl.generation.filters import Filters, Log
from rubric_rl.generation.graded import (
    LEAST_CANDIDATES,
    GradedPrompt,
    UsedAnswer,
    graded_criteria,
)
from rubric_rl.generation.prompts import Prompt, PromptFile
from rubric_rl.generation.read_draft import read_draft
from rubric_rl.generation.stages import ANSWERS, GRADING, SECOND_READING, WRITING, Stages
from rubric_rl.generation.wording_filters import by_wording
from rubric_rl.generation.writer_prompt import SCHEMA, writer_prompt
from rubric_rl.grading.grade import Grader, ask_verdicts
from rubric_rl.grading.health import sickness
from rubric_rl.grading.prompt import graded_text
from rubric_rl.serving.client import all_or_none
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Question, Reply, TooLong, Unavailable

Readings = list[list[Verdict]]  # one list per answer, in the rubric's order

_ASK_AGAIN = "fix that and run the same command again"


def model_name(endpoint: Endpoint) -> str:
    """The name of the model at an endpoint, as well as its settings know it."""
    return endpoint.model or Path(endpoint.tokenizer).name or endpoint.shown_name


@dataclass(frozen=True)
class AnsweringModel:
    """A model that answers every prompt `count` times."""

    policy: Policy
    name: str
    count: int


@dataclass(frozen=True)
class Writer:
    """The model that writes rubrics: `drafts` of them for a prompt, of `least` to `most` criteria.

    Its client is a StoringClient whose role is the writer's.
    """

    client: StoringClient
    drafts: int = 1
    least: int = 6
    most: int = 16


@dataclass
class Collection:
    """What is asked, of whom, and where it is kept."""

    prompts: PromptFile
    answer_file: AnswerFile | None
    models: Sequence[AnsweringModel]
    writer: Writer
    grader: Grader
    further_graders: Sequence[Grader]  # the same one with another seed for each further reading
    filters: Filters
    store: EvaluationFolder
    stages: Stages
    failures: Counter[str] = field(default_factory=Counter)  # why prompts stayed unfinished

    async def run(self, workers: int) -> None:
        """Works through all prompts that are not finished, `workers` at a time."""
        await work_through(self._unfinished(), self._collect, workers)

    def _unfinished(self) -> Iterator[Prompt]:
        for prompt in self.prompts:
            if prompt.prompt_id not in self.store.finished:
                yield prompt

    async def _collect(self, prompt: Prompt) -> None:
        try:
            made = await self._made(prompt)
        except Unavailable as error:  # it stays unfinished: the next run goes on with it
            self.failures[str(error)] += 1
            self.stages.ended(str(error), _ASK_AGAIN)
            return
        self.store.store_other_result(prompt.prompt_id, made.to_json())
        self.stages.ended(made.left_out, made.cure)

    async def _made(self, prompt: Prompt) -> GradedPrompt:
        made = GradedPrompt(
            row=prompt.row,
            prompt_sha256=prompt_hash(prompt.row.messages),
            reference=prompt.reference,
        )
        await self._add_answers(made, prompt)
        if made.candidates < LEAST_CANDIDATES:
            made.left_out = f"fewer than {LEAST_CANDIDATES} answers to test criteria on"
            return made
        rubric = await self._written(made)
        if not rubric:
            faults: Counter[str] = Counter()
            for draft in made.drafts:
                faults.update(draft["faults"])
            faults.update(change.filter for change in made.changes)
            found = ", ".join(f"{name} {count}" for name, count in faults.items())
            made.left_out = f"the writer gave no usable criterion ({found or 'an empty list'})"
            return made
        await self._grade(made, rubric)
        return made

    # ---- answers

    async def _add_answers(self, made: GradedPrompt, prompt: Prompt) -> None:
        """The candidates, and behind them the answers of known pairs."""
        unused: Counter[str] = Counter()
        used: dict[str, UsedAnswer] = {}  # by what it shows: the same answer separates nothing
        if prompt.reference:
            used[as_shown(prompt.reference)] = UsedAnswer(prompt.reference, "reference")
        async for answer, by, seed in self._raw_answers(prompt.row):
            text = graded_text(answer.response)
            if text is None:
                unused["no answer"] += 1
            elif answer.truncated:
                unused["cut off"] += 1
            elif as_shown(text) in used:
                unused["repeated"] += 1
            else:
                used[as_shown(text)] = UsedAnswer(text, by, seed)
        made.answers = list(used.values())
        made.candidates = len(made.answers)
        made.unused_answers = dict(unused)
        for texts in prompt.pairs:
            places = []
            for text in texts:
                places.append(len(made.answers))
                made.answers.append(UsedAnswer(text, "pair"))
            better, worse = places
            made.pairs.append((better, worse))

    async def _raw_answers(self, row: Row) -> AsyncIterator[tuple[Answer, str, int | None]]:
        """Every answer that a file or a model has, with its name and seed."""
        if self.answer_file:
            name = self.answer_file.path.name
            for number in range(self.answer_file.count(row.prompt_id)):
                yield await self.answer_file.get(row, number, row.prompt_id), name, None
        for model in self.models:
            self.stages.expect(ANSWERS, model.count)
            answers = await all_or_none(
                self._answer(model, row, number) for number in range(model.count)
            )
            for number, answer in enumerate(answers):
                yield answer, model.name, model.policy.client.endpoint.seed + number

    async def _answer(self, model: AnsweringModel, row: Row, number: int) -> Answer:
        answer = await model.policy.get(row, number, row.prompt_id)
        self.stages.advance(ANSWERS)
        return answer

    # ---- drafts

    async def _written(self, made: GradedPrompt) -> list[Criterion]:
        """The criteria of all drafts, filtered by their wording."""
        self.stages.expect(WRITING, self.writer.drafts)
        criteria: list[Criterion] = []
        replies = await all_or_none(
            self._reply(made, number) for number in range(self.writer.drafts)
        )
        for number, reply in enumerate(replies):
            draft = read_draft(reply)
            seed = self.writer.client.endpoint.seed + number
            about = {"seed": seed, "criteria": len(draft.criteria), "faults": draft.faults}
            made.drafts.append(about)
            criteria += draft.criteria
        log = Log(made.changes)
        return by_wording(criteria, self.filters, log)

    async def _reply(self, made: GradedPrompt, number: int) -> Reply:
        writer = self.writer
        client = self.writer.client
        content = writer_prompt(
            made.row.messages, made.reference, writer.least, writer.most, client.api.break_up
        )
        question = Question(
            messages=[{"role": "user", "content": content}],
            seed=client.endpoint.seed + number,
            schema=SCHEMA,
            routing_key=made.prompt_id,
        )
        reply = await client.ask(question)
        self.stages.advance(WRITING)
        return reply

    # ---- verdicts

    async def _grade(self, made: GradedPrompt, rubric: list[Criterion]) -> None:
        """Grades every answer by every criterion, the candidates again in each further reading."""
        readings = await self._with_room(made, rubric)
        candidates = made.answers[: made.candidates]
        further = []
        for again in self.further_graders:
            verdicts = await self._readings(again, made, rubric, candidates, SECOND_READING)
            further.append(verdicts)
        one_token = self.grader.grading.mode == "direct"
        made.criteria = graded_criteria(rubric, readings, further, one_token)
        expert = made.row.rubric
        if expert:
            by_expert = await self._readings(self.grader, made, expert, made.answers, GRADING)
            made.expert = graded_criteria(expert, by_expert, one_token=one_token)

    async def _with_room(self, made: GradedPrompt, rubric: list[Criterion]) -> Readings:
        """The verdicts on each answer; one that leaves the grader no room is left out.

        Raises Unavailable where less than LEAST_CANDIDATES are left: the grader is too small.
        """
        too_long: dict[int, Unavailable] = {}
        readings = await self._readings(self.grader, made, rubric, made.answers, GRADING, too_long)
        made.leave_out(too_long.keys(), "too long for the grader")
        if made.candidates < LEAST_CANDIDATES:
            raise too_long.popitem()[1]
        return [verdicts for verdicts in readings if verdicts]

    async def _readings(
        self,
        grader: Grader,
        made: GradedPrompt,
        rubric: Sequence[Criterion],
        answers: Sequence[UsedAnswer],
        stage: str,
        too_long: dict[int, Unavailable] | None = None,
    ) -> Readings:
        """The verdicts on these answers. Raises Unavailable where most of them cannot be read.

        Given `too_long`, an answer that leaves the grader no room is put there, by its place.
        """
        self.stages.expect(stage, len(rubric) * len(answers))

        async def read(place: int, answer: UsedAnswer) -> Record:
            row = Row(made.prompt_id, made.row.messages, tuple(rubric))
            record = Record.of(row, "graded", answer.text, grader=grader.name)
            failure = await ask_verdicts(grader, record, routing_key=made.prompt_id)
            if too_long is not None and isinstance(failure, TooLong):
                too_long[place] = failure
            elif failure is not None:
                raise failure
            self.stages.advance(stage, len(rubric))
            return record

        records = await all_or_none(read(*each) for each in enumerate(answers))
        # Of a sick grader, not of the criteria: the next run asks again.
        if complaint := sickness(records, grader.grading.most_unreadable):
            raise Unavailable(complaint)
        return [record.verdicts for record in records]
