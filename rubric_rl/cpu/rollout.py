"""One rollout: answers, each self-graded as soon as it is complete; the training data from them.

It does what slime's rollout loop does (slime/rollout/sglang_rollout.py, slime/ray/rollout.py), so
that hooks and flags have the same meaning here.
"""

import asyncio
import inspect
import math
import statistics
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.generate import Generator
from rubric_rl.cpu.samples import DataSource, Sample
from rubric_rl.grading.score import batch_advantages, known_rewards
from rubric_rl.launch.shared_checks import import_hook


@dataclass
class Clock:
    """How long generation and grading took.

    An answer is graded while others are generated, so the two overlap.
    """

    start: float = field(default_factory=time.monotonic)
    first_answer: float = 0.0
    last_answer: float = 0.0
    grading_sum: float = 0.0

    def answered(self) -> None:
        """Called when an answer is complete and its grading begins."""
        self.last_answer = time.monotonic()
        self.first_answer = self.first_answer or self.last_answer

    def seconds(self) -> dict[str, float]:
        """Wall time of the rollout and of its parts.

        Generation lasts up to the last answer, grading from the first answer on, its tail from the
        last answer on; the grading times of all answers are summed as well.
        """
        now = time.monotonic()
        return {
            "perf/rollout_time": now - self.start,
            "perf/generation_time": self.last_answer - self.start,
            "perf/grading_time": now - self.first_answer,
            "perf/grading_tail_time": now - self.last_answer,
            "perf/grading_time_sum_over_answers": self.grading_sum,
        }


class Rollout:
    """Makes rollouts and evaluations in one event loop.

    `progress` counts generated and graded answers.
    """

    def __init__(self, args, tokenizer):
        self.args = args
        self.generator = Generator(args, tokenizer)
        self.progress = {"total": 0, "generated": 0, "graded": 0}
        self._running: set[asyncio.Task] = set()
        self._reward = import_hook(args.custom_rm_path)
        self._group_filter = None
        if args.dynamic_sampling_filter_path:
            self._group_filter = import_hook(args.dynamic_sampling_filter_path)
        self._sample_filter = None
        if args.rollout_sample_filter_path:
            self._sample_filter = import_hook(args.rollout_sample_filter_path)

    async def close(self) -> None:
        """Cancels what runs and closes the connections."""
        await self._cancel()
        await self.generator.close()

    async def rollout(self, source: DataSource) -> tuple[list[Sample], dict]:
        """The samples of rollout_batch_size graded groups, by index; the rollout's metrics."""
        clock = Clock()
        total = self.args.rollout_batch_size * self.args.n_samples_per_prompt
        self.progress.update(total=total, generated=0, graded=0)
        try:
            groups, dropped = await self._graded_groups(source, clock)
        finally:
            await self._cancel()
        groups.sort(key=lambda group: group[0].index or 0)
        if self._sample_filter:
            self._sample_filter(self.args, groups)
        samples = [sample for group in groups for sample in group]
        metrics: dict[str, float] = {}
        for reason, count in dropped.items():
            metrics[f"rollout/dynamic_filter/drop_{reason}"] = count
        metrics |= clock.seconds()
        metrics |= rollout_metrics(self.args, samples)
        return samples, metrics

    async def _graded_groups(
        self, source: DataSource, clock: Clock
    ) -> tuple[list[list[Sample]], Counter[str]]:
        """rollout_batch_size groups that the filter keeps, and how many it dropped for what."""
        target = self.args.rollout_batch_size
        groups: list[list[Sample]] = []
        dropped: Counter[str] = Counter()
        pending: set[asyncio.Task] = set()
        remaining = 0  # groups that are kept or may still be kept
        while len(groups) < target:
            while remaining < target:
                drawn = source.get_samples(self.args.over_sampling_batch_size)
                pending |= {self._spawn(self._group(group, clock)) for group in drawn}
                remaining += len(drawn)
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                group = task.result()
                reason = self._why_dropped(group, remaining, target)
                if reason is not None:
                    dropped[reason] += 1
                    remaining -= 1
                elif len(groups) < target:
                    groups.append(group)
        return groups, dropped

    def _why_dropped(self, group: list[Sample], remaining: int, target: int) -> str | None:
        """Why the dynamic sampling filter drops the group, or None to keep it.

        That is slime's rule, its fallback included.
        """
        if self._group_filter is None:
            return None
        output = self._group_filter(self.args, group)
        if getattr(output, "keep", output):
            return None
        if getattr(output, "keep_when_insufficient", False) and remaining <= target:
            return None
        return getattr(output, "reason", None) or "unnamed"

    async def evaluate(self, datasets: list, prompts: dict[str, list[Sample]]) -> tuple[dict, dict]:
        """Answers and grades every data set.

        Returns slime's {name: {rewards, truncated, samples}} and the metrics.
        """
        clock = Clock()
        total = 0
        for dataset in datasets:
            total += dataset.n_samples_per_eval_prompt * len(prompts[dataset.name])
        self.progress.update(total=total, generated=0, graded=0)
        key = self.args.eval_reward_key
        results = {}
        try:
            tasks = {}
            for dataset in datasets:
                work = self._evaluate_one(dataset, prompts[dataset.name], clock)
                tasks[dataset.name] = self._spawn(work)
            for name, task in tasks.items():
                samples: list[Sample] = await task
                rewards = [sample.reward for sample in samples]
                if key:
                    rewards = [reward[key] for reward in rewards]
                results[name] = {
                    "rewards": rewards,
                    "truncated": [_is_truncated(sample) for sample in samples],
                    "samples": samples,
                }
        finally:
            await self._cancel()
        seconds = clock.seconds()["perf/rollout_time"]
        return results, eval_metrics(results) | {"perf/eval_time": seconds}

    async def _evaluate_one(self, dataset, prompts: list[Sample], clock: Clock) -> list[Sample]:
        samples = []
        for prompt in prompts:
            for _ in range(dataset.n_samples_per_eval_prompt):
                sample = Sample(
                    index=len(samples),
                    prompt=prompt.prompt,
                    custom_rm_path=dataset.custom_rm_path,
                    metadata=prompt.metadata | dataset.metadata_overrides,
                )
                samples.append(sample)
        await self._answer_all(samples, dataset.sampling_params(self.args), clock)
        return samples

    async def _group(self, group: list[Sample], clock: Clock) -> list[Sample]:
        for sample in group:
            sample.session_id = sample.session_id or str(uuid.uuid4())
        await self._answer_all(group, self.generator.sampling_params(), clock)
        return group

    async def _answer_all(self, samples: list[Sample], params: dict, clock: Clock) -> None:
        tasks = [self._spawn(self._answer(sample, params, clock)) for sample in samples]
        await asyncio.gather(*tasks)

    async def _answer(self, sample: Sample, params: dict, clock: Clock) -> None:
        """Has one answer written and graded."""
        await self.generator.generate(sample, params)
        clock.answered()
        self.progress["generated"] += 1
        start = time.monotonic()
        reward = import_hook(sample.custom_rm_path) if sample.custom_rm_path else self._reward
        sample.reward = await reward(self.args, sample)
        clock.grading_sum += time.monotonic() - start
        self.progress["graded"] += 1
        self._check_reward(sample)

    def _check_reward(self, sample: Sample) -> None:
        value = sample.reward
        if self.args.reward_key and isinstance(value, dict):
            value = value.get(self.args.reward_key)
        if not isinstance(value, (int, float)):
            hook = sample.custom_rm_path or self.args.custom_rm_path
            found = f"the reward hook {hook} returned {sample.reward!r}"
            allowed = "a number, or with --reward-key a dict with a number under that key"
            raise UserError(f"{found}: it must be {allowed}")

    def _spawn(self, work: Coroutine) -> asyncio.Task:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Marks it as retrieved: the first failure is raised, asyncio need not warn of others.
            task.exception()

    async def _cancel(self) -> None:
        """Ends surplus work.

        Closing a request makes the engine abort it, and a cancelled grading cannot ask again.
        """
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            await self.generator.abort()


def run_log_hook(path: str | None, *arguments) -> None:
    """Calls a log hook as slime does, but ignores its return value: metrics are always logged."""
    if not path:
        return
    hook = import_hook(path)
    if inspect.iscoroutinefunction(hook):
        raise UserError(f"the log hook {path} is async; slime calls it as a plain function")
    hook(*arguments)


def train_data(args, samples: list[Sample]) -> dict:
    """What the actors train on: one list per field, in sample order; `rewards` are the advantages.

    Raises:
        UserError: when the hook returns another number of rewards than there are samples.
    """
    if args.custom_reward_post_process_path:
        post_process = import_hook(args.custom_reward_post_process_path)
        raw, advantages = post_process(args, samples)
    else:
        raw = [sample.get_reward_value(args) for sample in samples]
        groups = [sample.group_index for sample in samples]
        advantages = batch_advantages(raw, groups, args.grpo_std_normalization)
        for sample, reward in zip(samples, raw, strict=True):
            sample.remove_sample |= math.isnan(reward)
    lengths = {len(raw), len(advantages), len(samples)}
    if len(lengths) > 1:
        found = f"{len(raw)} and {len(advantages)} rewards for {len(samples)} samples"
        raise UserError(f"the reward post-process hook returned {found}")
    return {
        "tokens": [sample.tokens for sample in samples],
        "response_lengths": [sample.response_length for sample in samples],
        "rewards": [float(advantage) for advantage in advantages],
        "loss_masks": [_loss_mask(sample) for sample in samples],
        "rollout_log_probs": [sample.rollout_log_probs for sample in samples],
    }


def _loss_mask(sample: Sample) -> list[int] | None:
    if sample.remove_sample:
        return [0] * sample.response_length
    return sample.loss_mask


def rollout_metrics(args, samples: list[Sample]) -> dict[str, float]:
    """Figures of a rollout, named as slime names them.

    Mean reward without ungraded answers, lengths in tokens, share cut at the limit, groups of equal
    rewards.
    """
    rewards = [sample.get_reward_value(args) for sample in samples]
    versions = [version for version in weight_versions(samples) if version.isdigit()]
    metrics = {
        "rollout/raw_reward": mean_graded(rewards),
        "rollout/ungraded": _count_ungraded(rewards),
        "rollout/weight_version": max(map(int, versions), default=-1),
    }
    metrics |= _length_metrics(samples, "rollout/")
    metrics |= _equal_groups(args, samples)
    return metrics


def eval_metrics(results: dict) -> dict[str, float]:
    """The same for slime's evaluation results {name: {rewards, truncated, samples}}."""
    metrics = {}
    for name, result in results.items():
        prefix = f"eval/{name}"
        rewards = result["rewards"]
        metrics[prefix] = mean_graded(rewards)
        metrics[f"{prefix}/ungraded"] = _count_ungraded(rewards)
        metrics |= _length_metrics(result["samples"], f"{prefix}/")
    return metrics


def weight_versions(samples: list[Sample]) -> set[str]:
    """The weight versions that wrote the samples."""
    return {version for sample in samples for version in sample.weight_versions}


def mean_graded(rewards: list[float]) -> float:
    """Mean over the rewards that are not NaN; NaN when all are."""
    values = known_rewards(rewards)
    return statistics.fmean(values) if values else math.nan


def _count_ungraded(rewards: list[float]) -> int:
    return sum(math.isnan(reward) for reward in rewards)


def _is_truncated(sample: Sample) -> bool:
    return sample.status == Sample.Status.TRUNCATED


def _length_metrics(samples: list[Sample], prefix: str) -> dict[str, float]:
    lengths = [sample.effective_response_length for sample in samples]
    return {
        f"{prefix}response_len/mean": statistics.fmean(lengths),
        f"{prefix}response_len/median": statistics.median(lengths),
        f"{prefix}response_len/max": max(lengths),
        f"{prefix}response_len/min": min(lengths),
        f"{prefix}truncated_ratio": statistics.fmean(map(_is_truncated, samples)),
    }


def _equal_groups(args, samples: list[Sample]) -> dict[str, float]:
    """How many groups have one reward alone, by that reward: they teach nothing."""
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.group_index].append(sample.get_reward_value(args))
    metrics: Counter[str] = Counter()
    for rewards in groups.values():
        first = rewards[0]
        if all(reward == first for reward in rewards):
            metrics[f"rollout/zero_std/count_{round(first, 1)}"] += 1
    return dict(metrics)
