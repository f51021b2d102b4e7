"""Stored records, read one at a time: an evaluation's, or those that training left."""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import read_jsonl_offsets, value_at
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.record_file import FOLDER, OF_EVALUATION, OF_TRAINING
from rubric_rl.data.schema import Record, answer_key
from rubric_rl.evaluation.rollout_metrics import version_number


def version_order(version: str) -> tuple[int, str]:
    """Orders weight versions, which are numbers written as text: shorter ones come first."""
    return len(version), version


@dataclass(slots=True)
class _Line:
    """Where a record stands, and what tells whether it counts."""

    file: int  # its number
    offset: int
    time: float
    rollout: int  # -1 where slime has not told it
    split: str
    index: int | None
    prompt_id: str
    run: str
    weights: str

    @property
    def key(self) -> tuple:
        return answer_key(self.split, self.index, self.prompt_id, self.run, self.weights)


def _written(line: _Line) -> tuple:
    """Lines in the order of writing; older records, which do not tell it, by their version."""
    version = ()
    if line.time == 0:
        version = version_order(line.weights)
    return line.time, version, line.rollout, line.file, line.offset


def _as_read(line: _Line) -> tuple:
    """The same, but older records in the order of the files."""
    return line.time, line.rollout, line.file, line.offset


def _place(line: _Line) -> tuple:
    return line.file, line.offset


class Run:
    """The latest record of every answer of a run.

    Only offsets into the files are kept in memory, never the records.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "",
        weights: str = "",
        every: bool = False,
    ):
        """`folder` is an evaluation's --out, a folder of verdict records, or one such file.

        `split` (train or eval) and `weights` (a weight version) choose among the records of a
        training run. Without `weights`, only those of the weights that wrote last count, or those
        of all weights with `every`. `notes` holds what a reader should know of the choice,
        `paths` the files.

        Raises DataError when no record is left, or for a line that is not a verdict record.
        """
        self.folder = Path(folder)
        self.notes: list[str] = []
        self.paths = self._record_files()
        lines = self._latest_lines()
        if split:
            lines = [line for line in lines if line.split == split]
        if weights:
            lines = [line for line in lines if line.weights == weights]
        if not lines:
            wanted = ""
            if split:
                wanted += f" of split {split}"
            if weights:
                wanted += f" of weights {weights}"
            what = f"holds no verdict records{wanted}"
            raise DataError(f"{self.folder}: {what}; check the folder")
        in_order = sorted(lines, key=_written)
        last = in_order[-1]
        runs = [line.run for line in in_order]
        self.runs = list(dict.fromkeys(runs))  # in the order in which they began to write
        if not every:
            lines = self._of_one_policy(lines, last)
        self.weights = weights or last.weights
        self.name = self.folder.name
        if self.weights:
            self.name += f" ({self.weights})"
        self._lines = sorted(lines, key=_place)

    def _record_files(self) -> list[Path]:
        """The files of records that the folder, or a file, stands for."""
        folder = self.folder
        records = folder / FOLDER
        source = records if records.is_dir() else folder
        if not source.exists():
            hint = "name an evaluation's --out or a folder of verdict records"
            raise DataError(f"{folder}: no such folder or file; {hint}")
        if (source / "meta").is_dir():
            hint = "name an evaluation's --out; two meta-evaluations go to rubric_rl.compare"
            what = "is a meta-evaluation, which has no verdict records"
            raise DataError(f"{folder}: {what}; {hint}")
        if not source.is_dir():
            return [source]
        found = sorted(source.glob("*.jsonl"))
        own = sorted(source.glob(OF_TRAINING))
        whose = "training run"
        if not own:
            own = [path for path in found if path.name == OF_EVALUATION]
            whose = "evaluation"
        if not own:
            return found
        for path in found:
            if path not in own:
                note = f"no file of this {whose}; its records are left out"
                self.notes.append(f"{path}: {note}")
        return own

    def _latest_lines(self) -> list[_Line]:
        """The last line of every answer."""
        lines: list[_Line] = []
        for number, path in enumerate(self.paths):
            lines.extend(_lines_of(path, number))
        _follow_rollouts(lines)
        lines.sort(key=_as_read)
        names = [path.name for path in self.paths]
        if lines and names == [OF_EVALUATION]:
            # All of one evaluation, also if it began before records named their run.
            run = lines[-1].run
            for line in lines:
                line.run = run
        _name_restarts(lines)
        latest: dict[tuple, _Line] = {}
        unnamed = defaultdict(list)  # sample of training -> keys of its records without a run
        for line in lines:
            key = line.key
            if line.split == "train":
                sample = line.index, line.prompt_id
                if not line.run:
                    unnamed[sample].append(key)
                else:  # its rollout was made again
                    for lost in unnamed.pop(sample, ()):
                        latest.pop(lost, None)
            latest[key] = line
        return list(latest.values())

    def _of_one_policy(self, lines: list[_Line], last: _Line) -> list[_Line]:
        """The lines of the last one's weights in its run, since each run counts them anew."""
        weights = last.weights
        same = [line for line in lines if line.weights == weights]
        own = [line for line in same if line.run == last.run]
        if len(own) < len(same):
            runs = {line.run for line in same}
            count = len(runs)
            time = datetime.fromtimestamp(last.time)
            when = time.isoformat(" ", "minutes")
            what = f"{count} runs or restarts have weights {weights}"
            taken = f"taken: the last, written {when} (for another, name its file)"
            self.notes.append(f"{self.folder}: {what}; {taken}")
        return own

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Record]:
        yield from self._read(self._lines)

    def by_prompt(self) -> Callable[[str], list[Record]]:
        """A function that reads one prompt's records."""
        lines = defaultdict(list)
        for line in self._lines:
            lines[line.prompt_id].append(line)

        def read(prompt_id: str) -> list[Record]:
            own = lines.get(prompt_id, [])
            return list(self._read(own))

        return read

    def _read(self, lines: Iterable[_Line]) -> Iterator[Record]:
        """The records of these lines, which are in the order of the files: one is open at once."""
        by_file = groupby(lines, key=lambda line: line.file)
        for number, group in by_file:
            path = self.paths[number]
            with path.open("rb") as file:
                for line in group:
                    record = record_from_json(value_at(file, line.offset))
                    record.run = line.run
                    yield record


def result_key(prompt_id: str, repeat: int | None) -> str:
    """What a result is called in an evaluation's folder."""
    return f"{prompt_id}#{repeat}"


def stored_results(folder: Path) -> Iterator[tuple[str, Record]]:
    """The results of an evaluation, each with its key in the folder."""
    for record in Run(folder):
        yield result_key(record.prompt_id, record.index), record


def print_notes(*runs: Run) -> None:
    """Shows the notes of these runs beside the output."""
    for run in runs:
        for note in run.notes:
            print(f"note: {note}", file=sys.stderr)


def _lines_of(path: Path, number: int) -> Iterator[_Line]:
    for line_number, offset, item in read_jsonl_offsets(path, skip_partial=True):
        try:
            record = record_from_json(item)
        except DataError as error:
            where = f"{path}:{line_number}"
            raise DataError(f"{where}: {error}") from None
        yield _Line(
            file=number,
            offset=offset,
            time=record.time,
            rollout=-1 if record.rollout is None else record.rollout,
            split=record.split,
            index=record.index,
            prompt_id=record.prompt_id,
            run=record.run,
            weights=record.weight_version,
        )


def _follow_rollouts(lines: Iterable[_Line]) -> None:
    """Gives the lines of a run no earlier time than those of its earlier rollouts have.

    The clock of one of its machines may be slow, or was set back.
    """
    latest: dict[str, float] = {}  # by run
    for line in sorted(lines, key=lambda line: (line.rollout, line.time)):
        if line.run and line.time and line.rollout >= 0:
            line.time = max(line.time, latest.get(line.run, 0))
            latest[line.run] = line.time


def _name_restarts(lines: Iterable[_Line]) -> None:
    """Names the runs of records that name none but tell when they were written.

    Within a run the weight version only grows: where it falls, another run began.
    """
    restarts = Counter[str]()  # by split
    versions: dict[str, int] = {}
    for line in lines:
        version = version_number(line.weights)
        if line.run or version is None:
            continue
        if not line.time:
            continue
        split = line.split
        last = versions.get(split, version)
        if version < last:
            restarts[split] += 1
        versions[split] = version
        number = restarts[split]
        if number:
            line.run = f"restart {number}"
