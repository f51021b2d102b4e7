"""What says, beside the points that a reader takes, that a criterion is worth something else."""

import re
from collections.abc import Iterable, Mapping

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.readers import pieces

POINTS_KEYS = ("points", "weight", "score", "importance", "weights", "scores")
KINDS = ("type", "kind", "polarity", "sign", "category")
POSITIVE_MARKS = ("positive", "is_positive")  # a mark that says so
# What says that 'met' is bad: the name of a list or a mark, or the value of a kind.
_NEGATIVE = re.compile(
    r"(?:is_)?(?:neg(?:atives?)?|bad(?=_)|pitfalls?|penalt(?:y|ies)|deductions?"
    r"|(?:things_)?to_avoid|must_avoid|(?:must|should|do)_nots?)"
    r"(?:_(?:criteri(?:a|on)|rubrics?|items?|points))?"
)
_MINUS = ("-", "-1", "-1.0", "minus", "bad")
_NO = ("false", "no", "0", "0.0", "none", "null", "nan", "n/a", "", "[]", "{}")


def refuse_negative_lists(holder: Mapping) -> None:
    """Raises DataError for criteria in a list of their own that says 'met' is bad."""
    for key, value in holder.items():
        if value and isinstance(value, (list, dict)) and _is_negative(key):
            what = f"{one_line(key, 40)} stands beside the criteria"
            hint = "write its criteria among them, with negative points, or leave it out"
            raise DataError(f"{what}; {hint}")


def refuse_other_worth(criteria: Iterable[Mapping], own: str) -> None:
    """Raises DataError for a criterion that is worth something else than its field `own` says.

    That field may be missing, where each criterion counts 1: what another one says would be lost.
    """
    for given in criteria:
        refuse_two_worths(given, own)
        for key, value in given.items():
            refuse_negative_mark(key, value, pieces.points(given.get(own)))


def refuse_two_worths(given: Mapping, own: str = "") -> None:
    """Raises DataError where two fields hold points, and not the same.

    The points are those of the field `own`, of the first that has some where none is named.
    """
    worth = pieces.points(given.get(own))
    for key in POINTS_KEYS:
        other = pieces.points(given.get(key))
        if isinstance(other, bool) or not isinstance(other, (int, float)):
            continue
        if not own:
            own = key
            worth = other
        if other != worth:
            what = f"a criterion has {key}, and its points are its {own}"
            raise DataError(f"{what}; leave one of both out")


def refuse_negative_mark(key: str, value: object, points: object) -> None:
    """Raises DataError where a field of a criterion says that 'met' is bad, and its points not."""
    is_negative = isinstance(points, (int, float)) and points < 0
    if not is_negative and _says_negative(key, value):
        what = f"{one_line(key, 40)} of a criterion says that it is negative"
        raise DataError(f"{what}, and its points do not; make them negative")


def _says_negative(key: str, value: object) -> bool:
    says_no = str(value).strip().lower() in _NO
    if key in KINDS:
        return str(value).strip().lower() in _MINUS or _is_negative(str(value))
    return says_no if key in POSITIVE_MARKS else _is_negative(key) and not says_no


def _is_negative(name: str) -> bool:
    words = name.strip().lower().replace(" ", "_").replace("-", "_")
    return bool(_NEGATIVE.fullmatch(words))
