"""Reads verdicts from a grader's reply; whatever is not clearly one is unreadable (stage 3, rubric grading)."""

import json
from dataclasses import dataclass

from rubric_rl.grading.prompt import THINK, THINK_END

_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: _unique(pairs))


@dataclass(frozen=True)
class Reading:
    """One verdict as read from a reply; `met` is None when it is unreadable."""

    met: bool | None
    explanation: str = ""
    probability: float | None = None  # of true against false, in `direct` mode


def read_verdict(reply: str) -> Reading:
    """The verdict of an `explain` or `direct` reply: the last well-formed object with a boolean `criteria_met`."""
    return _reading(_last_object(reply, "criteria_met"))


def read_checklist(reply: str, count: int) -> list[Reading]:
    """The verdicts of a `checklist` reply in the order of the criteria; unreadable unless there are exactly `count`."""
    found = _last_object(reply, "verdicts").get("verdicts")
    if not isinstance(found, list) or len(found) != count:
        return [Reading(None)] * count
    return [_reading(item if isinstance(item, dict) else {}) for item in found]


def _reading(item: dict) -> Reading:
    met, explanation = item.get("criteria_met"), item.get("explanation")
    return Reading(
        met if isinstance(met, bool) else None, explanation if isinstance(explanation, str) else ""
    )


def _last_object(reply: str, key: str) -> dict:
    """The last top-level JSON object that has `key`, after the last `</think>`; {} when there is none.

    Thoughts that never end contain no verdict. Nor does a reply with a brace that opens no well-formed object: what
    follows may be a quotation of the graded answer inside a broken verdict.
    """
    text, found, start = reply.rpartition(THINK_END)[2], {}, 0
    if THINK in text:
        return {}
    while (start := text.find("{", start)) >= 0:
        try:
            item, start = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return {}
        if key in item:
            found = item
    return found


def _unique(pairs: list[tuple]) -> dict:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)
