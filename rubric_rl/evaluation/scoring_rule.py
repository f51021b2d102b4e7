"""Other scoring rules for stored verdicts: they change what `score` is given, never its formula (stage 4, reward)."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rubric_rl.data.schema import Criterion
from rubric_rl.errors import UserError
from rubric_rl.evaluation.statistics import PENALTIES, length_adjusted
from rubric_rl.grading.record import rubric_of
from rubric_rl.grading.score import Verdict, score

Judged = list[tuple[Criterion, Verdict]]  # a rubric with its verdicts
UNREADABLE = ("against", "not_met", "met", "left_out")


@dataclass(frozen=True)
class Rule:
    """How verdicts become a score; the default is the rule of the training reward.

    Tags are written `kind:value`, e.g. `axis:accuracy`.
    """

    unreadable: str = "against"  # never helps the policy; not_met and met take a side; left_out drops the criterion
    clip: bool = False  # each answer's score to [0, 1]
    uniform: bool = False  # every criterion weighs 1, or -1
    weights: tuple[tuple[str, float], ...] = ()  # (tag, factor on the points of criteria with it)
    only: tuple[str, ...] = ()  # only criteria with one of these tags
    drop: tuple[str, ...] = ()  # no criteria with one of these tags
    penalty: float = 0.0  # of the length adjustment

    def __str__(self) -> str:
        parts = []
        for name, value in vars(self).items():
            if value != getattr(Rule, name):
                each = value if isinstance(value, tuple) else (value,)
                shown = (
                    "=".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in each
                )
                parts.append(name if value is True else f"{name} {' '.join(shown)}")
        return ", ".join(parts) or "the training reward's"

    def judged(self, record: Mapping) -> Judged:
        """The rubric and verdicts that `score` is given; an answer that scores 0 without a call met nothing."""
        rubric = rubric_of(record)
        verdicts = record["verdicts"] if record["status"] == "graded" else [False] * len(rubric)
        pairs = [
            (self._weighed(c), v) for c, v in zip(rubric, verdicts, strict=True) if self._counts(c)
        ]
        if self.unreadable == "left_out":
            return [(c, v) for c, v in pairs if v is not None]
        side = {"against": None, "not_met": False, "met": True}[self.unreadable]
        return [(c, side if v is None else v) for c, v in pairs]

    def score(self, record: Mapping) -> float:
        """The score under this rule: NaN for an ungraded answer, or when no criterion with positive points is left."""
        value = math.nan if record["status"] == "ungraded" else score_of(self.judged(record))
        if self.penalty and record["status"] == "graded":
            value = length_adjusted(value, len(record["answer"]), self.penalty)
        return min(max(value, 0.0), 1.0) if self.clip and not math.isnan(value) else value

    def _counts(self, criterion: Criterion) -> bool:
        tags = criterion.tags
        return (not self.only or any(tag in self.only for tag in tags)) and not any(
            tag in self.drop for tag in tags
        )

    def _weighed(self, criterion: Criterion) -> Criterion:
        if not self.uniform and not self.weights:
            return criterion
        points = math.copysign(1, criterion.points) if self.uniform else criterion.points
        factor = math.prod(factor for tag, factor in self.weights if tag in criterion.tags)
        return replace(criterion, points=points * factor)


def score_of(judged: Judged) -> float:
    """`score` of the pairs; NaN when none has positive points."""
    return score(*zip(*judged)) if any(c.points > 0 for c, _ in judged) else math.nan


def tag_scores(judged: Judged) -> dict[str, float]:
    """The score of each tag's own criteria; a tag without positive points is left out (the reference's rubric tags)."""
    parts: dict[str, Judged] = {}
    for criterion, verdict in judged:
        for tag in dict.fromkeys(criterion.tags):
            parts.setdefault(tag, []).append((criterion, verdict))
    values = {tag: score_of(part) for tag, part in parts.items()}
    return {tag: value for tag, value in values.items() if not math.isnan(value)}


def add_rule_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `rule_from` reads."""
    add = parser.add_argument_group("scoring rule (default: the training reward's)").add_argument
    default = "how an unreadable verdict counts (default: against the policy)"
    add("--unreadable", choices=UNREADABLE, default="against", help=default)
    add("--clip", action="store_true", help="clip each answer's score to [0, 1]")
    add("--uniform", action="store_true", help="every criterion weighs 1, a negative one -1")
    repeated = {"action": "append", "default": []}
    add(
        "--weight",
        metavar="TAG=FACTOR",
        **repeated,
        help="multiply the points of criteria with this tag (repeatable)",
    )
    add(
        "--only",
        metavar="TAG",
        **repeated,
        help="only criteria with this tag, e.g. level:example (repeatable)",
    )
    add("--drop", metavar="TAG", **repeated, help="no criteria with this tag (repeatable)")
    penalties = f"a number, or {', '.join(PENALTIES)}"
    add(
        "--length-penalty",
        default="0",
        help=f"subtract this x (characters - 2000) / 500: {penalties}",
    )


def rule_from(args: argparse.Namespace) -> Rule:
    """The rule that the flags of `add_rule_flags` describe; raises UserError for an invalid weight or penalty."""
    weights, penalty = (
        tuple(_weight(text) for text in args.weight),
        penalty_from(args.length_penalty),
    )
    return Rule(
        args.unreadable,
        args.clip,
        args.uniform,
        weights,
        tuple(args.only),
        tuple(args.drop),
        penalty,
    )


def penalty_from(text: str) -> float:
    """A length penalty by name or as a number; raises UserError for anything else."""
    value = PENALTIES[text] if text in PENALTIES else _number(text)
    if value is None or value < 0:
        raise UserError(
            f"--length-penalty {text}: give a number of 0 or more, or one of {', '.join(PENALTIES)}"
        )
    return value


def _weight(text: str) -> tuple[str, float]:
    tag, _, factor = text.rpartition("=")
    value = _number(factor)
    if not tag or value is None or value <= 0:
        raise UserError(
            f"--weight {text}: write TAG=FACTOR with a positive factor, e.g. axis:accuracy=2"
        )
    return tag, value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
