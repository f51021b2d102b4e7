"""The row format, the only place that knows it: messages, rubric, tags (stage 1, prompt)."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rubric_rl.errors import DataError
from rubric_rl.jsonl import read_jsonl

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Criterion:
    """One rubric item. `points` is never 0: positive for what an answer should do, negative for what it must not."""

    text: str
    points: float
    tags: tuple[str, ...] = ()

    def tag(self, kind: str) -> str:
        """The value of the first tag `kind:value` (HealthBench kinds: level, axis, cluster); "" when there is none."""
        return next((tag.split(":", 1)[1] for tag in self.tags if tag.startswith(kind + ":")), "")


@dataclass(frozen=True)
class Row:
    """One prompt with its rubric. `messages` ends with the user's turn that the policy answers."""

    prompt_id: str
    messages: tuple[dict, ...]
    rubric: tuple[Criterion, ...]
    theme: str = ""
    example_tags: tuple[str, ...] = ()
    extra: dict = field(default_factory=dict)  # canary and whatever else the source carried

    def to_json(self) -> dict:
        """The JSONL row that slime and the CPU trainer read: `prompt` is templated, `metadata` goes to the reward."""
        metadata = {
            "prompt_id": self.prompt_id,
            "messages": list(self.messages),
            "rubrics": rubrics_json(self.rubric),
            "theme": self.theme,
            "example_tags": list(self.example_tags),
        }
        return {"prompt": list(self.messages), "metadata": metadata | self.extra}


def rubrics_json(rubric: Iterable[Criterion]) -> list[dict]:
    """A rubric as it stands under `rubrics`, in rows and in verdict records."""
    return [{"criterion": c.text, "points": c.points, "tags": list(c.tags)} for c in rubric]


def row_from_metadata(metadata: dict, where: str = "metadata") -> Row:
    """Builds a Row from a row's `metadata` object.

    Raises:
        DataError: naming `where`, the prompt_id and the field, for anything that could not be scored:
            no user turn at the end, an empty criterion, points that are zero or not finite, no positive points.
    """
    if not isinstance(metadata, dict):
        found = type(metadata).__name__
        raise DataError(
            f"{where}: metadata is {found}, not an object; make the rows with data_preprocess.py"
        )
    prompt_id = metadata.get("prompt_id")
    if not isinstance(prompt_id, str) or not prompt_id:
        raise DataError(f"{where}: prompt_id is missing; make the rows with data_preprocess.py")
    where = f"{where}, prompt_id {prompt_id}"
    known = ("prompt_id", "messages", "rubrics", "theme", "example_tags")
    return Row(
        prompt_id=prompt_id,
        messages=_messages(metadata.get("messages"), where),
        rubric=_rubric(metadata.get("rubrics"), where),
        theme=str(metadata.get("theme") or ""),
        example_tags=_tags(metadata.get("example_tags"), where),
        extra={key: value for key, value in metadata.items() if key not in known},
    )


def _messages(messages, where: str) -> tuple[dict, ...]:
    if not isinstance(messages, (list, tuple)) or not messages:
        raise DataError(f"{where}: messages is not a list of chat messages")
    for message in messages:
        role, content = (
            (message.get("role"), message.get("content"))
            if isinstance(message, dict)
            else (None, None)
        )
        if role not in ROLES or not isinstance(content, str):
            raise DataError(
                f"{where}: each message needs a role of {', '.join(ROLES)} and a text content"
            )
    if messages[-1]["role"] != "user":
        raise DataError(
            f"{where}: the last message is from the {messages[-1]['role']}; it must be the user's"
        )
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def conversation(messages: Iterable[Mapping]) -> tuple:
    """What makes two conversations the same one, whatever their prompt_id and white space."""
    return tuple((message["role"], " ".join(message["content"].split())) for message in messages)


def _rubric(items, where: str) -> tuple[Criterion, ...]:
    if not isinstance(items, (list, tuple)) or not items:
        raise DataError(f"{where}: rubrics is not a list of criteria")
    rubric = tuple(
        _criterion(item, f"{where}, criterion {number}") for number, item in enumerate(items, 1)
    )
    if not any(criterion.points > 0 for criterion in rubric):
        raise DataError(
            f"{where}: no criterion has positive points, so no score is defined; leave the row out"
        )
    return rubric


def _criterion(item, where: str) -> Criterion:
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("criterion"), str)
        or not item["criterion"].strip()
    ):
        raise DataError(f"{where}: its text is empty or missing")
    points = item.get("points")
    # The bounds keep every score finite; neither 0 nor NaN nor infinity lies within them.
    if (
        isinstance(points, bool)
        or not isinstance(points, (int, float))
        or not 1e-6 <= abs(points) <= 1e6
    ):
        raise DataError(f"{where}: points must be a number of size 1e-6 to 1e6, not {points!r:.40}")
    return Criterion(item["criterion"], points, _tags(item.get("tags"), where))


def _tags(tags, where: str) -> tuple[str, ...]:
    tags = [] if tags is None else tags
    if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
        raise DataError(f"{where}: tags must be a list of strings")
    return tuple(tags)


def read_rows(path: str | os.PathLike) -> list[Row]:
    """Reads a file written by data_preprocess.py; every error names file, line and prompt_id."""
    rows = []
    for number, item in read_jsonl(path):
        if not isinstance(item, dict):
            raise DataError(
                f"{path}:{number}: not a JSON object; make the rows with data_preprocess.py"
            )
        rows.append(row_from_metadata(item.get("metadata"), f"{path}:{number}"))
    if not rows:
        raise DataError(f"{path}: holds no rows; make them with data_preprocess.py")
    return rows


def split_slice(path: str) -> tuple[str, slice]:
    """The file and the slice of rows named by `file@[a:b]`, slime's notation; all rows for a plain path."""
    name, start, stop = re.fullmatch(r"(.*?)(?:@\[(-?\d*):(-?\d*)\])?", path, re.DOTALL).groups()
    return name, slice(*(int(number) if number else None for number in (start, stop)))


def read_slice(path: str) -> list[Row]:
    """The rows of `file` or `file@[a:b]`."""
    name, rows = split_slice(path)
    return read_rows(name)[rows]
