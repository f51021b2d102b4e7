"""Work on many pieces by several processes, where it is the arithmetic that takes the time."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
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
    their end, pieces that wait are dropped, and no process is left.
    """
    pieces = iter(pieces)
    beginning = list(islice(pieces, 2))
    if len(beginning) < 2:
        yield from map(work, beginning)
        return
    processes = min(len(os.sched_getaffinity(0)), MOST)
    # A fork would copy locks that threads of Parquet's reader may hold.
    pool = ProcessPoolExecutor(processes, get_context("spawn"))
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(work, piece) for piece in beginning)
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
