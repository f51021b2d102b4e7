"""Samples and settings as slime hands them to the hooks, and the reward hook run on them."""

import asyncio
import math
from argparse import Namespace

import self_reward_rm as hooks
from doubles.engine import FakeEngine, Say, verdict
from rubric_rl.cpu.samples import Sample
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Record

RUBRICS = [
    {"criterion": "Greets.", "points": 6, "tags": ["axis:accuracy"]},
    {"criterion": "Insults.", "points": -4, "tags": ["axis:tone"]},
    {"criterion": "Advises.", "points": 2, "tags": ["axis:accuracy"]},
]
MESSAGES = [{"role": "user", "content": "hi"}]
NAN = math.nan


def sample(index: int = 0, group: int | None = 0, **changes) -> Sample:
    metadata = {"prompt_id": f"p{group}", "messages": MESSAGES, "rubrics": RUBRICS, "theme": "t"}
    fields = {
        "prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        "response": "Hello.<|im_end|>",
        "status": Sample.Status.COMPLETED,
        "metadata": metadata,
        "session_id": f"session-{index}",
    }
    return Sample(index=index, group_index=group, **fields | changes)


def hook_args(model: str, **more) -> Namespace:
    """What slime's parser and --custom-config-path leave behind."""
    args = {
        "sglang_router_ip": "127.0.0.1",
        "sglang_router_port": 1,
        "hf_checkpoint": model,
        "reward_key": None,
        "partial_rollout": False,
        "save": None,
        "grpo_std_normalization": True,
        "grader_retries": 1,
    }
    return Namespace(**args | more)


def reward(engine: FakeEngine, args, samples):
    """Runs the reward hook against the engine behind the run's router address."""

    async def main():
        async with engine:
            args.sglang_router_port = engine.port
            try:
                return await hooks.reward(args, samples)
            finally:
                await hooks._graders_of_loop[asyncio.get_running_loop()].close()

    return asyncio.run(main())


def by_answer(prompt: str) -> Say:
    """Greets: what the answer says; insults and advises: no."""
    return verdict("] Greets." in prompt and "Hello" in prompt)


def record_of(one: Sample) -> Record:
    """The record that the hook left in a sample."""
    return record_from_json(one.metadata["grading"])
