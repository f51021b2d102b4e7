"""What the project knows of a published rubric set: its shape, its signs, its licence."""

from collections.abc import Callable
from dataclasses import dataclass

POSITIVE = "all points are positive: 'met' is always good"
AS_POINTS = "negative points are faults: 'met' is bad there"


@dataclass(frozen=True)
class Reader:
    """Reads the rows of one set.

    `read` makes a raw row (prompt_id, prompt, rubrics, example_tags, theme, canary) of an item and
    raises DataError, without a place, for an item that is none of the set. It never turns a
    published sign: `signs` says what they mean.
    """

    name: str  # for --format
    fields: str  # by which it is recognised, in words
    fits: Callable[[dict], bool]
    read: Callable[[dict], dict]
    signs: str
    licence: str
    id_field: str = ""  # where rows of this set have their id, if not where most have it
    mixed_signs: bool = False  # whether some negative criteria say what an answer should do
