"""What a report shows of one run: its summary, its prompts, a tally of its criteria, its records.

A run is read once from end to end; no text of it is kept but the start of each question.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rubric_rl.common.plain_text import one_line
from rubric_rl.data.schema import Criterion, Record, Verdict
from rubric_rl.evaluation.comparable import comparison_with_published
from rubric_rl.evaluation.judge import judge_of_run
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.evaluation.statistics import PENALTIES
from rubric_rl.evaluation.summary import OVERALL, Summary
from rubric_rl.evaluation.tables import account_lines
from rubric_rl.grading.score import is_met, possible_points

Interval = tuple[float, float] | None
QUESTION_CHARACTERS = 160  # of a question in the list of prompts


@dataclass(frozen=True)
class Headline:
    """The figures at the top of a report."""

    score: float  # HealthBench's: the clipped mean
    bootstrap_std: float
    mean: float  # unclipped
    interval: Interval  # 95% by prompt, of `mean`
    adjusted: float  # the length-adjusted clipped mean
    penalty: float  # per 500 characters
    characters: float  # per answer
    worst_of: int  # the largest number of answers to a prompt
    worst: float | None  # the mean of the worst of that many


@dataclass
class PromptTally:
    """One prompt of a run, as the list of prompts shows it."""

    theme: str
    question: str  # the start of the last turn; empty in records of the first form
    answers: int = 0  # those with a score
    total: float = 0.0  # the sum of their scores

    @property
    def score(self) -> float | None:
        """The mean score of the answers; None when none has a score."""
        if not self.answers:
            return None
        return self.total / self.answers


@dataclass
class CriterionTally:
    """How often one criterion (by text and sign) was met, over all answers graded by it."""

    prompt_id: str  # a prompt whose rubric has it: its text is read from there when needed
    key: int  # `_key` of the criterion
    answers: int = 0
    met: int = 0
    unreadable: int = 0
    lost: float = 0.0  # the score that it cost these answers, summed


@dataclass(frozen=True)
class CriterionRow:
    """A line of the tables of criteria."""

    criterion: Criterion
    prompt_id: str
    answers: int
    met: float  # share of the answers that were counted as meeting it
    unreadable: int
    cost: float  # by how much the run's mean would rise if no answer failed it


class RunView:
    """A run, read once from end to end; afterwards records are read only prompt by prompt."""

    def __init__(self, run: Run, rule: ScoringRule):
        self.name = run.name
        self.rule = rule
        penalty = rule.penalty or PENALTIES["hard"]
        self.summary = Summary(rule=rule, penalty=penalty)
        self.criteria: dict[int, CriterionTally] = {}  # by `_key`: no text is kept
        self.prompts: dict[str, PromptTally] = {}  # by prompt_id, in the files' order
        for record in run:
            self._add(record)
        self.judge = judge_of_run(run, self.summary)
        self.published = comparison_with_published(run, self.summary)
        self.records = run.by_prompt()
        self.result = self.summary.result()
        self.headline = _headline(self.result)
        lines = account_lines(self.result)
        self.account = "\n".join(lines)  # as the evaluation prints it

    def _add(self, record: Record) -> None:
        self.summary.add(record)
        prompt_id = record.prompt_id
        tally = self.prompts.get(prompt_id)
        if tally is None:
            question = _question(record)
            tally = PromptTally(record.theme, question)
            self.prompts[prompt_id] = tally
        value = self.rule.score(record)
        if not math.isnan(value):
            tally.answers += 1
            tally.total += value
        if record.status == "graded":
            self._tally_criteria(record)

    def _tally_criteria(self, record: Record) -> None:
        judged = self.rule.judged(record)
        rubric = [criterion for criterion, _ in judged]
        possible = possible_points(rubric)  # as the rule weighs them
        for criterion, verdict in judged:
            key = _key(criterion)
            tally = self.criteria.get(key)
            if tally is None:
                tally = CriterionTally(record.prompt_id, key)
                self.criteria[key] = tally
            met = is_met(criterion, verdict)
            tally.answers += 1
            tally.met += met
            tally.unreadable += verdict.met is None
            failed = met is (criterion.points < 0)
            if failed and possible:
                tally.lost += abs(criterion.points) / possible

    def score(self, prompt_id: str) -> float | None:
        """The mean score of a prompt's answers; None when the run has none with a score."""
        tally = self.prompts.get(prompt_id)
        return tally.score if tally else None

    def worst(self, count: int) -> list[CriterionRow]:
        """The criteria that cost the run the most score."""
        return self._most(count, lambda tally: tally.lost)

    def most_unreadable(self, count: int) -> list[CriterionRow]:
        """The criteria whose verdicts were most often unreadable."""
        return self._most(count, lambda tally: tally.unreadable)

    def _most(self, count: int, size: Callable[[CriterionTally], float]) -> list[CriterionRow]:
        """The criteria of the largest size; those of size 0 are left out."""

        def rank(tally: CriterionTally) -> tuple:
            return -size(tally), tally.prompt_id

        tallies = sorted(self.criteria.values(), key=rank)
        return [self._row(tally) for tally in tallies[:count] if size(tally) > 0]

    def _row(self, tally: CriterionTally) -> CriterionRow:
        scored = len(self.summary.metric(OVERALL).values)
        return CriterionRow(
            criterion=self._criterion(tally),
            prompt_id=tally.prompt_id,
            answers=tally.answers,
            met=tally.met / tally.answers,
            unreadable=tally.unreadable,
            cost=tally.lost / max(scored, 1),
        )

    def _criterion(self, tally: CriterionTally) -> Criterion:
        """The criterion of a tally, read again from the records of its prompt."""
        for record in self.records(tally.prompt_id):
            for criterion, _ in self.rule.judged(record):
                if _key(criterion) == tally.key:
                    return criterion
        raise LookupError(f"no record of {tally.prompt_id} has the tallied criterion any more")


def _key(criterion: Criterion) -> int:
    return hash((criterion.text, criterion.points > 0))


def _question(record: Record) -> str:
    if not record.messages:
        return ""
    last = record.messages[-1]
    return one_line(last["content"], QUESTION_CHARACTERS)


def _headline(result: dict) -> Headline | None:
    """The headline of a summary's result; None where no answer was graded."""
    reference = result["reference"]
    beside = result["beside"]
    if not reference:
        return None
    worst_at = result["worst_at_k"]
    *_, largest = worst_at
    adjusted = beside["length_adjusted"]
    return Headline(
        score=reference[OVERALL],
        bootstrap_std=reference[f"{OVERALL}:bootstrap_std"],
        mean=beside["mean_unclipped"],
        interval=beside["interval_by_prompt"],
        adjusted=adjusted["mean_clipped"],
        penalty=adjusted["penalty_per_500_characters"],
        characters=beside["characters_per_answer"],
        worst_of=int(largest),
        worst=worst_at[largest],
    )


def example(prompt_id: str, views: Sequence[RunView]) -> dict:
    """Everything about one prompt as JSON.

    Messages, rubric, and each run's answers with a verdict per criterion. `messages` is empty when
    all its records are of the first form, which lacks them.
    """
    first = None
    messages = ()
    runs = []
    for view in views:
        answers = []
        for record in view.records(prompt_id):
            first = first or record
            messages = messages or record.messages
            answer = answer_view(record, first.rubric, view.rule)
            answers.append(answer)
        runs.append(answers)
    assert first is not None  # a view has the prompt, or it would not be shown
    return {
        "id": prompt_id,
        "theme": first.theme,
        "messages": list(messages),
        "rubric": [criterion.to_json() for criterion in first.rubric],
        "runs": runs,
    }


def answer_view(record: Record, rubric: Sequence[Criterion], rule: ScoringRule) -> dict:
    """One answer with a verdict (or None) per criterion of `rubric`, and its anchor's beside."""
    value = rule.score(record)
    return {
        "status": record.status,
        "score": None if math.isnan(value) else value,
        "answer": record.answer,
        "error": record.error,
        "verdicts": _matched(record, record.verdicts, rubric),
        "anchor": _anchor(record, rubric),
    }


def _anchor(record: Record, rubric: Sequence[Criterion]) -> dict | None:
    """What another grader said of the same answer; None where none was asked."""
    anchored = record.anchored
    if not anchored:
        return None
    return {
        "grader": anchored.grader,
        "score": None if math.isnan(anchored.score) else anchored.score,
        "error": anchored.error,
        "verdicts": _matched(record, anchored.verdicts, rubric),
    }


def _matched(
    record: Record, verdicts: Sequence[Verdict], rubric: Sequence[Criterion]
) -> list[dict | None]:
    """The verdict on each criterion of `rubric`, None where there is none.

    They are matched by text and points: two runs may have graded a prompt by different rubrics.
    """
    found = defaultdict(list)  # text and points -> the verdicts on such criteria
    if verdicts:
        for criterion, verdict in zip(record.rubric, verdicts, strict=True):
            same = found[criterion.text, criterion.points]
            same.append(verdict)
    matched = []
    for criterion in rubric:
        same = found[criterion.text, criterion.points]
        matched.append(vars(same.pop(0)).copy() if same else None)
    return matched
