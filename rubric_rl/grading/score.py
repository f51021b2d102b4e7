"""The reward formula and the group's advantages; defined here and nowhere else."""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from rubric_rl.common.hash_share import share_of
from rubric_rl.data.schema import Criterion, Record, Verdict
from rubric_rl.data.training_settings import LENGTH_UNIT, PLAIN, RewardRule

KEPT = 3  # positive criteria that dropout always leaves in


def is_met(criterion: Criterion, verdict: Verdict) -> bool:
    """Whether the criterion counts as met.

    An unreadable verdict never helps the policy, because the policy is the grader: a positive
    criterion counts as not met, a negative one as met.
    """
    if verdict.met is None:
        return criterion.points < 0
    return verdict.met


def met_share(criterion: Criterion, verdict: Verdict, rule: RewardRule = PLAIN) -> float:
    """How far the criterion counts as met, from 0 to 1: by its verdict all or nothing.

    Where the rule asks for a probability, that is the one of the word that helps the policy, in all
    of the mass: other words, and a probability that is not known, count against it.
    """
    is_positive = criterion.points > 0
    helps = is_met(criterion, verdict) is is_positive
    credit = float(helps)
    if rule.needs_probability:
        met, not_met = verdict.of_words
        if rule.reward == "probability":
            credit = met if is_positive else not_met
        elif is_positive:
            credit *= met >= rule.threshold
        else:
            credit *= not_met > rule.threshold
    return credit if is_positive else 1 - credit


def possible_points(rubric: Iterable[Criterion]) -> float:
    """The sum of the positive points: what the best answer gets."""
    return math.fsum(criterion.points for criterion in rubric if criterion.points > 0)


def score(
    rubric: Sequence[Criterion], verdicts: Sequence[Verdict], rule: RewardRule = PLAIN
) -> float:
    """Points of met criteria / sum of positive points, not clipped.

    At most 1; below 0 when negative criteria outweigh the rest. Source: arXiv 2509.25534;
    HealthBench, arXiv 2505.08775. Raises ValueError when the two lengths differ or no criterion
    has positive points.
    """
    possible = possible_points(rubric)
    if possible <= 0:
        raise ValueError("a rubric without positive points has no score")
    earned = []
    for criterion, verdict in zip(rubric, verdicts, strict=True):
        earned.append(criterion.points * met_share(criterion, verdict, rule))
    return math.fsum(earned) / possible


def dropped(record: Record, rule: RewardRule) -> list[int]:
    """The places of the positive criteria that its rule leaves out of a training reward.

    They are the same for all answers of a group, and chosen anew for the next group of the prompt.
    """
    draws = {}
    if rule.dropout and record.split == "train":
        step = record.rollout if record.group is None else record.group
        for place, criterion in enumerate(record.rubric):
            if criterion.points > 0:
                name = f"{step}:{record.prompt_id}:{place}"
                draws[place] = share_of(name, f"dropout {rule.dropout_seed}")
    lowest_first = sorted(draws, key=draws.__getitem__)
    spare = lowest_first[: max(len(draws) - KEPT, 0)]
    return sorted(place for place in spare if draws[place] < rule.dropout)


def length_cost(record: Record, rule: RewardRule) -> float:
    """What the length of the graded answer takes off its reward: never below 0, no answer none."""
    characters = len(record.answer or "") if record.status == "graded" else 0
    beyond = max(characters - rule.length_limit, 0)
    return rule.length_cost * beyond / LENGTH_UNIT


def apply_rule(record: Record, rule: RewardRule) -> None:
    """Makes the score of a graded training answer its reward by the rule, which is written down."""
    out = dropped(record, rule)
    kept = [place for place in range(len(record.rubric)) if place not in out]
    rubric = [record.rubric[place] for place in kept]
    verdicts = [record.verdicts[place] for place in kept]
    record.score = score(rubric, verdicts, rule) - length_cost(record, rule)
    record.rule = rule.in_record(out)


def compared_rewards(
    rewards: Sequence[float], answered: Sequence[bool], groups: Sequence[Hashable]
) -> list[float]:
    """The rewards that advantages are made of: no answer gets at most its group's lowest.

    `answered` says who gave one. A cut or missing answer scores 0 without a call, a graded one can
    score less: without this, rambling on to the limit would pay wherever the answers are poor.
    """
    compared = list(rewards)
    for members in members_of(groups):
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
    for members in members_of(groups):
        own = [rewards[position] for position in members]
        values = group_advantages(own, normalise_std)
        for position, value in zip(members, values, strict=True):
            advantages[position] = value
    return advantages


def known_rewards(rewards: Sequence[float | None]) -> list[float]:
    """The rewards without the NaN of ungraded answers, and the None of aborted ones."""
    return [reward for reward in rewards if reward is not None and not math.isnan(reward)]


def members_of(groups: Sequence[Hashable]) -> list[list[int]]:
    """The positions of each group's members."""
    members = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    return list(members.values())
