"""A rubric that is written as text, as its criteria."""

import re
from collections.abc import Iterable
from itertools import pairwise

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.readers import pieces

_AS_OBJECTS = "write each as an object of criterion and points"
LINES_LEFT_OUT = "lines of rubric texts left out, as headings or as what stands before a list"
# "1. ", "2) ", "(3) ", "- ", "* ", "[ ] ", "[x] " at the start of a line, and a number amid one.
_MARK = re.compile(
    r"(\s*)(\(?(?:\d{1,3})[.)]|[-*\u2013\u2014\u2022]|\[[ xX]?\])\s+(?=\S)(?![-*\s]+$)"
)
_AMID = re.compile(r"(?:^|(?<=\s))\(?(\d{1,3})[.)]\s+(?=\S)")
_NO_KIND = re.compile(r"[\dxX ]")  # of a mark: "1." and "2." are of one kind
# A line of rules, "# ...", "```json", "<rubric>", or "...:", which may be bold; amid a list also a
# bold line alone.
_HEADING = re.compile(r"\s*#+ |.*:[\s*_]*$|\s*(?:[-*_=]\s*){3,}$|\s*(?:```\w*|</?[A-Za-z]\w*>)\s*$")
# What writes a missing text.
_NO_TEXT = ("none", "null", "nan", "n/a", "na", "nil", "undefined")
_BOLD = re.compile(r"(\*\*|__)[^*]+\1\s*$")
# What a text would say of points, of which it has none: "(-5 points)", "[+5] ...", "..., 5 pts",
# "[weight=-3]"; but not "3-5 points" or "at least (or >=) 5 points".
_NUMBER = r"[-+\u2212]?\d+(?:\.\d+)?"
_SIGNED = r"[-+\u2212]\d+(?:\.\d+)?"
_UNIT = r" ?(?:points?|pts?)"
_WEIGHED = rf"(?:weight|importance|points?|pts)\s*[:= ]\s*{_NUMBER}(?:\s*/\s*\d+)?"
_MARKED = rf"[(\[](?:{_SIGNED}|{_WEIGHED})[)\]]"
_POINTS_FIRST = re.compile(
    rf"\W{{0,3}}(?:{_MARKED}|{_SIGNED} ?:|{_NUMBER}{_UNIT} ?[^\w\s,'\u2019\"])", re.IGNORECASE
)
_BEFORE = r"(?:[(\[*:;,|]|\s[-\u2013\u2014]) ?"
_POINTS_LAST = re.compile(
    rf"(?:{_MARKED}|{_BEFORE}{_NUMBER}{_UNIT}|\s{_SIGNED}{_UNIT})\W{{0,3}}$", re.IGNORECASE
)
_LONGEST_END = 40  # characters
_DIGIT = re.compile(r"\d")
# What a heading says of criteria that no answer should meet: "Pitfalls", "Avoid:", "Must not do".
_NEGATIVE = re.compile(
    r"\b(?:negatives?|pitfalls?|penalt(?:y|ies)|penali[sz]\w+|deduct\w*|to avoid)\b"
    r"|^\W*avoid(?:ing)?\b|\b(?:must|should|do)[ -]?n(?:o|['\u2019]?)ts?(?: \w+)?\W*$",
    re.IGNORECASE,
)
_LONGEST_TITLE = 3  # words of a line that is a heading without the marks of one
_TABLE = re.compile(r"^[ \t]*(?:\|[ \t]*)?:?-{3,}:?[ \t]*\|", re.MULTILINE)


def criteria_of_field(item: dict, field: str) -> tuple[list[str], int]:
    """The criteria of a text, or of the list that it is in JSON, and how many lines are none.

    Raises DataError for others. Points within them are for the set to read or to refuse.
    """
    words = pieces.text(item, field)
    return (pieces.texts(words, field), 0) if pieces.is_json(words) else _of_text(words)


def cut_out(mark: re.Pattern, words: str) -> str:
    """The text without the marks in it, and one blank in their place."""
    parts = []
    start = 0
    for found in mark.finditer(words):
        parts.append(words[start : found.start()].strip())
        start = found.end()
    parts.append(words[start:].strip())
    return " ".join(filter(None, parts))


def check_no_points(criteria: Iterable[object]) -> None:
    """Raises DataError where the text of a criterion holds its points, which would be lost."""
    for words in criteria:
        said = _points_said(words) if isinstance(words, str) else None
        if said:
            what = f"a criterion that is a text says its points, {said[0].strip():.20}"
            raise DataError(f"{what}; {_AS_OBJECTS}")


def _points_said(words: str) -> re.Match | None:
    if first := _POINTS_FIRST.match(words):
        return first
    end = max(0, len(words) - _LONGEST_END)
    return _POINTS_LAST.search(words, end) if _DIGIT.search(words, end) else None


def is_whole_list(words: str) -> bool:
    """Whether a text is a list of its own: it begins with the mark of an item, and has others."""
    return bool(_MARK.match(words)) and len(_criteria_and_others(words)[0]) > 1


def criteria_of_text(rubric: str) -> tuple[list[str], int]:
    """The criteria of a rubric: its list items, else its lines; and how many lines are none.

    A line without a mark goes on with the item before it, as do items that stand further in than
    the first one, and those of another kind after an item that ends in a colon. A heading is none.
    A list within one line is split at 1., 2., 3. ... Raises DataError for what has points or says
    that 'met' is bad, in a table, in the criteria or in a heading: it would be lost.
    """
    found, others = _of_text(rubric)
    check_no_points(found)
    return found, others


def _of_text(rubric: str) -> tuple[list[str], int]:
    if rubric.strip(" \t\r\n.\"'").lower() in _NO_TEXT:
        raise DataError(f"the rubric says {one_line(rubric)!r}; {pieces.LEAVE_OUT}")
    if _TABLE.search(rubric):
        raise DataError(f"the rubric is a table, which would lose its points; {_AS_OBJECTS}")
    found, others = _criteria_and_others(rubric)
    for words in others:
        if _is_title(words) and _NEGATIVE.search(words):
            what = f"{one_line(words, 40)!r} stands above criteria, which would lose that"
            raise DataError(f"{what}; {_AS_OBJECTS}")
    return found, len(others)


def _is_title(line: str) -> bool:
    is_marked = _HEADING.match(line) or _BOLD.match(line)
    return bool(is_marked) or len(line.split()) <= _LONGEST_TITLE


def _criteria_and_others(rubric: str) -> tuple[list[str], list[str]]:
    lines = rubric.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    written = [line for line in lines if line.strip()]
    if len(written) == 1:
        lines = _numbered_parts(written[0])
    marks = [_MARK.match(line) for line in lines]
    if not any(marks):
        others = [line for line in written if _HEADING.match(line)]
        return [line.strip() for line in written if not _HEADING.match(line)], others
    return _items(lines, marks)


def _items(lines: list[str], marks: list[re.Match | None]) -> tuple[list[str], list[str]]:
    level = _level(lines, marks)
    found: list[str] = []
    others: list[str] = []
    kind = None  # of an item that ends in a colon: those of other kinds are part of it
    for number, (line, mark) in enumerate(zip(lines, marks, strict=True)):
        words = line.strip()
        if mark and _depth(mark) <= level and (kind is None or kind == _kind(mark)):
            found.append(line[mark.end() :].strip())
            kind = _kind(mark) if _introduces(words) else None
        elif mark or (found and words and not _is_heading(lines, number)):
            found[-1] += "\n" + words
        elif words:
            others.append(line)
            kind = None
    return found, others


def _level(lines: list[str], marks: list[re.Match | None]) -> int:
    """How far in the items of the outermost list stand.

    The first item tells, unless it lost its own indent when the text was stripped: it is then the
    first line, and all others stand further in, the next of the same list.
    """
    first, *others = filter(None, marks)
    if not others or first is not marks[0] or _introduces(lines[0]):
        return _depth(first)
    least = min(map(_depth, others))
    following = _kind(first) == _kind(others[0]) and _digits(others[0]) in ("", _next(first))
    return least if following and least > _depth(first) else _depth(first)


def _introduces(line: str) -> bool:
    return line.rstrip(" \t*_").endswith(":")


def _depth(mark: re.Match) -> int:
    return len(mark[1].expandtabs())


def _kind(mark: re.Match) -> str:
    return _NO_KIND.sub("", mark[2])


def _digits(mark: re.Match) -> str:
    return mark[2].strip("(.)-*\u2013\u2014\u2022[] xX")


def _next(mark: re.Match) -> str:
    digits = _digits(mark)
    return str(int(digits) + 1) if digits else ""


def _is_heading(lines: list[str], number: int) -> bool:
    """Whether a line without a mark, amid a list, belongs to no item."""
    line = lines[number].rstrip()
    if _HEADING.match(line) or _BOLD.match(line):
        return True
    is_alone = not lines[number - 1].strip()  # a word, or A Title, below a blank line
    is_title = " " not in line.strip() or line.istitle()
    return is_alone and is_title and line.replace(" ", "").isalpha()


def _numbered_parts(line: str) -> list[str]:
    """The parts of a line at 1., 2., 3. and so on; the whole line without them."""
    starts = []
    for number in _AMID.finditer(line):
        if int(number[1]) == len(starts) + 1:
            starts.append(number.start())
    if len(starts) < 2:
        return [line]
    places = [0, *starts, len(line)]
    return [line[start:end] for start, end in pairwise(places)]
