"""Doubles for the trainer: flags, rows, a tokenizer of words, an engine with faults, hooks."""

import argparse
import asyncio
import json
import math
import shutil
import sys
import time
from pathlib import Path

from doubles.engine import Fail, FakeEngine, Say, varied_answers
from doubles.launch_world import WEIGHTS
from rubric_rl import ROOT
from rubric_rl.cpu import flags
from rubric_rl.cpu.metric_rows import append_row, read_rows
from rubric_rl.cpu.samples import Sample

FLAGS = [
    *("--hf-checkpoint", "model", "--save", "run"),
    *("--prompt-data", "rows.jsonl", "--input-key", "prompt", "--apply-chat-template"),
    *("--rollout-batch-size", "4", "--n-samples-per-prompt", "2", "--global-batch-size", "8"),
    *("--num-rollout", "3", "--rollout-max-response-len", "16"),
    *("--rollout-num-gpus", "1", "--actor-num-gpus-per-node", "1"),
    *("--custom-rm-path", "doubles.trainer.reward"),
    *("--attention-dropout", "0", "--hidden-dropout", "0"),
]


def make_args(*more: str):
    """Parsed flags as the trainer has them once the engines are up."""
    args = flags.parse([*FLAGS, *map(str, more)])
    args.rollout_engine_urls = []
    return args


def row(number: int) -> dict:
    messages = [{"role": "user", "content": f"patient {number}"}]
    rubrics = [{"criterion": "says rest", "points": 5, "tags": []}]
    metadata = {
        "prompt_id": f"p{number}",
        "messages": messages,
        "rubrics": rubrics,
        "theme": "t",
        "example_tags": [],
        "canary": "c",
    }
    return {"prompt": messages, "metadata": metadata}


def write_rows(path, count: int):
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(count)))
    return path


def model_folder(path: Path, kind="qwen3", weights=True, tokenizer=True, shape=()) -> Path:
    """Makes a checkpoint of the tiny model's shape, as far as the checks before a run look."""
    path.mkdir()
    config = json.loads((ROOT / "rubric_rl/tiny/model/config.json").read_text())
    config |= {"model_type": kind} | dict(shape)
    (path / "config.json").write_text(json.dumps(config))
    if weights:
        (path / "model.safetensors").write_bytes(WEIGHTS)
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(ROOT / "rubric_rl/tiny/model" / name, path)
    return path


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [len(word) for word in text.split()]

    def apply_chat_template(self, messages, tokenize, add_generation_prompt, **kwargs) -> str:
        turns = [f"<{message['role']}> {message['content']}" for message in messages]
        options = [f"{name}={value}" for name, value in kwargs.items()]
        return " ".join([*turns, "<assistant>", *options])


async def reward(args, sample, **kwargs) -> float:
    """Length of the answer, so that it differs between answers."""
    await asyncio.sleep(0)
    return float(sample.response_length)


async def nothing(args, sample, **kwargs):
    return None


async def other_key(args, sample, **kwargs) -> dict:
    return {"other": 1.0}


async def ungraded(args, sample, **kwargs) -> float:
    return math.nan if sample.index % 2 else 1.0


async def endless(args, sample, **kwargs) -> float:
    """Grading that ends only when it is cancelled, for every group but the first four."""
    if sample.group_index >= 4:
        await asyncio.Event().wait()
    return float(sample.index)


def keep_even(args, group: list[Sample], **kwargs) -> bool:
    return group[0].group_index % 2 == 0


FAULTS = {
    "html": Fail(200, "<html>the proxy says hello</html>"),
    "nan": Say("word", meta={"output_token_logprobs": [[math.nan, 1, None]]}),
    "drop": Fail(reset=True),
    "hang": Say(seconds=60),
    "abort": Say("word", reason="abort"),
    "length": Say("word", reason="length", tokens=1),
    "textless": Fail(200, '{"meta_info": {"finish_reason": {"type": "stop"}}}'),
    "empty": Fail(200, '{"text": ""}'),
}


def answering_engine(faults=(), delay: float = 0.0) -> FakeEngine:
    """An engine that answers rollouts at once, after these faults: names, or HTTP statuses."""
    script = []
    for fault in faults:
        status = isinstance(fault, int)
        script.append(Fail(fault, "the engine says no") if status else FAULTS[fault])
    return FakeEngine(*script, varied_answers(delay), version="0")


class Call:
    """Stands in for a method of a Ray actor: `remote` does the work at once."""

    def __init__(self, work):
        self.remote = work

    def options(self, **_) -> "Call":
        return self


class FakeCluster:
    """Stands in for cluster.Cluster: the weights are a number of updates, the data order a counter.

    Every call takes `delay` seconds.
    """

    def __init__(self, delay: float):
        self.delay = delay
        self.weights = 0
        self.offset = 0
        self.served: int | None = None
        self.actors = ["the only one"]
        self.manager = argparse.Namespace(
            generate=Call(self._generate),
            evaluate=Call(lambda rollout_id: {"eval/held": self.weights}),
            state=Call(lambda: self.offset),
        )

    def load(self, checkpoint: Path, data_state: int) -> None:
        self.weights = int((checkpoint / "weights").read_text())
        self.offset = data_state

    def _generate(self, rollout_id: int, weight_version: str):
        assert self.served == rollout_id and weight_version == str(rollout_id)
        self.offset += 1
        metrics = {
            "rollout/raw_reward": 0.5,
            "offset": self.offset,
            "weights": self.weights,
            "perf/generation_time": 0.1,
        }
        return "data", metrics

    def call_actors(self, method: str, *arguments) -> list:
        time.sleep(self.delay)
        if method == "train":
            self.weights += 1
            return [{"train/loss": 1.0}]
        assert method == "save"
        directory = Path(arguments[0])
        (directory / "hf").mkdir()
        (directory / "weights").write_text("")  # half written
        time.sleep(self.delay)
        (directory / "weights").write_text(str(self.weights))
        return [None]

    def wait(self, references: list) -> list:
        time.sleep(self.delay)
        return references

    def watch(self, result, bar, report):
        time.sleep(self.delay)
        report({"generated": 8, "total": 8})
        time.sleep(self.delay)
        return result

    def sync(self, weight_version: int) -> None:
        time.sleep(self.delay)
        self.served = weight_version

    def memory_gb(self) -> float:
        return 1.0


def run_with_doubles(directory: str, delay: float, rollouts: int) -> None:
    """A run of the real loop, recorder and run directory on doubles.

    A test kills the process that does it.
    """
    from rubric_rl.cpu.recorder import Recorder
    from rubric_rl.cpu.run_directory import RunDirectory
    from rubric_rl.cpu.train import Trainer, first_rollout

    flags = ["--save", directory, "--load", directory, "--num-rollout", str(rollouts)]
    flags += ["--eval-prompt-data", "held", "rows.jsonl", "--eval-interval", "2"]
    flags += ["--save-interval", "1"]
    args = make_args(*flags)
    run = RunDirectory(directory)
    start = first_rollout(args, run)
    cluster = FakeCluster(delay)
    if start > 0:
        cluster.load(run.checkpoint(start - 1), run.data_state(start - 1))
    recorder = Recorder(run.path, start, rollouts, tensorboard=False)
    Trainer(args, run, cluster, recorder).run(start)


def to_old_form(directory: Path) -> None:
    """Makes a run as it was written when rollouts were called steps."""
    for name, key in (("metrics.jsonl", "rollout_id"), ("eval.jsonl", "weight_version")):
        rows = read_rows(directory / name)
        (directory / name).unlink()
        for row in rows:
            step = row.pop(key)
            row.pop("rollout_id", None)
            append_row(directory / name, {"step": step, **row})
    for path in directory.glob("iter_*/state.json"):
        state = json.loads(path.read_text())
        path.write_text(json.dumps({"step": state.pop("rollout_id"), **state}))


if __name__ == "__main__":
    run_with_doubles(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
