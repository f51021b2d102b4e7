"""Requests that end at their time limit, and when their rollout is aborted, the server silent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from rubric_rl.serving.question import Aborted

Result = TypeVar("Result")
LOOK_EVERY = 0.2  # seconds


class Limit:
    """So much may be in flight at once; who comes first is served first."""

    def __init__(self, most: int):
        self._free = asyncio.Semaphore(most)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def holding(self, count: int) -> AsyncIterator[None]:
        """Counts as `count`, which is no more than all."""
        held = 0
        try:
            async with self._turn:  # two that hold a part each would wait for one another
                while held < count:
                    await self._free.acquire()
                    held += 1
            yield
        finally:
            for _ in range(held):
                self._free.release()


class InFlight:
    """The requests of one client that wait for their reply.

    slime 0.3 has the engines abort what is in flight when a rollout ends. slime 0.4 does so only
    while answers are still being written: verdicts on surplus answers would hold up the update for
    as long as they take.
    """

    def __init__(self, stopped: Callable[[], bool], seconds: float):
        """`stopped` says that the rollout aborts; `seconds` is the limit of each request."""
        self._stopped, self._seconds = stopped, seconds
        self._requests: set[asyncio.Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def reply(self, request: Coroutine[Any, Any, Result]) -> Result:
        """What the request brings.

        Raises TimeoutError after its time, and Aborted soon after the abort.
        """
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                self._requests.add(limit)
                if self._timer is None:
                    self._look_later()
                return await request
        except TimeoutError:
            if limit not in self._requests:
                raise Aborted from None
            if limit.expired():
                raise TimeoutError(f"no reply within {self._seconds:g} seconds") from None
            raise
        finally:
            self._requests.discard(limit)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._stopped():
            now = asyncio.get_running_loop().time()
            ending, self._requests = self._requests, set()
            for limit in ending:
                if not limit.expired():  # else it is on its way out
                    limit.reschedule(now)
        elif self._requests:
            self._look_later()
