"""Reads verdicts from a grader's reply; whatever is not clearly one is unreadable."""

import json

from rubric_rl.data.schema import UNREADABLE, Verdict
from rubric_rl.tokenizer import THINK, THINK_END


def read_verdict(reply: str) -> Verdict:
    """The verdict of an `explain` reply: the last well-formed object with `criteria_met`."""
    return _verdict(_last_object(reply, "criteria_met"))


def read_probability(probability: float | None) -> Verdict:
    """The verdict of a `direct` reply: the likelier word; a tie and no probability are none."""
    if probability is None or probability == 0.5:
        return Verdict(None, probability)
    return Verdict(probability > 0.5, probability)


def read_checklist(reply: str, count: int) -> list[Verdict]:
    """The verdicts of a `checklist` reply in the order of the criteria.

    All are unreadable unless there are exactly `count`.
    """
    found = _last_object(reply, "verdicts").get("verdicts")
    if not isinstance(found, list) or len(found) != count:
        return [UNREADABLE] * count
    return [_verdict(item if isinstance(item, dict) else {}) for item in found]


def majority(votes: list[Verdict]) -> Verdict:
    """The verdict that more than half of all votes share, unreadable ones counted.

    Without such a majority it is unreadable.
    """
    for met in (True, False):
        agreeing = [vote for vote in votes if vote.met is met]
        if 2 * len(agreeing) > len(votes):
            return agreeing[0]
    return UNREADABLE


def _verdict(item: dict) -> Verdict:
    met, explanation = item.get("criteria_met"), item.get("explanation")
    return Verdict(
        met=met if isinstance(met, bool) else None,
        explanation=explanation if isinstance(explanation, str) else "",
    )


def _last_object(reply: str, key: str) -> dict:
    """The last top-level JSON object that has `key`, after the last `</think>`; {} without one.

    Thoughts that never end contain no verdict. Nor does a reply with a brace that opens no
    well-formed object: what follows may be a quotation of the graded answer inside a broken
    verdict.
    """
    text = reply.rpartition(THINK_END)[2]
    if THINK in text:
        return {}
    found: dict = {}
    start = text.find("{")
    while start >= 0:
        try:
            item, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return {}
        if key in item:
            found = item
        start = text.find("{", end)
    return found


def _without_repeats(pairs: list[tuple]) -> dict:
    """The object of these pairs; one that says two things under one key says nothing."""
    item = dict(pairs)
    if len(item) != len(pairs):
        raise ValueError("duplicate key")
    return item


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)
