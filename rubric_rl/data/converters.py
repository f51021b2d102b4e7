"""Rubric data in other forms as raw rows, one function each, for data_preprocess.py --converter (stage 1, prompt)."""

import hashlib
import json

_TEXT = ("criterion", "description", "text", "title")
_POINTS = ("points", "weight", "score")


def plain(item: dict) -> dict:
    """Makes a raw row of a row with `prompt` (a text, or chat messages) and `rubrics` or `rubric`.

    Each criterion is an object with its text under criterion, description, text or title, and its points under points,
    weight or score. A missing prompt_id becomes a hash of the prompt. A row that cannot be scored is refused later.
    """
    prompt = item["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    rubric = item.get("rubrics") or item.get("rubric") or []
    rubric = [
        {"criterion": _first(c, _TEXT), "points": _first(c, _POINTS), "tags": c.get("tags")}
        for c in rubric
    ]
    return item | {
        "prompt_id": str(item.get("prompt_id") or digest[:16]),
        "prompt": messages,
        "rubrics": rubric,
    }


def _first(criterion: dict, keys: tuple[str, ...]):
    return next((criterion[key] for key in keys if criterion.get(key) is not None), None)
