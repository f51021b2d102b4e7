"""HealthBench as published: its files, its known wrong signs, and how a raw row becomes a Row."""

from dataclasses import replace

from rubric_rl.common.errors import DataError
from rubric_rl.data.download import Published
from rubric_rl.data.parse import check_json, row_from_metadata
from rubric_rl.data.schema import Criterion, Row

URL = "https://openaipublic.blob.core.windows.net/simple-evals/healthbench"
HF_DATASET = "openai/healthbench"
FULL = Published(
    "2025-05-07-06-14-12_oss_eval.jsonl",
    60_258_154,
    "e99dd3c6372c10d6fcc5e385c5fae69d0dd40392dae56836ef9493ae324ecd2f",
)
HARD = Published(
    "hard_2025-05-08-21-00-10.jsonl",
    12_581_564,
    "b0320430e5cd974e746585594c1dd10b5a3fc2aff9c72b26106c2c4a069d74e9",
)
CONSENSUS = Published(
    "consensus_2025-05-09-20-00-46.jsonl",
    36_921_504,
    "fabe37553327238928b05357d8b309737b5d426d6dee432a3376da618d0969d6",
)
FULL_ROWS, HARD_ROWS, CONSENSUS_ROWS = 5000, 1000, 3671
# What scores are published of: name of the set, its file, its rows.
EVALUATION_SETS = (
    ("HealthBench", FULL, FULL_ROWS),
    ("HealthBench Hard", HARD, HARD_ROWS),
    ("HealthBench Consensus", CONSENSUS, CONSENSUS_ROWS),
)

# (prompt_id, published points, words of the criterion) where the sign contradicts the text:
# issue 77 of simple-evals.
WRONG_SIGNS = (
    ("a7014ba7-dff8-41f8-9f51-8c39be0cdfd4", 10, "any herbal teas"),
    ("287d7b73-d8d5-4727-a094-fd7d778fc019", -9, "seek emergency help immediately"),
)

# What a row keeps of a raw one, beside the prompt. The reference answers stay behind.
KEPT_FIELDS = ("prompt_id", "rubrics", "example_tags", "theme", "canary", "provenance")


def to_row(item: object, where: str) -> Row:
    """One raw row (prompt_id, prompt, rubrics, example_tags, canary) as a Row.

    Raises DataError when it cannot be scored.
    """
    if not isinstance(item, dict) or not isinstance(item.get("prompt_id"), str):
        hint = "is it a HealthBench row? other data needs --format or --converter"
        raise DataError(f"{where}: no prompt_id; {hint}")
    metadata = {"messages": item.get("prompt")}
    for key in KEPT_FIELDS:
        if key in item:
            metadata[key] = item[key]
    row = row_from_metadata(metadata, where)
    place = f"{where}, prompt_id {row.prompt_id}"
    check_json(metadata, place)
    return with_theme(row)


def with_theme(row: Row) -> Row:
    """The row with the theme that HealthBench writes as a tag of the example."""
    for tag in row.example_tags:
        if tag.startswith("theme:"):
            return replace(row, theme=tag.removeprefix("theme:"))
    return row


def fix_signs(row: Row) -> Row:
    """The row with the sign of its points flipped where WRONG_SIGNS names the criterion."""
    rubric = []
    for criterion in row.rubric:
        if _has_wrong_sign(criterion, row.prompt_id):
            criterion = criterion._replace(points=-criterion.points)
        rubric.append(criterion)
    return replace(row, rubric=tuple(rubric))


def _has_wrong_sign(criterion: Criterion, of_prompt: str) -> bool:
    for prompt_id, points, words in WRONG_SIGNS:
        known = prompt_id == of_prompt and points == criterion.points
        if known and words in criterion.text:
            return True
    return False


def consensus(row: Row) -> Row:
    """The row with only the criteria that physicians agreed on (`level:cluster`).

    The rubric may end up empty.
    """
    agreed = [criterion for criterion in row.rubric if criterion.tag("level") == "cluster"]
    return replace(row, rubric=tuple(agreed))
