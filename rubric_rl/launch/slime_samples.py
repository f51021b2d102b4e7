"""What the hooks need to know of slime's samples and of the rollout at work."""

import math
import sys
from collections.abc import Mapping

from rubric_rl.data.schema import AT_ZERO
from rubric_rl.grading.score import compared_rewards

# What slime fills in when it writes an answer, besides what it calls rollout_...
_OF_AN_ANSWER = {
    "tokens",
    "response",
    "response_length",
    "loss_mask",
    "weight_versions",
    "teacher_log_probs",
}
_OF_ITS_ROLLOUT = "rollout_"  # log-probabilities, kept tokens, experts: each version has others


def drop_answer(sample) -> None:
    """Takes the answer out of a sample, which slime then answers anew."""
    for name, value in vars(type(sample)()).items():
        of_its_rollout = name.startswith(_OF_ITS_ROLLOUT) and name != "rollout_id"
        if name in _OF_AN_ANSWER or of_its_rollout:
            setattr(sample, name, value)


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


def drops_failures(args) -> bool:
    """Whether slime goes on without a group for which the reward hook has raised an error.

    Its fully asynchronous rollout does, and would answer prompts without end for a grader that
    cannot be used.
    """
    return "fully_async" in (getattr(args, "rollout_function_path", None) or "")


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


def compared(args, samples) -> tuple[list[float], list]:
    """The rewards that advantages are made of, and each one's group."""
    answered, groups = [], []
    for sample in flat(samples):
        grading = (sample.metadata or {}).get("grading") or {}
        answered.append(grading.get("status") not in AT_ZERO)
        groups.append(sample.group_index)
    return compared_rewards(rewards_of(args, samples), answered, groups), groups


def add_metrics(
    rollout_id: int, args, extra_metrics: dict | None, metrics: Mapping[str, float]
) -> None:
    """Adds figures to those that slime logs of a rollout.

    Its fully asynchronous rollout has nothing to add them to: there slime's own loggers get them
    by themselves. A rollout that is replayed is not logged at all.
    """
    if extra_metrics is not None:
        extra_metrics.update(metrics)
        return
    module = sys.modules.get("slime.observability.rollout_metrics")
    if module is None or getattr(args, "load_debug_rollout_data", None):
        return
    step = module.compute_rollout_step(args, rollout_id)
    module.logging_utils.log(args, {**metrics, "rollout/step": step}, step_key="rollout/step")
