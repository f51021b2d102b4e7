"""Processes and threads write records into one folder, and some are killed: none is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from doubles.records import made

from rubric_rl import ROOT
from rubric_rl.data.record_file import append_record
from rubric_rl.evaluation.read_run import Run

SIZE = 30_000  # characters of an answer: more than a buffer or a pipe takes at once


def write(folder: str, writer: str, threads: int, records: int) -> None:
    """What one process does: each of its threads writes so many records, of two weight versions.

    Says each one that is written.
    """

    def work(thread: int) -> None:
        for index in range(records):
            answer = f"{writer}-{thread}-{index} " + "x" * SIZE
            fields = {"index": index, "weights": str(index % 2), "run": "r"}
            append_record(folder, made(f"{writer}-{thread}", (1,), (True,), answer, **fields))
            os.write(1, f"{writer}-{thread}-{index}\n".encode())

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def start(folder: Path, writer: str, threads: int, records: int) -> subprocess.Popen:
    python_path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    words = [str(folder), writer, str(threads), str(records)]
    return subprocess.Popen(
        [sys.executable, __file__, *words],
        env=os.environ | {"PYTHONPATH": python_path},
        stdout=subprocess.PIPE,
    )


def said(process: subprocess.Popen) -> list[str]:
    """The names of the records that a process had written when it ended."""
    output = process.stdout.read()
    process.wait()
    return output.decode().split()


def stored(folder: Path) -> Counter[str]:
    """The records that are read again, by name; each must be whole."""
    found: Counter[str] = Counter()
    for record in Run(folder, every=True):
        name, _, rest = (record.answer or "").partition(" ")
        assert rest == "x" * SIZE
        found[name] += 1
    return found


@pytest.mark.parametrize(
    "processes, threads, records",
    [(2, 2, 40), pytest.param(4, 2, 1000, marks=pytest.mark.slow)],
)
def test_all_records_are_there_and_none_twice(tmp_path, processes, threads, records):
    running = [start(tmp_path, f"p{number}", threads, records) for number in range(processes)]
    written = [name for process in running for name in said(process)]
    assert [process.returncode for process in running] == [0] * processes
    assert len(set(written)) == processes * threads * records
    assert stored(tmp_path) == Counter(written)
    lines = [line for path in tmp_path.iterdir() for line in path.read_bytes().splitlines()]
    assert len([json.loads(line) for line in lines]) == len(written)


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_a_kill_loses_at_most_what_was_being_written(tmp_path, kills):
    """Beside each process that is killed another one goes on."""
    chance, written = random.Random(7), []
    for number in range(kills):
        victim = start(tmp_path, f"v{number}", 2, 100_000)
        other = start(tmp_path, f"o{number}", 2, 10)
        names = []
        for _ in range(chance.randint(1, 60)):
            names.append(victim.stdout.readline().decode().strip())
        os.kill(victim.pid, signal.SIGKILL)
        written += names + said(victim) + said(other)
    found = stored(tmp_path)
    assert set(found.values()) == {1}
    assert set(written) <= set(found)
    # Each of a victim's two threads may have stored one that it could not say any more.
    assert len(found) - len(written) <= 2 * kills


@pytest.mark.parametrize("cut_off", [1, 500, SIZE])
def test_a_torn_line_is_glued_to_nothing(tmp_path, cut_off):
    process = start(tmp_path, "a", 1, 3)
    said(process)
    (path,) = tmp_path.glob("weights_0.*")
    path.write_bytes(path.read_bytes()[:-cut_off])
    said(start(tmp_path, "b", 1, 3))
    assert sorted(stored(tmp_path)) == ["a-0-0", "a-0-1", "b-0-0", "b-0-1", "b-0-2"]


def test_a_process_that_was_forked_writes_a_file_of_its_own(tmp_path):
    append_record(tmp_path, made("p", (1,), (True,)))
    child = os.fork()
    if child == 0:
        append_record(tmp_path, made("q", (1,), (True,)))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert len(Run(tmp_path)) == 2


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
