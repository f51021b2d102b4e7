"""HealthBench Professional.

    {"id": "p1", "conversation": {"messages": [{"role": "user", "content": "Draft a referral."}]},
     "rubric_items": [{"criterion_text": "Names the reason", "points": 6},
                      {"criterion_text": "Invents a finding", "points": -8}],
     "use_case": "writing", "type": "good_faith", "difficulty": "typical",
     "specialty": "cardiology", "physician_response": "...", "canary_string": "..."}

Signs: an item of negative points is a fault, so 'met' is bad there. The physician's response stays
behind; the published length penalty is not applied.
"""

from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader
from rubric_rl.data.readers.signs import refuse_other_worth


def _fits(item: dict) -> bool:
    return "conversation" in item and "criterion_text" in pieces.first_of(item.get("rubric_items"))


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    conversation = pieces.decoded(item.get("conversation"), "conversation")
    rubric = []
    items = pieces.objects(item.get("rubric_items"), "rubric_items")
    refuse_other_worth(items, "points")
    for each in items:
        rubric.append(pieces.criterion(each.get("criterion_text"), each.get("points")))
    labels = {key: item.get(key) for key in ("use_case", "type", "difficulty", "specialty")}
    return pieces.row(
        item,
        pieces.chat(conversation, "conversation"),
        rubric,
        theme=pieces.label(item.get("use_case")),
        example_tags=pieces.named(**labels),
        canary=item.get("canary_string"),
    )


HEALTHBENCH_PROFESSIONAL = Reader(
    "healthbench_professional",
    "conversation, rubric_items[criterion_text]",
    _fits,
    read,
    AS_POINTS,
    "see its card; its examples may not be shown in public",
)
