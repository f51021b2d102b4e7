"""The rubric rows of tinker-cookbook.

    {"convo": [{"role": "user", "content": "Name a prime."}],
     "rubric_items": [{"rubric_str": "Does it name a prime?",
                       "extraction_regex": "<score>(.*)</score>",
                       "grader_output_format_instruction": "Please output a score ..."}]}

Signs: each item counts 1 and 'met' is always good. There a grader writes a score for each item;
here it says whether the item is met, so an item that describes a scale is read as its best grade.
"""

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader
from rubric_rl.data.readers.signs import refuse_other_worth


def _fits(item: dict) -> bool:
    return "convo" in item and "rubric_str" in pieces.first_of(item.get("rubric_items"))


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    rubric = []
    items = pieces.objects(item.get("rubric_items"), "rubric_items")
    refuse_other_worth(items, "weight")
    for number, each in enumerate(items, 1):
        if each.get("weight") not in (None, 1):
            what = f"criterion {number} of rubric_items has a weight, and in this set each counts 1"
            raise DataError(f"{what}; bring such rows as plain ones")
        rubric.append(pieces.criterion(each.get("rubric_str"), 1))
    return pieces.row(item, pieces.chat(item.get("convo"), "convo"), rubric)


TINKER = Reader(
    "tinker", "convo, rubric_items[rubric_str]", _fits, read, POSITIVE, "that of its owner"
)
