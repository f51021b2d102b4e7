"""The reward formula and the group's advantages; defined here and nowhere else."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

from rubric_rl.data.schema import Criterion, Verdict


def is_met(criterion: Criterion, verdict: Verdict) -> bool:
    """Whether the criterion counts as met.

    An unreadable verdict never helps the policy, because the policy is the grader: a positive
    criterion counts as not met, a negative one as met.
    """
    if verdict.met is None:
        return criterion.points < 0
    return verdict.met


def possible_points(rubric: Iterable[Criterion]) -> float:
    """The sum of the positive points: what the best answer gets."""
    return math.fsum(criterion.points for criterion in rubric if criterion.points > 0)


def score(rubric: Sequence[Criterion], verdicts: Sequence[Verdict]) -> float:
    """Points of met criteria / sum of positive points, not clipped.

    At most 1; below 0 when negative criteria outweigh the rest. Source: arXiv 2509.25534;
    HealthBench, arXiv 2505.08775. Raises ValueError when the two lengths differ or no criterion
    has positive points.
    """
    possible = possible_points(rubric)
    if possible <= 0:
        raise ValueError("a rubric without positive points has no score")
    met = []
    for criterion, verdict in zip(rubric, verdicts, strict=True):
        if is_met(criterion, verdict):
            met.append(criterion.points)
    return math.fsum(met) / possible


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


def compared_rewards(
    rewards: Sequence[float], answered: Sequence[bool], groups: Sequence[Hashable]
) -> list[float]:
    """The rewards that advantages are made of: no answer gets at most its group's lowest.

    `answered` says who gave one. A cut or missing answer scores 0 without a call, a graded one can
    score less: without this, rambling on to the limit would pay wherever the answers are poor.
    """
    compared = list(rewards)
    for members in _members(groups):
        graded = known_rewards([rewards[member] for member in members if answered[member]])
        lowest = min(graded, default=0.0)
        for member in members:
            if not answered[member]:
                compared[member] = min(rewards[member], lowest)
    return compared


def group_advantages(rewards: Sequence[float], normalise_std: bool = True) -> list[float]:
    """GRPO advantages of one prompt's answers: (r - mean) / (std + 1e-6), the std unbiased.

    As slime computes them. NaN marks an ungraded answer: it takes no part in mean and std and
    gets 0. With fewer than two graded answers there is nothing to compare, so all get 0.
    """
    values = known_rewards(rewards)
    if len(values) < 2:
        return [0.0] * len(rewards)
    mean = statistics.fmean(values)
    scale = statistics.stdev(values, mean) + 1e-6 if normalise_std else 1.0
    advantages = []
    for reward in rewards:
        ungraded = math.isnan(reward)
        advantages.append(0.0 if ungraded else (reward - mean) / scale)
    return advantages


def batch_advantages(
    rewards: Sequence[float], groups: Sequence[Hashable], normalise_std: bool = True
) -> list[float]:
    """`group_advantages` of each group of a batch, in the batch's order.

    `groups` holds each answer's group id.
    """
    advantages = [0.0] * len(rewards)
    for members in _members(groups):
        own = [rewards[position] for position in members]
        values = group_advantages(own, normalise_std)
        for position, value in zip(members, values, strict=True):
            advantages[position] = value
    return advantages


def is_flat(rewards: Sequence[float]) -> bool:
    """Whether a group has no gradient: fewer than two graded answers, or all rewards equal."""
    values = known_rewards(rewards)
    if len(values) < 2:
        return True
    return max(values) - min(values) <= 1e-6


def flat_share(rewards: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Share of a batch's groups that are flat (zero variance); NaN without groups."""
    flat = []
    for members in _members(groups):
        own = [rewards[position] for position in members]
        flat.append(is_flat(own))
    return sum(flat) / len(flat) if flat else math.nan


def known_rewards(rewards: Sequence[float]) -> list[float]:
    """The rewards without the NaN of ungraded answers."""
    return [reward for reward in rewards if not math.isnan(reward)]


def _members(groups: Sequence[Hashable]) -> list[list[int]]:
    """The positions of each group's members."""
    members = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    return list(members.values())
