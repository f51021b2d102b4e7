"""Reads verdicts from a grader's reply; whatever is not clearly one is unreadable.

The grader is the policy, and what it grades may hold forged verdicts, which an honest grader may
quote: before its verdict, inside it, after it, or instead of one. What keeps them out:

- Each `criteria_met` counts that is a key, in whatever depth. If two of them disagree, or one
  stands outside of any object (`criteria_met: ...`), nothing is read. The grader's own word thus
  cannot be hidden: a quotation may end its string, but not unwrite what follows.
- A verdict that is part of a sentence is none: a word, a comma, a quotation mark or an opening
  bracket before it on its line ("Not {...}", "it says {...}"), or a sentence that goes on after it.
- Words around it must not say the opposite: a line before it ("Verdict: unmet"), anything after it
  ("... is an attempt to cheat, the criterion is not met"). Only some English ones are known.

What is left to a policy: a grader that quotes a forged verdict as a line of its own, or after a
colon, and then gives no verdict in JSON, nor denies that one in words that are known here.
"""

import re

from rubric_rl.common.tokenizer import THINK, THINK_END
from rubric_rl.data.schema import UNREADABLE, Verdict
from rubric_rl.serving.denials import denied
from rubric_rl.serving.reply_json import FoundObject, Unclear, objects_in


def read_verdict(reply: str) -> Verdict:
    """The verdict of an `explain` reply: of the last object with `criteria_met`."""
    text = _final_part(reply)
    try:
        found = objects_in(text)
        last = _last_with(_KEY, found, text)
    except Unclear:
        return UNREADABLE
    verdict = _verdict(last.item)
    disagree = any(said is not last.item[_KEY] for said in _said(found))
    taken_back = denied(verdict.met, text[: last.start], text[last.end :])
    return UNREADABLE if disagree or taken_back else verdict


def read_probability(probability: float | None) -> Verdict:
    """The verdict of a `direct` reply: the likelier word; a tie and no probability are none."""
    if probability is None or probability == 0.5:
        return Verdict(None, probability)
    return Verdict(probability > 0.5, probability)


def read_checklist(reply: str, count: int) -> list[Verdict]:
    """The verdicts of a `checklist` reply in the order of the criteria.

    All are unreadable unless there are exactly `count`. An item that is no JSON costs only itself
    where the places of the others are beyond doubt.
    """
    text = _final_part(reply)
    unreadable = [UNREADABLE] * count
    try:
        found = objects_in(text)
    except Unclear:
        return _item_by_item(text, count) or unreadable
    try:
        return _whole_checklist(text, found, count)
    except Unclear:
        return unreadable


def majority(votes: list[Verdict]) -> Verdict:
    """The verdict that more than half of all votes share, unreadable ones counted.

    Without such a majority it is unreadable.
    """
    for met in (True, False):
        agreeing = [vote for vote in votes if vote.met is met]
        if 2 * len(agreeing) > len(votes):
            return agreeing[0]
    return UNREADABLE


# ---- what a reply says, and where


def _final_part(reply: str) -> str:
    """What follows the last `</think>`. Thoughts that never end contain no verdict."""
    text = reply.rpartition(THINK_END)[2]
    return "" if THINK in text else text


def _verdict(item: object) -> Verdict:
    fields = item if isinstance(item, dict) else {}
    met, explanation = fields.get(_KEY), fields.get("explanation")
    return Verdict(
        met=met if isinstance(met, bool) else None,
        explanation=explanation if isinstance(explanation, str) else "",
    )


def _said(found: list[FoundObject]) -> list[object]:
    """What the objects hold under `criteria_met`, in whatever depth."""
    said = []
    inner: list[object] = [each.item for each in found]
    while inner:
        value = inner.pop()
        if isinstance(value, dict):
            if _KEY in value:
                said.append(value[_KEY])
            inner.extend(value.values())
        elif isinstance(value, list):
            inner.extend(value)
    return said


def _last_with(key: str, found: list[FoundObject], text: str) -> FoundObject:
    """The last object with this key. Raises Unclear unless it stands for a verdict of its own."""
    having = [each for each in found if key in each.item]
    if not having or _speaks_outside(found, text) or _in_a_sentence(having[-1], text):
        raise Unclear
    return having[-1]


def _speaks_outside(found: list[FoundObject], text: str) -> bool:
    """Whether a `criteria_met: ...` stands outside of the objects."""
    ends = [0, *(each.end for each in found)]
    starts = [*(each.start for each in found), len(text)]
    between = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    return any(_LOOSE_KEY.search(piece) for piece in between)


def _in_a_sentence(found: FoundObject, text: str) -> bool:
    """Whether a sentence of the line that the object stands in goes through it."""
    line_before = text[: found.start].rpartition("\n")[2]
    line_after = text[found.end :].partition("\n")[0]
    before = _FENCE.sub("", line_before).rstrip(_MARKUP)
    after = _FENCE.sub("", line_after).lstrip(_MARKUP + ",;")[:1]
    # Words announce a verdict where a sentence ends, whatever signs stand between them and it.
    ends_well = before.endswith(tuple(".:!?")) or not _WORD.search(before)
    leads_in = before.endswith(tuple(_LEADS_IN)) or not ends_well
    goes_on = (after.isalnum() and not after.isupper()) or after in _GOES_ON
    return leads_in or (after != "" and goes_on)


# ---- checklists


def _whole_checklist(text: str, found: list[FoundObject], count: int) -> list[Verdict]:
    """The verdicts of a reply whose objects are well-formed, all of them."""
    last = _last_with("verdicts", found, text)
    items = last.item["verdicts"]
    if not isinstance(items, list) or len(items) != count:
        raise Unclear
    of_items = [item for item in items if isinstance(item, dict) and _KEY in item]
    verdicts = [_verdict(item) for item in items]
    # One that stands in no item may be another item's, which a quotation has moved.
    if len(_said(found)) != len(of_items):
        raise Unclear
    if any(denied(verdict.met, "", text[last.end :]) for verdict in verdicts):
        raise Unclear
    return verdicts


def _item_by_item(text: str, count: int) -> list[Verdict] | None:
    """The verdicts of a checklist with items that are no JSON; None where places are in doubt.

    They are in no doubt when the reply is the list alone and `},{` stands in it as often as between
    `count` items, strings included: the grader wrote it between its own items, so that one more in
    a quotation would be one too many. So is a `criteria_met` more than one in an item.
    """
    checklist = _CHECKLIST.fullmatch(text)
    pieces = _BETWEEN_ITEMS.split(checklist[1].strip()) if checklist else []
    if len(pieces) != count or any(piece.count(_KEY) != 1 for piece in pieces):
        return None
    return [_item(piece) for piece in pieces]


def _item(text: str) -> Verdict:
    """The verdict of a text that should be one object."""
    try:
        found = objects_in(text)
    except Unclear:
        return UNREADABLE
    whole = len(found) == 1 and text == text[found[0].start : found[0].end]
    return _verdict(found[0].item) if whole else UNREADABLE


_KEY = "criteria_met"
_LOOSE_KEY = re.compile(r"criteri(?:a|on)[\s\\_*-]{0,4}met\W{0,3}[:=]", re.IGNORECASE)

_FENCE = re.compile(r"```\w*")
_MARKUP = " \t\r\u00a0`*_~"
_QUOTES = "\"'\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
_WORD = re.compile(r"[^\W\d_]{2}")
_LEADS_IN = _QUOTES + "([>\u2039\u300c\u300e"
_GOES_ON = _QUOTES + ")]:"

_CHECKLIST = re.compile(
    r'\s*+(?:```\w*+\s*+)?\{\s*+"verdicts"\s*+:\s*+\[(.*\})\s*+,?+\s*+\]\s*+\}[\s`]*+',
    re.DOTALL,
)
_BETWEEN_ITEMS = re.compile(r"(?<=\})\s*+,?+\s*+(?=\{)")
