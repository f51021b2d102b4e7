"""The reward formula and the group's advantages; defined here and nowhere else (stage 4, reward)."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

from rubric_rl.data.schema import Criterion

Verdict = bool | None  # None: the grader answered, but unreadably


def is_met(criterion: Criterion, verdict: Verdict) -> bool:
    """Whether the criterion counts as met.

    An unreadable verdict never helps the policy, because the policy is the grader: a positive criterion counts as not
    met, a negative one as met.
    """
    return criterion.points < 0 if verdict is None else verdict


def score(rubric: Sequence[Criterion], verdicts: Sequence[Verdict]) -> float:
    """Points of met criteria / sum of positive points (arXiv 2509.25534; HealthBench, arXiv 2505.08775), not clipped.

    At most 1; below 0 when negative criteria outweigh the rest. Raises ValueError when the two lengths differ or no
    criterion has positive points.
    """
    possible = math.fsum(criterion.points for criterion in rubric if criterion.points > 0)
    if possible <= 0:
        raise ValueError("a rubric without positive points has no score")
    return (
        math.fsum(
            c.points for c, verdict in zip(rubric, verdicts, strict=True) if is_met(c, verdict)
        )
        / possible
    )


def score_by(
    key: Callable[[Criterion], str], rubric: Sequence[Criterion], verdicts: Sequence[Verdict]
) -> dict[str, float]:
    """`score` per part of the rubric, e.g. by `lambda c: c.tag("axis")`; a part without positive points is left out."""
    parts = defaultdict(list)
    for criterion, verdict in zip(rubric, verdicts, strict=True):
        parts[key(criterion)].append((criterion, verdict))
    parts = {
        name: tuple(zip(*items))
        for name, items in parts.items()
        if name and any(c.points > 0 for c, _ in items)
    }
    return {name: score(*part) for name, part in parts.items()}


def group_advantages(rewards: Sequence[float], normalise_std: bool = True) -> list[float]:
    """GRPO advantages of one prompt's answers: (r - mean) / (std + 1e-6) with the unbiased std, as slime computes them.

    NaN marks an ungraded answer: it takes no part in mean and std and gets 0. With fewer than two graded answers there
    is nothing to compare, so all get 0.
    """
    values = graded(rewards)
    if len(values) < 2:
        return [0.0] * len(rewards)
    mean = statistics.fmean(values)
    scale = statistics.stdev(values, mean) + 1e-6 if normalise_std else 1.0
    return [0.0 if math.isnan(reward) else (reward - mean) / scale for reward in rewards]


def batch_advantages(
    rewards: Sequence[float], groups: Sequence, normalise_std: bool = True
) -> list[float]:
    """`group_advantages` of each group of a batch, in the batch's order; `groups` holds each answer's group id."""
    advantages = [0.0] * len(rewards)
    for members in _members(groups):
        values = group_advantages([rewards[i] for i in members], normalise_std)
        for i, value in zip(members, values, strict=True):
            advantages[i] = value
    return advantages


def is_flat(rewards: Sequence[float]) -> bool:
    """Whether a group has no gradient: fewer than two graded answers, or all with the same reward."""
    values = graded(rewards)
    return len(values) < 2 or max(values) - min(values) <= 1e-6


def flat_share(rewards: Sequence[float], groups: Sequence) -> float:
    """Share of a batch's groups that are flat (zero variance); NaN without groups."""
    flat = [is_flat([rewards[i] for i in group]) for group in _members(groups)]
    return sum(flat) / len(flat) if flat else math.nan


def graded(rewards: Sequence[float]) -> list[float]:
    """The rewards without the NaN of ungraded answers."""
    return [reward for reward in rewards if not math.isnan(reward)]


def _members(groups: Sequence) -> list[list[int]]:
    members = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    return list(members.values())
