"""Files of rows, as data_preprocess.py writes them or HealthBench publishes them."""

import random
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import AnyPath, read_jsonl
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.parse import REMAKE, check_json, row_from_metadata
from rubric_rl.data.schema import Row

GIVE_ROWS = "give --rows a file of HealthBench rows"


def read_rows(path: AnyPath) -> list[Row]:
    """Reads a file written by data_preprocess.py; every error names file, line and prompt_id."""
    return [_prepared_row(item, where) for where, item in read_items(path)]


def _prepared_row(item: dict, where: str) -> Row:
    """A row as data_preprocess.py writes it, checked."""
    metadata = item.get("metadata")
    row = row_from_metadata(metadata, where)
    place = f"{where}, prompt_id {row.prompt_id}"
    check_json(item, place)
    return row


def read_items(path: AnyPath) -> list[tuple[str, dict]]:
    """The rows as they stand in the file, each with its place, `file:line`.

    Raises DataError for what is no row, or when there is none.
    """
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; {REMAKE}")
    items = list(_objects(path, REMAKE))
    if not items:
        raise DataError(f"{path}: holds no rows; {REMAKE}")
    return items


def _objects(path: AnyPath, hint: str) -> Iterator[tuple[str, dict]]:
    """The JSON objects of a file, each with its place; raises DataError for any other line."""
    for number, item in read_jsonl(path):
        where = f"{path}:{number}"
        if not isinstance(item, dict):
            raise DataError(f"{where}: not a JSON object; {hint}")
        yield where, item


def split_slice(path: str) -> tuple[str, slice]:
    """The file and the slice of rows named by `file@[a:b]`, slime's notation.

    A plain path means all rows.
    """
    match = re.fullmatch(r"(.*?)(?:@\[(-?\d*):(-?\d*)\])?", path, re.DOTALL)
    assert match is not None  # the first group takes anything
    name, start, stop = match.groups()
    rows = slice(_row_number(start), _row_number(stop))
    return name, rows


def _row_number(digits: str | None) -> int | None:
    if not digits:
        return None
    return int(digits)


def read_slice(path: str) -> list[Row]:
    """The rows of `file` or `file@[a:b]`."""
    name, rows = split_slice(path)
    return read_rows(name)[rows]


class RowFile:
    """A rubric file: raw HealthBench rows, or those of data_preprocess.py.

    Checked as a whole at the start, then read row by row.
    """

    def __init__(self, path: str, limit: int = 0):
        """With `limit`, that many rows are drawn, the same ones that simple-evals draws.

        Raises DataError for a broken row or a repeated prompt_id.
        """
        self.path = path
        self.criteria: dict[str, int] = {}  # prompt_id -> number of criteria
        for where, row in self._rows():
            prompt_id = row.prompt_id
            if prompt_id in self.criteria:
                place = f"{where}, prompt_id {prompt_id}"
                raise DataError(f"{place}: duplicate of an earlier line; leave one of them out")
            self.criteria[prompt_id] = len(row.rubric)
        if not self.criteria:
            raise DataError(f"{path}: holds no rows; {GIVE_ROWS}")
        prompt_ids = list(self.criteria)
        if 0 < limit < len(prompt_ids):
            generator = random.Random(0)
            drawn = generator.sample(prompt_ids, limit)
            self.keep(set(drawn))

    def keep(self, prompt_ids: Collection[str]) -> None:
        """Keeps only the rows with one of these ids."""
        kept = {}
        for prompt_id, count in self.criteria.items():
            if prompt_id in prompt_ids:
                kept[prompt_id] = count
        self.criteria = kept

    def __iter__(self) -> Iterator[Row]:
        for _, row in self._rows():
            if row.prompt_id in self.criteria:
                yield row

    def _rows(self) -> Iterator[tuple[str, Row]]:
        """Every row of the file with its place."""
        for where, item in _objects(self.path, GIVE_ROWS):
            if "metadata" in item:
                row = _prepared_row(item, where)
            else:
                row = to_row(item, where)
            yield where, row
