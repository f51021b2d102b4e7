"""ResearchRubrics (arXiv 2511.07685): tasks of deep research.

    {"sample_id": "r1", "prompt": "Compare two heat pumps.", "domain": "Consumer",
     "conceptual_breadth": "Simple", "logical_nesting": "Shallow", "exploration": "Low",
     "rubrics": [{"criterion": "Names both prices", "weight": 4, "axis": "Explicit Criteria"},
                 {"criterion": "Cites no source", "weight": -3, "axis": "References"}]}

Signs: an item of negative weight is a fault, so 'met' is bad there.
"""

from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader

_ID_FIELD = "sample_id"
_FIELDS = {"criterion", "weight", "axis"}


def _fits(item: dict) -> bool:
    if "prompt" not in item:
        return False
    first = pieces.first_of(item.get("rubrics"))
    return first.keys() >= _FIELDS and not pieces.other_fields(first, _FIELDS)


def read(item: dict) -> dict:
    """The raw row of an item, each axis kept as a tag. Raises DataError for another form."""
    rubric = []
    for each in pieces.own_objects(item.get("rubrics"), "rubrics", _FIELDS):
        axis = pieces.named(axis=each.get("axis"))
        rubric.append(pieces.criterion(each.get("criterion"), each.get("weight"), axis))
    labels = ("conceptual_breadth", "logical_nesting", "exploration")
    return pieces.row(
        item,
        pieces.chat(item.get("prompt"), "prompt"),
        rubric,
        _ID_FIELD,
        theme=pieces.label(item.get("domain")),
        example_tags=pieces.named(**{key: item.get(key) for key in labels}),
    )


RESEARCH_RUBRICS = Reader(
    "research_rubrics",
    "prompt, rubrics[criterion, weight, axis]",
    _fits,
    read,
    AS_POINTS,
    "see its card",
    id_field=_ID_FIELD,
)
