"""Rubric data in other forms as raw rows: functions for data_preprocess.py --converter."""

import hashlib
import json
from collections.abc import Iterable

TEXT_KEYS = (
    "criterion",
    "description",
    "text",
    "title",
)
POINTS_KEYS = (
    "points",
    "weight",
    "score",
)


def plain(item: dict) -> dict:
    """Makes a raw row of a row with `prompt` (a text, or chat messages) and `rubrics` or `rubric`.

    Each criterion is an object with its text under criterion, description, text or title, and
    its points under points, weight or score. A missing prompt_id becomes a hash of the prompt.
    A row that cannot be scored is refused later.
    """
    messages = item["prompt"]
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    rubric = item.get("rubrics") or item.get("rubric") or []
    prompt_id = item.get("prompt_id") or _hash(messages)
    return item | {
        "prompt_id": str(prompt_id),
        "prompt": messages,
        "rubrics": [_criterion(criterion) for criterion in rubric],
    }


def _criterion(criterion: dict) -> dict:
    return {
        "criterion": _first(criterion, TEXT_KEYS),
        "points": _first(criterion, POINTS_KEYS),
        "tags": criterion.get("tags"),
    }


def _first(criterion: dict, keys: Iterable[str]) -> object:
    """The value of the first key that has one."""
    for key in keys:
        if criterion.get(key) is not None:
            return criterion[key]
    return None


def _hash(messages: object) -> str:
    text = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(text.encode(errors="replace"))
    return digest.hexdigest()[:16]
