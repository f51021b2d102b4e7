"""Pieces of work in several processes."""

import itertools
import math
import multiprocessing
import os
import threading
from collections.abc import Callable

import psutil
import pytest
from doubles.processes import all_gone

from rubric_rl.common.in_processes import AHEAD, MOST, in_order


def process_of(_: int) -> int:
    return os.getpid()


def test_results_come_in_the_order_of_the_pieces():
    assert list(in_order(math.factorial, range(100))) == [math.factorial(n) for n in range(100)]


def test_a_single_piece_starts_no_process():
    assert list(in_order(process_of, [1])) == [os.getpid()]
    assert os.getpid() not in in_order(process_of, [1, 2])
    assert list(in_order(process_of, [])) == []


def test_pieces_are_taken_as_they_are_needed():
    taken = itertools.count()
    results = in_order(math.factorial, (next(taken) for _ in range(10_000)))
    next(results)
    assert next(taken) <= AHEAD * MOST + 3
    results.close()


def closed(results) -> None:
    results.close()


def failed(results) -> None:
    with pytest.raises(ValueError, match="not defined for negative"):
        list(results)


@pytest.mark.parametrize("end", [closed, failed])
def test_no_process_is_left_where_the_results_end_early(end: Callable):
    numbers = itertools.chain(range(8), [-1], itertools.repeat(1, 50))
    results = in_order(math.factorial, numbers)
    assert next(results) == 1
    workers = [psutil.Process(worker.pid) for worker in multiprocessing.active_children()]
    assert workers and not all_gone(workers)
    ending = threading.Thread(target=end, args=(results,), daemon=True)
    ending.start()
    ending.join(timeout=60)
    assert not ending.is_alive(), "it waited for work that nobody wants"
    assert all_gone(workers)
    assert multiprocessing.active_children() == []


def test_what_fails_in_a_process_fails_here():
    with pytest.raises(ValueError, match="not defined for negative"):
        list(in_order(math.factorial, [1, -1]))
