"""Rows and records made for the tests of what reads them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Criterion, Record, TokenCounts, Verdict
from rubric_rl.grading.score import score

AXES = ("axis:accuracy", "axis:completeness")


def rubric(*points: float, tags: tuple = AXES) -> tuple[Criterion, ...]:
    """Criteria with these points; their axis alternates."""
    return tuple(
        Criterion(f"says {number} ({value:+g})", value, (tags[number % len(tags)],))
        for number, value in enumerate(points)
    )


def said(*mets: bool | None, explanation: str = "") -> list[Verdict]:
    """A grader's verdicts: met, not met, or None for unreadable."""
    return [Verdict(met, explanation=explanation) for met in mets]


def made(
    prompt_id: str,
    points: tuple,
    mets: tuple,
    answer: str | None = "a" * 2000,
    status: str = "graded",
    index: int = 0,
    weights: str = "w",
    theme: str = "t",
    explanation: str = "because",
    **more,
) -> Record:
    """The record of one answer as an evaluation stores it.

    `points` are those of a rubric, or its criteria; the verdicts `mets` count when it is graded.
    """
    criteria = points if isinstance(points[0], Criterion) else rubric(*points)
    verdicts, value = [], 0.0
    if status == "graded":
        verdicts = said(*mets, explanation=explanation)
        value = score(criteria, verdicts)
    elif status == "ungraded":
        value = math.nan
    fields = {
        "prompt_id": prompt_id,
        "rubric": criteria,
        "status": status,
        "answer": answer,
        "score": value,
        "verdicts": verdicts,
        "messages": ({"role": "user", "content": f"question of {prompt_id}"},),
        "theme": theme,
        "example_tags": (f"theme:{theme}",),
        "split": "eval",
        "index": index,
        "weight_version": weights,
        "first_tokens": TokenCounts(100, 0, 7),
        "rest_tokens": TokenCounts(200, 180, 14),
        "calls": 3,
        "seconds": 0.5,
    }
    return Record(**fields | more)


def write_run(folder: Path, records: Iterable[Record]) -> Path:
    """A folder such as evaluate's --out."""
    items = (record.to_json() for record in records)
    write_jsonl(folder / "verdicts" / "verdicts.jsonl", items)
    return folder


def raw_rows(path: Path, count: int = 3, points: tuple = (5, 3, -4)) -> Path:
    """A rubric file in HealthBench's raw schema."""
    rubrics = [criterion.to_json() for criterion in rubric(*points)]
    with path.open("w") as file:
        for number in range(count):
            row = {
                "prompt_id": f"p{number}",
                "prompt": [{"role": "user", "content": f"question {number}"}],
                "rubrics": rubrics,
                "example_tags": ["theme:t"],
            }
            file.write(json.dumps(row) + "\n")
    return path
