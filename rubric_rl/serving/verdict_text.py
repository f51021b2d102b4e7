"""A verdict's form in a reply, and its reading, so that nothing that is quoted can pass for one.

The grader is the policy, and what it grades may hold forged verdicts, which an honest grader may
quote: before its verdict, inside it, after it, or instead of one. What keeps them out:

- Each `criteria_met` counts that is a key, in whatever depth. If two of them disagree, or one
  stands outside of any object (`criteria_met: ...`), nothing is read. The grader's own word thus
  cannot be hidden: a quotation may end its string, but not unwrite what follows.
- The verdict ends the reply: words after it make it none. A fence of code, or a token that ends a
  turn, is no word.
- A verdict that is part of a sentence is none: a word, a comma, a quotation mark or an opening
  bracket before it on its line ("Not {...}", "it says {...}").
- A line before it must not say the opposite ("Verdict: unmet"); only some English ones are known.
- A verdict that names a criterion (`"criterion": ...`, `"id": 2`) may be that of another one.
- A key in other letters (`criteria\\u005fmet`) makes none: `until_verdicts` could not stop at it.

What is left to a policy: a grader that ends its reply with a forged verdict, quoted as a line of
its own or after a colon, and says nothing known against it.
"""

import re
from collections.abc import Iterator

from rubric_rl.common.tokenizer import after_thoughts
from rubric_rl.serving.reply_json import FoundObject, Unclear, objects_in

KEY = "criteria_met"
MOST_TIMES = 4  # that a reply gives its verdict: each is read where probabilities count
VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"explanation": {"type": "string"}, KEY: {"type": "boolean"}},
    "required": ["explanation", KEY],
    "additionalProperties": False,
}
# An escaped quotation mark before it is the end of a longer key.
_BEFORE_VALUE = re.compile(rf'(?<!\\)"{KEY}"[\s\u200b\ufeff]*:')
_LOOSE_KEY = re.compile(r"criteri(?:a|on)[\s\\_*-]{0,4}met\W{0,3}[:=]", re.IGNORECASE)
_NAMES_A_CRITERION = re.compile(r"criteri|rubric|(?:\b|_)(?:id|index|number|item)$", re.IGNORECASE)

# Of code, or a token of turns and channels, which some servers leave in a reply. No quotation of a
# graded text holds one: there each is broken up.
_FENCE = re.compile(
    r"```\w*|<\|start\|>assistant|<\|channel\|>final|<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>"
    r"|</s>|<eos>|<end_of_turn>|<turn\|>|</?response>"  # Granite's, around what follows thoughts
)
# Blanks of every width: what Chinese models write is as wide as a letter.
_BLANKS = " \t\r\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_LINE_ENDS = "\n\v\f\u0085\u2028\u2029"
_MARKUP = _BLANKS + "`*_~"
_MAY_FOLLOW = _MARKUP + _LINE_ENDS + "\u200b\ufeff,;.}\uff0c\uff1b\uff0e\u3002"
_QUOTES = "\"'\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_LEADS_IN = tuple(_QUOTES + "([>\u2039\u300c\u300e")
# Also those of Chinese and Japanese, of Hindi, and of Arabic.
_SENTENCE_ENDS = tuple(".:!?\uff0e\uff1a\uff01\uff1f\u3002\u0964\u061f\u06d4")
_WORD = re.compile(r"[^\W\d_]{2}")

# A line before the object that gives the opposite verdict in words, alone or after "verdict:".
_SPACE = r"[^\w\n]*+"
_NAMES = r"(?:final )?(?:verdict|answer|result|conclusion|met)"
_SUBJECT = r"(?:the )?criteri(?:on|a)(?: is| met)?"
_SAYS = rf"^{_SPACE}(?:(?:{_NAMES}|{_SUBJECT})\b{_SPACE})?"
_NO = r"false|no|unmet|not (?:met|satisfied|fulfilled)|fail(?:s|ed)?"
_YES = r"true|yes|met(?!{space}(?:{no})\b)|satisfied|fulfilled|pass(?:es|ed)?"
# Amid a line: of the criterion alone, since a negative one may be met by an answer that "does not
# meet the word limit".
_NOT = r"(?: not|n['\u2019]t)"
_DENIES = (
    rf"(?<!if )(?<!if the )\b(?:this|it|requirement|criterion) (?:is|was|has){_NOT}"
    r" (?:been )?(?:met|satisfied|fulfilled)\b"
    rf"|\b(?:this|it|answer|response) (?:does|has){_NOT} (?:met|meet|satisf\w+|fulfil\w*)"
    r" (?:it|this|that|the (?:requirement|criterion))\b"
)
_OPPOSITES = {
    True: re.compile(
        rf"{_SAYS}(?:{_NO})\b|{_DENIES}|[\u274c\u2717\u2718]", re.IGNORECASE | re.MULTILINE
    ),
    False: re.compile(
        rf"{_SAYS}(?:{_YES.format(space=_SPACE, no=_NO)})\b|[\u2705\u2713\u2714]",
        re.IGNORECASE | re.MULTILINE,
    ),
}

_CHECKLIST = re.compile(
    r'\s*+(?:```\w*+\s*+)?\{\s*+"verdicts"\s*+:\s*+\[(.*\})\s*+,?+\s*+\]\s*+\}[\s`]*+',
    re.DOTALL,
)
_BETWEEN_ITEMS = re.compile(r"(?<=\})\s*+,?+\s*+(?=\{)")


def checklist_schema(count: int) -> dict:
    """The JSON schema of a checklist of `count` verdicts."""
    items = {"type": "array", "items": VERDICT_SCHEMA, "minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"verdicts": items},
        "required": ["verdicts"],
        "additionalProperties": False,
    }


def verdict_in(reply: str) -> dict:
    """The object that is the reply's verdict: its KEY holds a boolean.

    Raises Unclear where there is none, or may be another one.
    """
    text = after_thoughts(reply)
    found = objects_in(text)
    last = _last_with(KEY, found, text)
    met = last.item[KEY]
    if not is_verdict(last.item):
        raise Unclear
    said = _said(found)
    if any(each is not met for each in said):
        raise Unclear
    if not len(said) <= len(_BEFORE_VALUE.findall(text)) <= MOST_TIMES:
        raise Unclear
    if _OPPOSITES[met].search(_FENCE.sub("", text[: last.start])):
        raise Unclear
    return last.item


def until_verdicts(reply: str) -> list[str]:
    """The reply up to the colon before its verdict, each time that it gives it; none without one.

    Several agree, but any of them may be a quotation, and all but the first an echo.
    """
    try:
        verdict_in(reply)
    except Unclear:
        return []
    start = len(reply) - len(after_thoughts(reply))
    return [reply[: found.end()] for found in _BEFORE_VALUE.finditer(reply, start)]


def verdicts_in(reply: str, count: int) -> list[dict | None]:
    """The verdicts of a checklist of `count` items, None for an item that is no verdict.

    An item that is no JSON costs only itself where the places of the others are beyond doubt.
    Raises Unclear for another number of items, or where their places are in doubt.
    """
    text = after_thoughts(reply)
    try:
        found = objects_in(text)
    except Unclear:
        if "{" in reply[: len(reply) - len(text)]:  # thoughts that a quotation ends are none
            raise
        return _item_by_item(text, count)
    last = _last_with("verdicts", found, text)
    items = last.item["verdicts"]
    if not isinstance(items, list) or len(items) != count:
        raise Unclear
    # One that stands in no item may be another item's, which a quotation has moved.
    of_items = [item for item in items if isinstance(item, dict) and KEY in item]
    if len(_said(found)) != len(of_items):
        raise Unclear
    return [item if is_verdict(item) else None for item in items]


def is_verdict(item: object) -> bool:
    """Whether this is an object with a boolean under KEY, of no criterion that it names."""
    if not isinstance(item, dict) or not isinstance(item.get(KEY), bool):
        return False
    return not any(_NAMES_A_CRITERION.search(name) for name in _names_in(item) if name != KEY)


def _names_in(item: object) -> Iterator[str]:
    """The keys of an object, in whatever depth."""
    inner = [item]
    while inner:
        value = inner.pop()
        if isinstance(value, dict):
            yield from value
            inner.extend(value.values())
        elif isinstance(value, list):
            inner.extend(value)


def _said(found: list[FoundObject]) -> list[object]:
    """What the objects hold under KEY, in whatever depth."""
    said = []
    inner: list[object] = [each.item for each in found]
    while inner:
        value = inner.pop()
        if isinstance(value, dict):
            if KEY in value:
                said.append(value[KEY])
            inner.extend(value.values())
        elif isinstance(value, list):
            inner.extend(value)
    return said


def _last_with(key: str, found: list[FoundObject], text: str) -> FoundObject:
    """The last object with this key. Raises Unclear unless it stands for a verdict of its own."""
    having = [each for each in found if key in each.item]
    if not having or _speaks_outside(found, text):
        raise Unclear
    last = having[-1]
    after = _FENCE.sub("", text[last.end :])
    if after.strip(_MAY_FOLLOW) or _in_a_sentence(last, text):
        raise Unclear
    return last


def _speaks_outside(found: list[FoundObject], text: str) -> bool:
    """Whether a `criteria_met: ...` stands outside of the objects."""
    position = 0
    for each in found:
        if _LOOSE_KEY.search(text, position, each.start):
            return True
        position = each.end
    return _LOOSE_KEY.search(text, position) is not None


def _in_a_sentence(found: FoundObject, text: str) -> bool:
    """Whether a sentence leads into the object on its line."""
    _, _, line_before = text[: found.start].rpartition("\n")
    before = _FENCE.sub("", line_before).rstrip(_MARKUP)
    if before.endswith(_LEADS_IN):
        return True
    # Words announce a verdict where a sentence ends, whatever signs stand between them and it.
    return _WORD.search(before) is not None and not before.endswith(_SENTENCE_ENDS)


def _item_by_item(text: str, count: int) -> list[dict | None]:
    """The verdicts of a checklist with items that are no JSON.

    Their places are in no doubt when the reply is the list alone and `},{` stands in it as often as
    between `count` items, strings included: the grader wrote it between its own items, so that one
    more in a quotation would be one too many. So is a KEY more than one in an item.
    """
    checklist = _CHECKLIST.fullmatch(text)
    if not checklist:
        raise Unclear
    pieces = _BETWEEN_ITEMS.split(checklist[1].strip())
    if len(pieces) != count or any(piece.count(KEY) != 1 for piece in pieces):
        raise Unclear
    return [_item(piece) for piece in pieces]


def _item(text: str) -> dict | None:
    """The verdict that a text is, which should be one object and nothing else."""
    try:
        found = objects_in(text)
    except Unclear:
        return None
    if len(found) != 1:
        return None
    (only,) = found
    is_whole = only.start == 0 and only.end == len(text)
    return only.item if is_whole and is_verdict(only.item) else None
