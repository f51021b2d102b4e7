"""One rollout: answers, each self-graded as soon as it is complete, and the training data from them (stages 2 to 4).

It does what slime's rollout loop does (slime/rollout/sglang_rollout.py, slime/ray/rollout.py), so that hooks and flags
have the same meaning here.
"""

import asyncio
import importlib
import inspect
import math
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from rubric_rl.cpu.generate import Generator
from rubric_rl.cpu.rollout_metrics import eval_metrics, rollout_metrics
from rubric_rl.cpu.samples import DataSource, Sample
from rubric_rl.errors import UserError
from rubric_rl.grading.score import batch_advantages


def load_function(path: str):
    """The function at a dotted path such as `self_reward_rm.reward`; UserError when it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"hook {path} cannot be imported: {error}") from None


@dataclass
class Clock:
    """How long generation and grading took. An answer is graded while others are generated, so the two overlap."""

    start: float = field(default_factory=time.monotonic)
    first_answer: float = 0.0
    last_answer: float = 0.0
    grading_sum: float = 0.0

    def answered(self) -> None:
        """Called when an answer is complete and its grading begins."""
        self.last_answer = time.monotonic()
        self.first_answer = self.first_answer or self.last_answer

    def seconds(self) -> dict:
        """Wall time of the rollout; of generation, up to the last answer; of grading, from the first answer on; of its
        tail, from the last answer on; and the grading times of all answers summed.
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
    """Makes rollouts and evaluations in one event loop. `progress` counts generated and graded answers."""

    def __init__(self, args, tokenizer):
        self.args = args
        self.generator = Generator(args, tokenizer)
        self.progress = {"total": 0, "generated": 0, "graded": 0}
        self._running: set[asyncio.Task] = set()
        filters = (args.dynamic_sampling_filter_path, args.rollout_sample_filter_path)
        self._group_filter, self._sample_filter = (
            load_function(path) if path else None for path in filters
        )
        self._reward = load_function(args.custom_rm_path)

    async def close(self) -> None:
        """Cancels what runs and closes the connections."""
        await self._cancel()
        await self.generator.close()

    async def rollout(self, source: DataSource) -> tuple[list[Sample], dict]:
        """The samples of rollout_batch_size graded groups, in order of their index, and the metrics of the rollout."""
        target = self.args.rollout_batch_size
        clock, dropped, groups, pending = Clock(), Counter(), [], set()
        self.progress.update(total=target * self.args.n_samples_per_prompt, generated=0, graded=0)
        remaining = 0  # groups that are kept or may still be kept
        try:
            while len(groups) < target:
                while remaining < target:
                    drawn = source.get_samples(self.args.over_sampling_batch_size)
                    pending |= {self._spawn(self._group(group, clock)) for group in drawn}
                    remaining += len(drawn)
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    group = task.result()
                    reason = self._rejected(group, remaining, target)
                    if reason is not None:
                        dropped[reason] += 1
                        remaining -= 1
                    elif len(groups) < target:
                        groups.append(group)
        finally:
            await self._cancel()
        groups.sort(key=lambda group: group[0].index)
        if self._sample_filter:
            self._sample_filter(self.args, groups)
        samples = [sample for group in groups for sample in group]
        metrics = {
            f"rollout/dynamic_filter/drop_{reason}": count for reason, count in dropped.items()
        }
        return samples, metrics | clock.seconds() | rollout_metrics(self.args, samples)

    async def evaluate(self, datasets: list, prompts: dict[str, list[Sample]]) -> tuple[dict, dict]:
        """Answers and grades every data set; returns slime's {name: {rewards, truncated, samples}} and the metrics."""
        clock, data = Clock(), {}
        counts = {d.name: len(prompts[d.name]) * d.n_samples_per_eval_prompt for d in datasets}
        self.progress.update(total=sum(counts.values()), generated=0, graded=0)
        try:
            tasks = {
                d.name: self._spawn(self._dataset(d, prompts[d.name], clock)) for d in datasets
            }
            for dataset in datasets:
                samples = await tasks[dataset.name]
                key = self.args.eval_reward_key
                data[dataset.name] = {
                    "rewards": [s.reward[key] if key else s.reward for s in samples],
                    "truncated": [s.status == Sample.Status.TRUNCATED for s in samples],
                    "samples": samples,
                }
        finally:
            await self._cancel()
        return data, eval_metrics(data) | {"perf/eval_time": clock.seconds()["perf/rollout_time"]}

    async def _dataset(self, dataset, prompts: list[Sample], clock: Clock) -> list[Sample]:
        samples = []
        for prompt in prompts:
            for _ in range(dataset.n_samples_per_eval_prompt):
                sample = Sample(
                    index=len(samples), prompt=prompt.prompt, custom_rm_path=dataset.custom_rm_path
                )
                sample.metadata = prompt.metadata | dataset.metadata_overrides
                samples.append(sample)
        params = dataset.sampling_params(self.args)
        await asyncio.gather(
            *[self._spawn(self._sample(sample, params, clock)) for sample in samples]
        )
        return samples

    async def _group(self, group: list[Sample], clock: Clock) -> list[Sample]:
        for sample in group:
            sample.session_id = sample.session_id or str(uuid.uuid4())
        params = self.generator.sampling_params()
        await asyncio.gather(
            *[self._spawn(self._sample(sample, params, clock)) for sample in group]
        )
        return group

    async def _sample(self, sample: Sample, params: dict, clock: Clock) -> None:
        await self.generator.generate(sample, params)
        clock.answered()
        self.progress["generated"] += 1
        start = time.monotonic()
        reward = load_function(sample.custom_rm_path) if sample.custom_rm_path else self._reward
        sample.reward = await reward(self.args, sample)
        clock.grading_sum += time.monotonic() - start
        self.progress["graded"] += 1
        key = self.args.reward_key
        value = sample.reward.get(key) if key and isinstance(sample.reward, dict) else sample.reward
        if not isinstance(value, (int, float)):
            hook = sample.custom_rm_path or self.args.custom_rm_path
            found = f"the reward hook {hook} returned {sample.reward!r}"
            raise UserError(
                f"{found}: it must be a number, or with --reward-key a dict with a number under that key"
            )

    def _rejected(self, group: list[Sample], remaining: int, target: int) -> str | None:
        """Why the dynamic sampling filter drops the group, or None to keep it (slime's rule, its fallback included)."""
        if self._group_filter is None:
            return None
        output = self._group_filter(self.args, group)
        keep = getattr(output, "keep", output)
        if keep or (getattr(output, "keep_when_insufficient", False) and remaining <= target):
            return None
        return getattr(output, "reason", None) or "unnamed"

    def _spawn(self, work) -> asyncio.Task:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the first failure is raised, asyncio need not warn of the others

    async def _cancel(self) -> None:
        """Ends surplus work: closing a request makes the engine abort it, and a cancelled grading cannot ask again."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            await self.generator.abort()


def run_log_hook(path: str | None, *arguments) -> None:
    """Calls a log hook as slime does, but ignores its return value: the metrics are always logged."""
    if not path:
        return
    hook = load_function(path)
    if inspect.iscoroutinefunction(hook):
        raise UserError(f"the log hook {path} is async; slime calls it as a plain function")
    hook(*arguments)


def train_data(args, samples: list[Sample]) -> dict:
    """What the actors train on: one list per field, in sample order; `rewards` are the advantages.

    Raises:
        UserError: when the hook returns another number of rewards than there are samples.
    """
    if args.custom_reward_post_process_path:
        raw, rewards = load_function(args.custom_reward_post_process_path)(args, samples)
    else:
        raw = [sample.get_reward_value(args) for sample in samples]
        rewards = batch_advantages(
            raw, [sample.group_index for sample in samples], args.grpo_std_normalization
        )
        for sample, reward in zip(samples, raw, strict=True):
            sample.remove_sample |= math.isnan(reward)
    if not len(raw) == len(rewards) == len(samples):
        found = f"{len(raw)} and {len(rewards)} rewards for {len(samples)} samples"
        raise UserError(f"the reward post-process hook returned {found}")
    return {
        "tokens": [sample.tokens for sample in samples],
        "response_lengths": [sample.response_length for sample in samples],
        "rewards": [float(reward) for reward in rewards],
        "loss_masks": [
            [0] * s.response_length if s.remove_sample else s.loss_mask for s in samples
        ],
        "rollout_log_probs": [sample.rollout_log_probs for sample in samples],
    }
