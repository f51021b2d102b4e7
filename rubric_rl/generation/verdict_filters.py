"""Filters by verdicts: what the answers say of a criterion, and how much of a rubric is kept."""

import math
from collections.abc import Sequence

import numpy as np

from rubric_rl.generation.filters import Filters, Log
from rubric_rl.generation.graded import GradedCriterion

# Below these numbers an agreement says nothing.
LEAST_ANSWERS = 5
LEAST_CRITERIA = 3
_NEARLY_ONE = 0.999999  # a correlation of 1 has no finite Fisher transform
_MOST = 500.0  # of an exponent, so that it stays finite


def by_verdicts(
    graded: Sequence[GradedCriterion], candidates: int, filters: Filters, log: Log
) -> list[GradedCriterion]:
    """The criteria that are kept, in their order; `log` gets what was done to the others.

    Only the verdicts on the first `candidates` answers count.
    """
    left = _readable(graded, candidates, log)
    if filters.unsteady:
        left = _steady(left, candidates, filters.most_changes, log)
    left = _separating(left, candidates, filters, log)
    if filters.disagreeing:
        left = _agreeing(left, candidates, filters.least_right, log)
    if filters.cap:
        left = _heaviest(left, filters.cap, log)
    return _balanced(left, filters.balance, log)


def _readable(graded: Sequence[GradedCriterion], candidates: int, log: Log) -> list:
    left = []
    for each in graded:
        unreadable = each.mets[:candidates].count(None)
        if 2 * unreadable > candidates:
            log.add("unreadable", each.criterion, f"{unreadable} of {candidates} verdicts")
        else:
            left.append(each)
    return left


def changed_share(each: GradedCriterion, candidates: int) -> float | None:
    """How likely another reading of an answer gives another verdict; None where nothing says so.

    By reading it again; an unreadable verdict is another one than a readable one. Where a verdict
    is one token that is met with probability p, two draws of it differ with 2 p (1 - p).
    """
    first = each.mets[:candidates]
    changes = []
    for reading in each.further:
        changes += [before is not after for before, after in zip(first, reading, strict=True)]
    if not changes:
        known = [p for p in each.probabilities[:candidates] if p is not None]
        changes = [2 * p * (1 - p) for p in known]
    return math.fsum(changes) / len(changes) if changes else None


def _steady(
    graded: list[GradedCriterion], candidates: int, most_changes: float, log: Log
) -> list[GradedCriterion]:
    left = []
    for each in graded:
        share = changed_share(each, candidates)
        if share is not None and share > most_changes:
            log.add("unsteady", each.criterion, f"{share:.0%} of the verdicts change")
        else:
            left.append(each)
    return left


def meeting_share(each: GradedCriterion, candidates: int) -> float:
    """The share of the answers with a readable verdict that meet it."""
    known = [met for met in each.mets[:candidates] if met is not None]
    return sum(known) / len(known)


def _separating(
    graded: list[GradedCriterion], candidates: int, filters: Filters, log: Log
) -> list[GradedCriterion]:
    """What some answers meet and others do not."""
    left = []
    for each in graded:
        share = meeting_share(each, candidates)
        if share == 1 and filters.always_met:
            log.add("always_met", each.criterion)
        elif share == 0 and filters.never_met:
            log.add("never_met", each.criterion)
        else:
            left.append(each)
    return left


def _agreeing(
    graded: list[GradedCriterion], candidates: int, least_right: float, log: Log
) -> list[GradedCriterion]:
    """What is left after the worst one that disagrees with the rest is dropped, and again.

    One at a time: a wrong criterion stands in the rest of every other.
    """
    left = list(graded)
    while candidates >= LEAST_ANSWERS and len(left) >= LEAST_CRITERIA:
        correlations = agreements(left, candidates)
        probabilities = right_sign_probabilities(correlations, candidates)
        worst = min(range(len(left)), key=lambda place: probabilities[place])
        if probabilities[worst] >= least_right:
            break
        reason = f"correlation {correlations[worst]:.2f} with the rest"
        log.add("disagreeing", left.pop(worst).criterion, reason)
    return left


def agreements(graded: Sequence[GradedCriterion], candidates: int) -> list[float]:
    """The correlation of each criterion with the sum of the others over the answers.

    Each counts with its sign alone: a heavy wrong one must not outvote the rest. 0 where one of
    the two does not vary. Source of leave-one-out agreement: EvoRubric, arXiv 2605.29847.
    """
    rows = []
    for each in graded:
        sign = 1 if each.criterion.points > 0 else -1
        rows.append([sign * (met is True) for met in each.mets[:candidates]])
    votes = np.array(rows, float)  # (criteria, answers)
    rest = votes.sum(axis=0) - votes
    own = votes - votes.mean(axis=1, keepdims=True)
    others = rest - rest.mean(axis=1, keepdims=True)
    products = (own * others).sum(axis=1)
    sizes = np.sqrt((own**2).sum(axis=1) * (others**2).sum(axis=1))
    varies = sizes > 1e-9
    return np.where(varies, products / np.where(varies, sizes, 1), 0.0).tolist()


def right_sign_probabilities(correlations: Sequence[float], answers: int) -> list[float]:
    """How likely each criterion has the right sign, by its correlation with the rest.

    A criterion of the right sign agrees with the rest as criteria of this prompt usually do, one of
    the wrong sign disagrees as much: by Fisher's transform z = artanh(r), which is nearly normal
    with variance 1 / (answers - 3), around the median of all z or minus that median. Before a look
    at the answers both are equally likely. Where criteria have nothing to do with each other, the
    median is near 0 and nothing follows.
    """
    bounded = np.clip(correlations, -_NEARLY_ONE, _NEARLY_ONE)
    transformed = np.arctanh(bounded)
    usual = max(0.0, float(np.median(transformed)))
    evidence = 2 * transformed * usual * (answers - 3)  # the logarithm of the likelihood ratio
    return (1 / (1 + np.exp(-np.clip(evidence, -_MOST, _MOST)))).tolist()


def _heaviest(graded: list[GradedCriterion], most: int, log: Log) -> list[GradedCriterion]:
    """So many of the largest points, of equals the first."""
    order = sorted(range(len(graded)), key=lambda place: (-_weight(graded[place]), place))
    kept = set(order[:most])
    for place in order[most:]:
        log.add("cap", graded[place].criterion, f"more than {most}")
    return [each for place, each in enumerate(graded) if place in kept]


def _balanced(graded: list[GradedCriterion], most_share: float, log: Log) -> list[GradedCriterion]:
    """As many of the heaviest negative ones as have at most this share of all points.

    Where they outweigh the rest, saying nothing is the best answer.
    """
    positive = math.fsum(_weight(each) for each in graded if each.criterion.points > 0)
    negative = [each for each in graded if each.criterion.points < 0]
    lightest_first = sorted(negative, key=_weight)
    left = list(graded)
    total = math.fsum(map(_weight, negative))
    while lightest_first and total > most_share * (positive + total):
        dropped = lightest_first.pop(0)
        total = math.fsum(map(_weight, lightest_first))
        left.remove(dropped)
        log.add("balance", dropped.criterion, f"more than {most_share:.0%} of the points")
    return left


def _weight(each: GradedCriterion) -> float:
    return abs(each.criterion.points)
