"""Rows and verdict records made for tests of the evaluation (stage 6)."""

import json
import math

from rubric_rl.data.schema import Criterion, Row
from rubric_rl.grading.grade import Grading, Tokens
from rubric_rl.grading.score import score
from rubric_rl.jsonl import json_line

AXES = ("axis:accuracy", "axis:completeness")


def rubric(*points: float, tags: tuple = AXES) -> tuple[Criterion, ...]:
    """Criteria with these points; their axis alternates."""
    return tuple(
        Criterion(f"says {number} ({value:+g})", value, (tags[number % len(tags)],))
        for number, value in enumerate(points)
    )


def made(
    prompt_id: str,
    points,
    verdicts,
    answer="a" * 2000,
    status="graded",
    index=0,
    weights="w",
    theme="t",
    explanation="because",
    **more,
):
    """The record of one answer as an evaluation stores it."""
    verdicts = list(verdicts) if status == "graded" else []
    items = points if isinstance(points[0], Criterion) else rubric(*points)
    row = Row(prompt_id, (), items, theme, (f"theme:{theme}",))
    value = score(items, verdicts) if verdicts else math.nan if status == "ungraded" else 0.0
    grading = Grading(
        row,
        status,
        answer,
        value,
        verdicts,
        [None] * len(verdicts),
        [explanation] * len(verdicts),
        Tokens(100, 0, 7),
        Tokens(200, 180, 14),
        3,
        0.5,
    )
    messages = [{"role": "user", "content": f"question of {prompt_id}"}]
    return (
        grading.record()
        | {
            "split": "eval",
            "index": index,
            "weight_version": weights,
            "messages": messages,
            "policy_tokens": None,
        }
        | more
    )


def write_run(folder, records):
    """A folder such as evaluate's --out."""
    path = folder / "verdicts" / "verdicts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(json_line(record) for record in records))
    return folder


def raw_rows(path, count=3, points=(5, 3, -4)):
    """A rubric file in HealthBench's raw schema."""
    items = [
        {"criterion": c.text, "points": c.points, "tags": list(c.tags)} for c in rubric(*points)
    ]
    rows = [
        {
            "prompt_id": f"p{i}",
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "rubrics": items,
            "example_tags": ["theme:t"],
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
