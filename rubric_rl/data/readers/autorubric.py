"""Data sets of autorubric: one JSON object whose items share its prompt and rubric, or bring own.

    {"name": "wounds", "prompt": "How do I clean a wound?",
     "rubric": [{"name": "Water", "weight": 10.0, "requirement": "Names clean water"},
                {"name": "Alcohol", "weight": -15.0, "requirement": "Advises alcohol"}],
     "items": [{"submission": "...", "description": "...", "ground_truth": ["MET", "UNMET"]}]}

Signs: a requirement of negative weight is a fault, so 'met' is bad there. A criterion with options
(multiple choice) is not one that is met or not: such a row is refused.
"""

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader
from rubric_rl.data.readers.signs import refuse_other_worth


def _criteria(rubric: object) -> object:
    return rubric.get("criteria", rubric) if isinstance(rubric, dict) else rubric


def _fits(item: dict) -> bool:
    return "prompt" in item and "requirement" in pieces.first_of(item.get("rubric"), "criteria")


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    given = _criteria(pieces.decoded(item.get("rubric"), "rubric"))
    rubric = []
    criteria = pieces.objects(given, "rubric")
    refuse_other_worth(criteria, "weight")
    for number, each in enumerate(criteria, 1):
        if each.get("options"):
            what = f"criterion {number} of rubric is multiple choice, which has no met or unmet"
            raise DataError(f"{what}; {pieces.LEAVE_OUT}")
        worth = 1 if each.get("weight") is None else each["weight"]  # Parquet writes null
        rubric.append(pieces.criterion(each.get("requirement"), worth))
    return pieces.row(item, pieces.chat(item.get("prompt"), "prompt"), rubric)


AUTORUBRIC = Reader(
    "autorubric", "prompt, rubric[requirement]", _fits, read, AS_POINTS, "that of its owner"
)
