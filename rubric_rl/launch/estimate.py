"""Memory per GPU, disk and hours of a run, by arithmetic from its own flags.

For example:
    DRY_RUN=1 bash run_qwen3_8B.sh | python -m rubric_rl.launch.estimate
"""

import argparse
import math
import shlex
import sys
from dataclasses import dataclass
from typing import NamedTuple

from rubric_rl.common.command_line import CommandParser, exit_status, positive, quantity
from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import Shape, read_network
from rubric_rl.data.training_settings import TrainingGraders
from rubric_rl.launch.slime_flags import SHAPE_FIELDS, CommandLine
from rubric_rl.launch.token_bill import bill_lines

GB = 1e9


# ---- what the flags say


def model_shape(flags: CommandLine) -> Shape:
    """The shape of the model that a command line trains.

    It is read from slime's model flags, else from config.json of --hf-checkpoint; raises UserError
    without either.
    """
    if "num-layers" not in flags:
        return read_network(flags.text("hf-checkpoint"))
    sizes = {}
    for flag, field in SHAPE_FIELDS.items():
        size = flags.whole(flag)
        if size < 1:
            raise UserError(f"--{flag} must be 1 or more; take the model's flags from slime")
        sizes[field] = size
    tied = "untie-embeddings-and-output-weights" not in flags
    return Shape(**sizes, tied=tied)


@dataclass(frozen=True, kw_only=True)
class ParallelPlan:
    """How a command line spreads the model and its copies over GPUs."""

    flags: CommandLine
    shape: Shape
    tensor: int
    pipeline: int
    data: int
    training_gpus: int
    engines: int
    gpus_per_engine: int
    colocate: bool  # the same GPUs train and serve in turn

    @property
    def serving_gpus(self) -> int:
        """GPUs that serve."""
        return self.engines * self.gpus_per_engine

    @property
    def parameters_per_gpu(self) -> float:
        """Parameters that one training GPU holds."""
        return self.shape.parameters / (self.tensor * self.pipeline)


def parallel_plan(flags: CommandLine) -> ParallelPlan:
    """Reads the parallel sizes; raises UserError when they do not divide the GPUs."""
    tensor = flags.whole("tensor-model-parallel-size", 1)
    pipeline = flags.whole("pipeline-model-parallel-size", 1)
    context = flags.whole("context-parallel-size", 1)
    copy = tensor * pipeline * context  # GPUs of one copy of the model
    nodes = flags.whole("actor-num-nodes", 1)
    training = nodes * flags.whole("actor-num-gpus-per-node", 8)
    if copy < 1 or training < 1 or training % copy:
        sizes = f"tensor {tensor} x pipeline {pipeline} x context {context} parallel"
        what = f"{training} training GPUs are no multiple of {sizes}"
        raise UserError(f"{what}; change the sizes or --actor-num-gpus-per-node")
    colocate = "colocate" in flags
    serving = flags.whole("rollout-num-gpus")
    if colocate and "rollout-num-gpus" not in flags:
        serving = training
    per_engine = flags.whole("rollout-num-gpus-per-engine", 1)
    if per_engine < 1 or serving < per_engine or serving % per_engine:
        raise UserError(
            f"{serving} rollout GPUs are no multiple of {per_engine} per engine; "
            "change --rollout-num-gpus or -per-engine"
        )
    return ParallelPlan(
        flags=flags,
        shape=model_shape(flags),
        tensor=tensor,
        pipeline=pipeline,
        data=training // copy,
        training_gpus=training,
        engines=serving // per_engine,
        gpus_per_engine=per_engine,
        colocate=colocate,
    )


# ---- memory and disk


class Part(NamedTuple):
    """A part of a memory, in bytes, and how it was calculated."""

    size: float
    derivation: str


RUNTIME = Part(4 * GB, "CUDA context, NCCL buffers, fragments: an allowance")


def training_parts(plan: ParallelPlan) -> dict[str, Part]:
    """What lies in the memory of one training GPU at the moment of the backward pass."""
    return _parameter_parts(plan) | _activation_parts(plan) | {"runtime": RUNTIME}


def _parameter_parts(plan: ParallelPlan) -> dict[str, Part]:
    own = plan.parameters_per_gpu
    pipeline = plan.pipeline
    data = plan.data
    parameters = _in_billions(plan.shape)
    optimizer = 12 * own / data
    where = ""
    if "optimizer-cpu-offload" in plan.flags:
        optimizer = 0.0
        where = ": on the host"
    shards = f"tensor {plan.tensor} x pipeline {pipeline}"
    return {
        "weights": Part(2 * own, f"2 bytes x {parameters} / ({shards})"),
        "gradients": Part(4 * own, "4 bytes (summed in fp32) x the same"),
        "optimizer": Part(
            optimizer,
            f"(4 fp32 weights + 4 + 4 Adam) x the same / data {data}{where}",
        ),
    }


def _activation_parts(plan: ParallelPlan) -> dict[str, Part]:
    flags = plan.flags
    shape = plan.shape
    hidden = shape.hidden
    ffn = shape.ffn
    tensor = plan.tensor
    stages = plan.pipeline
    layers = shape.layers / stages
    tokens = flags.whole("max-tokens-per-gpu", 4096)
    per_value = f"2 bytes x {tokens} tokens"
    sequence_shards = tensor if "sequence-parallel" in flags else 1

    # Per token a layer keeps its input; without full recomputation all 17 of its activations.
    # With several stages, as many micro-batches are in flight.
    kept_per_layer = 1 if _recomputes_all(flags) else 17
    kept = "" if kept_per_layer == 1 else f"{kept_per_layer} activations x "
    layer_inputs = 2 * tokens * hidden * layers / sequence_shards
    layer_inputs *= kept_per_layer
    layer_inputs *= stages
    one_token = 17 * hidden / sequence_shards + 3 * ffn / tensor
    one_layer = 2 * tokens * one_token
    logits = 10 * tokens * shape.vocab / tensor
    return {
        "layer inputs": Part(
            layer_inputs,
            f"{kept}{per_value} x {hidden} x {layers:g} layers x {stages} stages / "
            f"{sequence_shards}",
        ),
        "one layer": Part(
            one_layer,
            f"{per_value} x (17 x {hidden} / {sequence_shards} + 3 x {ffn} / {tensor})",
        ),
        "logits": Part(
            logits,
            f"(2 bf16 + 4 fp32 + 4 gradient) x {tokens} tokens x {shape.vocab} / {tensor}",
        ),
    }


def _recomputes_all(flags: CommandLine) -> bool:
    return flags.text("recompute-granularity") == "full"


def _in_billions(shape: Shape) -> str:
    billions = shape.parameters / 1e9
    return f"{billions:.2f}e9"


def training_bytes(plan: ParallelPlan) -> float:
    """The sum of `training_parts`."""
    parts = training_parts(plan)
    return sum(part.size for part in parts.values())


def engine_weight_bytes(plan: ParallelPlan) -> float:
    """Weights (bf16) on one GPU of an engine."""
    return 2 * plan.shape.parameters / plan.gpus_per_engine


def host_bytes(plan: ParallelPlan) -> float:
    """Host memory of one node for what training parks there.

    That is an offloaded optimizer; with --colocate also weights and optimizer while the engines
    serve.
    """
    flags = plan.flags
    own = plan.parameters_per_gpu
    parked = 0.0
    if plan.colocate or "optimizer-cpu-offload" in flags:
        parked += 12 * own / plan.data
    if plan.colocate:
        parked += 2 * own
    return parked * flags.whole("actor-num-gpus-per-node", 8)


def checkpoint_bytes(shape: Shape) -> int:
    """One checkpoint to resume from: bf16 weights, and fp32 weights with Adam's two moments."""
    return (2 + 12) * shape.parameters


# ---- length


def count_rollouts(flags: CommandLine, prompts: int) -> int:
    """Rollouts of the run: --num-rollout, else --num-epoch passes over the training prompts."""
    rollouts = flags.whole("num-rollout")
    if rollouts:
        return rollouts
    epochs = flags.whole("num-epoch", 1)
    batch = flags.whole("rollout-batch-size", 1) or 1
    return epochs * (prompts // batch)


def count_checkpoints(flags: CommandLine, prompts: int, done: int = 0) -> int:
    """How many checkpoints slime writes after `done` rollouts.

    One at each --save-interval, at each end of an epoch, and after the last rollout.
    """
    interval = flags.whole("save-interval")
    total = count_rollouts(flags, prompts)
    if not interval or not total:
        return 0
    epoch = _epoch(flags, total)
    count = _multiples_of_either(interval, epoch, done, total)
    if total > done and total % interval and total % epoch:
        count += 1  # the last one
    return count


def count_evaluations(flags: CommandLine, prompts: int) -> int:
    """How many evaluations slime makes: at the start, each --eval-interval and end of an epoch."""
    interval = flags.whole("eval-interval")
    total = count_rollouts(flags, prompts)
    if not interval or not total:
        return 0
    epoch = interval if flags.whole("num-rollout") else _epoch(flags, total)
    at_the_start = "skip-eval-before-train" not in flags
    return at_the_start + _multiples_of_either(interval, epoch, 0, total)


def _evaluations_per_rollout(flags: CommandLine, prompts: int) -> float:
    return count_evaluations(flags, prompts) / max(count_rollouts(flags, prompts), 1)


def _epoch(flags: CommandLine, total: int) -> int:
    """Rollouts of an epoch; with --num-rollout slime counts none, and all are one."""
    if flags.whole("num-rollout"):
        return total
    return max(total // flags.whole("num-epoch", 1), 1)


def _multiples_of_either(one: int, other: int, above: int, most: int) -> int:
    """How many multiples of one number or the other lie above a number and are at most another."""
    both = math.lcm(one, other)
    count = _multiples(one, above, most) + _multiples(other, above, most)
    return count - _multiples(both, above, most)


def _multiples(number: int, above: int, most: int) -> int:
    """How many multiples of a number lie above one number and are at most another."""
    return max(most // number - above // number, 0)


# ---- the report


def report_lines(flags: CommandLine, assumed: argparse.Namespace) -> list[str]:
    """The report, one line a figure; `assumed` holds the options of the command."""
    plan = parallel_plan(flags)
    gpu_gb = assumed.gpu_gb
    prompts = assumed.rows
    return [
        _plan_line(plan),
        *_training_lines(plan, gpu_gb),
        *_engine_lines(plan, gpu_gb),
        *_storage_lines(plan, prompts),
        *_time_lines(plan, prompts, assumed),
        *bill_lines(flags, assumed, _evaluations_per_rollout(flags, prompts)),
    ]


def _plan_line(plan: ParallelPlan) -> str:
    parameters = _in_billions(plan.shape)
    sizes = f"tensor {plan.tensor}, pipeline {plan.pipeline}, data {plan.data}"
    engines = f"{plan.engines} engines of {plan.gpus_per_engine}"
    if plan.colocate:
        engines += ", in turn on the same GPUs"
    return f"{parameters} parameters; {plan.training_gpus} GPUs train ({sizes}), {engines}"


def _training_lines(plan: ParallelPlan, gpu_gb: float) -> list[str]:
    lines = []
    for name, part in training_parts(plan).items():
        size = _in_gb(part.size)
        lines.append(f"  training GPU  {name:13}{size}  = {part.derivation}")
    total = training_bytes(plan)
    size = _in_gb(total)
    lines.append(f"  training GPU  sum          {size} of {gpu_gb:g}")
    return lines


def _in_gb(size: float) -> str:
    """A size in bytes, as a column of the report."""
    in_gb = size / GB
    return f"{in_gb:7.1f} GB"


def _engine_lines(plan: ParallelPlan, gpu_gb: float) -> list[str]:
    fraction = plan.flags.number("sglang-mem-fraction-static", 0.85)
    gpus = plan.gpus_per_engine
    weights = engine_weight_bytes(plan)
    cache = fraction * gpu_gb * GB - weights
    token_bytes = plan.shape.kv_bytes
    tokens = max(cache, 0) * gpus / token_bytes
    weights_size = _in_gb(weights)
    cache_size = _in_gb(cache)
    derivation = f"{fraction:g} x {gpu_gb:g} GB - weights"
    room = f"{tokens:,.0f} tokens an engine at {token_bytes:,} bytes"
    return [
        f"  engine GPU    weights      {weights_size}  = 2 bytes x parameters / {gpus}",
        f"  engine GPU    cache        {cache_size}  = {derivation}: {room}",
    ]


def _storage_lines(plan: ParallelPlan, prompts: int) -> list[str]:
    parked = host_bytes(plan)
    host = _in_gb(parked)
    size = checkpoint_bytes(plan.shape) / GB
    count = count_checkpoints(plan.flags, prompts)
    total = count * size
    derivation = f"{count} x {size:.0f} GB (14 bytes a parameter)"
    return [
        f"  node          host memory  {host}  = what sleeps or is offloaded there",
        f"  disk          checkpoints  {total:7.0f} GB  = {derivation}, none is removed",
    ]


def _time_lines(plan: ParallelPlan, prompts: int, assumed: argparse.Namespace) -> list[str]:
    flags = plan.flags
    rollouts = count_rollouts(flags, prompts)
    batch = flags.whole("rollout-batch-size", 1)
    answers = batch * flags.whole("n-samples-per-prompt", 1)
    parameters = plan.shape.parameters

    # Serving: the policy writes its answers and their verdicts.
    criteria = assumed.criteria
    answer_tokens = assumed.answer_tokens
    verdict_tokens = assumed.verdict_tokens
    rate = assumed.decode_rate
    serving = plan.serving_gpus
    written = answers * (answer_tokens + criteria * verdict_tokens)
    gpu_rate = rate * (8e9 / parameters)
    rollout = written / (gpu_rate * serving)
    written_in_words = f"{answer_tokens} + {criteria:g} criteria x {verdict_tokens}"
    rate_in_words = f"{rate:g} tokens/s of an 8e9 model, by size, x {serving} GPUs"

    # Training, per parameter and token: 2 forward, 4 backward, 2 for the old log-probabilities.
    flops = assumed.flops
    mfu = assumed.mfu
    training = plan.training_gpus
    flop = 2 + 4 + 2
    if _recomputes_all(flags):
        flop += 2  # the activations
    tokens = answers * (answer_tokens + assumed.prompt_tokens)
    update = flop * parameters * tokens / (flops * mfu * training)
    speed_in_words = f"{flops:.3g} x {mfu:g} x {training} GPUs"

    hours = rollouts * (rollout + update) / 3600
    not_counted = "without evaluation, start and weight transfer"
    return [
        f"  rollout       {rollout:7.0f} s = {answers} answers x ({written_in_words}) tokens / "
        f"({rate_in_words})",
        f"  update        {update:7.0f} s = {flop} FLOP x parameters x tokens / ({speed_in_words})",
        f"  run           {hours:7.0f} h = {rollouts} rollouts, {not_counted}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "python -m rubric_rl.launch.estimate",
        "Memory per GPU, disk and hours of a run, by arithmetic from its own flags.",
        epilog="The words of the command come from standard input, as DRY_RUN=1 prints them.",
    )

    def add(name: str, default: float, about: str) -> None:
        kind = positive if isinstance(default, int) else quantity
        parser.add_argument(name, type=kind, default=default, help=about)

    add("--gpu-gb", 80.0, "memory of a GPU in GB")
    add("--rows", 4000, "training prompts")
    add("--criteria", 11.5, "criteria per prompt (HealthBench's mean)")
    add("--prompt-tokens", 300, "of a prompt, on average")
    add("--answer-tokens", 3000, "of an answer, on average; the paper's 8B: 1,400 to 5,400")
    add("--verdict-tokens", 600, "of a verdict with its thoughts, assumed; direct mode: 1")
    add("--criterion-tokens", 45, "of a criterion, with what ends the prompt behind it")
    add("--ending-tokens", 11, "of these, what grader_criterion_in_reply saves (Qwen3's tokens)")
    share = TrainingGraders().anchor_share
    add("--anchor-share", share, "share of the training prompts that an anchor grades too")
    add("--eval-answers", 128, "answers of an evaluation, all of which an anchor grades too")
    add("--instruction-tokens", 200, "of the grader's prompt before conversation and answer")
    add("--decode-rate", 3000.0, "tokens/s of one GPU serving 8e9 parameters, assumed")
    add("--flops", 989e12, "peak bf16 FLOP/s of a GPU (H100 SXM data sheet)")
    add("--mfu", 0.3, "share of the peak that training reaches: an assumption")
    return parser


def read_command(text: str) -> CommandLine:
    """The flags of a printed command, after its program; raises UserError without one."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        what = f"standard input is no command ({error})"
        raise UserError(f"{what}; pipe what DRY_RUN=1 prints") from None
    if not words:
        raise UserError(
            "nothing on standard input: pipe `DRY_RUN=1 bash run_qwen3_8B.sh` into this command"
        )
    while words and not words[0].startswith("--"):
        del words[0]
    return CommandLine(words)


def main() -> int:
    """Prints the report; returns the exit status."""
    return exit_status(_print_estimate)


def _print_estimate() -> int:
    assumed = _parser().parse_args()
    command = sys.stdin.read()
    flags = read_command(command)
    for line in report_lines(flags, assumed):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
