"""Requests end at their limit and with their rollout, whatever else ends at that moment."""

import asyncio

import pytest

from rubric_rl.serving.in_flight import InFlight
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
