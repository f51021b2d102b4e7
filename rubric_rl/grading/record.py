"""Records on disk, one line per answer, and what they add up to."""

import os
import socket
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from rubric_rl.data.schema import STATUSES, Record, TokenCounts
from rubric_rl.grading.score import is_met, score_by
from rubric_rl.jsonl import append_line, private

RUN_VARIABLE = "RUBRIC_RL_RUN"  # the launchers name the run in it, for all of its processes


class _Process:
    """What tells this process from every other one, and its threads from each other."""

    def __init__(self):
        self.started = time.time_ns()
        self.lock = threading.Lock()
        self.last_time = 0.0

    @property
    def name(self) -> str:
        host = quote(socket.gethostname(), safe="")[:60]
        return f"{host}.{os.getpid()}-{self.started}"

    def next_time(self) -> float:
        """The time, and always a later one, so that records can be sorted by it."""
        self.last_time = max(round(time.time(), 6), round(self.last_time + 1e-6, 6))
        return self.last_time


_process = _Process()


def _after_fork() -> None:
    # A thread that the child does not have may have held the lock.
    _process.lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def run_name() -> str:
    """The run that this process belongs to; a process that no launcher started is its own run."""
    return os.environ.get(RUN_VARIABLE) or _process.name


def append_record(folder: str | os.PathLike, record: Record) -> None:
    """Adds one record to this process's own file of the weight version; sets the record's time.

    No other process writes there: a line that a kill cut short stays the last of its file, and
    nobody who repairs it can cut a record of somebody else.
    """
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = quote(str(record.weight_version), safe="", errors="replace")
    path = folder / f"weights_{version[:100]}.{_process.name}.jsonl"
    with _process.lock, open(path, "a+b", buffering=0, opener=private) as file:
        record.time = record.time or _process.next_time()
        append_line(file, record.to_json())


def grading_metrics(records: Iterable[Record]) -> dict[str, float]:
    """Means over answers (scores by axis and theme) and over criteria, and token sums.

    `negative_hit`: share of negative criteria that count as met; `unreadable`: of verdicts;
    `grader_age`: by how many weight updates the policy that graded is newer than the one that
    answered, where both versions are known.
    """
    records = list(records)
    if not records:
        return {}
    parts: dict[str, list[float]] = defaultdict(list)
    negatives: list[bool] = []
    unreadable: list[bool] = []
    for record in records:
        if record.status == "ungraded":
            continue
        parts[f"theme/{record.theme or 'none'}"].append(record.score)
        if record.status != "graded":
            continue
        axes = score_by(lambda criterion: criterion.tag("axis"), record.rubric, record.verdicts)
        for axis, value in axes.items():
            parts[f"axis/{axis}"].append(value)
        for criterion, verdict in zip(record.rubric, record.verdicts, strict=True):
            unreadable.append(verdict.met is None)
            if criterion.points < 0:
                negatives.append(is_met(criterion, verdict))
    metrics = {}
    for name in sorted(parts):
        metrics[name] = _mean(parts[name])
    for status in STATUSES[1:]:
        metrics[status] = _mean([record.status == status for record in records])
    metrics["negative_hit"] = _mean(negatives)
    metrics["unreadable"] = _mean(unreadable)
    metrics["seconds_per_answer"] = _mean([record.seconds for record in records])
    ages = [age for record in records if (age := _grader_age(record)) is not None]
    if ages:
        metrics["grader_age"] = _mean(ages)
    return metrics | _token_metrics(records)


def version_number(version: str) -> int | None:
    """A weight version as a number; None for one that is none, such as "default"."""
    return int(version) if version.isdecimal() and len(version) < 20 else None


def _grader_age(record: Record) -> float | None:
    """How much newer the policy was when it graded; None where that is not known."""
    answered = version_number(record.weight_version)
    graded = [version_number(version) for version in record.grader_versions]
    if record.grader != "policy" or not graded or answered is None or None in graded:
        return None
    return _mean([number for number in graded if number is not None]) - answered


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _token_metrics(records: list[Record]) -> dict[str, float]:
    first, rest = TokenCounts(), TokenCounts()
    for record in records:
        first += record.first_tokens
        rest += record.rest_tokens
    total = first + rest
    return {
        "tokens_prefilled": total.prompt - total.cached,
        "tokens_cached": total.cached,
        "tokens_decoded": total.completion,
        "cached_share_after_first": rest.cached / rest.prompt if rest.prompt else 0.0,
    }
