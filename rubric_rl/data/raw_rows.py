"""Raw rows one at a time: of a file (JSONL, JSON, Parquet, gzip), a folder, or the Hub."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import DECODER, check_beginning, loads_all, read_jsonl
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.hub import PREFIX, hub_rows
from rubric_rl.data.readers.pieces import ID_FIELDS

_UNREADABLE = (OSError, EOFError, zlib.error)  # what a damaged file of gzip raises, too
_BLANKS = re.compile(r"[ \t\r\n]*")
# What a folder may hold beside rows (a card, a checksum) has other endings.
ENDINGS = (".jsonl", ".json", ".ndjson", ".parquet", ".jsonl.gz", ".json.gz", ".ndjson.gz")
_PACKED = (".zst", ".xz", ".bz2", ".zip", ".lz4")  # and no rows of these are read
_NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_TABLES = (".csv", ".tsv", ".xls", ".xlsx")
SPLITS = (
    *("train", "training", "val", "valid", "validation", "dev", "eval", "evaluation", "test"),
    *("testing", "holdout", "heldout", "held_out", "easy", "hard"),
)
TRAINING = ("train", "training", "easy")  # of these
CHUNK = 1 << 20  # characters of a JSON file
LONGEST_ROW = 1 << 25
BATCH = 256  # rows of a Parquet file in memory
ITEMS = ("items", "data", "rows", "examples")  # where an object of a whole file keeps its rows


def raw_rows(
    source: Path | str, refused: list[str], split: str = "", hard: Path | None = None
) -> Iterator[tuple[str, object]]:
    """Yields (where, raw row); a message for each broken line is added to `refused`.

    `split` names one of those that a folder or a Hub data set is published in. Raises DataError
    when there is no such file, folder, data set or split, and for a file that breaks off.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        for number, item in enumerate(hub_rows(source, split), 1):
            yield f"{source}:{number}", item
        return
    for path in files_of(Path(source), split, hard):
        for number, item in _file_rows(path, refused):
            yield f"{path}:{number}", item


def files_of(path: Path, split: str = "", hard: Path | None = None) -> list[Path]:
    """The file itself, or those of a folder (and of its folders) that hold rows of the split.

    The file `hard`, whose rows are held out, may be one of them. Raises DataError for a folder
    without any, or, if no split is named, with those of several, or of one that is no training
    split beside others.
    """
    if not path.is_dir():
        if split:
            hint = "name the folder of both, or held-out rows with --hard"
            raise DataError(f"{path}: is one file, so it has no split {split}; {hint}")
        return [path]
    files = _row_files(path)
    by_split: dict[str, list[Path]] = {}
    others = files
    if hard is not None and hard.exists():
        others = [file for file in files if not file.samefile(hard)]
    for file in others:
        name = _split_of(file.relative_to(path), split)
        by_split.setdefault(name, []).append(file)
    known = ", ".join(sorted(name for name in by_split if name)) or "none"
    if split:
        if split not in by_split:
            raise DataError(f"{path}: holds no files of the split {split}; it has {known}")
        return by_split[split]
    if not files and any(path.rglob("*.arrow")):
        what = "was written by save_to_disk"
        hint = "read it with datasets.load_from_disk and write each split with to_parquet"
        raise DataError(f"{path}: {what}; {hint}")
    if not files:
        endings = ", ".join(ENDINGS)
        raise DataError(f"{path}: holds no files of rows ({endings}); name the file itself")
    splits = by_split.keys() - {""}
    # What has no split's name may stand beside files to train on, not beside held-out ones.
    is_beside = len(by_split) > 1 or len(others) < len(files)
    if len(splits) > 1 or (splits and is_beside and splits.isdisjoint(TRAINING)):
        hint = "say which with --train SPLIT --hold-out-split SPLIT, or name one file"
        raise DataError(f"{path}: is published in splits ({known}); {hint}")
    return files


def _row_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # hidden, such as a cache
        if path.suffix in _PACKED and path.stem.endswith(ENDINGS):
            hint = "unpack it, or take it out of the folder"
            raise DataError(f"{path}: is packed by another program than gzip; {hint}")
        of_rows = path.name.endswith(ENDINGS) and path.name not in _NO_ROWS
        if of_rows and path.is_file():
            found.append(path)
    return found


def _split_of(path: Path, named: str = "") -> str:
    """The split that the file or one of its folders is named by, "" for none.

    It is `named` or a usual one, alone or at an end: train-00000-of-00002.parquet, law_test.jsonl.
    Raises DataError for a path that names several, but for the easy and hard files of one.
    """
    found = {_split_of_part(part, named) for part in path.parts} - {""}
    if len(found) > 1:
        found -= {"easy", "hard"}
    if len(found) > 1:
        names = ", ".join(sorted(found))
        raise DataError(f"{path}: is named by several splits ({names}); rename it or its folder")
    return found.pop() if found else ""


def _split_of_part(part: str, named: str) -> str:
    name = part.partition(".")[0].lower().replace("_", "-")
    for split in (named, *SPLITS) if named else SPLITS:
        end = split.lower().replace("_", "-")
        if name == end or name.startswith(f"{end}-") or name.endswith(f"-{end}"):
            return split
    return ""


def _file_rows(path: Path, refused: list[str]) -> Iterator[tuple[int, object]]:
    """The rows of one file by what it begins with, whatever its name says."""
    if not path.is_file():
        return read_jsonl(path)  # which says so
    beginning = _beginning(path)
    if beginning.startswith(b"PAR1"):
        return enumerate(_parquet_rows(path), 1)
    packed = beginning.startswith(b"\x1f\x8b")
    if not packed:
        check_beginning(path, beginning)
    if path.name.endswith(_TABLES):
        raise DataError(f"{path}: is a table, no JSON; save it as JSONL or Parquet")
    try:
        with _open(path, packed) as file:
            opening = file.read(CHUNK)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError:
        opening = ""  # read_jsonl says what the file is
    if opening[257:262] == "ustar":
        raise DataError(f"{path}: is a tar archive, no JSON; unpack it with tar -xf")
    opening = opening.strip("\ufeff \t\r\n")
    if opening.startswith("["):
        return enumerate(_array_rows(path, packed), 1)
    named_json = path.name.removesuffix(".gz").endswith(".json")
    if named_json and opening and not _is_lines(opening):
        return enumerate(_object_rows(path, packed), 1)
    return read_jsonl(path, refused=refused, packed=packed, loads=loads_all)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError as error:
        raise _unreadable(path, error) from None


def _is_lines(opening: str) -> bool:
    """Whether the first of several lines is a JSON value: it is JSONL under the name .json."""
    first, _, others = opening.partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(others)


def _open(path: Path, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return codecs.open(str(path), encoding="utf-8-sig")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or one_line(str(error), 200)
    return DataError(f"{path}: cannot be read ({reason}); check path and rights, or restore it")


def _array_rows(path: Path, packed: bool) -> Iterator[object]:
    """The elements of a JSON array, a part of the file in memory at a time."""
    try:
        with _open(path, packed) as file:
            yield from _elements(file)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or one_line(str(error), 200)
        what = f"broken JSON ({reason})"
        raise DataError(f"{path}: {what}; make or restore the file") from None


def _elements(file: IO[str]) -> Iterator[object]:
    """Raises ValueError where the array is broken or breaks off, naming the element."""
    number = 0
    text = file.read(CHUNK)
    place = text.index("[") + 1
    while True:
        place = _after_blanks(text, place)
        if text.startswith("]", place):
            if text[place + 1 :].strip() or file.read(1).strip():
                raise ValueError(f"words after the array of {number} rows")
            return
        try:
            value, end = DECODER.raw_decode(text, place)
            end = _after_blanks(text, end)
            if text[end : end + 1] not in (",", "]"):
                raise ValueError("no comma follows")
        except ValueError as error:
            rest = text[place:]
            more = file.read(max(CHUNK, len(rest)))  # it may go on there
            if not more or len(rest) > LONGEST_ROW:
                reason = getattr(error, "msg", error)
                raise ValueError(f"row {number + 1}: {reason}") from None
            text = rest + more
            place = 0
            continue
        number += 1
        yield value
        place = end + text.startswith(",", end)


def _after_blanks(text: str, place: int) -> int:
    blanks = _BLANKS.match(text, place)
    assert blanks is not None  # it matches nothing, too
    return blanks.end()


def _object_rows(path: Path, packed: bool) -> Iterable[object]:
    """The rows of a file that is one JSON object: itself, or its list of rows with its fields."""
    try:
        with _open(path, packed) as file:
            whole = loads_all(file.read())
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or one_line(str(error), 200)
        raise DataError(f"{path}: broken JSON ({reason}); make or restore the file") from None
    for key in ITEMS:
        rows = whole.get(key) if isinstance(whole, dict) else None
        if isinstance(rows, list):
            own = {key, *ID_FIELDS}  # the file's id would make all rows one
            shared = {name: value for name, value in whole.items() if name not in own}
            return [_with_shared(row, shared) for row in rows]
    return [whole]


def _with_shared(row: object, shared: dict) -> object:
    """A row with the fields of its file, for those that it has not itself, or as null."""
    if not isinstance(row, dict):
        return row
    return shared | {name: value for name, value in row.items() if value is not None}


def _parquet_rows(path: Path) -> Iterator[object]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        what = f"{path}: is a Parquet file, which needs the package pyarrow"
        raise UserError(f"{what}; pip install pyarrow") from None
    try:
        # Its own buffers, so that no whole column stays in memory.
        with ParquetFile(path, memory_map=False, buffer_size=CHUNK) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    # ValueError: text that is no UTF-8; OverflowError: a time that Python does not know.
    except (OSError, ValueError, OverflowError, ArrowException) as error:
        raise _unreadable(path, error) from None
