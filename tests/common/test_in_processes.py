"""Pieces of work in several processes."""

import itertools
import math
import os

import pytest

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


def test_what_fails_in_a_process_fails_here():
    with pytest.raises(ValueError, match="not defined for negative"):
        list(in_order(math.factorial, [1, -1]))
