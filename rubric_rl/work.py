"""Works through a stream of questions, so many at a time, until it ends or nothing answers (stage 6, evaluation)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from tqdm import tqdm

from rubric_rl.schema import UserError


class GaveUp(UserError):
    """Too many answers in a row stayed ungraded."""


class Progress:
    """The bar, and the count of failures in a row. `done` moves it on; `skip` books what an earlier run did."""

    def __init__(self, total: int, unit: str, give_up_after: int):
        self.bar = tqdm(total=total, unit=unit, smoothing=0.05, mininterval=0.5, dynamic_ncols=True)
        self.give_up_after, self.failures, self.in_a_row = give_up_after, 0, 0

    def skip(self, count: int) -> None:
        """`count` units are done already: they move the bar, not its rate."""
        self.bar.initial += count
        self.bar.n += count

    def done(self, count: int, error: str = "") -> None:
        """`count` more units have ended, with an error or well; raises GaveUp after too many errors in a row."""
        self.bar.update(count)
        self.failures, self.in_a_row = self.failures + bool(error), self.in_a_row + 1 if error else 0
        if error:
            self.bar.set_postfix_str(f"{self.failures} ungraded", refresh=False)
        if self.in_a_row >= self.give_up_after > 0:
            raise GaveUp(
                f"{self.in_a_row} answers in a row stayed ungraded, the last for: {error}; "
                "fix that and run the same command again"
            )


async def work_through(jobs: Iterable, work: Callable[..., Awaitable[None]], workers: int) -> None:
    """Awaits `work(job)` for each job, `workers` at a time; takes the next job only when a worker is free.

    The first exception ends all work and is raised as it is.
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
