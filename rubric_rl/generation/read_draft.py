"""Reads the criteria in a writer's reply, whatever else the reply is: it may be anything.

Of the lists that are named `criteria` or `rubric`, the last one that holds something counts: a
writer may repeat the form that it was asked for before it fills it in, and name it in prose after.
Without such a list an object of that name counts for all that it holds, list by list. Without a
name the first list counts, without any the objects that follow one another. Of a list that breaks
off, what came before the break is kept.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rubric_rl.common.plain_text import one_line, shows_something
from rubric_rl.common.tokenizer import after_thoughts
from rubric_rl.data.schema import Criterion
from rubric_rl.generation.writer_prompt import MOST_POINTS
from rubric_rl.serving.question import Reply

MOST_CRITERIA = 60  # of one reply; a writer that goes round in circles fills its length limit
LONGEST = 600  # characters of a criterion
TAG = "level:generated"

# What can be wrong with a reply, or with a criterion in it.
FAULTS = {
    "empty": "replies without any text",
    "prose": "replies that hold no list of criteria in JSON",
    "cut off": "replies whose list breaks off: cut at writer_max_tokens, or no JSON from there on",
    "too many": f"criteria beyond the {MOST_CRITERIA}th of a reply",
    "no text": "criteria without a text",
    "too long": f"criteria of more than {LONGEST} characters",
    "points": f"criteria whose points are no number of 1 to {MOST_POINTS} in size",
}

# Where a list of criteria may begin, the surest form first. Inside a JSON string its quotes would
# have backslashes.
_NAMED_LIST = re.compile(r'"(?:criteria|rubrics?)"\s*:\s*\[')
_NAMED_OBJECT = re.compile(r'"(?:criteria|rubrics?)"\s*:\s*(?=\{)')
_LIST = re.compile(r'\[\s*(?=\{\s*"(?:criterion|points)")')
_OBJECT = re.compile(r'(?=\{\s*"(?:criterion|points)")')
_BETWEEN = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Draft:
    """The criteria of one reply, and what was wrong with the rest: a key of FAULTS -> how often."""

    criteria: tuple[Criterion, ...]
    faults: dict[str, int]


def read_draft(reply: Reply) -> Draft:
    """The criteria that a writer's reply holds; never raises for its content."""
    faults: Counter[str] = Counter()
    text = after_thoughts(reply.text)
    if not shows_something(text):
        return Draft((), {"empty": 1})
    items = _list_of(text, faults)
    if items is None:
        return Draft((), {"prose": 1})
    criteria = []
    for number, item in enumerate(items):
        if number >= MOST_CRITERIA:
            faults["too many"] += 1
            continue
        criterion = _criterion(item, faults)
        if criterion is not None:
            criteria.append(criterion)
    return Draft(tuple(criteria), dict(faults))


def _list_of(text: str, faults: Counter[str]) -> list[object] | None:
    """The items of the list that counts, with its faults; None without a list."""
    named = list(_NAMED_LIST.finditer(text))
    for found in reversed(named):
        own_faults: Counter[str] = Counter()
        items = list(_items(text, found.end(), own_faults))
        if items:
            faults.update(own_faults)
            return items
    if named:
        return list(_items(text, named[-1].end(), faults))
    for found in reversed(list(_NAMED_OBJECT.finditer(text))):
        items = _held(next(_items(text, found.end(), faults), None))
        if items:
            return items
    found = _LIST.search(text)
    if found:
        return list(_items(text, found.end(), faults))
    found = _OBJECT.search(text)
    # Objects without a list around them: whatever is none ends them.
    return list(_items(text, found.end(), Counter())) if found else None


def _held(value: object) -> list[object]:
    """The items of an object's lists, such as those of positive and of negative criteria."""
    if not isinstance(value, dict) or "criterion" in value:
        return [value] if value else []
    items: list[object] = []
    for each in value.values():
        items += each if isinstance(each, list) else [each]
    return items


def _items(text: str, position: int, faults: Counter[str]) -> Iterator[object]:
    """The values of the list up to its end, or to where it is broken."""
    while True:
        between = _BETWEEN.match(text, position)
        assert between is not None  # it matches nothing, too
        position = between.end()
        if text.startswith("]", position):
            return
        try:
            item, position = _DECODER.raw_decode(text, position)
        # What is no JSON, or nested too deeply; a number of thousands of digits.
        except (ValueError, RecursionError):
            faults["cut off"] += 1
            return
        yield item


def _criterion(item: object, faults: Counter[str]) -> Criterion | None:
    fields = item if isinstance(item, dict) else {"criterion": item}
    text = fields.get("criterion")
    if not isinstance(text, str) or not shows_something(text):
        faults["no text"] += 1
        return None
    text = one_line(text.encode(errors="replace").decode())  # without lone surrogates
    if len(text) > LONGEST:
        faults["too long"] += 1
        return None
    points = _points(fields.get("points"))
    if points is None:
        faults["points"] += 1
        return None
    return Criterion(text, points, (TAG,))


def _points(value: object) -> float | None:
    """The points that a value says, also one that is written as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Neither NaN nor an infinity lies between the two.
    if not 1 <= abs(value) <= MOST_POINTS:
        return None
    return int(value) if value == int(value) else value
