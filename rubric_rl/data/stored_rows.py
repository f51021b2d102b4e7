"""Rows that wait on disk, so that a set of any size takes little memory."""

import json
import marshal
import os
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO, overload

from rubric_rl.common.in_processes import in_order, in_pieces
from rubric_rl.common.jsonl import AnyPath, json_line, whole_file
from rubric_rl.data.schema import Criterion, Row

PIECE = 500  # rows that go to a process at a time


class StoredRows(Sequence[Row]):
    """A list of rows in a temporary file, which ends with the process.

    Lists of one `like` share their file: a row that is read from one and added to another
    unchanged is not written again. `prompt_ids` are those of the rows, in their order.
    """

    def __init__(self, rows: Iterable[Row] = (), like: "StoredRows | None" = None):
        if like is None:
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 it ends with its lists
        else:
            self._file = like._file
        self._starts = array("Q")  # in bytes
        self._sizes = array("Q")
        self.prompt_ids: list[str] = []
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Adds a row."""
        file, start, size = getattr(row, "_stored_at", (None, 0, 0))
        if file is self._file:
            self._add(row.prompt_id, start, size)
        else:
            self.append_packed(row.prompt_id, pack(row))

    def append_packed(self, prompt_id: str, packed: bytes) -> None:
        """Adds a row that `pack` made, and its prompt_id."""
        start = self._file.seek(0, os.SEEK_END)
        size = self._file.write(packed)
        self._add(prompt_id, start, size)

    def append_from(self, others: "StoredRows", index: int) -> None:
        """Adds a row of a list that shares the file, without reading it."""
        self._add(others.prompt_ids[index], others._starts[index], others._sizes[index])

    def packed(self) -> Iterator[bytes]:
        """The rows as `pack` makes them; another process unpacks them."""
        for index in range(len(self)):
            yield self._bytes(index)

    def named(self, prompt_ids: Collection[str], others: bool = False) -> "StoredRows":
        """The rows with one of these ids, or all others; none of them is read for it."""
        chosen = StoredRows(like=self)
        for index, prompt_id in enumerate(self.prompt_ids):
            if (prompt_id in prompt_ids) is not others:
                chosen.append_from(self, index)
        return chosen

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Row]:
        for index in range(len(self)):
            yield self._read(index)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._read(each) for each in range(len(self))[index]]
        return self._read(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def _add(self, prompt_id: str, start: int, size: int) -> None:
        self._starts.append(start)
        self._sizes.append(size)
        self.prompt_ids.append(prompt_id)

    def _bytes(self, index: int) -> bytes:
        self._file.seek(self._starts[index])
        return self._file.read(self._sizes[index])

    def _read(self, index: int) -> Row:
        row = unpack(self._bytes(index))
        place = self._file, self._starts[index], self._sizes[index]
        # Not a field, so that it changes no comparison; the row itself is frozen.
        object.__setattr__(row, "_stored_at", place)
        return row


def write_rows(path: AnyPath, rows: StoredRows) -> None:
    """Writes the rows as JSONL: all of them or nothing."""
    with whole_file(path) as file:
        for lines in in_order(_json_lines, in_pieces(rows.packed(), PIECE)):
            file.write(lines)


def _json_lines(packed: Iterable[bytes]) -> bytes:
    return b"".join(json_line(unpack(each).to_json()) for each in packed)


def packed_rows(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows as `pack` makes them; stored ones are packed already."""
    return rows.packed() if isinstance(rows, StoredRows) else map(pack, rows)


def pack(row: Row) -> bytes:
    """A row as builtin values, which marshal writes many times faster than pickle does objects."""
    rubric = [(each.text, each.points, each.tags) for each in row.rubric]
    parts = row.prompt_id, row.messages, rubric, row.theme, row.example_tags, row.extra
    try:
        return marshal.dumps(parts)
    except ValueError:  # a converter's own kinds of dict and str, which JSON takes for these
        return marshal.dumps(json.loads(json.dumps(parts)))


def unpack(packed: bytes) -> Row:
    """The row that `pack` took."""
    prompt_id, messages, rubric, theme, example_tags, extra = marshal.loads(packed)
    # A list and not its parts one by one: a million criteria come by here several times.
    criteria = [Criterion(text, points, tuple(tags)) for text, points, tags in rubric]
    return Row(prompt_id, tuple(messages), tuple(criteria), theme, tuple(example_tags), extra)
