"""Stored verdict records, read one at a time: an evaluation's, or those that training left (stage 6, evaluation)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from rubric_rl.errors import DataError
from rubric_rl.grading.record import ANSWER_KEY, is_record
from rubric_rl.jsonl import read_jsonl_offsets


class Run:
    """The latest record of every answer of a run. Only offsets into the files are kept in memory, never the records."""

    def __init__(self, folder: str | Path, split: str = "", weights: str = "", every: bool = False):
        """`folder` is an evaluation's --out, a folder of verdict records, or one such file.

        `split` (train or eval) and `weights` (a weight version) choose among the records of a training run. Without
        `weights`, only those of the last version count, or those of every version with `every`.

        Raises DataError when no record is left, or for a line that is not a verdict record.
        """
        self.folder = Path(folder)
        source = self.folder / "verdicts" if (self.folder / "verdicts").is_dir() else self.folder
        if not source.exists():
            hint = "name an evaluation's --out or a folder of verdict records"
            raise DataError(f"{self.folder}: no such folder or file; {hint}")
        if (source / "meta").is_dir():
            hint = "name an evaluation's --out; two meta-evaluations go to rubric_rl.compare"
            raise DataError(
                f"{self.folder}: is a meta-evaluation, which has no verdict records; {hint}"
            )
        self._paths = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
        self._places: dict[
            tuple, tuple[int, int]
        ] = {}  # the values of ANSWER_KEY -> (index of the file, offset)
        for number, path in enumerate(self._paths):
            for offset, record in _records(path):
                self._places[tuple(record[key] for key in ANSWER_KEY)] = (number, offset)
        if split:
            self._keep(lambda key: key[0] == split)
        versions = sorted(
            {key[2] for key in self._places}, key=lambda version: (len(version), version)
        )
        self.weights = weights or (versions[-1] if versions else "")
        self.name = f"{self.folder.name} ({self.weights})" if self.weights else self.folder.name
        if not every:
            self._keep(lambda key: key[2] == self.weights)
        if not self._places:
            named = "".join(
                f" of {kind} {name}"
                for kind, name in (("split", split), ("weights", weights))
                if name
            )
            raise DataError(f"{self.folder}: holds no verdict records{named}; check the folder")

    def _keep(self, wanted: Callable[[tuple], bool]) -> None:
        self._places = {key: place for key, place in self._places.items() if wanted(key)}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict]:
        yield from self._read(self._places.values())

    @property
    def prompt_ids(self) -> dict[str, int]:
        """Each prompt_id with its number of answers, in the files' order."""
        counts: dict[str, int] = {}
        for key, _ in sorted(self._places.items(), key=lambda item: item[1]):
            counts[key[3]] = counts.get(key[3], 0) + 1
        return counts

    def by_prompt(self) -> Callable[[str], list[dict]]:
        """A function that reads one prompt's records."""
        places: dict[str, list] = {}
        for key, place in self._places.items():
            places.setdefault(key[3], []).append(place)
        return lambda prompt_id: list(self._read(places.get(prompt_id, [])))

    def _read(self, places) -> Iterator[dict]:
        files = {}
        try:
            for number, offset in sorted(places):
                if number not in files:
                    files[number] = self._paths[number].open("rb")
                files[number].seek(offset)
                yield json.loads(files[number].readline())
        finally:
            for file in files.values():
                file.close()


def _records(path: Path) -> Iterator[tuple[int, dict]]:
    for number, offset, record in read_jsonl_offsets(path, skip_partial=True):
        if not is_record(record):
            raise DataError(
                f"{path}:{number}: not a verdict record; leave the file out or grade its answers again"
            )
        yield offset, record
