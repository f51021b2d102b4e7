"""PRBench: professional questions of law and finance, of up to ten turns.

    {"task": "t1", "turns": 1, "field": "Finance", "topic": "Tax", "expert": "...",
     "prompt_0": "Which form do I file?", "response_0": null, "reference_texts_0": ["Form A ..."],
     "rubric": [{"id": "c1", "title": "Names form A", "annotations": {
        "criteria_description": "The form ...", "criteria_category": "Accuracy",
        "weight_class": "critically important", "critically_important_weight": 9}}]}

Signs: a weight of a detrimental class is negative, so 'met' is bad there; one of another sign than
its class is refused. As in the authors' own evaluation, the grader is shown the title, and
reference texts stand before the prompt they go with.
"""

import re

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader

_ID_FIELD = "task"
_TURN = re.compile(r"prompt_(\d{1,9})")


def _fits(item: dict) -> bool:
    return "prompt_0" in item and "annotations" in pieces.first_of(item.get("rubric"))


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    rubric = []
    for each in pieces.objects(item.get("rubric"), "rubric"):
        rubric.append(_criterion(each))
    return pieces.row(
        item,
        _messages(item),
        rubric,
        _ID_FIELD,
        theme=pieces.label(item.get("field")),
        example_tags=pieces.named(topic=item.get("topic")),
    )


def _messages(item: dict) -> list[dict]:
    pieces.text(item, "prompt_0")
    messages = []
    turns = sorted(int(found[1]) for found in map(_TURN.fullmatch, item) if found)
    for turn in turns:
        prompt = item.get(f"prompt_{turn}")
        response = item.get(f"response_{turn}")
        if isinstance(prompt, str) and prompt.strip():
            references = _references(item.get(f"reference_texts_{turn}"))
            messages.append({"role": "user", "content": references + prompt})
        if isinstance(response, str) and response.strip():
            messages.append({"role": "assistant", "content": response})
    return messages


def _references(given: object) -> str:
    if isinstance(given, str) and given.strip():
        given = pieces.decoded(given, "reference texts") if pieces.is_json(given) else [given]
    texts = [each for each in given if each] if isinstance(given, (list, tuple)) else []
    for words in texts:
        if not isinstance(words, str):
            raise DataError(f"a reference text is no text; {pieces.LEAVE_OUT}")
    numbered = [f"Reference Text {number}:\n{words}\n\n" for number, words in enumerate(texts)]
    return "".join(numbered)


def _criterion(given: dict) -> dict:
    annotations = given.get("annotations")
    if not isinstance(annotations, dict):
        annotations = {}
    words = given.get("title") or annotations.get("criteria_description")
    weight_class = pieces.label(annotations.get("weight_class"))
    weight = pieces.points(annotations.get(weight_class.replace(" ", "_") + "_weight"))
    is_fault = "detrimental" in weight_class.lower()
    if isinstance(weight, (int, float)) and weight and (weight < 0) is not is_fault:
        what = f"a criterion is {one_line(weight_class, 40)} and its weight {weight}"
        raise DataError(f"{what}, of another sign; {pieces.LEAVE_OUT}")
    labels = pieces.named(axis=annotations.get("criteria_category"), weight_class=weight_class)
    return pieces.criterion(words, weight, labels)


PRBENCH = Reader(
    "prbench",
    "prompt_0, rubric[annotations]",
    _fits,
    read,
    AS_POINTS,
    "CC-BY-4.0",
    id_field=_ID_FIELD,
)
