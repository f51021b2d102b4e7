"""What a report shows of one run: its summary, a tally of its criteria, its records by prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rubric_rl.data.schema import Criterion, Record
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.evaluation.summary import Summary
from rubric_rl.grading.score import is_met, possible_points


@dataclass
class CriterionTally:
    """How often one criterion (by text and sign) was met, over all answers graded by it."""

    prompt_id: str  # a prompt whose rubric has it: its text is read from there when needed
    key: int  # `_key` of the criterion
    answers: int = 0
    met: int = 0
    unreadable: int = 0
    lost: float = 0.0  # the score that it cost these answers, summed


class RunView:
    """A run, read once from end to end; afterwards records are read only prompt by prompt."""

    def __init__(self, run: Run, rule: ScoringRule, penalty: float):
        self.run, self.rule = run, rule
        self.summary = Summary(rule=rule, penalty=penalty)
        self.criteria: dict[int, CriterionTally] = {}  # by `_key`: no text is kept
        # prompt_id -> (number of answers with a score, their sum)
        self.listed: dict[str, tuple[int, float]] = {}
        for record in run:
            self._add(record)
        self.records = run.by_prompt()

    def _add(self, record: Record) -> None:
        self.summary.add(record)
        value = self.rule.score(record)
        count, total = self.listed.get(record.prompt_id, (0, 0.0))
        if not math.isnan(value):
            count, total = count + 1, total + value
        self.listed[record.prompt_id] = count, total
        if record.status == "graded":
            self._tally(record)

    def _tally(self, record: Record) -> None:
        judged = self.rule.judged(record)
        possible = possible_points(criterion for criterion, _ in judged)  # as the rule weighs them
        for criterion, verdict in judged:
            key = _key(criterion)
            tally = self.criteria.setdefault(key, CriterionTally(record.prompt_id, key))
            met = is_met(criterion, verdict)
            tally.answers += 1
            tally.met += met
            tally.unreadable += verdict.met is None
            failed = met is (criterion.points < 0)
            if failed and possible:
                tally.lost += abs(criterion.points) / possible

    def score(self, prompt_id: str) -> float | None:
        """The mean score of a prompt's answers; None when none has a score."""
        count, total = self.listed.get(prompt_id, (0, 0.0))
        return total / count if count else None

    def worst(self, count: int) -> list[tuple[Criterion, CriterionTally]]:
        """The criteria that cost the run the most score."""
        found = sorted(self.criteria.values(), key=lambda tally: (-tally.lost, tally.prompt_id))
        return [(self._criterion(tally), tally) for tally in found[:count] if tally.lost > 0]

    def unreadable(self, count: int) -> list[tuple[Criterion, CriterionTally]]:
        """The criteria whose verdicts were most often unreadable."""
        tallies = self.criteria.values()
        found = sorted(tallies, key=lambda tally: (-tally.unreadable, tally.prompt_id))
        return [(self._criterion(tally), tally) for tally in found[:count] if tally.unreadable]

    def _criterion(self, tally: CriterionTally) -> Criterion:
        """The criterion of a tally, read again from the records of its prompt."""
        for record in self.records(tally.prompt_id):
            for criterion, _ in self.rule.judged(record):
                if _key(criterion) == tally.key:
                    return criterion
        raise LookupError(f"no record of {tally.prompt_id} has the tallied criterion any more")


def _key(criterion: Criterion) -> int:
    return hash((criterion.text, criterion.points > 0))


def example(prompt_id: str, views: Sequence[RunView]) -> dict:
    """Everything about one prompt as JSON.

    Messages, rubric, and each run's answers with a verdict per criterion.
    """
    records = [view.records(prompt_id) for view in views]
    first = next(record for each in records for record in each)
    runs = []
    for view, each in zip(views, records, strict=True):
        runs.append([_answer(record, first.rubric, view.rule) for record in each])
    return {
        "id": prompt_id,
        "theme": first.theme,
        "messages": list(first.messages),
        "rubric": [criterion.to_json() for criterion in first.rubric],
        "runs": runs,
    }


def _answer(record: Record, rubric: Sequence[Criterion], rule: ScoringRule) -> dict:
    """One answer with a verdict (or None) per criterion of `rubric`.

    They are matched by text and points: two runs may have graded a prompt by different rubrics.
    """
    found: dict[tuple, list[dict]] = {}
    for criterion, verdict in zip(record.rubric, record.verdicts, strict=False):
        entry = {
            "verdict": verdict.met,
            "probability": verdict.probability,
            "explanation": verdict.explanation,
        }
        found.setdefault((criterion.text, criterion.points), []).append(entry)
    verdicts = []
    for criterion in rubric:
        entries = found.get((criterion.text, criterion.points))
        verdicts.append(entries.pop(0) if entries else None)
    value = rule.score(record)
    return {
        "status": record.status,
        "score": None if math.isnan(value) else value,
        "answer": record.answer,
        "error": record.error,
        "verdicts": verdicts,
    }
