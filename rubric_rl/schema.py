"""The row format, the only place that knows it: messages, rubric, tags (stage 1, prompt)."""

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROLES = ("system", "user", "assistant")


class UserError(ValueError):
    """Anything a user can fix: one line that says what is wrong, where, and the next step."""


class DataError(UserError):
    """A row that cannot be used; the message names file, line and prompt_id."""


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
        raise DataError(f"{where}: metadata is {found}, not an object; make the rows with data_preprocess.py")
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
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise DataError(f"{where}: each message needs a role of {', '.join(ROLES)} and a text content")
    if messages[-1]["role"] != "user":
        raise DataError(f"{where}: the last message is from the {messages[-1]['role']}; it must be the user's")
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def conversation(messages: Iterable[Mapping]) -> tuple:
    """What makes two conversations the same one, whatever their prompt_id and white space."""
    return tuple((message["role"], " ".join(message["content"].split())) for message in messages)


def _rubric(items, where: str) -> tuple[Criterion, ...]:
    if not isinstance(items, (list, tuple)) or not items:
        raise DataError(f"{where}: rubrics is not a list of criteria")
    rubric = tuple(_criterion(item, f"{where}, criterion {number}") for number, item in enumerate(items, 1))
    if not any(criterion.points > 0 for criterion in rubric):
        raise DataError(f"{where}: no criterion has positive points, so no score is defined; leave the row out")
    return rubric


def _criterion(item, where: str) -> Criterion:
    if not isinstance(item, dict) or not isinstance(item.get("criterion"), str) or not item["criterion"].strip():
        raise DataError(f"{where}: its text is empty or missing")
    points = item.get("points")
    # The bounds keep every score finite; neither 0 nor NaN nor infinity lies within them.
    if isinstance(points, bool) or not isinstance(points, (int, float)) or not 1e-6 <= abs(points) <= 1e6:
        raise DataError(f"{where}: points must be a number of size 1e-6 to 1e6, not {points!r:.40}")
    return Criterion(item["criterion"], points, _tags(item.get("tags"), where))


def _tags(tags, where: str) -> tuple[str, ...]:
    tags = [] if tags is None else tags
    if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
        raise DataError(f"{where}: tags must be a list of strings")
    return tuple(tags)


def read_jsonl_offsets(
    path: str | os.PathLike, skip_partial: bool = False, refused: list[str] | None = None
) -> Iterator[tuple[int, int, object]]:
    """Yields (line number, byte offset, value) of a JSONL file, one line in memory at a time.

    Splits on "\\n" alone: rows hold U+2028, at which str.splitlines() would cut them. `skip_partial` leaves out a last
    line without its "\\n", which a killed writer cut short. A broken line raises DataError with file and line; where a
    list `refused` is given, the message is added to it instead and the line is left out.
    """
    path, end = Path(path), 0
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path, or make rows with data_preprocess.py")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            offset, end = end, end + len(line)
            if not line.strip() or (skip_partial and not line.endswith(b"\n")):
                continue
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number of 5,000 digits, too deep
                message = f"{path}:{number}: broken JSON ({getattr(error, 'msg', error)}); make or restore the file"
                if refused is None:
                    raise DataError(message) from None
                refused.append(message)
                continue
            yield number, offset, value


def read_jsonl(path: str | os.PathLike, **how) -> Iterator[tuple[int, object]]:
    """As `read_jsonl_offsets`, without the offsets: yields (line number, value)."""
    return ((number, value) for number, _, value in read_jsonl_offsets(path, **how))


def read_rows(path: str | os.PathLike) -> list[Row]:
    """Reads a file written by data_preprocess.py; every error names file, line and prompt_id."""
    rows = []
    for number, item in read_jsonl(path):
        if not isinstance(item, dict):
            raise DataError(f"{path}:{number}: not a JSON object; make the rows with data_preprocess.py")
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


def json_line(item: Mapping) -> bytes:
    """The item as one line of JSONL.

    A lone surrogate, which a model can write but UTF-8 cannot encode, stays a JSON escape.
    """
    return (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")


def append_line(file, item: Mapping) -> None:
    """Appends the item to an unbuffered file of mode "a+b" in one write, so that a kill cannot mix two lines.

    A last line that a killed writer cut short is dropped first. On a full disk it adds nothing and raises OSError.
    """
    line, end = json_line(item), file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    if file.read(1) not in (b"", b"\n"):
        with open(file.name, "rb") as lines:
            end = file.truncate(sum(len(whole) for whole in lines if whole.endswith(b"\n")))
    if file.write(line) != len(line):
        file.truncate(end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)


def write_jsonl(path: str | os.PathLike, items: Iterable[dict]) -> int:
    """Writes all items or nothing (temporary file, fsync, rename); returns their number."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}.tmp"), 0
    try:
        with temporary.open("wb") as file:
            for item in items:
                file.write(json_line(item))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count
