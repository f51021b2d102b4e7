"""Figures of a rollout and of an evaluation, named as slime names them (stages 2 and 6)."""

import math
import statistics
from collections import Counter, defaultdict

from rubric_rl.cpu.samples import Sample
from rubric_rl.grading.score import graded


def rollout_metrics(args, samples: list[Sample]) -> dict:
    """Mean reward without ungraded answers, lengths in tokens, share cut at the limit, groups of equal rewards."""
    rewards = [sample.get_reward_value(args) for sample in samples]
    metrics = {
        "rollout/raw_reward": mean_graded(rewards),
        "rollout/ungraded": sum(math.isnan(reward) for reward in rewards),
        "rollout/weight_version": max(
            (int(version) for version in versions(samples) if version.isdigit()), default=-1
        ),
    }
    return metrics | _answers(samples, "rollout/") | _zero_std(args, samples)


def eval_metrics(data: dict) -> dict:
    """The same for slime's evaluation data {name: {rewards, truncated, samples}}."""
    metrics = {}
    for name, part in data.items():
        metrics[f"eval/{name}"] = mean_graded(part["rewards"])
        metrics[f"eval/{name}/ungraded"] = sum(math.isnan(reward) for reward in part["rewards"])
        metrics |= _answers(part["samples"], f"eval/{name}/")
    return metrics


def versions(samples: list[Sample]) -> set[str]:
    """The weight versions that wrote the samples."""
    return {version for sample in samples for version in sample.weight_versions}


def mean_graded(rewards: list[float]) -> float:
    """Mean over the rewards that are not NaN; NaN when all are."""
    values = graded(rewards)
    return statistics.fmean(values) if values else math.nan


def _answers(samples: list[Sample], prefix: str) -> dict:
    lengths = [sample.effective_response_length for sample in samples]
    truncated = statistics.fmean(sample.status == Sample.Status.TRUNCATED for sample in samples)
    return {
        f"{prefix}response_len/mean": statistics.fmean(lengths),
        f"{prefix}response_len/median": statistics.median(lengths),
        f"{prefix}response_len/max": max(lengths),
        f"{prefix}response_len/min": min(lengths),
        f"{prefix}truncated_ratio": truncated,
    }


def _zero_std(args, samples: list[Sample]) -> dict:
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.group_index].append(sample.get_reward_value(args))
    flat = Counter(
        str(round(group[0], 1))
        for group in groups.values()
        if all(reward == group[0] for reward in group)
    )
    return {f"rollout/zero_std/count_{reward}": count for reward, count in flat.items()}
