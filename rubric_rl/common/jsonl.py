"""Files of JSON lines, read line by line and written so that a kill leaves no half of anything."""

import codecs
import errno
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import one_line

AnyPath = str | os.PathLike

# The JSON text of a value; ValueError for a number that JSON lacks. An encoder for each text would
# take a tenth longer.
json_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class RepeatedKey(ValueError):
    """A JSON object has a key twice, with two values."""


def _object(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    for key, value in pairs:
        if made[key] != value:
            name = one_line(key, 40)
            raise RepeatedKey(f"{name!r} stands twice in an object, with two values")
    return made


# As json.loads, but a key that stands twice is an error: of its two values one would be lost.
DECODER = json.JSONDecoder(object_pairs_hook=_object)
loads_all = DECODER.decode

_secrets: dict[str, Callable[[str], str]] = {}  # name of a secret -> what hides it in a text

# A byte order mark, which Windows programs write at a file's start; files joined end to end have
# one before later lines too.
_MARK = codecs.BOM_UTF8
_BEFORE_A_VALUE = re.compile(rb"(?:%s|[ \t\r\n]+)*" % _MARK)

# How a file begins that is no UTF-8 text at all: what it is, and what makes JSONL of it.
_OTHER_FILES = {
    b"\x1f\x8b": ("compressed by gzip", "unpack it with gunzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it with unzstd"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it with unxz"),
    b"BZh": ("compressed by bzip2", "unpack it with bunzip2"),
    b"PK\x03\x04": ("a zip archive", "unpack it with unzip"),
    b"PAR1": ("a Parquet file", "write it as JSONL"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file with git lfs pull"),
    codecs.BOM_UTF16_LE: ("UTF-16 or UTF-32 text", "save it as UTF-8"),
    codecs.BOM_UTF16_BE: ("UTF-16 or UTF-32 text", "save it as UTF-8"),
}


def read_jsonl_offsets(
    path: AnyPath,
    skip_partial: bool = False,
    refused: list[str] | None = None,
    packed: bool = False,
    loads: Callable[[str], Any] = json.loads,
) -> Iterator[tuple[int, int, Any]]:
    """Yields (line number, byte offset, value) of a JSONL file, one line in memory at a time.

    The offset is that of the value: after a byte order mark, which may stand before any line.
    `skip_partial` leaves out a last line without its "\\n", which a killed writer cut short;
    `packed` reads a file of gzip, `loads` a value. A broken line raises DataError with file and
    line; where a list `refused` is given, the message is added to it instead and the line is left
    out. Raises DataError for a file that is not there, cannot be read or is no UTF-8 text.
    """
    end = 0
    for number, line in enumerate(_lines(path, packed), 1):
        if number == 1:
            check_beginning(path, line)
        before = _BEFORE_A_VALUE.match(line)
        assert before is not None  # it matches nothing, too
        start = before.end()
        text = line[start:]
        offset = end + start
        end += len(line)
        partial = not line.endswith(b"\n")
        if not text or (skip_partial and partial):
            continue
        try:
            value = loads(text.decode())
        # Not JSON, not UTF-8, a number of 5,000 digits, or nested too deeply.
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            if isinstance(error, UnicodeDecodeError):
                reason = f"no UTF-8 at byte {error.start + 1}"
            what = f"broken JSON ({reason})"
            message = f"{path}:{number}: {what}; make or restore the file"
            if refused is None:
                raise DataError(message) from None
            refused.append(message)
            continue
        yield number, offset, value


def check_beginning(path: AnyPath, line: bytes) -> None:
    """Raises DataError for a first line of a file that cannot be read as text of JSON."""
    for beginning, (what, hint) in _OTHER_FILES.items():
        if line.startswith(beginning):
            found = f"is {what}, no JSON in UTF-8"
            raise DataError(f"{path}: {found}; {hint}")
    # As UTF-16 and UTF-32 write the first brace without a mark. After a crash of the machine, a
    # file may be zeros alone, which is a broken line.
    first = line[:4]
    only_zeros = not first.strip(b"\0")
    if b"\0" in first and not only_zeros:
        raise DataError(f"{path}: is UTF-16 or UTF-32 text, no JSON in UTF-8; save it so")


def _lines(file_name: AnyPath, packed: bool = False) -> Iterator[bytes]:
    """Splits on "\\n" alone: rows hold U+2028, at which str.splitlines() would cut them."""
    path = Path(file_name)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"cannot be read ({reason})"
        raise DataError(f"{path}: {what}; check path and rights") from None


def marked_line(path: AnyPath) -> int | None:
    """The number of the first line that begins with a byte order mark, None without one."""
    for number, line in enumerate(_lines(path), 1):
        if line.startswith(_MARK):
            return number
    return None


def read_jsonl(
    path: AnyPath,
    skip_partial: bool = False,
    refused: list[str] | None = None,
    packed: bool = False,
    loads: Callable[[str], Any] = json.loads,
) -> Iterator[tuple[int, Any]]:
    """As `read_jsonl_offsets`, without the offsets: yields (line number, value)."""
    for number, _, value in read_jsonl_offsets(path, skip_partial, refused, packed, loads):
        yield number, value


def read_objects(path: AnyPath) -> Iterator[dict]:
    """The objects of a log of lines, without a last line that a killed writer cut short.

    A line that holds something else raises DataError.
    """
    for number, value in read_jsonl(path, skip_partial=True):
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: no object of JSON; restore the file")
        yield value


def value_at(file: IO[bytes], offset: int) -> Any:
    """The value of the line at an offset that `read_jsonl_offsets` gave."""
    file.seek(offset)
    return json.loads(file.readline())


def keep_secret(name: str, hide: Callable[[str], str]) -> None:
    """Has `hide` treat the texts of all lines that this process writes from now on.

    A secret of the same name is no longer kept.
    """
    _secrets[name] = hide


def without_secrets(value: Any) -> Any:
    """A value of JSON in whose texts no secret stands that is kept here."""
    if isinstance(value, Mapping):
        return {name: without_secrets(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        for hide in list(_secrets.values()):
            value = hide(value)
    return value


def json_line(item: Mapping) -> bytes:
    """The item as one line of JSONL, without any secret that is kept here.

    A lone surrogate, which a model can write but UTF-8 cannot encode, stays a JSON escape.
    """
    shown = without_secrets(item) if _secrets else item
    line = json_text(shown) + "\n"
    return line.encode(errors="backslashreplace")


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
    if end == 0:
        return 0
    file.seek(end - 1)
    last = file.read(1)
    if last == b"\n":
        return end
    size = 0
    with open(file.name, "rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                size += len(line)
    return file.truncate(size)


@contextmanager
def whole_file(path: AnyPath, only_owner: bool = False) -> Iterator[IO[bytes]]:
    """A new file that takes the path's place when all is written, and not at all before.

    Raises DataError where a rename would put a file in a device's place; an OSError names the
    path. With `only_owner` nobody else may read it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no regular file, and would be replaced; name another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    process = os.getpid()
    temporary_name = f".{path.name}.{process}.tmp"
    temporary = path.with_name(temporary_name)
    opener = private if only_owner else None
    try:
        with open(temporary, "wb", opener=opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise


def write_jsonl(path: AnyPath, items: Iterable[dict], only_owner: bool = False) -> int:
    """Writes all items or nothing, as `whole_file`; returns their number."""
    count = 0
    with whole_file(path, only_owner) as file:
        for item in items:
            file.write(json_line(item))
            count += 1
    return count


def write_text(path: AnyPath, pieces: str | Iterable[str]) -> None:
    """Writes all of a text, or of its pieces, or nothing.

    A lone surrogate, which UTF-8 cannot encode, is written as an escape.
    """
    if isinstance(pieces, str):
        pieces = [pieces]
    with whole_file(path) as file:
        for piece in pieces:
            encoded = piece.encode(errors="backslashreplace")
            file.write(encoded)
