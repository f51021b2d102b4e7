"""Progress bars, and a pool of workers that gives up when too many failures come in a row."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from tqdm import tqdm

from rubric_rl.common.errors import UserError


class GaveUp(UserError):
    """Too many in a row failed: ungraded, or graded without verdicts that can be read."""


def bar_pace() -> dict[str, Any]:
    """How often tqdm draws, in seconds.

    A log file gets a sign of life from a long stage, not a film.
    """
    if sys.stderr and sys.stderr.isatty():
        return {"mininterval": 0.5}
    return {"mininterval": 20.0, "delay": 20.0}


class StageBar:
    """The progress bar of one long stage; a context manager."""

    def __init__(self, what: str, total: int | None, unit: str):
        self._bar = tqdm(
            total=total, desc=what, unit=unit, leave=False, dynamic_ncols=True, **bar_pace()
        )

    def move_to(self, count: int, total: int | None = None, postfix: str = "") -> None:
        """Moves the bar to `count`, of a `total` that may have become known meanwhile."""
        if total and total != self._bar.total:
            self._bar.total = total
        self._bar.update(count - self._bar.n)
        if postfix:
            self._bar.set_postfix_str(postfix, refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()


class CriteriaBar:
    """A progress bar over criteria, and the number of failures in a row."""

    def __init__(self, total: int, give_up_after: int):
        self._bar = tqdm(
            total=total, unit="criteria", smoothing=0.05, dynamic_ncols=True, **bar_pace()
        )
        self.give_up_after, self.failures, self.in_a_row = give_up_after, 0, 0

    @property
    def gave_up(self) -> bool:
        """Whether too many in a row failed."""
        return self.in_a_row >= self.give_up_after > 0

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def skip(self, count: int) -> None:
        """An earlier run did these `count` criteria.

        They move the bar, but do not count in its rate.
        """
        self._bar.initial += count
        self._bar.n += count

    def done(self, count: int, error: str = "") -> None:
        """The `count` criteria of an answer or a row have ended, with or without an error.

        Raises GaveUp after too many errors in a row.
        """
        self._bar.update(count)
        if not error:
            self.in_a_row = 0
            return
        self.failures += 1
        self.in_a_row += 1
        self._bar.set_postfix_str(f"{self.failures} failed", refresh=False)
        if self.gave_up:
            what = f"{self.in_a_row} in a row failed, the last for: {error}"
            raise GaveUp(f"{what}; fix that and run the same command again")


async def work_through(jobs: Iterable, work: Callable[..., Awaitable[None]], workers: int) -> None:
    """Awaits `work(job)` for each job, `workers` at a time.

    A job is taken from the stream when a worker is free. The first exception cancels all work and
    is raised.
    """
    stream = iter(jobs)

    async def worker() -> None:
        for job in stream:
            await work(job)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except* Exception as failures:
        raise failures.exceptions[0] from None
