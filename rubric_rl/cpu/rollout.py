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
from rubric_rl.cpu.generate import Generator, sampling_seed
from rubric_rl.cpu.samples import DataSource, Sample
from rubric_rl.grading.score import batch_advantages, known_rewards
from rubric_rl.launch.shared_checks import import_hook

Group = list[Sample]  # the answers to one prompt
Prompts = dict[str, list[Sample]]  # by data set
Metrics = dict[str, float]


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
        if not self.first_answer:
            self.first_answer = self.last_answer

    def seconds(self) -> Metrics:
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
        self.progress: dict[str, int] = {}
        self._expect(0)
        self._running: set[asyncio.Task] = set()
        self._reward = import_hook(args.custom_rm_path)
        self._group_filter = None
        group_filter = args.dynamic_sampling_filter_path
        if group_filter:
            self._group_filter = import_hook(group_filter)
        self._sample_filter = None
        sample_filter = args.rollout_sample_filter_path
        if sample_filter:
            self._sample_filter = import_hook(sample_filter)

    def _expect(self, total: int) -> None:
        # All at once: another thread reads it.
        self.progress.update(total=total, generated=0, graded=0)

    async def close(self) -> None:
        """Cancels what runs and closes the connections."""
        await self._cancel()
        await self.generator.close()

    async def rollout(self, source: DataSource) -> tuple[list[Sample], dict]:
        """The samples of rollout_batch_size graded groups, by index; the rollout's metrics."""
        args = self.args
        clock = Clock()
        total = args.rollout_batch_size * args.n_samples_per_prompt
        self._expect(total)
        try:
            groups, dropped = await self._graded_groups(source, clock)
        finally:
            await self._cancel()
        groups.sort(key=_first_index)
        if self._sample_filter:
            self._sample_filter(args, groups)
        samples: list[Sample] = []
        for group in groups:
            samples += group
        metrics: Metrics = {}
        for reason, count in dropped.items():
            metrics[f"rollout/dynamic_filter/drop_{reason}"] = count
        metrics |= clock.seconds()
        metrics |= rollout_metrics(args, samples)
        return samples, metrics

    async def _graded_groups(
        self, source: DataSource, clock: Clock
    ) -> tuple[list[Group], Counter[str]]:
        """rollout_batch_size groups that the filter keeps, and how many it dropped for what."""
        target = self.args.rollout_batch_size
        batch = self.args.over_sampling_batch_size
        groups: list[Group] = []
        dropped: Counter[str] = Counter()
        pending: set[asyncio.Task] = set()
        remaining = 0  # groups that are kept or may still be kept
        while len(groups) < target:
            while remaining < target:
                drawn = source.get_samples(batch)
                for group in drawn:
                    pending.add(self._spawn(self._group(group, clock)))
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

    def _why_dropped(self, group: Group, remaining: int, target: int) -> str | None:
        """Why the dynamic sampling filter drops the group, or None to keep it.

        That is slime's rule, its fallback included.
        """
        if self._group_filter is None:
            return None
        output = self._group_filter(self.args, group)
        if getattr(output, "keep", output):
            return None
        is_fallback = getattr(output, "keep_when_insufficient", False)
        if is_fallback and remaining <= target:
            return None
        reason = getattr(output, "reason", None)
        return reason or "unnamed"

    async def evaluate(self, datasets: list, prompts: Prompts) -> tuple[dict, Metrics]:
        """Answers and grades every data set.

        Returns slime's {name: {rewards, truncated, samples}} and the metrics.
        """
        clock = Clock()
        total = 0
        for dataset in datasets:
            total += dataset.n_samples_per_eval_prompt * len(prompts[dataset.name])
        self._expect(total)
        results = {}
        try:
            tasks = {}
            for dataset in datasets:
                name = dataset.name
                work = self._evaluate_one(dataset, prompts[name], clock)
                tasks[name] = self._spawn(work)
            for name, task in tasks.items():
                results[name] = self._result(await task)
        finally:
            await self._cancel()
        metrics = eval_metrics(results)
        seconds = clock.seconds()
        metrics["perf/eval_time"] = seconds["perf/rollout_time"]
        return results, metrics

    def _result(self, samples: list[Sample]) -> dict[str, list]:
        """What slime's evaluation returns for one data set."""
        rewards = [sample.reward for sample in samples]
        key = self.args.eval_reward_key
        if key:
            rewards = [reward[key] for reward in rewards]
        return {
            "rewards": rewards,
            "truncated": [_is_truncated(sample) for sample in samples],
            "samples": samples,
        }

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
        params = dataset.sampling_params(self.args)
        # Not by the run's seed: runs to be compared are asked the same with the same noise.
        asked = f"{dataset.name}/{self.args.rollout_id}"
        await self._answer_all(samples, params, asked, clock)
        return samples

    async def _group(self, group: Group, clock: Clock) -> Group:
        for sample in group:
            if not sample.session_id:
                sample.session_id = str(uuid.uuid4())
        params = self.generator.sampling_params()
        await self._answer_all(group, params, f"train/{self.args.rollout_seed}", clock)
        return group

    async def _answer_all(
        self, samples: list[Sample], params: dict, asked: str, clock: Clock
    ) -> None:
        """Has all answers written and graded; `asked` and a sample's index make its seed."""
        tasks = []
        for sample in samples:
            own = params
            if self.args.sglang_enable_deterministic_inference:
                seed = sampling_seed(asked, sample.index)
                own = params | {"sampling_seed": seed}
            tasks.append(self._spawn(self._answer(sample, own, clock)))
        await asyncio.gather(*tasks)

    async def _answer(self, sample: Sample, params: dict, clock: Clock) -> None:
        """Has one answer written and graded."""
        await self.generator.generate(sample, params)
        clock.answered()
        self.progress["generated"] += 1
        start = time.monotonic()
        hook = self._reward
        if sample.custom_rm_path:
            hook = import_hook(sample.custom_rm_path)
        sample.reward = await hook(self.args, sample)
        clock.grading_sum += time.monotonic() - start
        self.progress["graded"] += 1
        self._check_reward(sample)

    def _check_reward(self, sample: Sample) -> None:
        value = sample.reward
        key = self.args.reward_key
        if key and isinstance(value, dict):
            value = value.get(key)
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
    if not len(raw) == len(advantages) == len(samples):
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


def rollout_metrics(args, samples: list[Sample]) -> Metrics:
    """Figures of a rollout, named as slime names them.

    Mean reward without ungraded answers, lengths in tokens, share cut at the limit, groups of equal
    rewards.
    """
    rewards = [sample.get_reward_value(args) for sample in samples]
    newest = -1
    for version in weight_versions(samples):
        if version.isdigit():
            newest = max(newest, int(version))
    metrics = {
        "rollout/raw_reward": mean_graded(rewards),
        "rollout/ungraded": _count_ungraded(rewards),
        "rollout/weight_version": newest,
    }
    metrics |= _length_metrics(samples, "rollout/")
    metrics |= _equal_groups(args, samples)
    return metrics


def eval_metrics(results: dict) -> Metrics:
    """The same for slime's evaluation results {name: {rewards, truncated, samples}}."""
    metrics = {}
    for name, result in results.items():
        rewards = result["rewards"]
        metrics[f"eval/{name}"] = mean_graded(rewards)
        metrics[f"eval/{name}/ungraded"] = _count_ungraded(rewards)
        metrics |= _length_metrics(result["samples"], f"eval/{name}/")
    return metrics


def weight_versions(samples: list[Sample]) -> set[str]:
    """The weight versions that wrote the samples."""
    versions: set[str] = set()
    for sample in samples:
        versions.update(sample.weight_versions)
    return versions


def mean_graded(rewards: list[float]) -> float:
    """Mean over the rewards that are not NaN; NaN when all are."""
    values = known_rewards(rewards)
    if not values:
        return math.nan
    return statistics.fmean(values)


def _count_ungraded(rewards: list[float]) -> int:
    return len(rewards) - len(known_rewards(rewards))


def _first_index(group: Group) -> int:
    return group[0].index or 0


def _is_truncated(sample: Sample) -> bool:
    return sample.status == Sample.Status.TRUNCATED


def _length_metrics(samples: list[Sample], prefix: str) -> Metrics:
    lengths = [sample.effective_response_length for sample in samples]
    truncated = [_is_truncated(sample) for sample in samples]
    return {
        prefix + "response_len/mean": statistics.fmean(lengths),
        prefix + "response_len/median": statistics.median(lengths),
        prefix + "response_len/max": max(lengths),
        prefix + "response_len/min": min(lengths),
        prefix + "truncated_ratio": statistics.fmean(truncated),
    }


def _equal_groups(args, samples: list[Sample]) -> Metrics:
    """How many groups have one reward alone, by that reward: they teach nothing.

    Counted as slime does, which leaves out a group with an ungraded answer: NaN equals nothing.
    The hook's grading/zero_variance_groups is the share of all groups without a gradient.
    """
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.group_index].append(sample.get_reward_value(args))
    metrics: Counter[str] = Counter()
    for rewards in groups.values():
        first = rewards[0]
        if all(reward == first for reward in rewards):
            metrics[f"rollout/zero_std/count_{round(first, 1)}"] += 1
    return dict(metrics)
