"""The Ray actor that makes rollouts and evaluations: data, engines, hooks, training data (stages 1 to 4 and 6)."""

import asyncio
import threading

from rubric_rl.cpu.data import DataSource, load_prompts
from rubric_rl.cpu.rollout import Rollout, run_log_hook, train_data
from rubric_rl.cpu.rollout_metrics import versions
from rubric_rl.qwen3 import read_network
from rubric_rl.schema import UserError


class RolloutManager:
    """Plain class; cluster.py makes a Ray actor of it. One event loop for its whole life: hooks keep connections."""

    def __init__(self, args):
        from transformers import (
            AutoTokenizer,
        )  # here, so that a machine without transformers can still read the flags' help

        self.args = args
        self.tokenizer = AutoTokenizer.from_pretrained(args.hf_checkpoint)
        self.source = DataSource(args, self._prompts(args.prompt_data, args, args.rollout_max_prompt_len))
        self.eval_prompts = {d.name: self._prompts(d.path, d, args.eval_max_prompt_len) for d in args.eval_datasets}
        self._check_context()
        self.rollouts: Rollout | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="rollout").start()

    def _prompts(self, path: str, keys, max_length: int | None):
        return load_prompts(
            path,
            self.tokenizer,
            input_key=keys.input_key,
            metadata_key=keys.metadata_key,
            apply_chat_template=keys.apply_chat_template,
            template_kwargs=keys.apply_chat_template_kwargs,
            max_length=max_length,
        )

    def _check_context(self) -> None:
        """The longest prompt and an answer at its limit must fit into the model's positions."""
        limit = read_network(self.args.hf_checkpoint).max_positions
        wanted = [("--rollout-max-response-len", self.source.prompts, self.args.rollout_max_response_len)]
        wanted += [
            (f"max_response_len of {d.name}", self.eval_prompts[d.name], d.max_response_len)
            for d in self.args.eval_datasets
        ]
        for name, prompts, answer in wanted:
            longest = max(len(self.tokenizer.encode(sample.prompt, add_special_tokens=False)) for sample in prompts)
            if longest + answer > limit:
                raise UserError(
                    f"{name} {answer} and a prompt of {longest} tokens exceed the model's {limit} positions; lower it"
                )

    def prompts(self) -> int:
        """How many training prompts there are; answers once the rows are read."""
        return len(self.source)

    def connect(self, router_port: int, engine_urls: list[str]) -> None:
        """Says where the engines are, once they are up."""
        self.args.sglang_router_port = router_port
        self.args.rollout_engine_urls = engine_urls
        self.rollouts = self._run(_make(self.args, self.tokenizer))

    def generate(self, rollout_id: int, version: str) -> tuple[dict, dict]:
        """One rollout written by the weights `version`: training data and metrics.

        Raises:
            UserError: when an engine answered with other weights.
        """
        samples, metrics = self._run(self.rollouts.rollout(self.source))
        if versions(samples) != {version}:
            found = ", ".join(sorted(versions(samples)))
            raise UserError(
                f"rollout {rollout_id}: answers of weight version {found}, not {version}: an engine missed an update"
            )
        time = metrics["perf/rollout_time"]
        run_log_hook(self.args.custom_rollout_log_function_path, rollout_id, self.args, samples, metrics, time)
        return train_data(self.args, samples), metrics

    def evaluate(self, rollout_id: int) -> dict:
        """All evaluation data sets; their metrics."""
        data, metrics = self._run(self.rollouts.evaluate(self.args.eval_datasets, self.eval_prompts))
        run_log_hook(self.args.custom_eval_rollout_log_function_path, rollout_id, self.args, data, metrics)
        return metrics

    def progress(self) -> dict:
        """{"total", "generated", "graded"} of the rollout or evaluation that runs; answered while it runs."""
        return dict(self.rollouts.progress) if self.rollouts else {}

    def state(self) -> dict:
        """The data source's place, for a checkpoint."""
        return self.source.state()

    def restore(self, state: dict) -> None:
        """Goes on where `state()` was taken."""
        self.source.restore(state)

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _make(args, tokenizer) -> Rollout:
    return Rollout(args, tokenizer)
