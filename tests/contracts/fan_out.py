"""A custom generate function that makes two training samples of one answer, as an agent's turns do.

slime's loop imports it by name (test_slime_rollout.py).
"""

import copy

from slime.rollout import sglang_rollout


async def generate(args, sample, sampling_params):
    """slime's own answer, twice."""
    answer = await sglang_rollout.generate(args, sample, sampling_params)
    return [answer, copy.deepcopy(answer)]
