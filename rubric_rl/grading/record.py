"""Records on disk, one line per answer, and what they add up to."""

import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from rubric_rl.data.schema import STATUSES, Record, TokenCounts
from rubric_rl.grading.score import is_met, score_by
from rubric_rl.jsonl import append_line


def append_record(folder: str | os.PathLike, record: Record) -> None:
    """Adds one record to the folder's file of its weight version."""
    version = quote(str(record.weight_version), safe="", errors="replace")
    path = Path(folder) / f"weights_{version[:100]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        append_line(file, record.to_json())


def grading_metrics(records: Iterable[Record]) -> dict[str, float]:
    """Means over answers (scores by axis and theme) and over criteria, and token sums.

    `negative_hit`: share of negative criteria that count as met; `unreadable`: of verdicts.
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
    return metrics | _token_metrics(records)


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
