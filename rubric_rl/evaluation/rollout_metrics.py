"""What the records of a rollout add up to: the training hook logs it as `grading/...`."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from rubric_rl.data.schema import STATUSES, Criterion, Record, TokenCounts, Verdict
from rubric_rl.evaluation.anchor_figures import anchor_figures
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE
from rubric_rl.grading.score import (
    is_met,
    known_rewards,
    members_of,
    possible_points,
    score,
)


def grading_metrics(records: Iterable[Record]) -> dict[str, float]:
    """Means over answers (scores by axis and theme) and over criteria, and token sums.

    Scores are plain ones, whatever the rule of the reward (`plain_score` is their mean), so that
    runs by different rules, and training and evaluation, can be compared.
    `negative_hit`: share of negative criteria that count as met; `unreadable`: of verdicts;
    `finished`: of verdicts whose reply gave none and was continued;
    `grader_age`: by how many weight updates the policy that graded is newer than the one that
    answered, where both versions are known.
    """
    records = list(records)
    if not records:
        return {}
    parts: dict[str, list[float]] = defaultdict(list)
    negatives: list[bool] = []
    unreadable: list[bool] = []
    finished: list[bool] = []
    for record in records:
        if record.status == "ungraded":
            continue
        plain = PLAIN_RULE.score(record)
        parts[f"theme/{record.theme or 'none'}"].append(plain)
        parts["plain_score"].append(plain)
        if record.status != "graded":
            continue
        axes = score_by(lambda criterion: criterion.tag("axis"), record.rubric, record.verdicts)
        for axis, value in axes.items():
            parts[f"axis/{axis}"].append(value)
        for criterion, verdict in zip(record.rubric, record.verdicts, strict=True):
            unreadable.append(verdict.met is None)
            finished.append(verdict.finished)
            if criterion.points < 0:
                negatives.append(is_met(criterion, verdict))
    metrics = {name: _mean(parts[name]) for name in sorted(parts)}
    for status in STATUSES:
        if status != "graded":  # it is the rest
            metrics[status] = _mean([record.status == status for record in records])
    metrics["negative_hit"] = _mean(negatives)
    metrics["unreadable"] = _mean(unreadable)
    metrics["finished"] = _mean(finished)
    metrics["seconds_per_answer"] = _mean([record.seconds for record in records])
    ages = [age for record in records if (age := _grader_age(record)) is not None]
    if ages:
        metrics["grader_age"] = _mean(ages)
    metrics |= _token_metrics(records)
    for name, value in anchor_figures(records).items():
        metrics[f"anchor/{name}"] = value
    return metrics


def score_by(
    key: Callable[[Criterion], str], rubric: Sequence[Criterion], verdicts: Sequence[Verdict]
) -> dict[str, float]:
    """`score` per part of the rubric, e.g. by `lambda criterion: criterion.tag("axis")`.

    A part without positive points, or without a name, is left out.
    """
    parts = defaultdict(list)
    for criterion, verdict in zip(rubric, verdicts, strict=True):
        name = key(criterion)
        parts[name].append((criterion, verdict))
    scores = {}
    for name, pairs in parts.items():
        criteria, said = zip(*pairs, strict=True)
        if name and possible_points(criteria) > 0:
            scores[name] = score(criteria, said)
    return scores


def is_flat(rewards: Sequence[float]) -> bool:
    """Whether a group has no gradient: fewer than two graded answers, or all rewards equal."""
    values = known_rewards(rewards)
    if len(values) < 2:
        return True
    return max(values) - min(values) <= 1e-6


def flat_share(rewards: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Share of a batch's groups that are flat (zero variance); NaN without groups."""
    flat = []
    for members in members_of(groups):
        own = [rewards[position] for position in members]
        flat.append(is_flat(own))
    return sum(flat) / len(flat) if flat else math.nan


def version_number(version: str) -> int | None:
    """A weight version as a number; None for one that is none, such as "default"."""
    return int(version) if version.isdecimal() and len(version) < 20 else None


def _grader_age(record: Record) -> float | None:
    """How much newer the policy was when it graded; None where that is not known."""
    answered = version_number(record.weight_version)
    graded = [version_number(version) for version in record.grader_versions]
    if record.grader != "policy" or not graded or answered is None or None in graded:
        return None
    return _mean([number for number in graded if number is not None]) - answered


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _token_metrics(records: list[Record]) -> dict[str, float]:
    first, rest = TokenCounts(), TokenCounts()
    for record in records:
        first += record.first_tokens
        rest += record.rest_tokens
    total = first + rest
    return {
        "tokens_prefilled": total.prompt - total.cached,
        "tokens_cached": total.cached,
        "tokens_decoded": total.completion,
        "cached_share_after_first": rest.cached / rest.prompt if rest.prompt else 0.0,
    }
