"""The RL data of DR-Tulu and open-instruct: the rubric is JSON text in the ground truth.

    {"messages": [{"role": "user", "content": "Who mapped the nerve?"}], "dataset": "rl_rag",
     "ground_truth": "{\\"query\\": \\"Who mapped the nerve?\\", \\"rubrics\\": [
        {\\"title\\": \\"Name\\", \\"description\\": \\"Names the person\\", \\"weight\\": 1.0},
        {\\"title\\": \\"Myth\\", \\"description\\": \\"Credits a myth\\", \\"weight\\": -1.0}]}"}

Signs: a rubric of negative weight describes a fault, so 'met' is bad there.
"""

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader
from rubric_rl.data.readers.signs import refuse_negative_lists, refuse_other_worth


def _fits(item: dict) -> bool:
    truth = item.get("ground_truth")
    if isinstance(truth, (list, tuple)) and truth:
        truth = truth[0]
    return "messages" in item and pieces.holds(truth, "rubrics")


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    truth = item.get("ground_truth")
    if isinstance(truth, (list, tuple)) and len(truth) == 1:
        truth = truth[0]  # as open-instruct wraps it
    truth = pieces.decoded(truth, "ground_truth")
    if not isinstance(truth, dict):
        raise DataError(f"ground_truth holds no rubrics; {pieces.LEAVE_OUT}")
    rubric = []
    criteria = pieces.objects(truth.get("rubrics"), "rubrics of ground_truth")
    refuse_negative_lists(truth)
    refuse_other_worth(criteria, "weight")
    for each in criteria:
        rubric.append(pieces.criterion(each.get("description"), each.get("weight")))
    return pieces.row(
        item,
        pieces.chat(item.get("messages"), "messages"),
        rubric,
        theme=pieces.label(item.get("dataset")),
    )


DR_TULU = Reader(
    "dr_tulu", "messages, ground_truth with rubrics", _fits, read, AS_POINTS, "see its card"
)
