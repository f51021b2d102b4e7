"""Reads the criteria in a writer's reply, whatever else the reply is: it may be anything.

Every JSON value in the reply is looked through, at any depth. Of the values that hold criteria
under a name such as `criteria` or `rubric`, the last one counts: a writer may repeat the form that
it was asked for before it fills it in, and name it in prose after. Without a name the first value
counts; objects that follow one another are one. Criteria in the others are counted, not used. Of a
value that breaks off, what came before the break is kept.

Under a name such as `negative` or `things to avoid`, points are negative, whatever their sign:
their size is what the writer gives. Under one that may mean mistakes or a topic, such as `common
errors`, a criterion with positive points has a fault: nobody can tell its sign.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rubric_rl.common.plain_text import one_line, shows_something
from rubric_rl.common.tokenizer import after_thoughts
from rubric_rl.data.readers.pieces import points as number_of
from rubric_rl.data.readers.plain import TEXT_KEYS
from rubric_rl.data.readers.signs import POINTS_KEYS
from rubric_rl.data.schema import Criterion
from rubric_rl.generation.writer_prompt import MOST_POINTS, PLACEHOLDER
from rubric_rl.serving.question import Reply

MOST_CRITERIA = 60  # of one reply; a writer that goes round in circles fills its length limit
LONGEST = 600  # characters of a criterion
TAG = "level:generated"

# What can be wrong with a reply, or with a criterion in it.
FAULTS = {
    "empty": "replies without any text",
    "prose": "replies that hold no list of criteria in JSON",
    "cut off": "replies whose list breaks off: cut at writer_max_tokens, or no JSON from there on",
    "other list": "criteria that stand beside the list that counts, such as an earlier draft",
    "too many": f"criteria beyond the {MOST_CRITERIA}th of a reply",
    "no text": "criteria without a text",
    "too long": f"criteria of more than {LONGEST} characters",
    "points": f"criteria whose points are no number of 1 to {MOST_POINTS} in size",
    "scale": "criteria that are a scale of levels, which no answer meets or misses",
    "sign": "criteria with positive points under a name that may mean mistakes",
}

_START = re.compile(r'[\[{](?=\s*["\[{])')  # of a list or an object that holds something
# Of commas, JSON forbids one behind the last item, and asks for one between two; writers err.
# A string without an end is taken as one: to look for its end from each quotation mark takes long.
_LAST_COMMA = re.compile(r'("(?:[^"\\\n]|\\.)*+"?)|,(?=\s*[\]}])')
_NO_COMMA = re.compile(r'("(?:[^"\\\n]|\\.)*+"?)|(?<=\})\s*(?=\{)')
_MARK = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]')
_CLOSING = {"[": "]", "{": "}"}
_MOST_BROKEN = 100  # values of a reply that are no JSON; nobody reads on, it would take long
_NAMED = re.compile(r"criteri|rubric|checklist|requirement|positive", re.IGNORECASE)
# Words of a list's name, or of a criterion's kind, that speak of mistakes; and those that may stand
# beside them in a name that says nothing else.
_MISTAKES = re.compile(
    r"\b(?:n[eé]g(?:ati\w*)?|penal\w+|pitfalls?|mistakes?|faults?|errors?(?! handling)|fehler"
    r"|violations?|failures|failure modes|deductions?|demerits?|minus|cons|flags?|avoid|nots?"
    r"|(?:do|must|should)n'?ts?|bad|harmful|wrong|un(?:desir|accept|want)\w+|forbidden|prohibited"
    r"|disqualif\w+|отрицательн\w+|(?:负面|扣分)\w*)\b"
)
_BESIDE = re.compile(
    r"[ck]rit[eèé]r\w+|rubrics?|points?|items?|lists?|behaviou?rs?"
    r"|things|what|is|to|do|must|should|have"
)
_SCALE = re.compile(r"(?:\w+[ _])?(?:levels|scale|options|grades|anchors|ratings)", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"[^\w']+|_+|(?<=[a-z])(?=[A-Z])")
_OF_KIND = ("kind", "type", "polarity", "sign")
_TITLES = ("category", "title", "name", "section", "label")  # of a group
_TOPICS = re.compile("error|mistake|fault|harm|wrong")  # which a group or a criterion may be about
_OPPOSITES = ("positive", "is_positive", "desirable")
_YES = ("true", "yes", "1", "1.0")
_NO = ("false", "no", "0", "0.0")
_FIELDS = {*TEXT_KEYS, *POINTS_KEYS} - {"criteria"}  # which names a list, too


@dataclass(frozen=True)
class Draft:
    """The criteria of one reply, and what was wrong with the rest: a key of FAULTS -> how often."""

    criteria: tuple[Criterion, ...]
    faults: dict[str, int]


class _Found(NamedTuple):
    """A criterion as it was written, or what stands in its place."""

    item: object
    negative: bool | None  # by the names above it; None where they may mean that
    named: bool  # as criteria


@dataclass
class _Value:
    """What a JSON value of a reply holds."""

    found: list[_Found] = field(default_factory=list)
    broken: bool = False
    loose: bool = False  # it is a criterion itself, or what is left of one

    @property
    def named(self) -> bool:
        return any(each.named for each in self.found)

    @property
    def usable(self) -> int:
        """How many criteria it holds that have no fault."""
        criteria = [_criterion(each, Counter()) for each in self.found]
        return sum(criterion is not None for criterion in criteria)


def read_draft(reply: Reply) -> Draft:
    """The criteria that a writer's reply holds; never raises for its content."""
    text = after_thoughts(reply.text)
    if not shows_something(text):
        return Draft((), {"empty": 1})
    text = _LAST_COMMA.sub(r"\1", text)
    values = _values(_NO_COMMA.sub(lambda found: found[1] or ",", text))
    holding = [value for value in values if value.usable]
    holding = holding or [value for value in values if value.found]
    if not holding:
        broken = any(value.broken for value in values)
        return Draft((), {"cut off" if broken else "prose": 1})
    named = [value for value in holding if value.named]
    counts = named[-1] if named else holding[0]
    faults: Counter[str] = Counter()
    if counts.broken:
        faults["cut off"] += 1
    beside = sum(value.usable for value in holding if value is not counts)
    if beside:
        faults["other list"] += beside
    criteria = []
    for number, found in enumerate(counts.found):
        if number >= MOST_CRITERIA:
            faults["too many"] += 1
            continue
        criterion = _criterion(found, faults)
        if criterion is not None:
            criteria.append(criterion)
    return Draft(tuple(criteria), dict(faults))


# ---- the JSON in a reply


def _object(pairs: list[tuple[str, object]]) -> object:
    """A JSON object; one that has a name twice as the list of its parts, so that none is lost."""
    whole = dict(pairs)
    return whole if len(whole) == len(pairs) else [{name: each} for name, each in pairs]


# Whole numbers as float: they may be of any length. Not strict: writers break lines within a text.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=float, strict=False)


def _values(text: str) -> list[_Value]:
    """What each list and object of a text holds, in their order."""
    values: list[_Value] = []
    position = breaks = 0
    while breaks <= _MOST_BROKEN and (start := _START.search(text, position)):
        item, position, broken = _decoded(text, start.start())
        breaks += broken
        found = _criteria_in(item)
        loose = _is_criterion(item) or (broken and not found)
        value = _Value(found, broken, loose)
        # Objects without a list around them; what breaks off among them is one of them.
        if loose and values and values[-1].loose:
            values[-1].found += value.found
            values[-1].broken |= broken
        else:
            values.append(value)
    return values


def _decoded(text: str, start: int) -> tuple[object, int, bool]:
    """The value that begins at `start`, where to look on, and whether it is broken."""
    try:
        item, end = _DECODER.raw_decode(text, start)
        return item, end, False
    except json.JSONDecodeError as error:
        return _before_a_break(text[start : error.pos]), max(error.pos, start + 1), True
    except RecursionError:  # nested too deeply: nobody would read on
        return None, len(text), True


def _before_a_break(text: str) -> object:
    """A value that breaks off, up to the last list or object in it that is whole."""
    open_ones: list[str] = []
    whole = ""
    for mark in _MARK.finditer(text):
        character = mark.group()
        if character in _CLOSING:
            open_ones.append(_CLOSING[character])
        elif character in "]}":
            open_ones.pop()
            whole = text[: mark.end()] + "".join(reversed(open_ones))
    return _DECODER.decode(whole) if whole else None


def _criteria_in(value: object) -> list[_Found]:
    """The criteria in a value, at any depth, in their order.

    Where a name says that criteria stand there, everything counts that is no list or group of them:
    what is none has its fault.
    """
    found: list[_Found] = []
    waiting = [_Found(value, negative=False, named=False)]
    while waiting:
        place = waiting.pop()
        inner: list[_Found] = []
        if isinstance(place.item, dict) and not _is_criterion(place.item):
            inner = list(_inside(place.item, place))
        elif isinstance(place.item, list):
            inner = [place._replace(item=each) for each in place.item]
        if inner:
            waiting += reversed(inner)
        elif _is_criterion(place.item) or (place.named and place.item not in ([], {})):
            found.append(place)
    return found


def _inside(group: dict, place: _Found) -> Iterator[_Found]:
    all_negative = _by_fields(group, place.negative)
    for name, each in group.items():
        if isinstance(each, list | dict) and not _SCALE.fullmatch(name):
            negative = _surest(all_negative, _means_mistakes(name))
            named = place.named or negative is True or bool(_NAMED.search(name))
            yield _Found(each, negative, named)


def _is_criterion(item: object) -> bool:
    """Whether it has the fields of a criterion, and is no group with a title of its own."""
    if not isinstance(item, dict) or _FIELDS.isdisjoint(item):
        return False
    if isinstance(item.get("criterion"), str):
        return True
    for name, each in item.items():
        inner = each.values() if isinstance(each, dict) else each
        holds_more = isinstance(each, list | dict) and not _SCALE.fullmatch(name)
        if holds_more and any(isinstance(one, list | dict) for one in inner):
            return False
    return True


def _by_fields(fields: dict, above: bool | None, texts: Sequence[str] = ()) -> bool | None:
    """Whether a group, or the criterion of these texts, is one of mistakes, as its fields say.

    None where it may be: as "category": "pitfall" of a criterion that begins with "Avoids".
    """
    said = above
    for name, value in fields.items():
        if isinstance(value, list | dict) or value in texts[-1:]:
            continue
        if value in texts and _means_mistakes(value) is not True:  # "Avoids errors", not "Pitfall"
            continue
        value = str(value).strip().lower()
        if name in _OF_KIND:
            said = _surest(said, value.startswith("-") or _means_mistakes(value))
        elif value in _YES:
            said = _surest(said, _means_mistakes(name))
        elif name in _OPPOSITES and value in _NO:
            said = True
        elif _TOPICS.match(value):
            continue
        elif not texts and name in _TITLES:
            said = _surest(said, _means_mistakes(value))
        elif texts and _means_mistakes(value):
            said = _surest(said, None)
    return said


def _means_mistakes(name: str) -> bool | None:
    """Whether a name means mistakes; None where it only speaks of them: "medication errors"."""
    words = _BETWEEN_WORDS.sub(" ", name).lower()
    others, speaks = _MISTAKES.subn("", words)
    if not speaks:
        return False
    return all(map(_BESIDE.fullmatch, others.split())) or None


def _surest(one: bool | None, other: bool | None) -> bool | None:
    """True where one of both is, else None where one of both is."""
    return one or other or (None if None in (one, other) else False)


# ---- one criterion


def _criterion(found: _Found, faults: Counter[str]) -> Criterion | None:
    fields = found.item if isinstance(found.item, dict) else {"criterion": found.item}
    scales = (fields[name] for name in filter(_SCALE.fullmatch, fields))
    if any(scale and isinstance(scale, list | dict) for scale in scales):
        faults["scale"] += 1
        return None
    given = _texts(fields)
    if not any(map(shows_something, given)) or PLACEHOLDER in given:
        faults["no text"] += 1
        return None
    # In one, since the grader would else be shown a mere title; and without lone surrogates.
    text = one_line(": ".join(given).encode(errors="replace").decode())
    if len(text) > LONGEST:
        faults["too long"] += 1
        return None
    points = _points(_first(fields, POINTS_KEYS))
    if points is None:
        faults["points"] += 1
        return None
    negative = _by_fields(fields, found.negative, given)
    if negative is None and points > 0:
        faults["sign"] += 1
        return None
    if negative:
        points = -abs(points)
    return Criterion(text, points, (TAG,))


def _texts(fields: dict) -> list[str]:
    """What a criterion says: its name and its description, or its title where it has no other."""
    first = _first(fields, TEXT_KEYS)
    if not isinstance(first, str):
        return []
    texts = [first]
    for name in TEXT_KEYS:
        other = fields.get(name)
        if name in _TITLES or not isinstance(other, str) or other in texts[0]:
            continue
        if texts[0] in other:
            texts = [other]
        else:
            texts.append(other)
    return texts


def _first(fields: dict, names: tuple[str, ...]) -> object:
    """The value of the first of these names that has one."""
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _points(value: object) -> float | None:
    """The points that a value says, also one that is written as text."""
    value = number_of(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Neither NaN nor an infinity lies between the two.
    if not 1 <= abs(value) <= MOST_POINTS:
        return None
    return int(value) if value == int(value) else value
