"""JSONL files: read line by line, written as a whole or not at all, appended so that a kill mixes no lines."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rubric_rl.errors import DataError


def read_jsonl_offsets(
    path: str | os.PathLike, skip_partial: bool = False, refused: list[str] | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Yields (line number, byte offset, value) of a JSONL file, one line in memory at a time.

    Splits on "\\n" alone: rows hold U+2028, at which str.splitlines() would cut them. `skip_partial` leaves out a last
    line without its "\\n", which a killed writer cut short. A broken line raises DataError with file and line; where a
    list `refused` is given, the message is added to it instead and the line is left out.
    """
    path, end = Path(path), 0
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; check the path, or make rows with data_preprocess.py"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            offset, end = end, end + len(line)
            if not line.strip() or (skip_partial and not line.endswith(b"\n")):
                continue
            try:
                value = json.loads(line.decode())
            except (
                ValueError,
                RecursionError,
            ) as error:  # not JSON, not UTF-8, a number of 5,000 digits, too deep
                message = f"{path}:{number}: broken JSON ({getattr(error, 'msg', error)}); make or restore the file"
                if refused is None:
                    raise DataError(message) from None
                refused.append(message)
                continue
            yield number, offset, value


def read_jsonl(path: str | os.PathLike, **how) -> Iterator[tuple[int, Any]]:
    """As `read_jsonl_offsets`, without the offsets: yields (line number, value)."""
    return ((number, value) for number, _, value in read_jsonl_offsets(path, **how))


def json_line(item: Mapping) -> bytes:
    """The item as one line of JSONL.

    A lone surrogate, which a model can write but UTF-8 cannot encode, stays a JSON escape.
    """
    return (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"
    )


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


def write_text(path: Path, text: str) -> None:
    """Replaces a small file atomically."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
