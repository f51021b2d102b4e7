"""One side of a report, a run: its summary, a tally of its criteria, its records by prompt (stage 6, evaluation)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rubric_rl.data.schema import Criterion
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import Rule
from rubric_rl.evaluation.summary import Summary
from rubric_rl.grading.score import is_met


@dataclass
class Tally:
    """How often one criterion (by text and sign) was met, over all answers graded by it."""

    prompt_id: str  # a prompt whose rubric has it: its text is read from there when needed
    key: int  # `_key` of the criterion
    answers: int = 0
    met: int = 0
    unreadable: int = 0
    lost: float = 0.0  # the score that it cost these answers, summed


class Side:
    """A run, read once from end to end; afterwards records are read only prompt by prompt."""

    def __init__(self, run: Run, rule: Rule, penalty: float):
        self.run, self.rule = run, rule
        self.summary = Summary(rule=rule, penalty=penalty)
        self.criteria: dict[int, Tally] = {}  # by `_key`: no text is kept
        self.listed: dict[
            str, tuple[int, float]
        ] = {}  # prompt_id -> (number of answers with a score, their sum)
        for record in run:
            self._add(record)
        self.records = run.by_prompt()

    def _add(self, record: Mapping) -> None:
        self.summary.add(record)
        value = self.rule.score(record)
        count, total = self.listed.get(record["prompt_id"], (0, 0.0))
        self.listed[record["prompt_id"]] = (
            (count, total) if math.isnan(value) else (count + 1, total + value)
        )
        if record["status"] != "graded":
            return
        judged = self.rule.judged(record)
        possible = sum(
            criterion.points for criterion, _ in judged if criterion.points > 0
        )  # as the rule weighs them
        for criterion, verdict in judged:
            key = _key(criterion)
            tally = self.criteria.setdefault(key, Tally(record["prompt_id"], key))
            met = is_met(criterion, verdict)
            tally.answers += 1
            tally.met += met
            tally.unreadable += verdict is None
            tally.lost += (
                abs(criterion.points) / possible
                if possible and met is (criterion.points < 0)
                else 0.0
            )

    def score(self, prompt_id: str) -> float | None:
        """The mean score of a prompt's answers; None when none has a score."""
        count, total = self.listed.get(prompt_id, (0, 0.0))
        return total / count if count else None

    def worst(self, count: int) -> list[tuple[dict, Tally]]:
        """The criteria that cost the run the most score, with their rubric items."""
        found = sorted(self.criteria.values(), key=lambda tally: (-tally.lost, tally.prompt_id))
        return [self._item(tally) for tally in found[:count] if tally.lost > 0]

    def unreadable(self, count: int) -> list[tuple[dict, Tally]]:
        """The criteria whose verdicts were most often unreadable."""
        found = sorted(
            self.criteria.values(), key=lambda tally: (-tally.unreadable, tally.prompt_id)
        )
        return [self._item(tally) for tally in found[:count] if tally.unreadable]

    def _item(self, tally: Tally) -> tuple[dict, Tally]:
        judged = (
            criterion
            for record in self.records(tally.prompt_id)
            for criterion, _ in self.rule.judged(record)
        )
        criterion = next(criterion for criterion in judged if _key(criterion) == tally.key)
        return {
            "criterion": criterion.text,
            "points": criterion.points,
            "tags": list(criterion.tags),
        }, tally


def _key(criterion: Criterion) -> int:
    return hash((criterion.text, criterion.points > 0))


def example(prompt_id: str, sides: list[Side]) -> dict:
    """Everything about one prompt as JSON: messages, rubric, and each run's answers with a verdict per criterion."""
    records = [side.records(prompt_id) for side in sides]
    first = next(record for each in records for record in each)
    rubric = [
        {name: item[name] for name in ("criterion", "points", "tags")} for item in first["rubrics"]
    ]
    pairs = zip(sides, records, strict=True)
    return {
        "id": prompt_id,
        "theme": first["theme"],
        "messages": first.get("messages", []),
        "rubric": rubric,
        "runs": [[_answer(record, rubric, side.rule) for record in each] for side, each in pairs],
    }


def _answer(record: Mapping, rubric: list[dict], rule: Rule) -> dict:
    """One answer with a verdict (or None) per criterion of `rubric`, matched by text and points.

    Two runs may have graded the same prompt by different rubrics.
    """
    verdicts: dict[tuple, list] = {}
    for i, (item, verdict) in enumerate(zip(record["rubrics"], record["verdicts"])):
        probability = record["probabilities"][i] if record.get("probabilities") else None
        explanation = record["explanations"][i] if record.get("explanations") else ""
        entry = {"verdict": verdict, "probability": probability, "explanation": explanation}
        verdicts.setdefault((item["criterion"], item["points"]), []).append(entry)
    value = rule.score(record)
    matching = (verdicts.get((item["criterion"], item["points"])) for item in rubric)
    return {
        "status": record["status"],
        "score": None if math.isnan(value) else value,
        "answer": record["answer"],
        "error": record.get("error", ""),
        "verdicts": [entries.pop(0) if entries else None for entries in matching],
    }
