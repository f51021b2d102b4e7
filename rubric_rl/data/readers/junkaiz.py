"""JunkaiZ/Rubrics (arXiv 2509.21500); its configurations are health and generalist.

    {"prompt": "Can I take two pills?", "number_of_criteria": 2, "total_weight": 4,
     "rubrics": [{"criterion": "Asks which pills", "weight": 3},
                 {"criterion": "Is short", "weight": 1}]}

Signs: weights are 1 to 3, 'met' is always good.
"""

from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader

_FIELDS = {"criterion", "weight"}


def _fits(item: dict) -> bool:
    is_asked = isinstance(item.get("prompt"), str)
    return is_asked and pieces.first_of(item.get("rubrics")).keys() == _FIELDS


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    messages = pieces.question(pieces.text(item, "prompt"))
    rubric = []
    for each in pieces.own_objects(item.get("rubrics"), "rubrics", _FIELDS):
        rubric.append(pieces.criterion(each.get("criterion"), each.get("weight")))
    return pieces.row(item, messages, rubric, theme=pieces.label(item.get("domain")))


JUNKAIZ = Reader("junkaiz", "prompt, rubrics[criterion, weight]", _fits, read, POSITIVE, "MIT")
