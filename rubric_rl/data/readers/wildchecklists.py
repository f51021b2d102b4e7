"""WildChecklists (arXiv 2507.18624): a checklist as text, with the importance of each question.

    {"prompt": "Write a haiku about snow.", "chosen": [], "rejected": [],
     "requirements": "1) Is it a haiku? (importance: 100/100)\\n2) Is it cold? (importance: 60)"}

Signs: all importances are positive, a yes is always good. Those of 0 are left out; where none is
written, a question counts 100 as the surest ones do. One that is written in another way is refused.
"""

import re

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader
from rubric_rl.data.readers.rubric_text import (
    LINES_LEFT_OUT,
    check_no_points,
    criteria_of_field,
    cut_out,
)

MOST = 100
_IMPORTANCE = re.compile(r"\(importance:\s*(\d+(?:\.\d+)?)\s*(?:/\s*100)?\)", re.IGNORECASE)
_ANOTHER_WAY = re.compile(r"importance(\W{0,4}[:=]|(\W*score)?\W*\d)", re.IGNORECASE)
_AT_THE_END = re.compile(r"\d\s*%?\W?[)\]]\s*$|\d\s*/\s*100\W*$")  # "(70/100)", "[70]"


def _fits(item: dict) -> bool:
    checklist = item.get("requirements")
    return "prompt" in item and isinstance(checklist, str) and not pieces.is_json(checklist)


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    messages = pieces.chat(item.get("prompt"), "prompt")
    rubric = []
    criteria, left_out = criteria_of_field(item, "requirements")
    for number, words in enumerate(criteria, 1):
        written = _IMPORTANCE.findall(words)
        worth = written[0] if written else str(MOST)
        question = cut_out(_IMPORTANCE, words)
        is_unsure = len(written) > 1 or _ANOTHER_WAY.search(question)
        if is_unsure or float(worth) > MOST or (not written and _AT_THE_END.search(question)):
            what = f"criterion {number} of requirements has no (importance: N/{MOST})"
            raise DataError(f"{what}; {pieces.LEAVE_OUT}")
        check_no_points([question])
        rubric.append(pieces.criterion(question, worth))
    made = pieces.row(item, messages, rubric)
    made.note(LINES_LEFT_OUT, left_out)
    return made


WILDCHECKLISTS = Reader(
    "wildchecklists", "prompt, requirements", _fits, read, POSITIVE, "see its card"
)
