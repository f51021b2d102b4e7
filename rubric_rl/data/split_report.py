"""What a split wrote and what it left out, in a few lines of text."""

import re
import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence

from rubric_rl.data.schema import Row
from rubric_rl.data.split import Split

LISTED = 40  # themes and axes
NAMED = 10  # refused rows that the report names, of each reason
# Where a refused row stands, "file:line" or "file:line, prompt_id ...": a path may hold ": " too.
_PLACE = re.compile(r"^(.*?:\d+(?:, prompt_id .*?)?): ", re.DOTALL)


def report(result: Split) -> str:
    """What was written and what was not, in a few lines; the same text for the same input.

    Prompt lengths are in tokens where they were counted, else in characters.
    """
    lines = []
    if result.subset:
        released = "the 4,000 and 1,000 prompts of the release"
        lines.append(f"a subset, as --allow-subset permits: not {released}")
    lines += _describe_set(result)
    lines += _describe_refused(result.refused)
    for rule, number in result.left_out.items():
        if number:
            lines.append(f"left out {number} {rule}")
    for change, number in result.noted.items():
        lines.append(f"{number} {change}")
    parts = {
        "training": result.easy,
        "evaluation": result.hard,
        "evaluation sample": result.hard_sample,
    }
    for name, rows in parts.items():
        lines += _describe(name, rows, result.tokens)
    return "\n".join(lines) + "\n"


def _describe_set(result: Split) -> list[str]:
    """Which set the rows are of, what its signs mean, its licence and its canary."""
    reader = result.reader
    if reader is None:
        return []
    how = f"recognised by its fields: {reader.fields}" if result.recognised else "--format"
    lines = [
        f"set: {reader.name} ({how})",
        f"  signs: {reader.signs}",
        f"  licence: {reader.licence}",
    ]
    for canary in sorted(result.canaries):
        lines.append(f"  canary: {canary}")
    return lines


def _describe_refused(refused: list[str]) -> list[str]:
    """Each reason with the places of its rows, the most frequent first, then by the alphabet."""
    by_reason = defaultdict(list)
    for refusal in refused:
        _, place, complaint = _PLACE.split(refusal, maxsplit=1)
        by_reason[_reason(complaint)].append(place)

    def rank(reason: str) -> tuple[int, str]:
        return -len(by_reason[reason]), reason

    reasons = sorted(by_reason, key=rank)
    lines = []
    for reason in reasons:
        places = by_reason[reason]
        number = len(places)
        lines.append(f"refused {number} rows: {reason}")
        for place in places[:NAMED]:
            lines.append(f"  {place}")
        unnamed = number - NAMED
        if unnamed > 0:
            lines.append(f"  and {unnamed} more")
    return lines


def _reason(complaint: str) -> str:
    """The general part of a refusal: without value and next step."""
    for begins_detail in (";", ", not", " ("):
        complaint, _, _ = complaint.partition(begins_detail)
    return complaint


def _describe(name: str, rows: Sequence[Row], tokens: dict[str, int]) -> list[str]:
    """Counts, prompt lengths, themes and axes of the rows of one file."""
    prompts = len(rows)
    criteria = negative = 0
    themes: Counter[str] = Counter()
    axes: Counter[str] = Counter()
    lengths = array("Q")
    for row in rows:
        themes[row.theme or "none"] += 1
        lengths.append(tokens[row.prompt_id] if tokens else _count_characters(row))
        for criterion in row.rubric:
            criteria += 1
            axis = criterion.tag("axis")
            axes[axis or "none"] += 1
            if criterion.points < 0:
                negative += 1
    share = negative / (criteria or 1)
    counts = f"{prompts} prompts, {criteria} criteria"
    return [
        f"{name}: {counts}, {share:.1%} negative",
        f"  {_describe_lengths(lengths, bool(tokens))}",
        "  themes: " + _counted(themes),
        "  axes: " + _counted(axes),
    ]


def _describe_lengths(lengths: array, in_tokens: bool) -> str:
    if not lengths:
        return "empty"
    unit = "tokens" if in_tokens else "characters (tokens: --tokenizer FOLDER)"
    median = statistics.median(lengths)
    longest = max(lengths)
    total = sum(lengths)
    return f"prompt: median {median:g}, longest {longest}, in all {total} {unit}"


def _count_characters(row: Row) -> int:
    texts = [message["content"] for message in row.messages]
    return sum(map(len, texts))


def _counted(counts: Counter[str]) -> str:
    """Each value with its count, the most frequent first; equal counts in alphabetical order."""
    in_order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{value} {number}" for value, number in in_order[:LISTED]) + (
        f" and {len(in_order) - LISTED} more" if len(in_order) > LISTED else ""
    )
