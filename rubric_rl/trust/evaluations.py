"""What is kept of every evaluation in training: who credited which criterion, without a text.

A file per evaluation in SAVE_PATH/evaluations, so that a run that goes on after a kill still knows
its first one, under slime too, whose weight versions begin anew in every start. An evaluation of
rollouts that are made again takes the place of the lost ones.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl, write_jsonl
from rubric_rl.data.schema import Criterion, Record, Verdict
from rubric_rl.data.training_settings import Trust
from rubric_rl.evaluation.rollout_metrics import version_number
from rubric_rl.grading.score import is_met

FOLDER = "evaluations"  # in SAVE_PATH
Pairs = Annotated[
    list[int], Field(min_length=2, max_length=2)
]  # of verdict and label: those that agree, and all
# In SAVE_PATH too, by the trainer without a GPU, which counts weights from 0, slime from 1.
COUNTED_FROM_ZERO = "eval.jsonl"


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer of an evaluation; both scores of one that is cut or empty are 0, without credits.

    Nobody is asked about such an answer.
    """

    dataset: str  # the evaluation set's name
    prompt_id: str
    score: FiniteFloat  # the plain score
    anchor_score: FiniteFloat | None  # None where no anchor judged it
    length: int  # characters
    # By the criterion: whether the reward credits it, and the anchor; None where nobody can read
    # what it says. Credited is a positive criterion that counts as met, a negative one that counts
    # as not met.
    credits: Mapping[str, tuple[bool, bool | None]]
    negative: list[str] = field(default_factory=list)  # the criteria of negative points, by key

    @property
    def is_graded(self) -> bool:
        """Whether it was read at all."""
        return bool(self.credits)

    @property
    def is_judged(self) -> bool:
        """Whether the anchor gave its verdicts on it."""
        return self.is_graded and self.anchor_score is not None

    @classmethod
    def of(cls, name: str, record: Record) -> Self:
        """The answer of a record that is not ungraded."""
        if record.status != "graded":
            return cls(name, record.prompt_id, 0.0, 0.0, len(record.answer or ""), {})
        own = _credits(zip(record.rubric, record.verdicts, strict=True))
        anchors: dict[str, bool] = {}
        anchor_score = None
        if record.anchored and record.anchored.verdicts:
            pairs = zip(record.rubric, record.anchored.verdicts, strict=True)
            anchors = _credits(pair for pair in pairs if pair[1].met is not None)
            anchor_score = record.anchored.score
        credits = {key: (credited, anchors.get(key)) for key, credited in own.items()}
        length = len(record.answer or "")
        negative = [_key(criterion) for criterion in record.rubric if criterion.points < 0]
        return cls(name, record.prompt_id, record.score, anchor_score, length, credits, negative)


def _credits(pairs: Iterable[tuple[Criterion, Verdict]]) -> dict[str, bool]:
    credited = {}
    for criterion, verdict in pairs:
        credited[_key(criterion)] = is_met(criterion, verdict) is (criterion.points > 0)
    return credited


def _key(criterion: Criterion) -> str:
    text = f"{criterion.points:g} {criterion.text}"
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()


@dataclass
class Evaluation:
    """The evaluation after a rollout, or before the first one, by the weights of that time."""

    rollout: int
    weights: str
    answers: list[JudgedAnswer] = field(default_factory=list)
    probe: dict[str, Pairs] | None = None  # by prompt
    anchor: str = ""  # who was asked besides, also where it failed; "" in older files
    trust: Trust | None = None  # the run's limits at that time; None in older files

    is_start: bool = False  # before the first rollout; `stored` says so

    @property
    def last_rollout(self) -> int:
        """The rollout whose checkpoint holds these weights; -1: they are those of the start."""
        return -1 if self.is_start else self.rollout

    @property
    def order(self) -> tuple:
        """By which evaluations follow each other."""
        return self.rollout, version_number(self.weights) or 0

    def replaces(self, other: "Evaluation") -> bool:
        """Whether the other one is of rollouts that were lost, and are made again.

        Of rollout 0 there are two, as `trained_rollouts` says.
        """
        if self.rollout == other.rollout == 0:
            return other.order >= self.order
        return other.rollout >= self.rollout

    @property
    def datasets(self) -> list[str]:
        """The names of the evaluation sets."""
        return list(dict.fromkeys(answer.dataset for answer in self.answers))

    def of(self, dataset: str) -> list[JudgedAnswer]:
        """The answers of one evaluation set."""
        return [answer for answer in self.answers if answer.dataset == dataset]

    def lines(self) -> Iterator[dict[str, Any]]:
        """As JSON: a line on the whole, then a line per answer."""
        heading = vars(self).copy()
        del heading["answers"], heading["is_start"]
        heading["trust"] = self.trust.model_dump() if self.trust else None
        yield heading
        yield from (vars(answer) for answer in self.answers)


_ANSWER, _HEADING = TypeAdapter(JudgedAnswer), TypeAdapter(Evaluation)


def evaluation_of(
    rollout: int,
    records: Mapping[str, Iterable[Record]],
    probe: dict | None,
    trust: Trust | None = None,
) -> Evaluation:
    """The evaluation whose records, by set, these are; `probe` is the `prompts` of an outcome."""
    answers = []
    weights = anchor = ""
    for name, of_set in records.items():
        for record in of_set:
            weights = record.weight_version or weights
            if record.anchored:
                anchor = record.anchored.grader
            if not math.isnan(record.score):
                answers.append(JudgedAnswer.of(name, record))
    return Evaluation(rollout, weights, answers, probe, anchor, trust)


def store(save: str | os.PathLike, evaluation: Evaluation) -> None:
    """Keeps an evaluation, in place of those of lost rollouts."""
    folder = Path(save) / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _files(folder):
        if evaluation.replaces(_heading(path)):
            path.unlink()
    weights = quote(evaluation.weights, safe="", errors="replace")[:100]
    name = f"rollout_{evaluation.rollout:07d}.weights_{weights}.jsonl"
    write_jsonl(folder / name, evaluation.lines(), only_owner=True)


def trained_rollouts(save: str | os.PathLike, rollout: int, weights: str) -> int:
    """How many rollouts the weights of an evaluation were trained on.

    The one before the first rollout is called rollout 0 like the one after it; only the weights
    tell them apart.
    """
    first = 0 if (Path(save) / COUNTED_FROM_ZERO).exists() else 1
    is_start = rollout == 0 and (version_number(weights) or 0) <= first
    return 0 if is_start else rollout + 1


def stored(save: str | os.PathLike, last: float = math.inf) -> list[Evaluation]:
    """The evaluations of a run in their order, up to rollout `last`.

    Raises DataError for a file that is none.
    """
    found = []
    for path in _files(Path(save) / FOLDER):
        heading, *rest = _items(path)
        evaluation = _evaluation(path, heading)
        if evaluation.rollout <= last:
            try:
                evaluation.answers = [_ANSWER.validate_python(item) for item in rest]
            except ValidationError:
                raise _damaged(path) from None
            trained = trained_rollouts(save, evaluation.rollout, evaluation.weights)
            evaluation.is_start = trained == 0
            found.append(evaluation)
    return sorted(found, key=lambda evaluation: evaluation.order)


def own_limits(evaluations: Sequence[Evaluation]) -> Trust | None:
    """The limits that a run had last; None where it kept none."""
    limits = [evaluation.trust for evaluation in evaluations if evaluation.trust]
    return limits[-1] if limits else None


def stored_names(save: str | os.PathLike) -> list[tuple[str, int]]:
    """What tells whether `stored` would say something new: names and times of the files."""
    files = _files(Path(save) / FOLDER)
    return [(path.name, path.stat().st_mtime_ns) for path in files]


def drop_after(save: str | os.PathLike, start: int) -> None:
    """Drops the evaluations of rollouts from `start` on, which are made again."""
    for path in _files(Path(save) / FOLDER):
        heading = _heading(path)
        if heading.rollout >= max(start, 1) or start == 0:
            path.unlink()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rollout_*.jsonl"))


def _items(path: Path) -> list[dict]:
    items = [item for _, item in read_jsonl(path)]
    if not items:
        raise _damaged(path)
    return items


def _heading(path: Path) -> Evaluation:
    _, first = next(read_jsonl(path), (0, None))
    return _evaluation(path, first)


def _evaluation(path: Path, heading: object) -> Evaluation:
    try:
        return _HEADING.validate_python(heading)
    except ValidationError:
        raise _damaged(path) from None


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}: not what a run keeps of an evaluation; remove the file")
