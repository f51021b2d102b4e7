"""The reward hook as slime's fully asynchronous rollout calls it, in event loops side by side.

A program, one of several at an engine: async_worker.py NUMBER PORT MODEL FOLDER ABORTED. Each of
its loops, in a thread of its own, takes groups up until every answer has a reward. If ABORTED is 1,
slime aborts the rollout once in their midst. It prints a line of JSON.
"""

import asyncio
import json
import sys
import threading
import time
import types
import urllib.request
from argparse import Namespace

import aiohttp
from doubles.hooked import hook_args, sample

import self_reward_rm as hooks
from rubric_rl.cpu.samples import Sample

LOOPS, GROUPS, SIZE = 2, 2, 2  # of a process, of a loop, answers of a group
COMPLETED, ABORTED = Sample.Status.COMPLETED, Sample.Status.ABORTED


class State:
    """What slime's GenerateState tells the hook."""

    aborted = False


class Worker(threading.Thread):
    """An event loop with its groups."""

    def __init__(self, args: Namespace, first: int):
        super().__init__()
        self.args = args
        self.url = f"http://127.0.0.1:{args.sglang_router_port}"
        self.groups = []
        for number in range(first, first + GROUPS):
            members = range(number * SIZE, (number + 1) * SIZE)
            blank = {"response": "", "status": Sample.Status.PENDING}
            self.groups.append([sample(index, number, **blank) for index in members])
        self.in_flight = 0  # gradings
        self.without_reward = 0  # gradings that were aborted

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        async with aiohttp.ClientSession() as self.session:
            await asyncio.gather(*(self._take_up(group) for group in self.groups))
        self.graders = hooks._graders_of_loop[asyncio.get_running_loop()]
        await self.graders.close()

    async def _take_up(self, group: list[Sample]) -> None:
        """A group comes back as long as one of its answers was aborted."""
        while True:
            await asyncio.gather(*(self._answer_and_grade(one) for one in group))
            if all(one.status is not ABORTED for one in group):
                return
            await asyncio.sleep(0.01)

    async def _answer_and_grade(self, one: Sample) -> None:
        if one.status is COMPLETED:
            assert one.reward is not None
            return
        if State.aborted:
            one.status = ABORTED
            return
        async with self.session.post(f"{self.url}/generate", json={"input_ids": [1]}) as response:
            reply = await response.json()
        one.response += reply["text"]
        one.weight_versions.append(reply["meta_info"]["weight_version"])
        one.status = COMPLETED
        if one.reward is None:  # NaN is a reward
            self.in_flight += 1
            one.reward = await hooks.reward(self.args, one)
            self.in_flight -= 1
            self.without_reward += one.reward is None


def abort(workers: list[Worker], url: str) -> None:
    """What slime does at a rollout's end: it sends no more, and aborts until nothing runs."""
    all_of_one = GROUPS * SIZE
    while all(one.in_flight < all_of_one for one in workers):
        if not any(one.is_alive() for one in workers):  # another process has aborted all of it
            return
        time.sleep(0.01)
    State.aborted = True
    while any(one.in_flight for one in workers):
        urllib.request.urlopen(f"{url}/abort_request", b"{}").close()
        time.sleep(0.05)
    State.aborted = False


def main() -> None:
    number, port, model, folder, aborted = sys.argv[1:]
    module = types.ModuleType("slime.rollout.sglang_rollout")
    module.GenerateState = lambda args: State
    sys.modules[module.__name__] = module
    args = hook_args(model, grader_records=folder, grader_mode="direct", grader_thinking=False)
    args.sglang_router_port = int(port)
    first = int(number) * LOOPS * GROUPS
    workers = [Worker(args, first + loop * GROUPS) for loop in range(LOOPS)]
    for worker in workers:
        worker.start()
    if aborted == "1":
        abort(workers, workers[0].url)
    for worker in workers:
        worker.join()
    samples = [one for worker in workers for group in worker.groups for one in group]
    result = {
        "graders": len({id(worker.graders) for worker in workers}),
        "without_reward": sum(worker.without_reward for worker in workers),
        "rewards": [one.reward for one in samples],
        "responses": [one.response for one in samples],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
