"""Rows that wait on disk, so that a set of any size takes little memory."""

import marshal
import os
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO, overload

from rubric_rl.data.schema import Criterion, Row


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
        if file is not self._file:
            packed = marshal.dumps(_parts(row))
            start = self._file.seek(0, os.SEEK_END)
            size = self._file.write(packed)
        self._starts.append(start)
        self._sizes.append(size)
        self.prompt_ids.append(row.prompt_id)

    def named(self, prompt_ids: Collection[str], others: bool = False) -> "StoredRows":
        """The rows with one of these ids, or all others; none of them is read for it."""
        chosen = StoredRows(like=self)
        for index, prompt_id in enumerate(self.prompt_ids):
            if (prompt_id in prompt_ids) is not others:
                chosen._starts.append(self._starts[index])
                chosen._sizes.append(self._sizes[index])
                chosen.prompt_ids.append(prompt_id)
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

    def _read(self, index: int) -> Row:
        start = self._starts[index]
        size = self._sizes[index]
        self._file.seek(start)
        row = _row(marshal.loads(self._file.read(size)))
        # Not a field, so that it changes no comparison; the row itself is frozen.
        object.__setattr__(row, "_stored_at", (self._file, start, size))
        return row


def _parts(row: Row) -> tuple:
    """A row as builtin values, which marshal writes many times faster than pickle does objects."""
    rubric = [(each.text, each.points, each.tags) for each in row.rubric]
    return row.prompt_id, row.messages, rubric, row.theme, row.example_tags, row.extra


def _row(parts: tuple) -> Row:
    prompt_id, messages, rubric, theme, example_tags, extra = parts
    criteria = tuple(Criterion(*each) for each in rubric)
    return Row(prompt_id, messages, criteria, theme, example_tags, extra)
