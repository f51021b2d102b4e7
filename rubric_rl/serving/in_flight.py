"""Requests that end when their rollout is aborted, with no word from the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rubric_rl.serving.question import Aborted

LOOK_EVERY = 0.2  # seconds


class InFlight:
    """The requests of one client that wait for their reply.

    slime 0.3 has the engines abort what is in flight when a rollout ends. slime 0.4 does so only
    while answers are still being written: verdicts on surplus answers would hold up the update for
    as long as they take.
    """

    def __init__(self, stopped: Callable[[], bool]):
        """`stopped` says that the rollout aborts."""
        self._stopped = stopped
        self._requests: set[asyncio.Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """The time of one request. Raises Aborted, out of the body, soon after the abort."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._requests.add(limit)
                if self._timer is None:
                    self._look_later()
                yield
        except TimeoutError:
            if limit.expired():
                raise Aborted from None
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
                limit.reschedule(now)
        elif self._requests:
            self._look_later()
