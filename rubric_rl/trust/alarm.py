"""The alarm: when a run's own evaluations say that its reward can no longer be trusted.

Five rules. Four are asked at every evaluation, each against the run's own past on the same prompts,
as far as an anchor of the same name has judged it:

    level         the anchor's mean score over the last two evaluations lies below an earlier one
                  by at least grader_alarm_drop; an answer that is cut or empty scores 0
    exploitation  of what is credited the anchor rejects a larger share than at the first evaluation
                  with its verdicts: larger by at least grader_alarm_exploitation of the credits
                  gained since, or of all where few are. Positive and negative criteria are held
                  apart: few of the latter are met, and they would drown
    probe         the accuracy on the labelled rows lies below an earlier one by at least
                  grader_alarm_probe
    blind         an anchor was asked, and in the last two evaluations gave no verdict or judged
                  less than three quarters of the answers, or in the last one said the same of all
                  answers to a prompt, or of all criteria; such an evaluation tells no other rule

The fifth is asked after every update, and waits for no evaluation:

    moved         the update has moved the policy by at least grader_alarm_moved nats a token
                  (trust/moved.py): who answers, and who grades, is another one than before. It
                  stands until the second evaluation after it, as the first may be too coarse

Blind says that the anchor does not see, and not that anything is wrong: it is logged, but
with grader_alarm: stop it ends no run, as whatever happens to an anchor the rollout goes on.

One of the first three fires where the difference reaches its limit and also exceeds what chance
gives: Student's quantile times the standard error by prompt. Both sides of a difference stand on
the same prompts, so what makes one prompt harder than another cancels out. On so few prompts that
all of them change for the worse by chance, each with 1/2, no rule fires: below 10 of them at 0.001,
below 14 with ten earlier evaluations.

Why it is silent in a healthy run: at each evaluation a rule fires by chance with probability
grader_alarm_error at most. Where it is held against m earlier evaluations, that chance is divided
among the m (Bonferroni), as that of exploitation between the two signs; those in which the anchor,
or the probe, judged less than half of the usual number of prompts are passed over. With 0.001 and
three rules a run of ten evaluations raises a false alarm with probability 0.03 at most, and as the
limits must be reached too it is less. What the reward alone says raises nothing: such alarms cry
wolf on flat runs. The price: with 80 prompts x 2 answers only a fall of the level of about 0.1 is
seen. No such chance bounds the fifth rule, whose limit is four times the largest update of the one
healthy run that it was asked about (docs/experiments.md, alarm-firm).

    python -m rubric_rl.trust.alarm SAVE_PATH [--grader-config FILE]    asks the rules again,
with the run's own limits or those of the file
"""

import argparse
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.data.training_settings import Trust
from rubric_rl.evaluation.statistics import t_quantile
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.trust.evaluations import Evaluation, JudgedAnswer, own_limits, stored
from rubric_rl.trust.exploitation import by_sign, falsely_credited, gained_credits
from rubric_rl.trust.moved import Move, kept_moves, large_moves

STATUS = 3  # the exit status of a run that the alarm has ended
BLIND = "blind"  # the rule that says that the anchor does not see
MOVED = "moved"  # the one that needs no evaluation
JUDGED = 0.75  # share of answers: one that makes an anchor fail is left out of its figures
LEAST = 20  # criteria, below which a share of them says nothing

Shares = Mapping[str, Sequence[float]]  # by prompt: (part, whole)


@dataclass(frozen=True)
class Finding:
    """A rule that fires."""

    rule: str
    seen: str  # in words, with the figures


@dataclass(frozen=True)
class Alarm:
    """What the rules say at the last of a run's evaluations, and of the updates after it."""

    findings: tuple[Finding, ...]
    rollout: int  # of that evaluation, or of the last such update
    # The rollout of the first evaluation from which on a rule has fired without pause; None where
    # an update alone raises the alarm, whose rollout stands in what was seen.
    since: int | None
    best: int | None  # the last rollout before the anchor's best evaluation; -1: the start

    @property
    def ends_a_run(self) -> bool:
        """Whether grader_alarm: stop heeds it: something is wrong, and not only unseen."""
        return any(finding.rule != BLIND for finding in self.findings)

    def text(self, save: str | os.PathLike) -> str:
        """What was seen, since when, the best checkpoint by the anchor, and what to do."""
        rules = {finding.rule for finding in self.findings}
        what = "the reward can no longer be trusted"
        if rules <= {BLIND}:
            what = "the anchor is blind"
        elif rules <= {BLIND, MOVED}:
            what = "the policy is suddenly another one"
        lines = [f"alarm after rollout {self.rollout}: {what}"]
        lines += [f"  seen: {finding.seen}" for finding in self.findings]
        if self.since is not None:
            lines.append(f"  since: the evaluation after rollout {self.since}")
        if self.best is not None:
            where = checkpoint_before(Path(save), self.best)
            best = f"after rollout {self.best} ({where})"
            if self.best < 0:
                best = "before the first rollout: the start"
            lines.append(f"  best by the anchor: {best}")
        if not self.ends_a_run:
            how = "bring the anchor back, or take another; why it fails stands in the records"
            lines.append(f"  then: {how}")
            return "\n".join(lines)
        lines.append(f"  look: python -m rubric_rl.report {save} shows the answers")
        remedy = "a stronger or frozen grader (grader_engine, grader_teacher)"
        remedy = f"from the best checkpoint in another SAVE_PATH with {remedy}"
        if rules <= {BLIND, MOVED}:
            remedy = "from a checkpoint before it in another SAVE_PATH with a smaller --lr"
        lines.append(f"  then: go on {remedy}, or here all the same with grader_alarm: warn")
        return "\n".join(lines)


def checkpoint_before(save: Path, rollout: int) -> str:
    """The checkpoint of a rollout, or the last one before it that is kept, in words."""
    for number in range(rollout, -1, -1):
        name = f"iter_{number:07d}"
        if (save / name).is_dir():
            return str(save / name)
    return "no checkpoint of it, or of one before, is kept"


def alarm_of(
    evaluations: Sequence[Evaluation], trust: Trust, moves: Sequence[Move] = ()
) -> Alarm | None:
    """The alarm at the last evaluation and the updates after it, None where no rule fires."""
    heard = _heard(evaluations)
    findings = _findings(evaluations, heard, trust) if evaluations else []
    since = None
    if findings:
        count = len(evaluations)
        while count > 1 and _findings(evaluations[: count - 1], heard[: count - 1], trust):
            count -= 1
        since = evaluations[count - 1].rollout
    large = large_moves(moves, evaluations, trust.alarm_moved)
    for move in large:
        what = f"the update after rollout {move.rollout} moved the policy by {move.nats:.2f} nats"
        findings.append(Finding(MOVED, f"{what} a token, over {move.tokens} tokens"))
    if not findings:
        return None
    last = [*evaluations[-1:], *large]
    return Alarm(
        findings=tuple(findings),
        rollout=max(each.rollout for each in last),
        since=since,
        best=best_rollout(evaluations),
    )


def findings_at(evaluations: Sequence[Evaluation], trust: Trust) -> list[Finding]:
    """The rules that fire at the last evaluation, by what it and those before it say."""
    return _findings(evaluations, _heard(evaluations), trust)


@dataclass
class _Heard:
    """The answers of an evaluation set as far as the anchor is heard, and its level by prompt."""

    answers: list[JudgedAnswer] = field(default_factory=list)
    levels: Shares = field(default_factory=dict)


def _heard(evaluations: Sequence[Evaluation]) -> list[dict[str, _Heard]]:
    """By set, of each evaluation; made once, since an alarm that stands asks it for each prefix."""
    heard = []
    for evaluation in evaluations:
        sets: dict[str, _Heard] = defaultdict(_Heard)
        for answer in _told(evaluation):
            sets[answer.dataset].answers.append(answer)
        for each in sets.values():
            each.levels = anchor_levels(each.answers)
        heard.append(sets)
    return heard


def _findings(
    evaluations: Sequence[Evaluation], heard: Sequence[dict[str, _Heard]], trust: Trust
) -> list[Finding]:
    found = []
    told = []
    for sets, ours in zip(heard, _of_anchor(evaluations), strict=True):
        told.append(sets if ours else {})
    for dataset in evaluations[-1].datasets:
        of_set = [sets.get(dataset, _Heard()) for sets in told]
        found += _level_falls(dataset, [each.levels for each in of_set], trust)
        found += _exploitation_rises(dataset, [each.answers for each in of_set], trust)
    found += _blindness(evaluations)
    found += _probe_falls([evaluation.probe for evaluation in evaluations], trust)
    return found


def _told(evaluation: Evaluation) -> list[JudgedAnswer]:
    """The answers of an evaluation; none where its anchor tells nothing apart."""
    return [] if _tells_nothing(evaluation.answers) else evaluation.answers


def _of_anchor(evaluations: Sequence[Evaluation]) -> list[bool]:
    """Of each evaluation: whether its anchor is the last one, or unnamed as in older files.

    Another anchor than the last one has another level, and rejects other credit.
    """
    named = [evaluation.anchor for evaluation in evaluations if evaluation.anchor]
    ours = {"", *named[-1:]}
    return [evaluation.anchor in ours for evaluation in evaluations]


def _blindness(evaluations: Sequence[Evaluation]) -> Iterator[Finding]:
    last = evaluations[-2:]
    graded = [[answer for answer in each.answers if answer.is_graded] for each in last]
    judged = [[answer for answer in answers if answer.is_judged] for answers in graded]
    if not last[-1].anchor:
        return
    who, when = f"the anchor, {last[-1].anchor},", "in the last two evaluations"
    if _tells_nothing(judged[-1]):
        what = "says the same of all answers to a prompt, or of all criteria,"
        yield Finding(BLIND, f"{who} {what} where the policy does not, in the last evaluation")
    if len(last) < 2 or last[0].anchor != last[1].anchor:
        return
    if not any(judged):
        yield Finding(BLIND, f"no verdict of {who} {when}")
    elif all(len(some) < JUDGED * len(all_) for some, all_ in zip(judged, graded, strict=True)):
        counts = f"{sum(map(len, judged))} of {sum(map(len, graded))}"
        yield Finding(BLIND, f"{who} judged {counts} answers {when}")


def _tells_nothing(answers: Sequence[JudgedAnswer]) -> bool:
    """Whether the anchor says the same of everything, or of all answers to each prompt.

    Asked of what the policy tells apart: where there is little of it, nothing can be said.
    """
    own_credits: dict[tuple, set] = defaultdict(set)  # by prompt and criterion
    anchors_credits: dict[tuple, bool] = {}
    own_met = Counter()
    anchors_met = set()
    for answer in answers:
        for key, (own, anchors) in answer.credits.items():
            if anchors is None:
                continue
            place = answer.prompt_id, key
            if anchors_credits.setdefault(place, anchors) is not anchors:
                return False  # as nearly always: it tells two answers apart
            own_credits[place].add(own)
            helps = key not in answer.negative
            own_met[own is helps] += 1
            anchors_met.add(anchors is helps)
    told_apart = sum(len(own) > 1 for own in own_credits.values())
    rarer = min(own_met[True], own_met[False])
    return told_apart >= LEAST or (rarer >= LEAST and len(anchors_met) == 1)


def _level_falls(dataset: str, levels: Sequence[Shares], trust: Trust) -> Iterator[Finding]:
    *earlier, last, newest = [{}, *levels]
    if not newest:
        return
    now = _added(last, newest)
    if fall := _fall(earlier, now, trust.alarm_drop, trust.alarm_error):
        what = f"the anchor's level over the last two evaluations, {_mean(now):.3f}"
        yield Finding("level", f"{dataset}: {what}, is {fall.text}")


def _exploitation_rises(
    dataset: str, answers: Sequence[Sequence[JudgedAnswer]], trust: Trust
) -> Iterator[Finding]:
    *earlier, now = answers
    first = _first_judged(earlier)
    if first is None:
        return
    for kind, at_first, at_last in by_sign(first, now):
        before = falsely_credited(at_first)
        after = falsely_credited(at_last)
        rise, error, prompts = paired_difference(after, before)
        credited = sum(after[prompt][1] for prompt in after.keys() & before.keys())
        gained = gained_credits(at_first, at_last)
        # Shares of all, and not of the new ones alone, are held against each other. What is new is
        # what is rarely met, of which a grader that errs always credits more falsely than of all.
        whole, name = (gained, "new") if gained >= LEAST else (credited, "credited")
        if credited < LEAST:
            continue
        rise, error = rise * credited / whole, error * credited / whole
        chance = trust.alarm_error / 2  # of each sign
        if _is_certain(rise, error, prompts, trust.alarm_exploitation, chance):
            yield Finding(
                "exploitation",
                f"{dataset}: of {credited} credited {kind} criteria the anchor rejects "
                f"{_mean(after):.2f}, of those at first {_mean(before):.2f}: more by {rise:.2f} of "
                f"the {whole:.0f} {name} ones (standard error {error:.3f})",
            )


def _first_judged(
    earlier: Sequence[Sequence[JudgedAnswer]],
) -> Sequence[JudgedAnswer] | None:
    """The first evaluation in which the anchor gave verdicts, on no fewer prompts than usual."""
    judged = []
    for answers in earlier:
        judged.append({answer.prompt_id for answer in answers if answer.is_judged})
    least = least_prompts(judged)
    for answers, prompts in zip(earlier, judged, strict=True):
        if prompts and len(prompts) >= least:
            return answers
    return None


def _probe_falls(probes: Sequence[Shares | None], trust: Trust) -> Iterator[Finding]:
    *earlier, now = [probe or {} for probe in probes]
    if fall := _fall(earlier, now, trust.alarm_probe, trust.alarm_error):
        yield Finding("probe", f"the probe's accuracy, {_mean(now):.3f}, is {fall.text}")


@dataclass(frozen=True)
class _Fall:
    """From an earlier evaluation to now, on the prompts of both."""

    drop: float
    error: float  # its standard error
    level: float  # of the earlier one

    @property
    def text(self) -> str:
        """Goes on after "is"."""
        return (
            f"{self.drop:.3f} below an earlier one of {self.level:.3f}, on the prompts of both "
            f"(standard error {self.error:.3f})"
        )


def _fall(earlier: Sequence[Shares], now: Shares, limit: float, chance: float) -> _Fall | None:
    """The deepest of the certain falls, from any earlier evaluation; None where none is certain."""
    least = least_prompts([*earlier, now])
    references = [shares for shares in earlier if shares and len(shares) >= least]
    falls = []
    for reference in references:
        drop, error, prompts = paired_difference(reference, now)
        if _is_certain(drop, error, prompts, limit, chance / len(references)):
            falls.append(_Fall(drop, error, _mean(reference)))
    return max(falls, key=lambda fall: fall.drop, default=None)


def least_prompts(evaluations: Iterable[Collection[str]]) -> float:
    """Half as many prompts as evaluations usually have: on fewer, one is no reference."""
    counts = [len(prompts) for prompts in evaluations if prompts]
    return median(counts) / 2 if counts else 0.0


def _is_certain(difference: float, error: float, prompts: int, limit: float, chance: float) -> bool:
    """Whether a difference reaches its limit, and is no chance at this one-sided level."""
    # Did all prompts fall by chance, each of them as likely to rise? Also where the few that there
    # are have all changed alike, so that their error is 0.
    if difference < limit or 0.5**prompts > chance:
        return False
    return difference > t_quantile(1 - chance, prompts - 1) * error


def paired_difference(first: Shares, second: Shares) -> tuple[float, float, int]:
    """The difference of two ratios of sums over prompts, its standard error, and how many prompts.

    Both on the prompts of both alone. The error is that of the linearised difference by prompt:
    with a ratio R = sum(part) / sum(whole), a prompt adds (part - R whole) / mean(whole) to R.
    """
    shared = sorted(first.keys() & second.keys())
    sums = np.array([(*first[prompt], *second[prompt]) for prompt in shared]).reshape(-1, 4)
    count = len(sums)
    wholes = sums[:, 1].sum(), sums[:, 3].sum()
    if count < 2 or not all(wholes):
        return 0.0, math.inf, count
    means = sums.mean(axis=0)
    influence = 0.0
    difference = 0.0
    for sign, place in ((1, 0), (-1, 2)):
        share = means[place] / means[place + 1]
        off = (sums[:, place] - share * sums[:, place + 1]) / means[place + 1]
        influence = influence + sign * off
        difference += sign * share
    error = np.std(influence, ddof=1) / math.sqrt(count)
    return float(difference), float(error), count


def anchor_levels(answers: Sequence[JudgedAnswer]) -> dict[str, tuple[float, float]]:
    """Per prompt: the sum of the anchor's scores, and the weight of the answers that have one.

    `answers` are of one evaluation. One that is cut or empty scores 0, and weighs as much as the
    share of the others that the anchor judged: where it fails, they must not stand alone.
    """
    graded = [answer for answer in answers if answer.is_graded]
    judged = [answer for answer in graded if answer.is_judged]
    weight_of_others = len(judged) / len(graded) if graded else 1.0
    levels = {}
    for answer in answers:
        if answer.is_graded and not answer.is_judged:
            continue
        weight = 1.0 if answer.is_graded else weight_of_others
        if not weight:
            continue
        total, weights = levels.get(answer.prompt_id, (0.0, 0.0))
        levels[answer.prompt_id] = (total + weight * (answer.anchor_score or 0.0), weights + weight)
    return levels


def _added(first: Shares, second: Shares) -> dict[str, tuple[float, float]]:
    """The levels of two evaluations together."""
    together = {}
    for prompt in first.keys() | second.keys():
        parts = [shares[prompt] for shares in (first, second) if prompt in shares]
        together[prompt] = (sum(part for part, _ in parts), sum(whole for _, whole in parts))
    return together


def best_rollout(evaluations: Sequence[Evaluation]) -> int | None:
    """The last rollout before the evaluation with the anchor's highest level over all its sets.

    It is -1 before the first rollout, None where the anchor judged nothing.
    """
    told = []
    for evaluation, ours in zip(evaluations, _of_anchor(evaluations), strict=True):
        told.append(_told(evaluation) if ours else [])
    if not any(answer.is_judged for answers in told for answer in answers):
        return None
    levels = [anchor_levels(answers) for answers in told]
    least = least_prompts(levels)
    judged = []
    for evaluation, level in zip(evaluations, levels, strict=True):
        if level and len(level) >= least:
            judged.append((_mean(level), evaluation.last_rollout))
    return max(judged)[1] if judged else None


def _mean(shares: Shares) -> float:
    whole = sum(whole for _, whole in shares.values())
    return sum(part for part, _ in shares.values()) / whole if whole else -math.inf


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 no alarm, 3 there is one, 2 something to fix."""
    parser = CommandParser("python -m rubric_rl.trust.alarm", __doc__)
    parser.add_argument("save", type=Path, help="SAVE_PATH of a training run")
    parser.add_argument(
        "--grader-config", default="", help="YAML file with the limits (default: those of the run)"
    )
    return exit_status(lambda: _print_alarm(parser.parse_args(argv)))


def _print_alarm(args: argparse.Namespace) -> int:
    evaluations = stored(args.save)
    moves = kept_moves(args.save)
    if not evaluations and not moves:
        hint = "name the SAVE_PATH of a run with grader_anchor or grader_probe"
        raise UserError(f"{args.save}: no evaluations are kept there; {hint}")
    trust = own_limits(evaluations)
    if args.grader_config or trust is None:
        trust = GraderSettings.load(args.grader_config).trust
    alarm = alarm_of(evaluations, trust, moves)
    print(alarm.text(args.save) if alarm else "no alarm")
    return STATUS if alarm else 0


if __name__ == "__main__":
    sys.exit(main())
