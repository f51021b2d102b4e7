"""The rule oracle of the tiny world: whether any answer truly meets each criterion (stage 6, evaluation).

Only a complete, well-formed sentence of the world states something. Key words alone, spliced or cut sentences,
quotations and criteria copied into the answer state nothing.
"""

import re
from collections.abc import Iterable

from rubric_rl.data.schema import Criterion
from rubric_rl.errors import DataError
from rubric_rl.tiny.knowledge import STATEMENTS, Statement, criteria, sentences

_QUOTED = re.compile(r'"[^"]*(?:"|$)|“[^”]*(?:”|$)|«[^»]*(?:»|$)')
_SENTENCE = re.compile(r"([^.!?]*)([.!?]+|$)")


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


_STATED = {
    _plain(text).rstrip("."): statement for statement in STATEMENTS for text in sentences(statement)
}
_ASKED = {_plain(text): statement for statement in STATEMENTS for text in criteria(statement)}


def statements(answer: str) -> list[Statement]:
    """What the answer states, in its order; a sentence without its full stop was cut off and states nothing."""
    text = _QUOTED.sub(" quotation ", answer)
    found = (
        _STATED.get(_plain(body)) for body, end in _SENTENCE.findall(text) if end and "?" not in end
    )
    return [statement for statement in found if statement]


def asked(criterion: str) -> Statement:
    """The statement that a criterion asks for.

    Raises:
        DataError: for a criterion that is not of this world.
    """
    statement = _ASKED.get(_plain(criterion).rstrip("."))
    if statement is None:
        hint = "make its rows with python -m rubric_rl.tiny.world"
        raise DataError(f"criterion {criterion!r} is not of the tiny world; {hint}")
    return statement


def truth(rubric: Iterable[Criterion], answer: str) -> list[bool]:
    """Whether the answer meets each criterion, in the rubric's order."""
    stated = set(statements(answer))
    return [asked(criterion.text) in stated for criterion in rubric]
