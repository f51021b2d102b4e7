"""Memory per GPU, disk and hours of a run, by arithmetic from its own flags (stages 2, 3 and 5).

For example:
    DRY_RUN=1 bash run_qwen3_8B.sh | python -m rubric_rl.launch.estimate
"""

import argparse
import shlex
import sys
from dataclasses import dataclass

from rubric_rl.errors import UserError
from rubric_rl.launch.model_args import FLAGS
from rubric_rl.launch.words import Words
from rubric_rl.model_shape import Shape, read_network

GB = 1e9


def shape_of(words: Words) -> Shape:
    """The shape from slime's model flags, else from config.json of --hf-checkpoint; raises UserError without either."""
    if "num-layers" in words:
        return Shape(**{field: int(words.number(flag)) for flag, field in FLAGS.items()},
                     tied="untie-embeddings-and-output-weights" not in words)  # fmt: skip
    return read_network(words.text("hf-checkpoint"))


@dataclass(frozen=True)
class Plan:
    """What the flags say about the machine: parallel sizes and GPUs."""

    shape: Shape
    tensor: int
    pipeline: int
    data: int
    train_gpus: int
    engine_gpus: int
    engines: int
    colocate: bool
    words: Words


def plan_of(words: Words) -> Plan:
    """Reads the parallel sizes; raises UserError when they do not divide the GPUs."""
    names = ("tensor-model-parallel-size", "pipeline-model-parallel-size", "context-parallel-size")
    tensor, pipeline, context = (int(words.number(name, 1)) for name in names)
    train = int(words.number("actor-num-nodes", 1) * words.number("actor-num-gpus-per-node", 8))
    serve = (
        train
        if "colocate" in words and "rollout-num-gpus" not in words
        else int(words.number("rollout-num-gpus"))
    )
    per_engine = int(words.number("rollout-num-gpus-per-engine", 1))
    one = tensor * pipeline * context
    if one < 1 or train < 1 or train % one:
        raise UserError(f"{train} training GPUs are no multiple of tensor {tensor} x pipeline {pipeline} x "
                        f"context {context} parallel; change the sizes or --actor-num-gpus-per-node")  # fmt: skip
    if per_engine < 1 or serve < per_engine or serve % per_engine:
        raise UserError(f"{serve} rollout GPUs are no multiple of {per_engine} per engine; "
                        "change --rollout-num-gpus or -per-engine")  # fmt: skip
    return Plan(shape_of(words), tensor, pipeline, data=train // one, train_gpus=train, engine_gpus=per_engine,
                engines=serve // per_engine, colocate="colocate" in words, words=words)  # fmt: skip


def training_parts(plan: Plan) -> dict[str, tuple[float, str]]:
    """Part -> (bytes, derivation) on one training GPU, at the moment of the backward pass."""
    shape, words = plan.shape, plan.words
    tensor, own = plan.tensor, shape.parameters / (plan.tensor * plan.pipeline)
    tokens = int(words.number("max-tokens-per-gpu", 4096))
    layers = shape.layers / plan.pipeline
    shard = tensor if "sequence-parallel" in words else 1
    full = words.text("recompute-granularity") == "full"
    kept = 2 * tokens * shape.hidden * layers / shard * (1 if full else 17) * plan.pipeline
    working = 2 * tokens * (17 * shape.hidden / shard + 3 * shape.ffn / tensor)
    optimizer = 0 if "optimizer-cpu-offload" in words else 12 * own / plan.data
    return {
        "weights": (2 * own, f"2 bytes x {shape.parameters / GB:.2f}e9 / (tensor {tensor} x pipeline {plan.pipeline})"),
        "gradients": (4 * own, "4 bytes (summed in fp32) x the same"),
        "optimizer": (optimizer, f"(4 fp32 weights + 4 + 4 Adam) x the same / data {plan.data}"
                                 + ("" if optimizer else ": on the host")),
        "layer inputs": (kept, f"2 bytes x {tokens} tokens x {shape.hidden} x {layers:g} layers"
                               f" x {plan.pipeline} stages / {shard}"),
        "one layer": (working, f"2 bytes x {tokens} tokens x (17 x {shape.hidden} / {shard}"
                               f" + 3 x {shape.ffn} / {tensor})"),
        "logits": (10 * tokens * shape.vocab / tensor,
                   f"(2 bf16 + 4 fp32 + 4 gradient) x {tokens} tokens x {shape.vocab} / {tensor}"),
        "runtime": (4 * GB, "CUDA context, NCCL buffers, fragments: an allowance"),
    }  # fmt: skip


def host_bytes(plan: Plan) -> float:
    """Host memory of one node for what training parks there: an offloaded optimizer; with --colocate all of it."""
    own = plan.shape.parameters / (plan.tensor * plan.pipeline)
    optimizer = (
        12 * own / plan.data if plan.colocate or "optimizer-cpu-offload" in plan.words else 0
    )
    weights = 2 * own if plan.colocate else 0
    return (optimizer + weights) * plan.words.number("actor-num-gpus-per-node", 8)


def checkpoint_bytes(shape: Shape) -> int:
    """One checkpoint to resume from: bf16 weights, and fp32 weights with Adam's two moments."""
    return (2 + 12) * shape.parameters


def rollouts(words: Words, rows: int) -> int:
    """Rollouts of the run: --num-rollout, else --num-epoch passes over `rows` prompts."""
    batch = max(int(words.number("rollout-batch-size", 1)), 1)
    return int(words.number("num-rollout")) or int(words.number("num-epoch", 1)) * (rows // batch)


def checkpoints(words: Words, rows: int, done: int = 0) -> int:
    """How many slime writes after `done` rollouts: each --save-interval, each end of an epoch, and the last rollout."""
    if not (interval := int(words.number("save-interval"))):
        return 0
    total, epochs = rollouts(words, rows), int(words.number("num-epoch", 1))
    epoch = (
        total if words.number("num-rollout") else max(total // epochs, 1)
    )  # slime counts epochs only without it
    return sum(
        step % interval == 0 or step % epoch == 0 or step == total
        for step in range(done + 1, total + 1)
    )


def lines(words: Words, gpu_gb: float, rows: int, load: argparse.Namespace) -> list[str]:
    """The report, one line a figure."""
    plan = plan_of(words)
    parts, engine = training_parts(plan), int(words.number("rollout-num-gpus-per-engine", 1))
    text = [f"{plan.shape.parameters / GB:.2f}e9 parameters; {plan.train_gpus} GPUs train (tensor {plan.tensor}, "
            f"pipeline {plan.pipeline}, data {plan.data}), {plan.engines} engines of {engine}"
            + (", in turn on the same GPUs" if plan.colocate else "")]  # fmt: skip
    text += [
        f"  training GPU  {name:13}{size / GB:7.1f} GB  = {how}"
        for name, (size, how) in parts.items()
    ]
    text.append(
        f"  training GPU  sum          {sum(size for size, _ in parts.values()) / GB:7.1f} GB of {gpu_gb:g}"
    )
    fraction, weights = (
        words.number("sglang-mem-fraction-static", 0.85),
        2 * plan.shape.parameters / engine,
    )
    cache = fraction * gpu_gb * GB - weights
    text.append(
        f"  engine GPU    weights      {weights / GB:7.1f} GB  = 2 bytes x parameters / {engine}"
    )
    text.append(f"  engine GPU    cache        {cache / GB:7.1f} GB  = {fraction:g} x {gpu_gb:g} GB - weights: "
                f"{max(cache, 0) * engine / plan.shape.kv_bytes:,.0f} tokens an engine "
                f"at {plan.shape.kv_bytes:,} bytes")  # fmt: skip
    text.append(
        f"  node          host memory  {host_bytes(plan) / GB:7.1f} GB  = what sleeps or is offloaded there"
    )
    count, size = rollouts(words, rows), checkpoint_bytes(plan.shape)
    saves = checkpoints(words, rows)
    text.append(f"  disk          checkpoints  {saves * size / GB:7.0f} GB  = {saves} x {size / GB:.0f} GB "
                "(14 bytes a parameter), none is removed")  # fmt: skip
    return text + _hours(plan, count, load)


def _hours(plan: Plan, count: int, load: argparse.Namespace) -> list[str]:
    answers = plan.words.number("rollout-batch-size", 32) * plan.words.number(
        "n-samples-per-prompt", 4
    )
    written, judged = answers * load.answer_tokens, answers * load.criteria * load.verdict_tokens
    gpus = plan.engines * plan.engine_gpus
    decode = (written + judged) / (load.decode_rate * (8e9 / plan.shape.parameters) * gpus)
    # forward, backward and recompute; then the old log-probabilities
    flops = (8 if plan.words.text("recompute-granularity") == "full" else 6) + 2
    tokens = answers * (load.answer_tokens + load.prompt_tokens)
    train = flops * plan.shape.parameters * tokens / (load.flops * load.mfu * plan.train_gpus)
    return [
        f"  rollout       {decode:7.0f} s = {answers:g} answers x ({load.answer_tokens} + {load.criteria:g} criteria"
        f" x {load.verdict_tokens}) tokens"
        f" / ({load.decode_rate:g} tokens/s of an 8e9 model, by size, x {gpus} GPUs)",
        f"  update        {train:7.0f} s = {flops} FLOP x parameters x tokens"
        f" / ({load.flops:.3g} x {load.mfu:g} x {plan.train_gpus} GPUs)",
        f"  run           {count * (decode + train) / 3600:7.0f} h = {count} rollouts,"
        " without evaluation, start and weight transfer",
    ]


def main() -> int:
    """Reads the words of a command from standard input, as DRY_RUN=1 prints them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--gpu-gb", type=float, default=80, help="memory of a GPU in GB")
    add("--rows", type=int, default=4000, help="training prompts")
    add("--criteria", type=float, default=11.5, help="criteria per prompt (HealthBench's mean)")
    add("--prompt-tokens", type=int, default=300, help="of a prompt, on average")
    add(
        "--answer-tokens",
        type=int,
        default=3000,
        help="of an answer, on average; the paper's 8B: 1,400 to 5,400",
    )
    add(
        "--verdict-tokens",
        type=int,
        default=600,
        help="of a verdict with its thoughts, assumed; direct mode: 1",
    )
    add(
        "--decode-rate",
        type=float,
        default=3000,
        help="tokens/s of one GPU serving 8e9 parameters, assumed",
    )
    add(
        "--flops",
        type=float,
        default=989e12,
        help="peak bf16 FLOP/s of a GPU (H100 SXM data sheet)",
    )
    add(
        "--mfu",
        type=float,
        default=0.3,
        help="share of the peak that training reaches: an assumption",
    )
    load = parser.parse_args()
    words = shlex.split(sys.stdin.read())
    if not words:
        parser.error("nothing on standard input: pipe `DRY_RUN=1 bash run_qwen3_8B.sh` into it")
    start = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
    try:
        print("\n".join(lines(Words(words[start:]), load.gpu_gb, load.rows, load)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
