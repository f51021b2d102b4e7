"""What the hooks need to know of slime's samples and of the rollout at work."""

import math
import sys

# What slime fills in when it writes an answer.
_OF_AN_ANSWER = [
    "tokens",
    "response",
    "response_length",
    "loss_mask",
    "weight_versions",
    "rollout_log_probs",
    "teacher_log_probs",
    "rollout_top_p_token_ids",
    "rollout_top_p_token_offsets",
    "rollout_routed_experts",
]


def drop_answer(sample) -> None:
    """Takes the answer out of a sample, which slime then answers anew."""
    blank = type(sample)()
    for name in _OF_AN_ANSWER:
        if hasattr(sample, name):
            setattr(sample, name, getattr(blank, name))


def is_aborting(args) -> bool:
    """Whether slime is aborting the rollout.

    It then aborts requests until no more come, so none may be sent.
    """
    module = sys.modules.get("slime.rollout.sglang_rollout")
    return module is not None and module.GenerateState(args).aborted


def rollout_id(args) -> int | None:
    """The number of the rollout at work, where the trainer tells it."""
    module = sys.modules.get("slime.rollout.sample_hooks")  # of slime 0.3.1 and later
    of_task = getattr(module, "_task_rollout_id", None)  # 0.4: rollouts side by side
    rollout_id = of_task.get() if of_task else None
    if rollout_id is None:
        rollout_id = getattr(module, "_current_rollout_id", None)
    if rollout_id is None:
        rollout_id = getattr(args, "rollout_id", None)
    return rollout_id


def flat(samples) -> list:
    """All samples; a custom generate function may return several for one."""
    found = []
    for each in samples:
        found.extend(each if isinstance(each, list) else [each])
    return found


def rewards_of(args, samples) -> list[float]:
    """The samples' rewards, under --reward-key where there is one; NaN where there is none."""
    key = getattr(args, "reward_key", None)
    rewards = []
    for sample in flat(samples):
        value = sample.reward
        if key and value is not None:
            value = value[key]
        rewards.append(math.nan if value is None else value)
    return rewards
