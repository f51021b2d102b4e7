"""The Ray actor that makes rollouts and evaluations: data, engines, hooks, training data (stages 1 to 4 and 6)."""

import asyncio
import threading

from rubric_rl.cpu.rollout import Rollout, run_log_hook, train_data
from rubric_rl.cpu.rollout_metrics import versions
from rubric_rl.cpu.samples import DataSource, Sample, load_prompts
from rubric_rl.errors import UserError


class RolloutManager:
    """Plain class; cluster.py makes a Ray actor of it. One event loop for its whole life: hooks keep connections."""

    def __init__(self, args):
        from transformers import (
            AutoTokenizer,
        )  # here: `--help` must work on a machine without transformers

        self.args = args
        self.tokenizer = AutoTokenizer.from_pretrained(args.hf_checkpoint)
        self.source = DataSource(
            args, self._prompts(args.prompt_data, args, args.rollout_max_prompt_len)
        )
        self.eval_prompts = {
            d.name: self._prompts(d.path, d, args.eval_max_prompt_len) for d in args.eval_datasets
        }
        self.rollouts: Rollout | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="rollout").start()

    def _prompts(self, path: str, fields, max_length: int | None) -> list[Sample]:
        """The prompts of a file; `fields` (args, or an EvalDataset) names its columns and the template's options."""
        return load_prompts(
            path,
            self.tokenizer,
            input_key=fields.input_key,
            metadata_key=fields.metadata_key,
            apply_chat_template=fields.apply_chat_template,
            template_kwargs=fields.apply_chat_template_kwargs,
            max_length=max_length,
        )

    def prompts(self) -> int:
        """The number of training prompts; the call returns once the rows are read."""
        return len(self.source)

    def connect(self, router_port: int, engine_urls: list[str]) -> None:
        """Tells the manager where router and engines are, once they are up."""
        self.args.sglang_router_port = router_port
        self.args.rollout_engine_urls = engine_urls
        self.rollouts = self._run(_make(self.args, self.tokenizer))

    def generate(self, rollout_id: int, version: str) -> tuple[dict, dict]:
        """One rollout by the weights `version`: training data and metrics.

        Raises:
            UserError: when an engine answered with other weights.
        """
        samples, metrics = self._run(self.rollouts.rollout(self.source))
        if versions(samples) != {version}:
            found = (
                f"answers of weight version {', '.join(sorted(versions(samples)))}, not {version}"
            )
            raise UserError(f"rollout {rollout_id}: {found}: an engine missed an update")
        time = metrics["perf/rollout_time"]
        run_log_hook(
            self.args.custom_rollout_log_function_path,
            rollout_id,
            self.args,
            samples,
            metrics,
            time,
        )
        return train_data(self.args, samples), metrics

    def evaluate(self, rollout_id: int) -> dict:
        """All evaluation data sets; their metrics."""
        data, metrics = self._run(
            self.rollouts.evaluate(self.args.eval_datasets, self.eval_prompts)
        )
        run_log_hook(
            self.args.custom_eval_rollout_log_function_path, rollout_id, self.args, data, metrics
        )
        return metrics

    def progress(self) -> dict:
        """{"total", "generated", "graded"} of the current rollout or evaluation; may be called while it runs."""
        return dict(self.rollouts.progress) if self.rollouts else {}

    def state(self) -> dict:
        """The position of the data source, for a checkpoint."""
        return self.source.state()

    def restore(self, state: dict) -> None:
        """Continues where `state()` was taken."""
        self.source.restore(state)

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _make(args, tokenizer) -> Rollout:
    return Rollout(args, tokenizer)  # on the event loop: it opens an HTTP session
