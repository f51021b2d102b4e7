"""Filters by wording: compound criteria are split, plain wrong signs turned, repeats merged."""

from collections import defaultdict
from collections.abc import Iterable

from rubric_rl.data.checks.change import split_criterion
from rubric_rl.data.checks.check import contradicts
from rubric_rl.data.checks.duplicates import near_duplicates
from rubric_rl.data.checks.polarity import polarity
from rubric_rl.data.schema import Criterion
from rubric_rl.generation.filters import Filters, Log


def by_wording(criteria: Iterable[Criterion], filters: Filters, log: Log) -> list[Criterion]:
    """The criteria that are worth testing; `log` gets what was done to the others."""
    left = list(criteria)
    if filters.split:
        left = _split(left, log)
    if filters.polarity != "keep":
        left = _right_signs(left, filters.polarity == "turn", log)
    if filters.duplicates:
        left = _merged(left, log)
    return left


def _split(criteria: list[Criterion], log: Log) -> list[Criterion]:
    """Each part gets its share of the points: what hangs on the whole stays the same."""
    left = []
    for criterion in criteria:
        pieces = split_criterion(criterion)
        if len(pieces) > 1:
            log.add("split", criterion, f"{len(pieces)} parts", pieces)
        left += pieces
    return left


def _right_signs(criteria: list[Criterion], turn: bool, log: Log) -> list[Criterion]:
    left = []
    for criterion in criteria:
        if not contradicts(criterion):
            left.append(criterion)
            continue
        reason = f"its wording is that of something {polarity(criterion.text)}"
        if turn:
            turned = criterion._replace(points=-criterion.points)
            log.add("polarity", criterion, reason, [turned])
            left.append(turned)
        else:
            log.add("polarity", criterion, reason)
    return left


def _merged(criteria: list[Criterion], log: Log) -> list[Criterion]:
    """Without those that say nearly the same as a heavier one, or as an equal one before them."""
    texts = [criterion.text for criterion in criteria]
    alike = defaultdict(set)
    for one, other in near_duplicates(texts):
        alike[one].add(other)
        alike[other].add(one)
    heaviest_first = sorted(range(len(texts)), key=lambda place: -abs(criteria[place].points))
    kept: set[int] = set()
    for place in heaviest_first:
        same = sorted(alike[place] & kept)
        if same:
            log.add("duplicates", criteria[place], f"the same as: {texts[same[0]]}")
        else:
            kept.add(place)
    return [criteria[place] for place in sorted(kept)]
