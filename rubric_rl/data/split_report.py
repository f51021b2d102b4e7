"""What a split wrote and what it left out, in a few lines of text."""

import re
import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from rubric_rl.common.in_processes import in_order, in_pieces
from rubric_rl.data.readers.reader import POSITIVE
from rubric_rl.data.schema import Row
from rubric_rl.data.split import Split
from rubric_rl.data.stored_rows import PIECE, StoredRows, unpack

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
        lines += _describe(name, rows, result)
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


@dataclass
class _Figures:
    """What the report says of the rows of one file."""

    characters: array = field(default_factory=lambda: array("Q"))  # of each prompt
    criteria: int = 0
    negative: int = 0
    themes: Counter[str] = field(default_factory=Counter)
    axes: Counter[str] = field(default_factory=Counter)

    def add_all(self, others: "_Figures") -> None:
        """Adds the figures of later rows."""
        self.characters += others.characters
        self.criteria += others.criteria
        self.negative += others.negative
        self.themes.update(others.themes)
        self.axes.update(others.axes)


def _describe(name: str, rows: StoredRows, result: Split) -> list[str]:
    """Counts, prompt lengths, themes and axes of the rows of one file."""
    tokens = result.tokens
    reader = result.reader
    figures = _Figures()
    for of_piece in in_order(_figures, in_pieces(rows.packed(), PIECE)):
        figures.add_all(of_piece)
    lengths = figures.characters
    if tokens:
        lengths = array("Q", [tokens[prompt_id] for prompt_id in rows.prompt_ids])
    share = figures.negative / (figures.criteria or 1)
    counts = f"{len(rows)} prompts, {figures.criteria} criteria"
    negative = f"{share:.1%} negative"
    if figures.negative and reader is not None and reader.signs == POSITIVE:
        negative += f" ({figures.negative}, in a set whose points are all positive)"
    return [
        f"{name}: {counts}, {negative}",
        f"  {_describe_lengths(lengths, bool(tokens))}",
        "  themes: " + _counted(figures.themes),
        "  axes: " + _counted(figures.axes),
    ]


def _figures(packed_rows: Iterable[bytes]) -> _Figures:
    found = _Figures()
    for row in map(unpack, packed_rows):
        found.themes[row.theme or "none"] += 1
        found.characters.append(_count_characters(row))
        found.criteria += len(row.rubric)
        found.negative += sum(criterion.points < 0 for criterion in row.rubric)
        found.axes.update(criterion.tag("axis") or "none" for criterion in row.rubric)
    return found


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
