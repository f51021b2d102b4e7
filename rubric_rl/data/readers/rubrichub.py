"""RubricHub: the set for reinforcement learning, and what its synthesis writes.

    {"data_source": "medical", "ability": "medical_chat",
     "prompt": [{"role": "user", "content": "Is 38 degrees a fever?"}],
     "reward_model": {"style": "rubric", "ground_truth": "",
       "rubrics": [{"criterion": "Says yes", "points": 7,
                    "tags": {"function": "none", "parameters": null, "verifier": "llm"}}]}}

    {"question": "Is 38 degrees a fever?", "id": 17,
     "rubrics": [{"criterion": "Says yes", "points": 7}, {"criterion": "Greets", "points": 0}]}

Signs: points are positive, 'met' is always good. The synthesis writes criteria of 0 points too,
which are left out. A criterion that a program should verify is asked of the grader like others.
"""

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader
from rubric_rl.data.readers.signs import refuse_negative_lists, refuse_other_worth

_FIELDS = ("criterion", "points", "tags")  # of what the synthesis writes


def _fits(item: dict) -> bool:
    return "prompt" in item and pieces.holds(item.get("reward_model"), "rubrics")


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    model = pieces.decoded(item.get("reward_model"), "reward_model")
    if not isinstance(model, dict):
        raise DataError(f"reward_model is no object; {pieces.LEAVE_OUT}")
    refuse_negative_lists(model)
    return pieces.row(
        item,
        pieces.chat(item.get("prompt"), "prompt"),
        _rubric(model.get("rubrics")),
        theme=pieces.label(item.get("data_source")),
        example_tags=pieces.named(ability=item.get("ability")),
    )


def _rubric(given: object) -> list[dict]:
    rubric = []
    criteria = pieces.objects(given, "rubrics")
    refuse_other_worth(criteria, "points")
    for each in criteria:
        found = pieces.criterion(each.get("criterion"), each.get("points"), each.get("tags"))
        rubric.append(found)
    return rubric


RUBRICHUB = Reader(
    "rubrichub", "prompt, reward_model[rubrics]", _fits, read, POSITIVE, "Apache-2.0"
)


def _fits_synthesis(item: dict) -> bool:
    if "question" not in item:
        return False
    first = pieces.first_of(item.get("rubrics"))
    return {"criterion", "points"} <= first.keys() and not pieces.other_fields(first, _FIELDS)


def read_synthesis(item: dict) -> dict:
    """The raw row of an item that the synthesis wrote. Raises DataError for one of another form."""
    messages = pieces.question(pieces.text(item, "question"))
    rubric = pieces.own_objects(item.get("rubrics"), "rubrics", _FIELDS)
    return pieces.row(item, messages, _rubric(rubric))


RUBRICHUB_SYNTHESIS = Reader(
    "rubrichub_synthesis",
    "question, rubrics[criterion, points]",
    _fits_synthesis,
    read_synthesis,
    POSITIVE,
    "Apache-2.0",
)
