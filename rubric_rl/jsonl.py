"""Files of JSON lines, read line by line and written so that a kill leaves no half of anything."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rubric_rl.errors import DataError


def read_jsonl_offsets(
    path: str | os.PathLike, skip_partial: bool = False, refused: list[str] | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Yields (line number, byte offset, value) of a JSONL file, one line in memory at a time.

    `skip_partial` leaves out a last line without its "\\n", which a killed writer cut short. A
    broken line raises DataError with file and line; where a list `refused` is given, the message
    is added to it instead and the line is left out. Raises DataError for a file that is not
    there or cannot be read.
    """
    end = 0
    for number, line in enumerate(_lines(Path(path)), 1):
        offset = end
        end += len(line)
        partial = not line.endswith(b"\n")
        if not line.strip() or (skip_partial and partial):
            continue
        try:
            value = json.loads(line.decode())
        # Not JSON, not UTF-8, a number of 5,000 digits, or nested too deeply.
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            message = f"{path}:{number}: broken JSON ({reason}); make or restore the file"
            if refused is None:
                raise DataError(message) from None
            refused.append(message)
            continue
        yield number, offset, value


def _lines(path: Path) -> Iterator[bytes]:
    """Splits on "\\n" alone: rows hold U+2028, at which str.splitlines() would cut them."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check path and rights"
        ) from None


def read_jsonl(
    path: str | os.PathLike, skip_partial: bool = False, refused: list[str] | None = None
) -> Iterator[tuple[int, Any]]:
    """As `read_jsonl_offsets`, without the offsets: yields (line number, value)."""
    for number, _, value in read_jsonl_offsets(path, skip_partial, refused):
        yield number, value


def json_line(item: Mapping) -> bytes:
    """The item as one line of JSONL.

    A lone surrogate, which a model can write but UTF-8 cannot encode, stays a JSON escape.
    """
    text = json.dumps(item, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode(errors="backslashreplace")


def private(path: str, flags: int) -> int:
    """The `opener` of a file that, where it is new, only its owner may read."""
    return os.open(path, flags, 0o600)


def append_line(file: IO[bytes], item: Mapping) -> None:
    """Appends the item to an unbuffered file of mode "a+b" that nobody else writes meanwhile.

    It is one write, so that a kill cannot mix two lines. A last line that a killed writer cut
    short is dropped first: what another writer is about to end would be dropped too. On a full
    disk it adds nothing and raises OSError.
    """
    line = json_line(item)
    end = _drop_partial_line(file)
    written = file.write(line)
    if written != len(line):
        file.truncate(end)
        reason = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, reason, file.name)


def _drop_partial_line(file: IO[bytes]) -> int:
    """Cuts off a last line without its end; returns the file's size."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return end
    size = 0
    with open(file.name, "rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                size += len(line)
    return file.truncate(size)


@contextmanager
def whole_file(path: str | os.PathLike, only_owner: bool = False) -> Iterator[IO[bytes]]:
    """A new file that takes the path's place when all is written, and not at all before.

    Raises DataError where a rename would put a file in a device's place; an OSError names the
    path. With `only_owner` nobody else may read it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no regular file, and would be replaced; name another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=private if only_owner else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise


def write_jsonl(path: str | os.PathLike, items: Iterable[dict], only_owner: bool = False) -> int:
    """Writes all items or nothing, as `whole_file`; returns their number."""
    count = 0
    with whole_file(path, only_owner) as file:
        for item in items:
            file.write(json_line(item))
            count += 1
    return count


def write_text(path: str | os.PathLike, pieces: str | Iterable[str]) -> None:
    """Writes all of a text, or of its pieces, or nothing.

    A lone surrogate, which UTF-8 cannot encode, is written as an escape.
    """
    with whole_file(path) as file:
        for piece in [pieces] if isinstance(pieces, str) else pieces:
            file.write(piece.encode(errors="backslashreplace"))
