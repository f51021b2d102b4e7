"""Rows that anyone may write: a prompt and its criteria, in any of the usual forms.

    {"prompt": "How do I clean a wound?",
     "rubric": ["Names clean water", {"description": "Advises alcohol", "weight": "-2"}]}

The prompt is a text or chat messages; a `system` text stands before it, and the `input` of an
`instruction` behind. The rubric is a list, a JSON text of one, an object of criteria and their
points, an object of lists by field, or a text with one criterion a line. A criterion is a text, a
pair of text and points, or an object with text, points and tags (a list or a dict); points may also
stand in a list of their own. Criteria without points count 1 each, unless a number stands under
another name; but a null in an object of points is none: Parquet writes one for each criterion of
another row. 'Met' is good where points are positive and bad where they are negative. What says so
in another way (a kind, a list of negative ones, words within a text) is refused, not guessed.
"""

from collections.abc import Iterable

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader
from rubric_rl.data.readers.rubric_text import (
    LINES_LEFT_OUT,
    check_no_points,
    criteria_of_text,
    is_whole_list,
)
from rubric_rl.data.readers.signs import (
    KINDS,
    POINTS_KEYS,
    POSITIVE_MARKS,
    refuse_negative_lists,
    refuse_negative_mark,
    refuse_two_worths,
)

PROMPT_KEYS = ("prompt", "messages", "question", "instruction", "conversation", "query")
RUBRIC_KEYS = ("rubrics", "rubric", "criteria", "checklist", "requirements")
TEXT_KEYS = (
    *("criterion", "description", "text", "requirement", "criterion_text"),
    "criteria",  # of a rubric that is stored by field
    *("title", "name"),  # where no other field may be the text
)
POINTS_LISTS = ("points", "weights", "weight", "importance")  # beside a list of texts
SCORES = ("score", "scores")  # beside it they may be those of answers
# Numbers of a criterion that are no points.
_COUNTS = (*pieces.ID_FIELDS, "index", "number", "order", "turn", "rank", "position", "level")
LABEL_KEYS = ("axis", "category")  # fields of a criterion that become a tag of that name
_LABELS = frozenset(LABEL_KEYS)
_TITLES = ("title", "name")
_OWN_TEXT = frozenset(TEXT_KEYS) - {*_TITLES}
_SECOND_TEXT = _OWN_TEXT - {TEXT_KEYS[0]}  # a cheap look: few criteria have one of these
_SECOND_POINTS = frozenset(POINTS_KEYS) - {POINTS_KEYS[0]}
_KNOWN = frozenset((*TEXT_KEYS, *POINTS_KEYS, *pieces.ID_FIELDS, "tags", "axis")) - {*_TITLES}
# What is no text of a criterion: it may stand beside its title.
_REMARKS = (
    *("rationale", "reason", "reasoning", "justification", "weight_reason", "severity"),
    *("source", "source_url", "reference", "references", "section", "notes", "comment", "comments"),
)
_BESIDE_TITLE = (*KINDS, *_COUNTS, *POSITIVE_MARKS, *_REMARKS)
_SCALES = ("levels", "scale", "options")  # of a criterion that is more than met or not
ALPACA = ("instruction", "input")  # what is asked, and of what
_NESTED = (list, tuple, dict)


def read(item: dict) -> pieces.Raw:
    """The raw row of an item. Raises DataError for one without a prompt or a rubric."""
    messages = messages_of(item)
    refuse_negative_lists(item)
    given, left_out = _criteria(_first(item, RUBRIC_KEYS, "rubric"))
    _refuse_other_rubrics(item)
    rubric = [_criterion(each) for each in _with_points(item, given, POINTS_LISTS)]
    without = [each for each in rubric if each["points"] is None]
    check_no_points(each["criterion"] for each in without)
    for each in without:
        each["points"] = 1
    made = pieces.row(item, messages, rubric)
    made.note(LINES_LEFT_OUT, left_out)
    made.note(pieces.NO_POINTS, len(without))
    return made


def messages_of(item: dict) -> list[dict]:
    """The conversation of an item. Raises DataError for one without."""
    messages = pieces.chat(_first(item, PROMPT_KEYS, "prompt"), "prompt")
    if sum(map(item.__contains__, PROMPT_KEYS)) > 1:
        _refuse_other_prompts(item, messages)
    asked, given = (pieces.label(item.get(key)) for key in ALPACA)
    if asked and given and messages == pieces.question(item["instruction"]):
        messages = pieces.question(f"{item['instruction']}\n\n{given}")
    elif given and not any(given in str(message["content"]) for message in messages):
        what = "input stands beside a prompt that is no instruction"
        raise DataError(f"{what}; write it into the prompt, or leave it out")
    _refuse_more_of_prompt(item, messages)
    return pieces.after_system(item, messages)


def _refuse_other_prompts(item: dict, messages: list[dict]) -> None:
    """Raises DataError for what a second field asks and the prompt does not hold.

    What an assistant says there may be the answer that belongs to it.
    """
    contents = [str(message["content"]) for message in messages]
    for key in PROMPT_KEYS:
        if item.get(key) in pieces.NOTHING:
            continue
        for message in pieces.chat(item[key], key):
            words = str(message["content"]).strip()
            held = any(words in content for content in contents)
            if message["role"] != "assistant" and not held:
                what = f"{key} stands beside the prompt, which does not hold all of it"
                raise DataError(f"{what}; write it into the prompt, or leave it out")


def _refuse_other_rubrics(item: dict) -> None:
    """Raises DataError where two fields hold criteria, and not the same: one would be lost."""
    found = {}
    for key in RUBRIC_KEYS:
        value = item.get(key)
        if value not in pieces.NOTHING:
            found[key] = value
    first, *others = found.values()
    for other in others:
        if other != first:
            names = " and ".join(found)
            what = f"{names} stand in one row, of which one would be lost"
            raise DataError(f"{what}; write all criteria into one of them, or leave one out")


def _refuse_more_of_prompt(item: dict, messages: list[dict]) -> None:
    """Raises DataError for earlier turns, or what is asked about, in a field of its own."""
    contents = [str(message["content"]) for message in messages]
    for each in _parts(item.get("context")):
        held = isinstance(each, str) and any(each.strip() in words for words in contents)
        if not held:
            what = "context stands beside the prompt, which may be about it"
            raise DataError(f"{what}; write it into the prompt, or leave it out")
    if len(messages) == 1 and _parts(item.get("history")):
        what = "history stands beside a prompt of one turn"
        raise DataError(f"{what}; write all turns as messages, or leave it out")


def _parts(value: object) -> list:
    """The texts, lists and objects in a field that say something; of a list those within."""
    given = value if isinstance(value, (list, tuple)) else [value]
    found = []
    for each in given:
        is_nested = each and isinstance(each, _NESTED)
        if is_nested or pieces.label(each):
            found.append(each)
    return found


def goes_on(item: dict) -> bool:
    """Whether prompt or points go on in a field that no set has: a context, a list of points."""
    if pieces.label(item.get("input")):
        return True
    if _parts(item.get("context")) or _parts(item.get("history")):
        return True
    points = [item.get(key) for key in POINTS_LISTS]
    return any(map(_is_of_several, filter(None, points)))


def _with_points(holder: dict, criteria: list, keys: Iterable[str]) -> list:
    """The criteria, texts with their points where these stand in a list of their own.

    Raises DataError where the two lists are not of one length, and for points that stand beside
    criteria in another way.
    """
    beside = [key for key in keys if _is_of_several(holder.get(key))]
    if any(_has_points(each) for each in criteria):
        return criteria
    for key in SCORES:
        scores = holder.get(key)
        if not beside and isinstance(scores, list) and len(scores) == len(criteria):
            what = f"there are as many {key} as criteria, which may be their points or not"
            raise DataError(f"{what}; name them points, or leave them out")
    if not beside:
        return criteria
    points = pieces.decoded(holder[beside[0]], beside[0])
    are_texts = all(isinstance(each, str) for each in criteria)
    if not isinstance(points, (list, tuple)) or not are_texts:
        what = f"{beside[0]} beside the criteria is no list of numbers beside a list of texts"
        raise DataError(f"{what}; write the points into the criteria")
    if len(points) != len(criteria):
        what = f"{len(criteria)} criteria have {len(points)} points beside them"
        raise DataError(f"{what}; {pieces.LEAVE_OUT}")
    return list(zip(criteria, points, strict=True))


def _is_of_several(value: object) -> bool:
    if isinstance(value, str):
        return pieces.is_json(value)
    return isinstance(value, (list, tuple, dict))


def _has_points(given: object) -> bool:
    if isinstance(given, dict):
        return _first(given, POINTS_KEYS) is not None
    return not isinstance(given, str)


def _first(item: dict, keys: Iterable[str], what: str = "") -> object:
    """The value of the first key that has one. Raises DataError where `what` must be there."""
    nothing = pieces.NOTHING if what else (None,)
    for key in keys:
        if item.get(key) not in nothing:
            return item[key]
    if what:
        names = ", ".join(keys)
        hint = "mend the row, or name another --format or a --converter"
        raise DataError(f"{what} is missing (looked for {names}); {hint}")
    return None


def _criteria(rubric: object) -> tuple[list, int]:
    """The criteria, and how many lines of a text are none."""
    if isinstance(rubric, str) and not pieces.is_json(rubric):
        return criteria_of_text(rubric)
    rubric = pieces.listed(rubric, "rubric")
    if isinstance(rubric, dict):
        refuse_negative_lists(rubric)
        given = pieces.listed(rubric.get("criteria"), "criteria")
        if isinstance(given, list):
            return _with_points(rubric, given, POINTS_KEYS), 0
        return [pair for pair in rubric.items() if pair[1] is not None], 0
    if not isinstance(rubric, list):
        raise DataError(f"rubric is no list of criteria; {pieces.LEAVE_OUT}")
    if len(rubric) == 1 and isinstance(rubric[0], str) and is_whole_list(rubric[0]):
        return criteria_of_text(rubric[0])
    return rubric, 0


def _criterion(given: object) -> dict:
    if isinstance(given, tuple | list) and len(given) == 2:
        return pieces.criterion(*given)
    if not isinstance(given, dict):
        return pieces.criterion(given, None)
    words = _first(given, TEXT_KEYS)
    worth = _first(given, POINTS_KEYS)
    if worth is None:
        _refuse_other_points(given)
    found = pieces.criterion(words, worth, given.get("tags"))
    if not _SECOND_TEXT.isdisjoint(given):
        _refuse_two_texts(given)
    if not _SECOND_POINTS.isdisjoint(given):
        refuse_two_worths(given)
    if not _KNOWN.issuperset(given):
        _refuse_other_fields(given, words, found["points"])
    if _LABELS.isdisjoint(given):
        return found
    labels = pieces.named(**{key: given.get(key) for key in LABEL_KEYS})
    if labels and isinstance(found["tags"] or [], list | tuple):  # others are refused by name
        found["tags"] = [*(found["tags"] or []), *labels]
    return found


def _refuse_two_texts(given: dict) -> None:
    """Raises DataError where two fields may be the text: the name of a criterion, and what it says.

    The grader would be shown one of them.
    """
    texts = {key: given[key] for key in TEXT_KEYS if key in _OWN_TEXT and given.get(key)}
    if len(set(map(str, texts.values()))) > 1:
        what = f"a criterion has {' and '.join(texts)}, of which one would be lost"
        raise DataError(f"{what}; write both into one of them, or leave one out")


def _refuse_other_points(given: dict) -> None:
    """Raises DataError for a number that may be the points of a criterion under another name."""
    for key, value in given.items():
        value = pieces.points(value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and key not in (*TEXT_KEYS, *_COUNTS):
            what = f"a criterion has a number under {one_line(key, 40)} and no points"
            raise DataError(f"{what}; name it points, or leave the field out")


def _refuse_other_fields(given: dict, words: object, points: object) -> None:
    """Raises DataError for a criterion with a field that may change what it says or is worth."""
    is_titled = words is not None and all(given.get(key) is None for key in _OWN_TEXT)
    for key, value in given.items():
        if key in _KNOWN or value is None or value is words:
            continue
        if key in _SCALES and isinstance(value, (list, dict)) and value:
            what = f"a criterion has {key}, and here it is met or not"
            raise DataError(f"{what}; {pieces.LEAVE_OUT}")
        refuse_negative_mark(key, value, points)
        is_text = isinstance(value, (str, list, dict)) and value and key not in _BESIDE_TITLE
        if is_titled and is_text:
            what = f"a criterion has a title or a name, and its text may be its {one_line(key, 40)}"
            raise DataError(f"{what}; call that criterion, or leave the field out")


def _fits(item: dict) -> bool:
    has_prompt = any(item.get(key) for key in PROMPT_KEYS)
    return has_prompt and any(item.get(key) for key in RUBRIC_KEYS)


PLAIN = Reader("plain", "a prompt and a rubric", _fits, read, AS_POINTS, "that of its owner")
