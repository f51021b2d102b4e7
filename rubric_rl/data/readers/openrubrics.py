"""OpenRubrics: the rubric is a text, one criterion a line.

    {"instruction": "Suggest two tools.", "response_a": "...", "response_b": "...", "winner": "a",
     "rubric": "1. The response names exactly two tools. [Hard Rule]\\n2. It is clear. [Principle]"}

Signs: no points are published, each criterion counts 1 and 'met' is always good. Hard rules and
principles become tags.
"""

import re

from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader
from rubric_rl.data.readers.rubric_text import (
    LINES_LEFT_OUT,
    check_no_points,
    criteria_of_field,
    cut_out,
)

_KIND = re.compile(r"\[(Hard Rule|Principle)\]", re.IGNORECASE)


def _fits(item: dict) -> bool:
    rubric = item.get("rubric")
    is_text = isinstance(rubric, str) and not pieces.is_json(rubric)
    return is_text and isinstance(item.get("instruction"), str)


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    messages = pieces.question(pieces.text(item, "instruction"))
    rubric = []
    criteria, left_out = criteria_of_field(item, "rubric")
    check_no_points(criteria)
    for words in criteria:
        kind = _KIND.search(words)
        labels = [f"kind:{kind[1].lower().replace(' ', '_')}"] if kind else []
        rubric.append(pieces.criterion(cut_out(_KIND, words), 1, labels))
    made = pieces.row(item, messages, rubric)
    made.note(LINES_LEFT_OUT, left_out)
    return made


OPENRUBRICS = Reader("openrubrics", "instruction, rubric", _fits, read, POSITIVE, "undeclared")
