"""The Ray actor that makes rollouts and evaluations: data, engines, hooks, training data."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from rubric_rl.common.errors import UserError
from rubric_rl.cpu.grader_skill import grading_prompts
from rubric_rl.cpu.rollout import Rollout, run_log_hook, train_data, weight_versions
from rubric_rl.cpu.samples import DataSource, Sample, load_prompts


class RolloutManager:
    """A plain class, of which cluster.py makes a Ray actor.

    One event loop for its whole life: hooks keep connections. Nothing that can fail is done in the
    constructor, because from there Ray hands on no exception of ours.
    """

    def __init__(self, args):
        self.args = args
        self.rollouts: Rollout | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="rollout").start()

    def load(self) -> int:
        """Reads tokenizer and rows; returns the number of training prompts.

        Raises:
            DataError: for rows that cannot be used.
        """
        # Here: `--help` must work on a machine without transformers.
        from transformers import AutoTokenizer

        args = self.args
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(args.hf_checkpoint)
        except Exception as error:  # transformers and tokenizers raise nothing more specific
            why = str(error).partition("\n")[0]
            raise UserError(
                f"{args.hf_checkpoint}: no usable tokenizer ({why}); get the checkpoint again"
            ) from None
        prompts = self._prompts(args.prompt_data, args, args.rollout_max_prompt_len)
        self.source = DataSource(args, prompts)
        self.eval_prompts = {}
        for dataset in args.eval_datasets:
            held_out = self._prompts(dataset.path, dataset, args.eval_max_prompt_len)
            self.eval_prompts[dataset.name] = held_out
        return len(self.source)

    def _prompts(self, path: str, fields, max_length: int | None) -> list[Sample]:
        """The prompts of a file.

        `fields` (args, or an EvalDataset) names its columns and the template's options.
        """
        return load_prompts(
            path,
            self.tokenizer,
            input_key=fields.input_key,
            metadata_key=fields.metadata_key,
            apply_chat_template=fields.apply_chat_template,
            template_kwargs=fields.apply_chat_template_kwargs,
            max_length=max_length,
        )

    def connect(self, engine_urls: list[str], routers: dict[str, tuple[str, int]]) -> None:
        """Tells the manager where the policy's engines are, and each model's router, once up.

        `routers` gives (host, port) by the model's name, the policy's first.
        """
        policy = next(iter(routers))
        _, self.args.sglang_router_port = routers[policy]
        self.args.sglang_model_routers = routers
        self.args.rollout_engine_urls = engine_urls
        self.rollouts = self._run(_make_rollout(self.args, self.tokenizer))

    def generate(self, rollout_id: int, weight_version: str) -> tuple[dict, dict]:
        """One rollout by the weights `weight_version`: training data and metrics.

        Raises:
            RuntimeError: when an engine answered with other weights.
        """
        assert self.rollouts is not None  # connected
        self.args.rollout_id = rollout_id  # for the records
        samples, metrics = self._run(self.rollouts.rollout(self.source))
        found = weight_versions(samples)
        if found != {weight_version}:
            answers = f"answers of weight version {', '.join(sorted(found))}"
            missed = "an engine missed an update"
            raise RuntimeError(f"rollout {rollout_id}: {answers}, not {weight_version}: {missed}")
        run_log_hook(
            self.args.custom_rollout_log_function_path,
            rollout_id,
            self.args,
            samples,
            metrics,
            metrics["perf/rollout_time"],
        )
        data = train_data(self.args, samples)
        data["grading_prompts"] = grading_prompts(self.args, samples, rollout_id)
        return data, metrics

    def evaluate(self, rollout_id: int) -> dict:
        """All evaluation data sets; their metrics."""
        assert self.rollouts is not None  # connected
        self.args.rollout_id = rollout_id
        work = self.rollouts.evaluate(self.args.eval_datasets, self.eval_prompts)
        results, metrics = self._run(work)
        log_hook = self.args.custom_eval_rollout_log_function_path
        run_log_hook(log_hook, rollout_id, self.args, results, metrics)
        return metrics

    def progress(self) -> dict[str, int]:
        """{"total", "generated", "graded"} of the current rollout or evaluation.

        May be called while it runs.
        """
        return dict(self.rollouts.progress) if self.rollouts else {}

    def state(self) -> dict[str, int]:
        """The position of the data source, for a checkpoint."""
        return self.source.state()

    def restore(self, state: dict[str, int]) -> None:
        """Continues where `state()` was taken."""
        self.source.restore(state)

    def _run(self, work: Coroutine) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _make_rollout(args, tokenizer) -> Rollout:
    """On the event loop, because it opens an HTTP session."""
    return Rollout(args, tokenizer)
