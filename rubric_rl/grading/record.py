"""Verdict records on disk and what they add up to (stages 3 and 4)."""

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from rubric_rl.data.schema import Criterion
from rubric_rl.grading.score import is_met, score_by
from rubric_rl.jsonl import append_line

ANSWER_KEY = (
    "split",
    "index",
    "weight_version",
    "prompt_id",
)  # what identifies an answer within a run
STATUSES = ("graded", "no_answer", "truncated", "ungraded")


def append_record(folder: str | os.PathLike, record: Mapping) -> None:
    """Adds one record to the folder's file of its weight version."""
    path = (
        Path(folder)
        / f"weights_{quote(str(record['weight_version']), '', errors='replace')[:100]}.jsonl"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        append_line(file, record)


def is_record(record) -> bool:
    """Whether it is a verdict record, from which rewards can be recomputed."""
    if (
        not isinstance(record, dict)
        or not {*ANSWER_KEY, "score", "rubrics", "verdicts"} <= record.keys()
    ):
        return False
    if record.get("status") == "graded":
        return isinstance(record["score"], (int, float)) and len(record["rubrics"]) == len(
            record["verdicts"]
        )
    return record.get("status") in STATUSES


def rubric_of(record: Mapping) -> tuple[Criterion, ...]:
    """The rubric that a record was graded by."""
    return tuple(
        Criterion(item["criterion"], item["points"], tuple(item["tags"]))
        for item in record["rubrics"]
    )


def grading_metrics(records: Iterable[Mapping]) -> dict[str, float]:
    """Means over answers (scores by axis and theme) and over criteria (negative ones met, unreadable), token sums."""
    records = list(records)
    if not records:
        return {}
    parts, negatives, verdicts = defaultdict(list), [], []
    for record in records:
        if record["status"] == "ungraded":
            continue
        parts[f"theme/{record['theme'] or 'none'}"].append(record["score"])
        if record["status"] == "graded":
            rubric = rubric_of(record)
            for axis, value in score_by(
                lambda c: c.tag("axis"), rubric, record["verdicts"]
            ).items():
                parts[f"axis/{axis}"].append(value)
            negatives += [
                is_met(c, v)
                for c, v in zip(rubric, record["verdicts"], strict=True)
                if c.points < 0
            ]
            verdicts += record["verdicts"]
    metrics = {name: statistics.fmean(values) for name, values in sorted(parts.items())}
    metrics |= {
        status: sum(r["status"] == status for r in records) / len(records)
        for status in STATUSES[1:]
    }
    metrics["negative_hit"] = statistics.fmean(negatives) if negatives else 0.0
    metrics["unreadable"] = verdicts.count(None) / len(verdicts) if verdicts else 0.0
    metrics["seconds_per_answer"] = statistics.fmean(r["seconds"] for r in records)
    return metrics | _token_metrics(records)


def _token_metrics(records: list[Mapping]) -> dict[str, float]:
    first, rest = Counter(), Counter()
    for record in records:
        first.update(record["first_tokens"])
        rest.update(record["rest_tokens"])
    total = first + rest
    return {
        "tokens_prefilled": total["prompt"] - total["cached"],
        "tokens_cached": total["cached"],
        "tokens_decoded": total["completion"],
        "cached_share_after_first": rest["cached"] / rest["prompt"] if rest["prompt"] else 0.0,
    }
