"""Work on many pieces by several processes, where it is the arithmetic that takes the time."""

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

MOST = 8  # processes: one that hands out the pieces feeds no more
AHEAD = 2  # pieces for each process that lie in memory


def in_order(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """The result of each piece, in their order.

    A single piece is worked on here: a process takes a second to start. `work` and the pieces must
    be picklable. What `work` raises is raised here. Then, and where the results are closed before
    their end, pieces that wait are dropped, and no process is left; else they wait for more work.
    """
    pieces = iter(pieces)
    beginning = list(islice(pieces, 2))
    if len(beginning) < 2:
        yield from map(work, beginning)
        return
    pool = _pool()
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(work, piece) for piece in beginning)
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > AHEAD * _processes():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:  # also where the results are closed
        _pool.cache_clear()
        pool.shutdown(cancel_futures=True)
        raise


def in_pieces(items: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """The items in lists of `size`, the last of which may be shorter."""
    items = iter(items)
    return iter(lambda: list(islice(items, size)), [])


def _processes() -> int:
    return min(len(os.sched_getaffinity(0)), MOST)


@cache
def _pool() -> ProcessPoolExecutor:
    """The processes, which start with their first pieces and wait for more until this one ends."""
    # A fork would copy locks that threads of Parquet's reader may hold.
    context = get_context("spawn")
    # They look for cycles as seldom as this process does.
    return ProcessPoolExecutor(_processes(), context, gc.set_threshold, gc.get_threshold())
