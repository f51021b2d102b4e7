"""Changes that act on what the checks found; each leaves an entry in the log."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rubric_rl.data.checks.check import Judge, contradicts
from rubric_rl.data.checks.compound import parts
from rubric_rl.data.checks.polarity import polarity
from rubric_rl.data.parse import LEAST_POINTS
from rubric_rl.data.schema import Criterion, Row


@dataclass
class Changes:
    """What was changed: one JSON object each, and what had to stay."""

    log: list[dict] = field(default_factory=list)
    kept: int = 0  # wrong signs of rows that would be left without positive points
    repeated: int = 0  # parts of compound criteria that their rubric says already

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

    The points are shared out equally. A part that the rubric says already is left out with its
    points, unless no criterion with positive points would be left.
    """
    in_parts = [(criterion, split_criterion(criterion)) for criterion in row.rubric]
    said = {_words(criterion) for criterion, single in in_parts if len(single) == 1}
    rubric: list[Criterion] = []
    split: list[tuple[Criterion, list[Criterion]]] = []
    repeated = 0
    for criterion, single in in_parts:
        if len(single) == 1:
            rubric.append(criterion)
            continue
        new = []
        for part in single:
            if _words(part) in said:
                repeated += 1
            else:
                said.add(_words(part))
                new.append(part)
        rubric += new
        split.append((criterion, new))
    if not split or not any(criterion.points > 0 for criterion in rubric):
        return row
    for criterion, new in split:
        changes.add("split", row, criterion, new)
    changes.repeated += repeated
    return replace(row, rubric=tuple(rubric))


def _words(criterion: Criterion) -> tuple[str, ...]:
    """What it says: a part is a sentence of its own, whether or not the whole ended in a period."""
    return tuple(criterion.text.lower().rstrip(" .").split())


def split_criterion(criterion: Criterion) -> list[Criterion]:
    """Each condition as a criterion of its own, with its share of the points; else itself alone.

    So is one whose share would be less than a criterion may have.
    """
    texts = parts(criterion.text)
    share = criterion.points / len(texts)
    if len(texts) == 1 or abs(share) < LEAST_POINTS:
        return [criterion]
    return [criterion._replace(text=text, points=share) for text in texts]


def flip_polarity(row: Row, changes: Changes, judge: Judge = polarity) -> Row:
    """The row with the other sign where points contradict a plain wording.

    Unless no criterion with positive points would be left: such a row could not be scored.
    """
    rubric = []
    flipped = []
    for criterion in row.rubric:
        if contradicts(criterion, judge):
            turned = criterion._replace(points=-criterion.points)
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
