"""What a report shows of a training run: its curves, and from each point some answers.

A run's records are read twice: for the figures, then for the answers to show. In memory stay those
that an anchor was asked about, without answer and conversation, and the answers on the page; of all
others sums. So that the page of a long run stays small, answers are kept at no more than POINTS
points of training and of evaluation, ANSWERS at each, and long texts are cut at CHARACTERS.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rubric_rl.common.jsonl import read_objects
from rubric_rl.data.record_file import FOLDER, OF_TRAINING
from rubric_rl.data.schema import Record
from rubric_rl.data.training_settings import DROPPED, Trust
from rubric_rl.evaluation.anchor_figures import anchor_figures
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.rollout_metrics import version_number
from rubric_rl.evaluation.scoring_rule import PLAIN_RULE, ScoringRule
from rubric_rl.report.run_view import answer_view
from rubric_rl.trust.alarm import alarm_of
from rubric_rl.trust.evaluations import own_limits, stored, trained_rollouts
from rubric_rl.trust.exploitation import change_figures
from rubric_rl.trust.moved import kept_moves

RECORDED = ScoringRule(recorded=True)
POINTS = 60
ANSWERS = 4
CHARACTERS = 4000
# Charts: title -> name of a curve -> figure. Before them stands that of the scores.
CHARTS = {
    "Gap: plain score minus anchor": {
        "gap": "anchor/gap",
        "at first length": "gap_at_first_length",
    },
    "Exploitation: newly credited, rejected by the anchor": {"exploitation": "exploitation"},
    "Credit that the anchor does not give": {"false credit": "anchor/false_credit"},
    "Probe: the policy's skill as a grader": {"accuracy": "probe"},
    "True score and grader accuracy (tiny world)": {
        "true score": "true_score",
        "grader accuracy": "grader_accuracy",
    },
    "How far the update before it moved the policy, nats a token": {"moved": "moved"},
    "Length of an answer, characters": {"characters": "characters"},
    "Grading, seconds per answer": {"seconds": "seconds"},
    "Seconds per rollout": {"step": "step_time", "update": "update_time"},
    "Grading, tokens per answer": {"prefilled": "prefilled", "decoded": "decoded"},
}
# Of the trainer without a GPU: figure -> how its name ends in metrics.jsonl and eval.jsonl.
LOGGED = {
    "true_score": "/true_score",
    "grader_accuracy": "/grader_accuracy",
    "step_time": "perf/step_time",
    "update_time": "perf/update_time",
    "moved": "grading/moved",
}


def is_training_run(folder: Path) -> bool:
    """Whether the folder is the SAVE_PATH of a training run."""
    return any((folder / FOLDER).glob(OF_TRAINING))


@dataclass
class Point:
    """A rollout, or an evaluation, with its figures."""

    split: str
    place: int  # across
    figures: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    run: int = -1  # of an evaluation: the number of the one that made it last
    shown: set[tuple] = field(default_factory=set)  # keys of records

    @property
    def key(self) -> str:
        return f"{self.split}_{self.place}"

    def heading(self) -> str:
        """What stands above its answers."""
        what = f"rollout {self.place}"
        if self.split != "train":
            what = f"evaluation after {self.place} rollouts"
        return f"{what}: {len(self.shown)} of {self.answers} answers"


class TrainingView:
    """A training run, read for its page."""

    def __init__(self, save: Path, rule: ScoringRule, title: str = ""):
        self.save, self.rule = save, rule
        self.title = title or f"Training run {save.resolve().name}"
        self.run = Run(save, every=True)
        self.records = len(self.run)
        self.points: dict[str, Point] = {}
        grouped: dict[str, _Group] = defaultdict(_Group)
        rules = set()  # by which the run rewarded answers, those that are not plain
        for record in self.run:
            if record.rule:
                rules.add(_in_words(record.rule))
            split, place = self._place(record)
            point = self.points.setdefault(f"{split}_{place}", Point(split, place))
            run = self.run.runs.index(record.run)
            if split == "eval" and run != point.run:
                if run < point.run:
                    continue
                point.run, grouped[point.key] = run, _Group()  # made again after a kill
            grouped[point.key].add(record, rule)
        for key, group in grouped.items():
            point = self.points[key]
            point.answers = group.count
            point.figures = group.figures()
            point.shown = group.chosen()
        self.rewarded_by = "; ".join(sorted(rules))
        self._leave_out_scores()
        self._add_evaluations()
        self._add_logged()
        self.rollouts = len(self._of("train"))
        self.evaluations = len(self._of("eval"))
        for split in ("train", "eval"):
            points = self._of(split)
            step = math.ceil(len(points) / POINTS)
            for number, point in enumerate(reversed(points)):
                if number % max(step, 1):
                    point.shown = set()

    def _place(self, record: Record) -> tuple[str, int]:
        """The curve on which a record stands, and where."""
        rollout = record.rollout
        if rollout is None:
            return record.split, version_number(record.weight_version) or 0
        if record.split == "eval":
            return record.split, trained_rollouts(self.save, rollout, record.weight_version)
        return record.split, rollout

    def _of(self, split: str) -> list[Point]:
        found = [point for point in self.points.values() if point.split == split]
        return sorted(found, key=lambda point: point.place)

    def _add_evaluations(self) -> None:
        """Figures against the first evaluation, and the probe."""
        evaluations = stored(self.save)
        own = own_limits(evaluations)
        alarm = alarm_of(evaluations, own or Trust(), kept_moves(self.save))
        self.alarm = alarm.text(self.save) if alarm else ""
        self.limits = "the limits of the run" if own else "the default limits: the run kept none"
        for evaluation in evaluations:
            place = evaluation.last_rollout + 1
            point = self.points.setdefault(f"eval_{place}", Point("eval", place))
            if evaluation.probe:
                right = sum(part for part, _ in evaluation.probe.values())
                point.figures["probe"] = right / sum(all_ for _, all_ in evaluation.probe.values())
            if evaluation is not evaluations[0]:
                point.figures |= change_figures(evaluations[0].answers, evaluation.answers)

    def _add_logged(self) -> None:
        """Figures of the trainer without a GPU, which keeps its log beside the records."""
        for split, name, number in (
            ("train", "metrics.jsonl", "rollout_id"),
            ("eval", "eval.jsonl", "weight_version"),
        ):
            path = self.save / name
            if not path.is_file():
                continue
            for row in read_objects(path):
                point = self.points.get(f"{split}_{row.get(number)}")
                if point:
                    point.figures |= _logged(row)

    @property
    def note(self) -> str:
        """What of the answers is on the page, and what is not."""
        some = [point for point in self.points.values() if point.shown]
        shown = sum(len(point.shown) for point in some)
        return (
            f"{shown} of {self.records} answers are on this page: at {len(some)} of "
            f"{len(self.points)} points, at most {ANSWERS} each; half of them those on which "
            "reward and anchor differ most, the others drawn by a hash. Texts longer than "
            f"{CHARACTERS} characters are cut. All of them: python -m rubric_rl.report "
            f"{self.save}/{FOLDER} --weights VERSION"
        )

    def _leave_out_scores(self) -> None:
        """Leaves out the reward where there is none, and the score where it is the reward.

        Training is rewarded by the run's rule, evaluations are always scored by the plain one.
        """
        is_plain = not self.rewarded_by
        for point in self.points.values():
            is_rewarded = point.split == "train" or is_plain
            if not is_rewarded:
                point.figures.pop("reward", None)
            elif self.rule == RECORDED or (is_plain and self.rule == PLAIN_RULE):
                point.figures.pop("score", None)

    def _scores(self) -> dict[str, str]:
        """The curves of the first chart."""
        score = f"score by {self.rule}"
        if self.rule in (PLAIN_RULE, RECORDED):
            score = "plain score"
        return {"reward": "reward", score: "score", "anchor": "anchor/score"}

    def charts(self) -> list[dict]:
        """The curves as JSON; a chart without a point is left out."""
        charts = []
        for title, curves in {"Score": self._scores(), **CHARTS}.items():
            series = []
            for name, figure in curves.items():
                for split in ("train", "eval"):
                    points = [_on_curve(point, figure) for point in self._of(split)]
                    known = [point for point in points if point]
                    if known:
                        label = f"{name}, {'training' if split == 'train' else 'held out'}"
                        series.append({"name": label, "kind": split, "points": known})
            if series:
                charts.append({"title": title, "series": series})
        return charts

    def examples(self) -> Iterator[tuple[str, dict]]:
        """Per point that shows answers: its key, and they as JSON, in the order of the points."""
        items: dict[str, list[dict]] = defaultdict(list)
        for record in self.run:
            split, place = self._place(record)
            point = self.points[f"{split}_{place}"]
            if record.key in point.shown:
                items[point.key].append(_example(record, self.rule))
        for point in [*self._of("train"), *self._of("eval")]:
            if point.key in items:
                yield point.key, {"heading": point.heading(), "items": items[point.key]}


class _Group:
    """The answers of one point, summed up one by one; no text is kept."""

    def __init__(self):
        self.count = 0
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        self.anchored: list[Record] = []
        self.by_chance: list[tuple] = []
        self.by_gap: list[tuple] = []

    def add(self, record: Record, rule: ScoringRule) -> None:
        self.count += 1
        tokens = record.first_tokens + record.rest_tokens
        values = {
            "reward": record.score,
            "score": rule.score(record),
            "characters": len(record.answer) if record.answer else math.nan,
            "seconds": record.seconds if record.calls else math.nan,
            "prefilled": tokens.prompt - tokens.cached if record.calls else math.nan,
            "decoded": tokens.completion if record.calls else math.nan,
        }
        for name, value in values.items():
            if not math.isnan(value):
                self.sums[name][0] += value
                self.sums[name][1] += 1
        key = record.key
        chance = hashlib.blake2b(repr(key).encode(errors="replace"), digest_size=8).digest()
        self.by_chance = sorted([*self.by_chance, (chance, key)])[:ANSWERS]
        if record.anchored:
            gap = abs(record.score - record.anchored.score)
            if not math.isnan(gap):
                self.by_gap = sorted([*self.by_gap, (-gap, chance, key)])[: ANSWERS // 2]
            record.answer, record.messages = None, ()  # the figures need no text
            self.anchored.append(record)

    def figures(self) -> dict[str, float]:
        figures = {name: total / count for name, (total, count) in self.sums.items()}
        for name, value in anchor_figures(self.anchored).items():
            figures[f"anchor/{name}"] = value
        self.anchored = []
        return figures

    def chosen(self) -> set[tuple]:
        keys = [key for *_, key in [*self.by_gap, *self.by_chance]]
        return set(list(dict.fromkeys(keys))[:ANSWERS])


def _on_curve(point: Point, figure: str) -> dict | None:
    value = point.figures.get(figure)
    if value is None:
        return None
    low, high = (point.figures.get(f"{figure}_{end}") for end in ("low", "high"))
    return {"x": point.place, "y": value, "low": low, "high": high, "key": point.key}


def _in_words(rule: Mapping[str, Any]) -> str:
    """The rule of a record, without what it left out of this one."""
    return ", ".join(f"{name}={value}" for name, value in rule.items() if name != DROPPED)


def _logged(row: dict) -> dict[str, float]:
    figures = {}
    for figure, ending in LOGGED.items():
        for name, value in row.items():
            if f"/{name}".endswith(ending) and isinstance(value, (int, float)):
                figures[figure] = value
    return figures


def _example(record: Record, rule: ScoringRule) -> dict:
    return _cut(
        {
            "id": record.prompt_id,
            "theme": record.theme,
            "messages": list(record.messages),
            "rubric": [criterion.to_json() for criterion in record.rubric],
            "answers": [answer_view(record, record.rubric, rule)],
        }
    )


def _cut(value: Any) -> Any:
    """A JSON value with its long texts cut."""
    if isinstance(value, str) and len(value) > CHARACTERS:
        return value[:CHARACTERS] + " … (cut)"
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return value
