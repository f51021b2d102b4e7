"""One run as a report sees it: its summary, its criteria, and its records prompt by prompt (stage 6, evaluation)."""

from collections.abc import Mapping
from dataclasses import dataclass

from rubric_rl.rules import Rule
from rubric_rl.runs import Run
from rubric_rl.schema import Criterion
from rubric_rl.score import is_met
from rubric_rl.summary import Summary


@dataclass
class Tally:
    """What one criterion text came to over all answers that were asked about it."""

    prompt_id: str  # one of the prompts with it, where its text can be read again
    place: int  # the hash of its text and side
    answers: int = 0
    met: int = 0
    unreadable: int = 0
    lost: float = 0.0  # score that answers lost by it, summed


class Side:
    """A run, read once from end to end; afterwards records are read only prompt by prompt."""

    def __init__(self, run: Run, rule: Rule, penalty: float):
        self.run, self.rule = run, rule
        self.summary = Summary(rule=rule, penalty=penalty)
        self.criteria: dict[int, Tally] = {}  # hash of the text -> tally: no text is kept
        # prompt_id -> [theme, number of the prompt's answers with a score, their sum]
        self.listed: dict[str, list] = {}
        for record in run:
            self._add(record)
        self.records = run.by_prompt()

    def _add(self, record: Mapping) -> None:
        self.summary.add(record)
        value = self.rule.score(record)
        entry = self.listed.setdefault(record["prompt_id"], [record["theme"], 0, 0.0])
        if value == value:  # not NaN
            entry[1] += 1
            entry[2] += value
        if record["status"] != "graded":
            return
        judged = self.rule.judged(record)
        possible = sum(criterion.points for criterion, _ in judged if criterion.points > 0)  # as the rule weighs them
        for criterion, verdict in judged:
            place = _place(criterion)
            tally = self.criteria.setdefault(place, Tally(record["prompt_id"], place))
            met = is_met(criterion, verdict)
            tally.answers += 1
            tally.met += met
            tally.unreadable += verdict is None
            tally.lost += abs(criterion.points) / possible if possible and met is (criterion.points < 0) else 0.0

    def score(self, prompt_id: str) -> float | None:
        """The mean score of a prompt's answers; None when it has none."""
        _, count, total = self.listed.get(prompt_id, ("", 0, 0.0))
        return total / count if count else None

    def worst(self, count: int) -> list[tuple[dict, Tally]]:
        """The criteria that cost the run the most score, with their rubric items."""
        found = sorted(self.criteria.values(), key=lambda tally: (-tally.lost, tally.prompt_id))
        return [self._item(tally) for tally in found[:count] if tally.lost > 0]

    def unreadable(self, count: int) -> list[tuple[dict, Tally]]:
        """The criteria whose verdicts were most often unreadable."""
        found = sorted(self.criteria.values(), key=lambda tally: (-tally.unreadable, tally.prompt_id))
        return [self._item(tally) for tally in found[:count] if tally.unreadable]

    def _item(self, tally: Tally) -> tuple[dict, Tally]:
        judged = (criterion for record in self.records(tally.prompt_id) for criterion, _ in self.rule.judged(record))
        criterion = next(criterion for criterion in judged if _place(criterion) == tally.place)
        return {"criterion": criterion.text, "points": criterion.points, "tags": list(criterion.tags)}, tally


def _place(criterion: Criterion) -> int:
    return hash((criterion.text, criterion.points > 0))


def example(prompt_id: str, sides: list[Side]) -> dict:
    """Everything about one prompt as JSON: messages, rubric, and each run's answers with a verdict per rubric item."""
    found = [side.records(prompt_id) for side in sides]
    first = next(record for records in found for record in records)
    items = [(item["criterion"], item["points"]) for item in first["rubrics"]]
    return {
        "id": prompt_id,
        "theme": first["theme"],
        "messages": first.get("messages", []),
        "rubric": [
            {"criterion": text, "points": points, "tags": item["tags"]}
            for (text, points), item in zip(items, first["rubrics"])
        ],
        "runs": [
            [_answer(record, items, side.rule) for record in records]
            for side, records in zip(sides, found, strict=True)
        ],
    }


def _answer(record: Mapping, items: list[tuple], rule: Rule) -> dict:
    """One answer; its verdicts are matched by criterion text and points, should another rubric have been used."""
    said: dict[tuple, list] = {}
    for place, (item, verdict) in enumerate(zip(record["rubrics"], record["verdicts"])):
        probability = record["probabilities"][place] if record.get("probabilities") else None
        explanation = record["explanations"][place] if record.get("explanations") else ""
        entry = {"verdict": verdict, "probability": probability, "explanation": explanation}
        said.setdefault((item["criterion"], item["points"]), []).append(entry)
    value = rule.score(record)
    return {
        "status": record["status"],
        "score": None if value != value else value,
        "answer": record["answer"],
        "error": record.get("error", ""),
        "verdicts": [said[item].pop(0) if said.get(item) else None for item in items],
    }
