"""The tables of docs/experiments.md: an arm's figures, and its difference from another arm."""

import itertools
import math
import statistics
from collections.abc import Callable

from experiments.arms import ARMS, oracle_arm
from experiments.results import Result, Rows, Stretch
from rubric_rl.evaluation.statistics import mean_interval, pooled_deviation, seeds_needed

Results = dict[str, dict[int, Result]]  # by arm and seed
# Nats a token that a rollout's updates move the policy by: the bounds of the table's rows.
LARGE = 0.1
MOVES = (0.0, 0.02, 0.05, LARGE, math.inf)
FALL = 0.05  # of the true score
TELL = 0.03  # the difference of true scores that a comparison should tell
MISSING = "-"
Figure = Callable[[Result], float | None]


def table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    ruler = ["---"] * len(headings)
    return ["| " + " | ".join(cells) + " |" for cells in [headings, ruler, *rows]]


def arm_lines(results: Results) -> list[str]:
    """A row per arm: the mean over its seeds of every figure."""
    headings = [
        "arm",
        "seeds",
        "true score",
        "SD of seeds",
        "grader accuracy",
        "on the probe",
        "false positives",
        "length",
        "s a step",
        "s its reward",
        "grading tokens",
    ]
    rows = []
    for name in ARMS:
        of_arm = list(results.get(name, {}).values())
        if not of_arm:
            rows.append([name, "not run", *[MISSING] * (len(headings) - 2)])
            continue
        scores = _known(of_arm, lambda result: result.final("true"))
        deviation = MISSING
        if len(scores) > 1:
            deviation = f"{statistics.stdev(scores):.3f}"
        rows.append(
            [
                name,
                str(len(of_arm)),
                f"{_mean(of_arm, lambda result: result.start('true'))} -> {_cell(scores)}",
                deviation,
                _mean(of_arm, lambda result: result.final("accuracy")),
                f"{_probe(of_arm, 'ordinary')}, {_probe(of_arm, 'hostile')}",
                _mean(of_arm, lambda result: result.final("false_positives")),
                _mean(of_arm, lambda result: result.final("length"), digits=1),
                _mean(of_arm, lambda result: result.per_rollout("step_seconds"), digits=1),
                _mean(of_arm, lambda result: result.per_rollout("reward_seconds"), digits=1),
                _mean(of_arm, _tokens, digits=0),
            ]
        )
    return table(headings, rows)


def _probe(of_arm: list[Result], kind: str) -> str:
    return _mean(of_arm, lambda result: result.probe[kind])


def _tokens(result: Result) -> float | None:
    """Tokens that the grader read or wrote in a rollout, those from its cache left out."""
    return result.per_rollout("prefilled", "decoded")


def _known(of_arm: list[Result], figure: Figure) -> list[float]:
    found = [figure(result) for result in of_arm]
    return [value for value in found if value is not None]


def _mean(of_arm: list[Result], figure: Figure, digits: int = 3) -> str:
    return _cell(_known(of_arm, figure), digits)


def _cell(values: list[float], digits: int = 3) -> str:
    if not values:
        return MISSING
    return f"{statistics.fmean(values):.{digits}f}"


def differences(arm: dict[int, Result], other: dict[int, Result]) -> list[float]:
    """The final true score less the other arm's, for each seed that both have.

    Each is a mean over the prompts that both were evaluated on, paired.
    """
    found = []
    for seed in sorted(arm.keys() & other.keys()):
        ours = arm[seed].prompts
        theirs = other[seed].prompts
        pairs = [ours[prompt] - theirs[prompt] for prompt in ours.keys() & theirs.keys()]
        found.append(statistics.fmean(pairs))
    return found


def comparison_lines(results: Results) -> list[str]:
    """A row per arm: its paired difference, the share of the oracle's score, the power.

    The power stands on the spread of all paired differences at the arm's learning rate together:
    of three seeds alone a spread is hardly known, and the higher rate spreads runs far more.
    """
    pairs = {}
    for name, arm in ARMS.items():
        found = []
        if arm.compared_with != name:
            found = differences(results.get(name, {}), results.get(arm.compared_with, {}))
        if found or shares(name, results):
            pairs[name] = found
    if not pairs:
        return ["No two arms have a seed in common."]
    spreads = {
        is_fast: pooled_deviation(
            [found for name, found in pairs.items() if found and ARMS[name].is_fast == is_fast]
        )
        for is_fast in (False, True)
    }
    headings = [
        "arm",
        "less",
        "seeds",
        "difference of true scores",
        "share of the oracle's",
        f"seeds that tell {TELL}",
    ]
    rows = []
    for name, found in pairs.items():
        less = ARMS[name].compared_with if found else MISSING
        seeds = str(len(found)) if found else MISSING
        needed = MISSING
        spread = spreads[ARMS[name].is_fast]
        if found and spread is not None:
            needed = str(seeds_needed(spread, TELL))
        ratio = _with_interval(shares(name, results), digits=2)
        difference = _with_interval(found, digits=3, signed=True)
        rows.append([name, less, seeds, difference, ratio, needed])
    return table(headings, rows)


def alarm_lines(results: Results) -> list[str]:
    """The runs that had an alarm."""
    lines = _alarms(results, "rang after", lambda result: result.is_watched)
    return lines or ["No run with an alarm has been made."]


def watched_lines(results: Results) -> list[str]:
    """The runs that were watched afterwards."""
    lines = _alarms(results, "would have rung after", lambda result: result.watched is not None)
    return lines or ["No run has been watched afterwards."]


def _alarms(results: Results, when: str, is_meant: Callable[[Result], bool]) -> list[str]:
    """A row per arm with such runs, by seeds: after how many rollouts the alarm rings.

    Beside it what the true score lay below its best by then, and at most at any evaluation.
    """
    rows = []
    for name, of_arm in results.items():
        seeds, after, lost, most = [], [], [], []
        for seed, result in of_arm.items():
            if not is_meant(result):
                continue
            alarm = result.first_alarm()
            seeds.append(str(seed))
            after.append(str(alarm.rollouts) if alarm else "never")
            lost.append(f"{alarm.lost:.3f}" if alarm else MISSING)
            most.append(f"{result.most_lost():.3f}")
        if seeds:
            rows.append([name, *map(", ".join, (seeds, after, lost, most))])
    headings = ["arm", "seeds", when, "below its best by then", "at most"]
    return table(headings, rows) if rows else []


def lenient_lines(rows: Rows) -> list[str]:
    """A row per kind of leniency: when the alarm rings, run by run."""
    by_kind: dict[str, Rows] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    if not by_kind:
        return ["No run has been asked about with a lenient grader."]
    cells = []
    for kind, of_kind in by_kind.items():
        wrong = statistics.fmean(row["falsely_credited"] for row in of_kind)
        after = [str(row["first"] or "never") for row in of_kind]
        cells.append([kind, f"{wrong:.3f}", ", ".join(after)])
    return table(["what is credited too", "credited falsely", "rings after"], cells)


def _by_rate(results: Results) -> dict[str, list[Result]]:
    """The runs that have kept how far their updates moved the policy.

    Those with an alarm are left out: they are runs of other arms once more, or of a lenient grader.
    """
    runs: dict[str, list[Result]] = {"usual": [], "1e-3": []}
    for name, of_arm in results.items():
        rate = "1e-3" if ARMS[name].is_fast else "usual"
        for result in of_arm.values():
            if result.training.get("moved") and not result.is_watched:
                runs[rate].append(result)
    return runs


def update_lines(results: Results) -> list[str]:
    """What becomes of the true score from one evaluation to the next, by the largest update.

    A row for the usual learning rate, and for the higher one a row per size of that update.
    """
    usual, fast = (
        [stretch for result in of_rate for stretch in result.stretches()]
        for of_rate in _by_rate(results).values()
    )
    rows = []
    if usual:
        largest = f"up to {max(stretch.moved for stretch in usual):.3f}"
        rows.append(["usual", largest, *_changes(usual)])
    for low, high in itertools.pairwise(MOVES):
        # An estimate of a distance may be a little below 0.
        within = [stretch for stretch in fast if low <= max(stretch.moved, 0.0) < high]
        if within:
            span = f"{low} to {high}" if math.isfinite(high) else f"from {low} on"
            rows.append(["1e-3", span, *_changes(within)])
    if not rows:
        return ["No run has kept how far its updates moved the policy."]
    headings = ["rate", "largest update", "stretches", "mean change", f"falls above {FALL}"]
    return table(headings, rows)


def _changes(stretches: list[Stretch]) -> list[str]:
    changes = [stretch.change for stretch in stretches]
    falls = sum(change < -FALL for change in changes)
    return [str(len(changes)), f"{statistics.fmean(changes):+.3f}", str(falls)]


def warning_lines(results: Results) -> list[str]:
    """A row per learning rate: how many runs lose the score, and how often a large update warns."""
    rows = []
    for rate, of_rate in _by_rate(results).items():
        if not of_rate:
            continue
        lost = warned = spared = 0
        for result in of_rate:
            loss = result.first_loss(FALL)
            move = result.first_move(LARGE)
            if loss is None:
                spared += move is not None
            else:
                lost += 1
                warned += move is not None and move <= loss
        rows.append([rate, *map(str, (len(of_rate), lost, warned, spared))])
    if not rows:
        return ["No run has kept how far its updates moved the policy."]
    warned = f"of these after an update of {LARGE} or more"
    return table(["rate", "runs", f"lose {FALL}", warned, "do not lose it after one"], rows)


def shares(name: str, results: Results) -> list[float]:
    """The arm's final true score as a share of its oracle arm's, per seed."""
    best = oracle_arm(name)
    found = []
    if best in (None, name):
        return found
    of_arm = results.get(name, {})
    of_best = results.get(best, {})
    for seed in sorted(of_arm.keys() & of_best.keys()):
        above = of_arm[seed].final("true")
        below = of_best[seed].final("true")
        if above is not None and below:
            found.append(above / below)
    return found


def _with_interval(values: list[float], digits: int, signed: bool = False) -> str:
    """The mean and its 95% interval over seeds."""
    if not values:
        return MISSING
    sign = "+" if signed else ""
    mean = f"{statistics.fmean(values):{sign}.{digits}f}"
    bounds = mean_interval(values)
    if bounds is None:
        return f"{mean} (one seed)"
    low, high = bounds
    return f"{mean} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"
