"""Changes that act on what the checks found; each leaves an entry in the log."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rubric_rl.data.checks.check import Judge, contradicts
from rubric_rl.data.checks.compound import parts
from rubric_rl.data.checks.polarity import polarity
from rubric_rl.data.schema import Criterion, Row


@dataclass
class Changes:
    """What was changed: one JSON object each, and what had to stay."""

    log: list[dict] = field(default_factory=list)
    kept: int = 0  # wrong signs of rows that would be left without positive points

    def add(self, change: str, row: Row, old: Criterion, new: Iterable[Criterion]) -> None:
        """Notes a criterion and what took its place."""
        entry = {"change": change, "prompt_id": row.prompt_id, "was": old.to_json()}
        self.log.append(entry | {"became": [criterion.to_json() for criterion in new]})

    def lines(self) -> list[str]:
        """For the report."""
        lines = []
        for change in ("split", "flip"):
            number = sum(entry["change"] == change for entry in self.log)
            if number:
                lines.append(f"changed {number} criteria: {change}")
        if self.kept:
            left = "their rows would have no positive points"
            lines.append(f"left {self.kept} wrong signs as they are: {left}")
        return lines


def split_compound(row: Row, changes: Changes) -> Row:
    """The row with each condition as a criterion of its own.

    The points are shared out equally, so that those of the rubric stay the same.
    """
    rubric: list[Criterion] = []
    for criterion in row.rubric:
        single = split_criterion(criterion)
        if len(single) > 1:
            changes.add("split", row, criterion, single)
        rubric += single
    return replace(row, rubric=tuple(rubric)) if len(rubric) > len(row.rubric) else row


def split_criterion(criterion: Criterion) -> list[Criterion]:
    """Each condition as a criterion of its own, with its share of the points; else itself alone."""
    texts = parts(criterion.text)
    if len(texts) == 1:
        return [criterion]
    share = criterion.points / len(texts)
    return [replace(criterion, text=text, points=share) for text in texts]


def flip_polarity(row: Row, changes: Changes, judge: Judge = polarity) -> Row:
    """The row with the other sign where points contradict a plain wording.

    Unless no criterion with positive points would be left: such a row could not be scored.
    """
    rubric = []
    flipped = []
    for criterion in row.rubric:
        if contradicts(criterion, judge):
            turned = replace(criterion, points=-criterion.points)
            flipped.append((criterion, turned))
            criterion = turned
        rubric.append(criterion)
    if not any(criterion.points > 0 for criterion in rubric):
        changes.kept += len(flipped)
        return row
    if not flipped:
        return row
    for old, new in flipped:
        changes.add("flip", row, old, [new])
    return replace(row, rubric=tuple(rubric))
