"""Stored records, read one at a time: an evaluation's, or those that training left."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Record
from rubric_rl.errors import DataError
from rubric_rl.jsonl import read_jsonl_offsets

Key = tuple  # Record.key: split, index, weight version, prompt_id
Place = tuple[int, int]  # number of the file, offset of the line


def version_order(version: str) -> tuple[int, str]:
    """Orders weight versions, which are numbers written as text: shorter ones come first."""
    return len(version), version


class Run:
    """The latest record of every answer of a run.

    Only offsets into the files are kept in memory, never the records.
    """

    def __init__(self, folder: str | Path, split: str = "", weights: str = "", every: bool = False):
        """`folder` is an evaluation's --out, a folder of verdict records, or one such file.

        `split` (train or eval) and `weights` (a weight version) choose among the records of a
        training run. Without `weights`, only those of the last version count, or those of every
        version with `every`.

        Raises DataError when no record is left, or for a line that is not a verdict record.
        """
        self.folder = Path(folder)
        self._paths = _record_files(self.folder)
        self._places: dict[Key, Place] = {}
        for number, path in enumerate(self._paths):
            for offset, record in _records(path):
                self._places[record.key] = (number, offset)
        if split:
            self._keep(lambda key: key[0] == split)
        self.weights = weights or self._last_version()
        self.name = self.folder.name
        if self.weights:
            self.name += f" ({self.weights})"
        if not every:
            self._keep(lambda key: key[2] == self.weights)
        if not self._places:
            wanted = f" of split {split}" if split else ""
            wanted += f" of weights {weights}" if weights else ""
            raise DataError(f"{self.folder}: holds no verdict records{wanted}; check the folder")

    def _last_version(self) -> str:
        versions = {key[2] for key in self._places}
        return max(versions, key=version_order, default="")

    def _keep(self, wanted: Callable[[Key], bool]) -> None:
        self._places = {key: place for key, place in self._places.items() if wanted(key)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Record]:
        yield from self._read(self._places.values())

    @property
    def prompt_ids(self) -> dict[str, int]:
        """Each prompt_id with its number of answers, in the files' order."""
        counts: dict[str, int] = {}
        for key in sorted(self._places, key=lambda key: self._places[key]):
            prompt_id = key[3]
            counts[prompt_id] = counts.get(prompt_id, 0) + 1
        return counts

    def by_prompt(self) -> Callable[[str], list[Record]]:
        """A function that reads one prompt's records."""
        places: dict[str, list[Place]] = {}
        for key, place in self._places.items():
            prompt_id = key[3]
            places.setdefault(prompt_id, []).append(place)

        def read(prompt_id: str) -> list[Record]:
            own = places.get(prompt_id, [])
            return list(self._read(own))

        return read

    def _read(self, places: Iterable[Place]) -> Iterator[Record]:
        files: dict[int, BinaryIO] = {}
        try:
            for number, offset in sorted(places):
                if number not in files:
                    files[number] = self._paths[number].open("rb")
                file = files[number]
                file.seek(offset)
                item = json.loads(file.readline())
                yield record_from_json(item)
        finally:
            for file in files.values():
                file.close()


def _record_files(folder: Path) -> list[Path]:
    """The files of records that a folder, or a file, stands for."""
    source = folder / "verdicts" if (folder / "verdicts").is_dir() else folder
    if not source.exists():
        hint = "name an evaluation's --out or a folder of verdict records"
        raise DataError(f"{folder}: no such folder or file; {hint}")
    if (source / "meta").is_dir():
        hint = "name an evaluation's --out; two meta-evaluations go to rubric_rl.compare"
        raise DataError(f"{folder}: is a meta-evaluation, which has no verdict records; {hint}")
    return sorted(source.glob("*.jsonl")) if source.is_dir() else [source]


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    for number, offset, item in read_jsonl_offsets(path, skip_partial=True):
        try:
            yield offset, record_from_json(item)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
