"""A rubric that is written as text, as its criteria."""

import re

from rubric_rl.data.readers import pieces

# "1. ", "2) ", "(3) ", "- ", "* ", "[ ] " at the start of a line, and a number amid one.
_MARK = re.compile(r"(\s*)(?:\(?(\d{1,3})[.)]|[-*\u2022]|\[ ?\])\s+(?=\S)")
_AMID = re.compile(r"(?:^|(?<=\s))\(?(\d{1,3})[.)]\s+(?=\S)")
_HEADING = re.compile(r"\s*#+ |.*:\s*$")


def criteria_of_field(item: dict, field: str) -> list[str]:
    """The criteria of a text, or of the list that it is in JSON. Raises DataError for others."""
    words = pieces.text(item, field)
    return pieces.texts(words, field) if pieces.is_json(words) else criteria_of_text(words)


def criteria_of_text(rubric: str) -> list[str]:
    """The criteria of a rubric: its list items, else its lines.

    A line without a mark goes on with the item before it, as do items that stand further in than
    the first one; a heading is none. A list within one line is split at 1., 2., 3. ...
    """
    lines = [line for line in rubric.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = _numbered_parts(lines[0])
    marks = [_MARK.match(line) for line in lines]
    indents = [len(mark[1].expandtabs()) for mark in marks if mark]
    if not indents:
        return [line.strip() for line in lines if not _HEADING.match(line)]
    found: list[str] = []
    for line, mark in zip(lines, marks, strict=True):
        if mark and len(mark[1].expandtabs()) <= indents[0]:
            found.append(line[mark.end() :].strip())
        elif found and not (_HEADING.match(line) and not mark):
            found[-1] += "\n" + line.strip()
    return found


def _numbered_parts(line: str) -> list[str]:
    """The parts of a line that begin with 1., 2., 3. and so on; the whole line without them."""
    starts = []
    for number in _AMID.finditer(line):
        if int(number[1]) == len(starts) + 1:
            starts.append(number.start())
    if len(starts) < 2:
        return [line]
    ends = [*starts[1:], len(line)]
    return [line[start:end] for start, end in zip(starts, ends, strict=True)]
