"""Files of records: each process writes its own, and says from which run and rollout."""

import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote, unquote

from rubric_rl.common.jsonl import append_line, private, without_secrets
from rubric_rl.data.schema import Record

FOLDER = "verdicts"  # of a run's records, training's or an evaluation's
OF_TRAINING = "weights_*.jsonl"  # the files of training
OF_EVALUATION = "verdicts.jsonl"  # the only one of an evaluation
RUN_VARIABLE = "RUBRIC_RL_RUN"  # the launchers name the run in it, for all of its processes


class _Process:
    """What tells this process from every other one, and its threads from each other."""

    def __init__(self):
        self.started = time.time_ns()
        self.lock = threading.Lock()
        self.last_time = 0.0

    @property
    def name(self) -> str:
        host = quote(socket.gethostname(), safe="")[:60]
        return f"{host}.{os.getpid()}-{self.started}"

    def next_time(self) -> float:
        """The time, and always a later one, so that records can be sorted by it."""
        now = round(time.time(), 6)
        earliest = round(self.last_time + 1e-6, 6)
        self.last_time = max(now, earliest)
        return self.last_time


_process = _Process()


def _after_fork() -> None:
    # A thread that the child does not have may have held the lock.
    _process.lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def run_name() -> str:
    """The run that this process belongs to; a process that no launcher started is its own run."""
    return os.environ.get(RUN_VARIABLE) or _process.name


def version_of(path: Path) -> str:
    """The weight version in the name of a file of training."""
    version, _, _ = path.name.removeprefix("weights_").partition(".")
    return unquote(version)


def append_record(folder: str | os.PathLike, record: Record) -> None:
    """Adds one record to this process's own file of the weight version; sets the record's time.

    No other process writes there: a line that a kill cut short stays the last of its file, and
    nobody who repairs it can cut a record of somebody else.
    """
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = without_secrets(str(record.weight_version))
    version = quote(told, safe="", errors="replace")[:100]
    name = OF_TRAINING.replace("*", f"{version}.{_process.name}")
    path = folder / name
    with _process.lock, open(path, "a+b", buffering=0, opener=private) as file:
        if not record.time:
            record.time = _process.next_time()
        append_line(file, record.to_json())
