"""Whether the reward can be trusted: the policy's verdicts held against an anchor's, in figures.

Of the answers of a training rollout, or of an evaluation in training, that both have graded:

    score            the anchor's mean score: its level
    gap              the mean of the policy's plain score minus the anchor's
    agreement        share of criteria on which both verdicts are the same
    kappa            Cohen's, over the same criteria
    false_credit     share of the credited criteria that the anchor does not credit; credited is a
                     positive criterion that counts as met, a negative one that counts as not met
    false_positive_credit, false_negative_credit    the same of positive and of negative criteria
    rank_agreement   Kendall's tau-b of the two scores within groups, its mean
    sign_agreement   share of answers whose two advantages have the same sign
    answers          how many there are
    failed           share of the asked-for answers on which the anchor gave no verdict
    score_low, score_high, gap_low, gap_high    95% intervals, bootstrapped by prompt
    delay            the longest seconds that an answer waited for it
    tokens_prefilled, tokens_cached, tokens_decoded
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rubric_rl.data.schema import Anchored, Criterion, Record, TokenCounts, Verdict
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE
from rubric_rl.evaluation.statistics import interval, kappa, ratio
from rubric_rl.grading.score import group_advantages, is_met


@dataclass
class _Credits:
    """Of the criteria that the policy credits its answers with."""

    all: int = 0
    false: int = 0

    @property
    def share(self) -> float:
        return self.false / self.all if self.all else math.nan


@dataclass
class _Criteria:
    """Counts over the criteria of answers that both have graded."""

    both_met: int = 0
    policy_alone: int = 0
    anchor_alone: int = 0
    neither: int = 0
    positive: _Credits = field(default_factory=_Credits)
    negative: _Credits = field(default_factory=_Credits)

    def add(self, criterion: Criterion, own: Verdict, anchors: Verdict) -> None:
        met = is_met(criterion, own)
        anchor_met = is_met(criterion, anchors)
        if met and anchor_met:
            self.both_met += 1
        elif met:
            self.policy_alone += 1
        elif anchor_met:
            self.anchor_alone += 1
        else:
            self.neither += 1
        helps = criterion.points > 0
        if met is helps:
            credits = self.positive if helps else self.negative
            credits.all += 1
            credits.false += anchor_met is not helps

    def figures(self) -> dict[str, float]:
        count = self.both_met + self.policy_alone + self.anchor_alone + self.neither
        sums = np.array([[self.both_met, self.policy_alone, self.anchor_alone, self.neither]])
        both = _Credits(
            self.positive.all + self.negative.all, self.positive.false + self.negative.false
        )
        return {
            "agreement": (self.both_met + self.neither) / count,
            "kappa": float(kappa(sums)[0]),
            "false_credit": both.share,
            "false_positive_credit": self.positive.share,
            "false_negative_credit": self.negative.share,
        }


def anchor_figures(records: Iterable[Record]) -> dict[str, float]:
    """The figures above, those that are defined; none where no anchor was asked."""
    asked = [(record, record.anchored) for record in records if record.anchored]
    if not asked:
        return {}
    judged = [pair for pair in asked if pair[1].verdicts and pair[0].status == "graded"]
    figures = {
        "answers": float(len(judged)),
        "failed": sum(bool(anchored.error) for _, anchored in asked) / len(asked),
        "delay": max(anchored.delay for _, anchored in asked),
    }
    figures |= _token_figures(anchored.tokens for _, anchored in asked)
    if not judged:
        return figures
    scores = [PLAIN_RULE.score(record) for record, _ in judged]
    criteria = _Criteria()
    for record, anchored in judged:
        pairs = zip(record.rubric, record.verdicts, anchored.verdicts, strict=True)
        for criterion, own, anchors in pairs:
            criteria.add(criterion, own, anchors)
    figures["score"] = statistics.fmean(anchored.score for _, anchored in judged)
    figures["gap"] = statistics.fmean(scores) - figures["score"]
    figures |= _intervals(judged) | criteria.figures() | _group_figures(judged)
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _intervals(judged: Sequence[tuple[Record, Anchored]]) -> dict[str, float]:
    """The ends of the intervals by prompt; none with fewer than two prompts."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for record, anchored in judged:
        gap = PLAIN_RULE.score(record) - anchored.score
        sums[record.prompt_id] += (anchored.score, gap, 1)
    parts = np.array(list(sums.values()))
    ends = {}
    for name, columns in {"score": [0, 2], "gap": [1, 2]}.items():
        if bounds := interval(parts[:, columns], ratio):
            ends[f"{name}_low"], ends[f"{name}_high"] = bounds
    return ends


def _token_figures(counts: Iterable[TokenCounts]) -> dict[str, float]:
    total = sum(counts, TokenCounts())
    return {
        "tokens_prefilled": total.prompt - total.cached,
        "tokens_cached": total.cached,
        "tokens_decoded": total.completion,
    }


def _group_figures(judged: Sequence[tuple[Record, Anchored]]) -> dict[str, float]:
    """How alike the two order the answers to one prompt, in training."""
    groups: dict[int | str, list[tuple[float, float]]] = defaultdict(list)
    for record, anchored in judged:
        if record.split == "train":
            # A prompt may be drawn twice; older records name no group.
            group = record.prompt_id if record.group is None else record.group
            groups[group].append((PLAIN_RULE.score(record), anchored.score))
    taus, same_signs = [], []
    for pairs in groups.values():
        rewards = [own for own, _ in pairs]
        scores = [score for _, score in pairs]
        taus.append(kendall_tau(rewards, scores))
        advantages = zip(group_advantages(rewards), group_advantages(scores), strict=True)
        same_signs.extend(_sign(one) == _sign(other) for one, other in advantages)
    known = [tau for tau in taus if not math.isnan(tau)]
    return {
        "rank_agreement": statistics.fmean(known) if known else math.nan,
        "sign_agreement": statistics.fmean(same_signs) if same_signs else math.nan,
    }


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings of the same things; NaN where one of them ranks nothing.

    Source: M. G. Kendall, The treatment of ties in ranking problems, Biometrika 33 (1945).
    """
    agreeing = 0
    ranked_by_first = ranked_by_second = 0
    for place in range(len(first)):
        for other in range(place):
            by_first = _sign(first[place] - first[other])
            by_second = _sign(second[place] - second[other])
            agreeing += by_first * by_second
            ranked_by_first += by_first != 0
            ranked_by_second += by_second != 0
    if not ranked_by_first or not ranked_by_second:
        return math.nan
    return agreeing / math.sqrt(ranked_by_first * ranked_by_second)


def _sign(value: float) -> int:
    if abs(value) < 1e-9:  # two sums of the same points
        return 0
    return 1 if value > 0 else -1
