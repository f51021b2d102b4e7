"""What a finished run leaves in the repository: a few kilobytes, from which all tables are made.

`experiments/results/ARM/SEED.jsonl` has one row of each `kind`: "run" (what was run), "training"
(a list per figure, a value per rollout), "prompts" (the held-out true score of every prompt, over
the last three evaluations), "probe" (the last weights as a grader of answers that no policy wrote),
and a row "evaluation" for every evaluation.
"""

import itertools
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from experiments.runs import Run
from rubric_rl import ROOT
from rubric_rl.common.jsonl import read_jsonl, write_jsonl
from rubric_rl.cpu.metric_rows import find_eval_metric, find_metric, read_evaluations, read_metrics
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.record_file import FOLDER, OF_TRAINING
from rubric_rl.data.training_settings import Trust
from rubric_rl.tiny.oracle import true_score
from rubric_rl.tiny.world import rows

RESULTS = ROOT / "experiments" / "results"
PROBE_SEED = 1234
WATCHED = "watched"  # beside the arms: what experiments/watched.py says of their runs
LENIENT = "lenient"  # and experiments/lenient.py
LAST = 3  # evaluations whose mean is a run's result
DATA_SET = "held_out"
# Name here: metric of an evaluation.
OF_EVALUATIONS = {
    "true": "true_score",
    "self": "self_score",
    "accuracy": "grader_accuracy",
    "false_positives": "false_positive_rate",
    "length": "response_len/mean",
    "anchor": "grading/anchor/score",
    "gap": "grading/anchor/gap",
    "exploitation": "grading/anchor/exploitation",
}
# The same, of figures that belong to no data set.
OF_WATCH = {"alarm": "eval/alarm/raised", "probe": "eval/probe/accuracy"}
# Name here: metric of a rollout.
OF_ROLLOUTS = {
    "true": "true_score",
    "reward": "rollout/raw_reward",
    "accuracy": "grader_accuracy",
    "false_positives": "false_positive_rate",
    "length": "rollout/response_len/mean",
    "moved": "train/ppo_kl",  # nats a token, the mean over the rollout's steps
    "update": "grading/moved",  # the same after the last step of the update before
    "step_seconds": "perf/step_time",
    "reward_seconds": "perf/grading_time",
    "prefilled": "grading/tokens_prefilled",
    "cached": "grading/tokens_cached",
    "decoded": "grading/tokens_decoded",
    "anchor_prefilled": "grading/anchor/tokens_prefilled",
    "anchor_decoded": "grading/anchor/tokens_decoded",
}
DIGITS = 4
LIMITS = Trust()  # of the alarm in all arms
Rows = list[dict[str, Any]]


def path_of(arm: str, seed: int, results: Path = RESULTS) -> Path:
    """The file of one run."""
    return results / arm / f"{seed}.jsonl"


def collect(run: Run, results: Path = RESULTS) -> None:
    """Writes a finished run's file."""
    made = json.loads(run.record.read_text(encoding="utf-8"))
    evaluations = _evaluations(run.save_path)
    last = [row["weight_version"] for row in evaluations[-LAST:]]
    written = [
        {"kind": "run", **made},
        *evaluations,
        {"kind": "prompts", "true": true_scores(run.save_path, last)},
        {"kind": "probe", **probe(run.save_path)},
        {"kind": "training", **_training(run.save_path)},
    ]
    path = path_of(run.name, run.seed, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, written)


def holds(run: Run, results: Path = RESULTS) -> bool:
    """Whether the file of a finished run is there, and of that very run."""
    path = path_of(run.name, run.seed, results)
    if not path.is_file():
        return False
    made = json.loads(run.record.read_text(encoding="utf-8"))
    return {"kind": "run", **made} in [row for _, row in read_jsonl(path)]


def _evaluations(save_path: Path) -> Rows:
    evaluations = []
    for found in read_evaluations(save_path):
        row = {"kind": "evaluation", "weight_version": found["weight_version"]}
        for name, metric in OF_EVALUATIONS.items():
            row[name] = _rounded(find_eval_metric(found, DATA_SET, metric))
        for name, metric in OF_WATCH.items():
            row[name] = _rounded(found.get(metric))
        evaluations.append(row)
    return evaluations


def _training(save_path: Path) -> dict[str, list]:
    curves: dict[str, list] = defaultdict(list)
    for found in read_metrics(save_path):
        for name, metric in OF_ROLLOUTS.items():
            curves[name].append(_rounded(find_metric(found, metric)))
    return curves


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def true_scores(save_path: Path, versions: list[int]) -> dict[str, float]:
    """The mean true score of each held-out prompt's answers by these weight versions.

    An answer that scored 0 without a call counts as 0, an ungraded one not at all.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    wanted = {str(version) for version in versions}
    for path in sorted((save_path / FOLDER).glob(OF_TRAINING)):
        for _, row in read_jsonl(path, skip_partial=True):
            if row["split"] != "eval" or row["weight_version"] not in wanted:
                continue
            record = record_from_json(row)
            if record.status == "ungraded":
                continue
            score = 0.0
            if record.status == "graded":
                score = true_score(record.rubric, record.answer or "")
            scores[record.prompt_id].append(score)
    means = {}
    for prompt_id in sorted(scores):
        means[prompt_id] = round(statistics.fmean(scores[prompt_id]), DIGITS)
    return means


def probe(save_path: Path) -> dict[str, float]:
    """How the last checkpoint grades fixed answers to the held-out patients.

    `ordinary` and `hostile` ones (spliced, cut, repeated), one of each to every patient: the share
    of right verdicts among about 340.
    """
    # Here, so that the commands that need no model start fast.
    import torch

    from rubric_rl.tiny.measure_checkpoint import grading_figures, load_policy, world_cases

    torch.set_num_threads(1)
    checkpoint = max(save_path.glob("iter_*/hf"))
    policy = load_policy(checkpoint)
    figures = {}
    for kind, cases in world_cases(rows(held_out=True), PROBE_SEED).items():
        found = grading_figures(policy, "direct", cases)
        figures[kind] = round(float(found["accuracy"]), DIGITS)
        figures[f"{kind}_false_positives"] = round(float(found["false_positive_rate"]), DIGITS)
    return figures


class Stretch(NamedTuple):
    """The rollouts between two evaluations of a run."""

    moved: float  # nats a token, by the updates of the rollout that moved the policy most
    change: float  # of the true score


class FirstAlarm(NamedTuple):
    """When the alarm of a run first rang."""

    rollouts: int  # made by then
    lost: float  # how far the true score was below its best, at the last evaluation


class Result:
    """One run's file."""

    def __init__(self, written: Rows, watched: Rows | None = None):
        (self.run,) = _of_kind(written, "run")
        (self.training,) = _of_kind(written, "training")
        (self.probe,) = _of_kind(written, "probe")
        (prompts,) = _of_kind(written, "prompts")
        self.prompts: dict[str, float] = prompts["true"]
        self.evaluations = _of_kind(written, "evaluation")
        # What the alarm would have said, for runs that had none; None where nobody has asked.
        self.watched = watched

    def final(self, name: str) -> float | None:
        """A figure's mean over the last three evaluations; None where none has it."""
        known = [row[name] for row in self.evaluations[-LAST:] if row.get(name) is not None]
        return statistics.fmean(known) if known else None

    def start(self, name: str) -> float | None:
        """A figure before the first rollout."""
        return self.evaluations[0].get(name)

    @property
    def is_watched(self) -> bool:
        """Whether the run had an alarm."""
        return any(row.get("alarm") is not None for row in self.evaluations)

    def first_alarm(self) -> FirstAlarm | None:
        """When it first rang, or would have rung, if it did."""
        rings = {row["weight_version"] for row in self.watched or () if row["rules"]}
        for row in self.evaluations:
            if row.get("alarm"):
                rings.add(row["weight_version"])
        if self.is_watched:  # each rollout measures the update before it
            for rollouts, nats in enumerate(self.training.get("update", ())):
                if nats is not None and nats >= LIMITS.alarm_moved:
                    rings.add(rollouts)
        if not rings:
            return None
        before = [row["true"] for row in self.evaluations if row["weight_version"] <= min(rings)]
        return FirstAlarm(min(rings), lost=max(before) - before[-1])

    def most_lost(self) -> float:
        """How far the true score was below its best so far, at the worst evaluation."""
        best = most = -math.inf
        for row in self.evaluations:
            best = max(best, row["true"])
            most = max(most, best - row["true"])
        return most

    def first_loss(self, limit: float) -> int | None:
        """The rollouts after which the true score first lay so far below its best."""
        best = -math.inf
        for row in self.evaluations:
            best = max(best, row["true"])
            if best - row["true"] >= limit:
                return row["weight_version"]
        return None

    def first_move(self, limit: float) -> int | None:
        """The rollouts after which an update first had moved the policy so far."""
        for rollout, nats in enumerate(self.training.get("moved", [])):
            if nats is not None and nats >= limit:
                return rollout + 1
        return None

    def stretches(self) -> list[Stretch]:
        """Between each two evaluations, as far as it is kept how far updates moved the policy."""
        moved = self.training.get("moved", [])
        found = []
        for before, after in itertools.pairwise(self.evaluations):
            updates = moved[before["weight_version"] : after["weight_version"]]
            if updates and None not in updates:
                found.append(Stretch(max(updates), after["true"] - before["true"]))
        return found

    def per_rollout(self, *names: str) -> float | None:
        """The median over the rollouts of the sum of these figures."""
        columns = [self.training.get(name, []) for name in names]
        sums = []
        for values in zip(*columns, strict=True):
            if None not in values:
                sums.append(sum(values))
        return statistics.median(sums) if sums else None


def _of_kind(written: Rows, kind: str) -> Rows:
    return [row for row in written if row["kind"] == kind]


def read(arm: str, results: Path = RESULTS) -> dict[int, Result]:
    """The arm's results by seed."""
    found = {}
    for path in sorted((results / arm).glob("*.jsonl")):
        written: Rows = [row for _, row in read_jsonl(path)]
        found[int(path.stem)] = Result(written, read_watched(arm, int(path.stem), results))
    return dict(sorted(found.items()))


def watched_path(arm: str, seed: int, results: Path = RESULTS) -> Path:
    """The file of what the alarm would have said of one run."""
    return results / WATCHED / f"{arm}-{seed}.jsonl"


def read_watched(arm: str, seed: int, results: Path = RESULTS) -> Rows | None:
    """What it holds, a row per evaluation."""
    path = watched_path(arm, seed, results)
    return [row for _, row in read_jsonl(path)] if path.exists() else None


def lenient_path(arm: str, seed: int, results: Path = RESULTS) -> Path:
    """The file of what the alarm says of one run if its grader is made lenient."""
    return results / LENIENT / f"{arm}-{seed}.jsonl"


def read_lenient(results: Path = RESULTS) -> Rows:
    """The rows of all such files, in the order of their names."""
    paths = sorted((results / LENIENT).glob("*.jsonl"))
    return [row for path in paths for _, row in read_jsonl(path)]
