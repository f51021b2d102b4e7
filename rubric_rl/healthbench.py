"""HealthBench's raw rows, checked and split into training and evaluation prompts (stage 1, prompt)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rubric_rl.schema import DataError, Row, read_jsonl, row_from_metadata

FULL, HARD = 5000, 1000  # prompts of the complete set, and of its hard part


@dataclass
class Split:
    """Training (`easy`) and evaluation (`hard`) rows, and what was refused on the way: reason -> number."""

    easy: list[Row] = field(default_factory=list)
    hard: list[Row] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def report(self) -> str:
        """A few lines: rows, criteria, share of negative ones, themes and axes."""
        lines = [f"refused  {len(self.refused)} rows"] if self.refused else []
        for name, rows in (("easy", self.easy), ("hard", self.hard)):
            criteria = [criterion for row in rows for criterion in row.rubric]
            negative = sum(criterion.points < 0 for criterion in criteria) / max(len(criteria), 1)
            lines.append(f"{name}  {len(rows)} prompts, {len(criteria)} criteria, {negative:.0%} negative")
            lines.append(f"      themes: {_counts(row.theme for row in rows)}")
            lines.append(f"      axes: {_counts(criterion.tag('axis') for criterion in criteria)}")
        return "\n".join(lines)


def split(source: str | Path, hard: str | Path, allow_subset: bool = False) -> Split:
    """Reads raw rows and puts those whose prompt_id stands in the file `hard` there, all others into `easy`.

    A row that cannot be scored is refused and named. Of rows with one prompt_id the first counts.

    Raises:
        DataError: broken JSON, a hard id that the source lacks, or (without `allow_subset`) other counts than 5,000 and 1,000.
    """
    result, seen = Split(), set()
    hard_ids = {_prompt_id(item, f"{hard}:{number}") for number, item in read_jsonl(hard)}
    for number, item in read_jsonl(source):
        where = f"{source}:{number}"
        prompt_id = _prompt_id(item, where)
        if prompt_id in seen:
            result.refused.append(f"{where}, prompt_id {prompt_id}: stands above already")
            continue
        seen.add(prompt_id)
        try:
            row = to_row(item, where)
        except DataError as error:
            result.refused.append(str(error))
            continue
        (result.hard if prompt_id in hard_ids else result.easy).append(row)
    _check(result, seen, hard_ids, source, hard, allow_subset)
    return result


def to_row(item: dict, where: str) -> Row:
    """One raw row (prompt_id, prompt, rubrics, example_tags, canary) as a Row; raises DataError when it cannot be scored."""
    kept = {key: item[key] for key in ("prompt_id", "rubrics", "example_tags", "canary") if key in item}
    row = row_from_metadata(kept | {"messages": item.get("prompt")}, where)
    theme = next((tag.removeprefix("theme:") for tag in row.example_tags if tag.startswith("theme:")), "")
    return replace(row, theme=theme)


def _prompt_id(item, where: str) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("prompt_id"), str):
        raise DataError(f"{where}: not a HealthBench row with a prompt_id; check that the file is the right one")
    return item["prompt_id"]


def _check(result: Split, seen: set, hard_ids: set, source, hard, allow_subset: bool) -> None:
    if missing := hard_ids - seen:
        raise DataError(f"{source}: lacks {len(missing)} prompts of {hard}, e.g. {min(missing)}; take both files of one release")
    counts = (len(seen), len(hard_ids))
    if counts != (FULL, HARD) and not allow_subset:
        raise DataError(f"{source}: {counts[0]} prompts, {counts[1]} of them hard, not {FULL} and {HARD}; add --allow-subset if you mean it")
    if not result.easy or not result.hard:
        raise DataError(f"{source}: nothing is left for {'training' if not result.easy else 'evaluation'}")


def _counts(values: Iterable[str]) -> str:
    return ", ".join(f"{value or 'none'} {count}" for value, count in Counter(values).most_common())
