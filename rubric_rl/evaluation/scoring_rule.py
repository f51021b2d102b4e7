"""Other scoring rules for stored verdicts, without another formula.

A rule changes what `score` is given, and may clip its result or adjust it for length. With
`reward` it is a rule of the training reward, computed by the same code as in a run.
"""

import argparse
import math
from collections import defaultdict
from dataclasses import dataclass, replace

from rubric_rl.common.errors import UserError
from rubric_rl.data.schema import Criterion, Record, Verdict
from rubric_rl.data.training_settings import DROPPED, PLAIN, RewardRule
from rubric_rl.evaluation.endpoint_flags import add_flags, settings_from
from rubric_rl.evaluation.statistics import PENALTIES, length_adjusted
from rubric_rl.grading.score import dropped, length_cost, possible_points, score

Judged = list[tuple[Criterion, Verdict]]  # a rubric with its verdicts
UNREADABLE_RULES = ("against", "not_met", "met", "left_out")


@dataclass(frozen=True)
class ScoringRule:
    """How verdicts become a score; the default is the plain score, which evaluations use.

    Tags are written `kind:value`, e.g. `axis:accuracy`.
    """

    # An unreadable verdict: against the policy; not_met and met take a side; left_out drops it.
    unreadable: str = "against"
    clip: bool = False  # each answer's score to [0, 1]
    uniform: bool = False  # every criterion weighs 1, or -1
    weights: tuple[tuple[str, float], ...] = ()  # (tag, factor on the points of its criteria)
    only: tuple[str, ...] = ()  # only criteria with one of these tags
    drop: tuple[str, ...] = ()  # no criteria with one of these tags
    penalty: float = 0.0  # of the length adjustment
    reward: RewardRule = PLAIN
    recorded: bool = False  # instead of `reward`: the rule that each answer was rewarded by

    def __str__(self) -> str:
        parts = []
        for name, value in vars(self).items():
            if value == getattr(ScoringRule, name):
                continue
            words = [str(value)]
            if value is True:
                words = []
            elif isinstance(value, RewardRule):
                words = [f"{key}={written}" for key, written in value.in_record().items()]
            elif name == "weights":
                words = [f"{tag}={factor}" for tag, factor in value]
            elif isinstance(value, tuple):
                words = list(value)
            parts.append(" ".join([name, *words]))
        return ", ".join(parts) or "the plain score"

    def rewarded_by(self, record: Record) -> RewardRule:
        """The rule of the training reward that the record's verdicts are read by.

        The plain one where nothing was asked, so that no probability is missing.
        """
        if record.status != "graded":
            return PLAIN
        return RewardRule.of_record(record.rule) if self.recorded else self.reward

    def unpaid(self, record: Record) -> int:
        """How many verdicts earn nothing, since the rule asks for a probability they lack."""
        if not self.rewarded_by(record).needs_probability:
            return 0
        lacking = 0
        for _, verdict in self.judged(record):
            lacking += verdict.met is not None and verdict.probability is None
        return lacking

    def judged(self, record: Record) -> Judged:
        """The rubric and verdicts that `score` is given.

        An answer that scores 0 without a call met nothing.
        """
        verdicts = record.verdicts
        if record.status != "graded":
            verdicts = [Verdict(False)] * len(record.rubric)
        # A record says what was left out, whatever a later version would choose.
        out = record.rule.get(DROPPED, []) if self.recorded else dropped(record, self.reward)
        judged = []
        for place, (criterion, verdict) in enumerate(zip(record.rubric, verdicts, strict=True)):
            if place in out or not self._counts(criterion):
                continue
            is_unreadable = verdict.met is None
            if is_unreadable and self.unreadable == "left_out":
                continue
            if is_unreadable and self.unreadable in ("met", "not_met"):
                met = self.unreadable == "met"
                verdict = replace(verdict, met=met)
            weighed = self._weighed(criterion)
            judged.append((weighed, verdict))
        return judged

    def score(self, record: Record) -> float:
        """The score under this rule.

        NaN for an ungraded answer, or when no criterion with positive points is left.
        """
        if record.status == "ungraded":
            return math.nan
        reward = self.rewarded_by(record)
        value = score_of(self.judged(record), reward) - length_cost(record, reward)
        if self.penalty and record.status == "graded":
            characters = len(record.answer or "")
            value = length_adjusted(value, characters, self.penalty)
        if self.clip and not math.isnan(value):
            value = max(value, 0.0)
            value = min(value, 1.0)
        return value

    def _counts(self, criterion: Criterion) -> bool:
        tags = set(criterion.tags)
        if self.only and tags.isdisjoint(self.only):
            return False
        return tags.isdisjoint(self.drop)

    def _weighed(self, criterion: Criterion) -> Criterion:
        if not self.uniform and not self.weights:
            return criterion
        points = criterion.points
        if self.uniform:
            points = math.copysign(1, points)
        for tag, factor in self.weights:
            if tag in criterion.tags:
                points *= factor
        return criterion._replace(points=points)


PLAIN_RULE = ScoringRule()


def score_of(judged: Judged, reward: RewardRule = PLAIN) -> float:
    """`score` of the pairs; NaN when none has positive points."""
    rubric = [criterion for criterion, _ in judged]
    verdicts = [verdict for _, verdict in judged]
    if possible_points(rubric) <= 0:
        return math.nan
    return score(rubric, verdicts, reward)


def tag_scores(judged: Judged, reward: RewardRule = PLAIN) -> dict[str, float]:
    """The score of each tag's own criteria (the reference's rubric tags).

    A tag without positive points is left out.
    """
    parts = defaultdict(list)
    for criterion, verdict in judged:
        for tag in dict.fromkeys(criterion.tags):
            parts[tag].append((criterion, verdict))
    scores = {}
    for tag, part in parts.items():
        value = score_of(part, reward)
        if not math.isnan(value):
            scores[tag] = value
    return scores


def add_rule_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `rule_from` reads."""
    add = parser.add_argument_group("scoring rule (default: the plain score)").add_argument
    add(
        "--unreadable",
        choices=UNREADABLE_RULES,
        default="against",
        help="how an unreadable verdict counts (default: against the policy)",
    )
    add("--clip", action="store_true", help="clip each answer's score to [0, 1]")
    add("--uniform", action="store_true", help="every criterion weighs 1, a negative one -1")
    add(
        "--weight",
        metavar="TAG=FACTOR",
        action="append",
        default=[],
        help="multiply the points of criteria with this tag (repeatable)",
    )
    add(
        "--only",
        metavar="TAG",
        action="append",
        default=[],
        help="only criteria with this tag, e.g. level:example (repeatable)",
    )
    add(
        "--drop",
        metavar="TAG",
        action="append",
        default=[],
        help="no criteria with this tag (repeatable)",
    )
    named = ", ".join(PENALTIES)
    add(
        "--length-penalty",
        default="0",
        help=f"subtract this x (characters - 2000) / 500: a number, or {named}",
    )
    add(
        "--recorded",
        action="store_true",
        help="the rule by which a training run rewarded each answer, as its record says",
    )
    about = "rule of the training reward (grader_* settings; dropout in training records alone)"
    add_flags(parser, "grader", about, RewardRule)


def rule_from(args: argparse.Namespace) -> ScoringRule:
    """The rule of the flags of `add_rule_flags`. Raises UserError for what cannot be."""
    reward = settings_from(args, "grader", RewardRule, {})
    reward.check_alone()
    takes_a_side = args.unreadable in ("met", "not_met")
    if takes_a_side and (reward.needs_probability or args.recorded):
        why = "a rule that needs probabilities pays nothing without one"
        raise UserError(f"--unreadable {args.unreadable}: {why}; leave one of the two out")
    if args.recorded and reward != PLAIN:
        raise UserError("--recorded takes the rule of the records; leave the other one out")
    return ScoringRule(
        unreadable=args.unreadable,
        clip=args.clip,
        uniform=args.uniform,
        weights=tuple(_weight(text) for text in args.weight),
        only=tuple(args.only),
        drop=tuple(args.drop),
        penalty=penalty_from(args.length_penalty),
        reward=reward,
        recorded=args.recorded,
    )


def penalty_from(text: str) -> float:
    """A length penalty by name or as a number. Raises UserError for anything else."""
    value = PENALTIES.get(text)
    if value is None:
        value = _number(text)
    if value is None or value < 0:
        named = ", ".join(PENALTIES)
        hint = f"give a number of 0 or more, or one of {named}"
        raise UserError(f"--length-penalty {text}: {hint}")
    return value


def _weight(text: str) -> tuple[str, float]:
    tag, _, factor = text.rpartition("=")
    value = _number(factor)
    if not tag or value is None or value <= 0:
        hint = "write TAG=FACTOR with a positive factor, e.g. axis:accuracy=2"
        raise UserError(f"--weight {text}: {hint}")
    return tag, value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if math.isfinite(value):
        return value
    return None
