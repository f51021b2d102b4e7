"""Verdict records on disk and what they add up to (stages 3 and 4)."""

import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from rubric_rl.schema import Criterion, append_line
from rubric_rl.score import is_met, score_by

ANSWER = ("split", "index", "weight_version", "prompt_id")  # what tells answers of a run apart
STATUSES = ("graded", "no_answer", "truncated", "ungraded")


def append_record(folder: str | os.PathLike, record: Mapping) -> None:
    """Adds one record to the folder's file of its weight version."""
    path = Path(folder) / f"weights_{quote(str(record['weight_version']), '', errors='replace')[:100]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        append_line(file, record)


def is_record(record) -> bool:
    """Whether rewards can be computed from it."""
    if not isinstance(record, dict) or not {*ANSWER, "score", "rubrics", "verdicts"} <= record.keys():
        return False
    if record.get("status") == "graded":
        return isinstance(record["score"], (int, float)) and len(record["rubrics"]) == len(record["verdicts"])
    return record.get("status") in STATUSES


def rubric_of(record: Mapping) -> tuple[Criterion, ...]:
    """The rubric that a record was graded by."""
    return tuple(Criterion(item["criterion"], item["points"], tuple(item["tags"])) for item in record["rubrics"])


def grading_metrics(records: Iterable[Mapping]) -> dict[str, float]:
    """Means over answers (scores by axis and theme) and criteria (negative criteria hit, unreadable), token sums."""
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
            for axis, value in score_by(lambda c: c.tag("axis"), rubric, record["verdicts"]).items():
                parts[f"axis/{axis}"].append(value)
            negatives += [is_met(c, v) for c, v in zip(rubric, record["verdicts"], strict=True) if c.points < 0]
            verdicts += record["verdicts"]
    metrics = {name: statistics.fmean(values) for name, values in sorted(parts.items())}
    metrics |= {status: sum(r["status"] == status for r in records) / len(records) for status in STATUSES[1:]}
    metrics["negative_hit"] = statistics.fmean(negatives) if negatives else 0.0
    metrics["unreadable"] = verdicts.count(None) / len(verdicts) if verdicts else 0.0
    metrics["seconds_per_answer"] = statistics.fmean(r["seconds"] for r in records)
    return metrics | _token_metrics(records)


def _token_metrics(records: list[Mapping]) -> dict[str, float]:
    total = {name: {key: sum(r[name][key] for r in records) for key in ("prompt", "cached", "completion")}
             for name in ("first_tokens", "rest_tokens")}  # fmt: skip
    prompt, cached, completion = (
        sum(part[key] for part in total.values()) for key in ("prompt", "cached", "completion")
    )
    rest = total["rest_tokens"]
    return {
        "tokens_prefilled": prompt - cached,
        "tokens_cached": cached,
        "tokens_decoded": completion,
        "cached_share_after_first": rest["cached"] / rest["prompt"] if rest["prompt"] else 0.0,
    }
