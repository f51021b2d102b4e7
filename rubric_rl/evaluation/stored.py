"""What stands in an evaluation's folder, read back: its settings, and files of JSON lines."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl

SETTINGS = "settings.json"
ANOTHER = "choose another --out"
RESTORE = f"restore the file, or {ANOTHER}"
EARLIER_URLS = "earlier_urls"  # in the settings: where an evaluation was asked before --moved
LEFT_URLS = "left_urls"  # the same, until there is a reply from elsewhere
KINDS = {
    "evaluate": "evaluation",
    "meta_eval": "meta-evaluation",
    "generate": "generation of rubrics",
}


def stored_lines(results: Path) -> Iterator[dict]:
    """The results of an evaluation's folder as they stand there, also those made anew later."""
    for _, line in lines(results):
        yield line


def lines(path: Path) -> Iterator[tuple[str, dict]]:
    """The objects of a file that may not be there yet, each with its place."""
    if not path.exists():
        return
    for number, item in read_jsonl(path, skip_partial=True):
        where = f"{path}:{number}"
        if not isinstance(item, dict):
            raise damaged(where)
        yield where, item


def only_line(path: Path) -> dict:
    items = list(stored_lines(path))
    if len(items) != 1:
        raise damaged(str(path))
    return items[0]


def damaged(where: str) -> DataError:
    return DataError(f"{where}: not what an evaluation writes there; {RESTORE}")


def stored_settings(folder: Path) -> dict:
    """What was asked in an evaluation's or meta-evaluation's folder; {} where none can be read."""
    path = folder / SETTINGS
    if not path.is_file():
        return {}
    try:
        settings = only_line(path)
    except DataError:
        return {}
    kind = settings.get("kind")
    if isinstance(kind, str) and kind in KINDS and _has_our_form(settings):
        return settings
    return {}


def _has_our_form(settings: Mapping) -> bool:
    """Whether rows and grader, if there are any, are told as they are written."""
    grader = settings.get("grader", {})
    if not isinstance(grader, dict) or not isinstance(settings.get("rows", {}), dict):
        return False
    extra = grader.get("extra_body")
    url = grader.get("url")
    return isinstance(extra, dict | None) and isinstance(url, str | None)


def run_name(settings: Mapping) -> str:
    """The run's name in its records: one for the same settings, wherever they are served."""
    asked = {}
    for key, value in flat(settings).items():
        if not is_url(key):
            asked[key] = value
    text = json.dumps(asked, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=6)
    return f"{settings['kind']}-{digest.hexdigest()}"


def is_url(key: str) -> bool:
    return key.endswith(".url")


def flat(value: object, prefix: str = "") -> dict:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    parts = {}
    for name, item in value.items():
        key = f"{prefix}.{name}" if prefix else name
        parts |= flat(item, key)
    return parts
