"""HealthBench, and rows in its form.

    {"prompt_id": "a1", "prompt": [{"role": "user", "content": "May I run with a cold?"}],
     "rubrics": [{"criterion": "Asks about fever", "points": 5, "tags": ["axis:accuracy"]},
                 {"criterion": "Forbids all sport for good", "points": -4, "tags": []}],
     "example_tags": ["theme:hedging"], "canary": "..."}

Signs: an item of negative points is a fault, so 'met' is bad there. Two published items have the
wrong sign (--fix-signs).
"""

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import AS_POINTS, Reader

_FIELDS = {"criterion", "points", "tags"}  # of each criterion


def _fits(item: dict) -> bool:
    """Whether it is written as HealthBench is, and nothing of it would be lost or refused.

    Rows that are only like it, with a weight, an axis or a text for a prompt, are `plain`, which
    reads more forms and does not expect the 5,000 prompts of the release.
    """
    if not isinstance(item.get("prompt_id"), str) or "example_tags" not in item:
        return False
    rubric = item.get("rubrics")
    first = pieces.first_of(rubric)
    as_published = first.keys() == _FIELDS and isinstance(first["tags"], list)
    is_list = isinstance(rubric, list) and first in rubric[:1]
    is_chat = isinstance(item.get("prompt"), list) and not any(map(item.get, pieces.SYSTEM_KEYS))
    return is_chat and as_published and is_list


def read(item: dict) -> dict:
    """The item as it is: this is the form that all others are brought into.

    Raises DataError for one with a system text of its own, which would be lost.
    """
    if any(map(item.get, pieces.SYSTEM_KEYS)):
        what = "has a system text beside the prompt, which this set has not"
        raise DataError(f"{what}; rows of one's own are read with --format plain")
    return item


HEALTHBENCH = Reader(
    "healthbench",
    "prompt_id, prompt as messages, example_tags, rubrics[criterion, points, tags]",
    _fits,
    read,
    AS_POINTS,
    "MIT",
)


def _is_prepared(item: dict) -> bool:
    metadata = item.get("metadata")
    return isinstance(metadata, dict) and "rubrics" in metadata and "messages" in metadata


def read_prepared(item: dict) -> dict:
    """A row that data_preprocess.py or rubric_rl.generate wrote, to be split anew."""
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    return metadata | {"prompt": metadata.get("messages")}


PREPARED = Reader(
    "prepared", "metadata[messages, rubrics]", _is_prepared, read_prepared, AS_POINTS, "as before"
)
