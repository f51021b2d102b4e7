"""Requests end at their limit and with their rollout, whatever else ends at that moment."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.serving.in_flight import InFlight, Limit
from rubric_rl.serving.question import Aborted

LONG = 3600.0  # seconds


async def silence() -> None:
    await asyncio.sleep(LONG)


def test_a_request_ends_at_its_limit():
    async def main():
        with pytest.raises(TimeoutError, match=r"no reply within 0\.01 seconds"):
            await InFlight(lambda: False, 0.01).reply(silence())

    asyncio.run(main())


def test_a_time_out_of_the_request_itself_stays_one():
    async def fails() -> None:
        raise TimeoutError("of the connection")

    async def main():
        with pytest.raises(TimeoutError, match="of the connection"):
            await InFlight(lambda: False, LONG).reply(fails())

    asyncio.run(main())


@pytest.mark.parametrize("number", [1, 5])
def test_an_abort_ends_all_of_them(number):
    async def main():
        requests = InFlight(lambda: True, LONG)
        waiting = [asyncio.create_task(requests.reply(silence())) for _ in range(number)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in results] == [Aborted] * number

    asyncio.run(main())


def test_an_abort_ends_the_others_too_while_one_is_at_its_limit():
    """Its limit has passed, and its task has not run since."""

    async def main():
        requests = InFlight(lambda: True, LONG)
        waiting = [asyncio.create_task(requests.reply(silence())) for _ in range(5)]
        await asyncio.sleep(0)
        for limit in list(requests._requests)[:2]:
            limit.reschedule(0)
        await asyncio.sleep(0)
        requests._look()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in results} == {Aborted}

    asyncio.run(main())


def test_a_cancelled_request_is_cancelled():
    async def main():
        requests = InFlight(lambda: False, LONG)
        waiting = asyncio.create_task(requests.reply(silence()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


MOST = 4
STEPS = st.integers(0, 3)  # turns of the event loop


@given(
    work=st.lists(
        st.tuples(st.integers(1, MOST), STEPS, STEPS, st.booleans(), st.booleans()), max_size=12
    ),
    ended=st.lists(st.integers(0, 11), max_size=12),
)
def test_what_is_cancelled_or_fails_holds_no_place(work, ended):
    """No more than the most are held at any moment, and in the end all are free."""
    limit, held = Limit(MOST), 0

    async def turns(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    async def hold(count: int, steps: int, fails: bool) -> None:
        nonlocal held
        async with limit.holding(count):
            held += count
            assert held <= MOST
            try:
                await turns(steps)
                if fails:
                    raise ConnectionError
            finally:
                held -= count

    async def main():
        tasks, cancelled = [], list(ended)
        for count, steps, pause, fails, cancels in work:
            tasks.append(asyncio.create_task(hold(count, steps, fails)))
            await turns(pause)
            if cancels and cancelled:
                tasks[cancelled.pop() % len(tasks)].cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, (ConnectionError, asyncio.CancelledError))
        async with limit.holding(MOST):
            assert held == 0

    asyncio.run(asyncio.wait_for(main(), 5))
