"""RaR-Medicine and RaR-Science (Rubrics as Rewards, arXiv 2507.17746).

    {"question": "Why does ice float?", "reference_answer": "...", "question_source": "exam",
     "rubric": [{"title": "Density", "weight": 5,
                 "description": "Essential Criteria: States that ice is less dense."},
                {"title": "No myth", "weight": -1,
                 "description": "Pitfall Criteria: Avoids calling ice lighter than air."}],
     "rubric_list": ["..."], "rubric_count": 2}

Signs are mixed: a pitfall weighs -1 or -2 in both sets, but RaR-Science writes most of its own so
that 'met' is good ("avoids ..."), RaR-Medicine most so that 'met' is bad. The published sign
is kept here; --flip-polarity turns the items that are phrased as virtues, and without a decision
about them nothing is written. A pitfall above 0, and any other class below, is refused.
"""

import re

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import Reader

_FIELDS = ("title", "description", "weight")
_CLASS = re.compile(r"\s*(Essential|Important|Optional|Pitfall)\b", re.IGNORECASE)


def _fits(item: dict) -> bool:
    if "question" not in item:
        return False
    return {"description", "weight"} <= pieces.first_of(item.get("rubric")).keys()


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    messages = pieces.question(pieces.text(item, "question"))
    rubric = []
    for each in pieces.own_objects(item.get("rubric"), "rubric", _FIELDS):
        words = each.get("description")
        found = _CLASS.match(words) if isinstance(words, str) else None
        class_tags = [f"class:{found[1].lower()}"] if found else []
        if found:
            _check_sign(found[1].lower(), pieces.points(each.get("weight")))
        rubric.append(pieces.criterion(words, each.get("weight"), class_tags))
    source = pieces.named(source=item.get("question_source"))
    return pieces.row(item, messages, rubric, example_tags=source)


def _check_sign(of_class: str, weight: object) -> None:
    """Raises DataError for a pitfall above 0 and any other class below: nobody knows its sign."""
    if isinstance(weight, (int, float)) and weight and (weight < 0) is not (of_class == "pitfall"):
        what = f"a criterion is {of_class} and weighs {weight}, which contradicts that"
        raise DataError(f"{what}; {pieces.LEAVE_OUT}")


RAR = Reader(
    "rar",
    "question, rubric[description, weight]",
    _fits,
    read,
    "mixed: 'met' is good in most negative items of RaR-Science, bad in most of RaR-Medicine; "
    "--flip-polarity",
    "see its card",
    mixed_signs=True,
)
