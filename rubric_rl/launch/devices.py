"""Number and memory of this node's GPUs, against what training and serving need (stages 2, 3 and 5)."""

import re
import subprocess
from collections.abc import Iterator

from rubric_rl.launch.estimate import GB, Plan, plan_of, training_parts
from rubric_rl.launch.words import Words


def problems(words: Words, options) -> Iterator[str]:
    """One line for each thing that is wrong with this node's GPUs."""
    query = ["nvidia-smi", "--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        yield f"no GPU was found here (nvidia-smi: {error}); start on a node with GPUs, or look with DRY_RUN=1"
        return
    memory = [
        [float(number) * 2**20 / GB for number in re.findall(r"\d+", line)]
        for line in output.splitlines()
    ]
    if len(memory) < options.gpus_per_node:
        yield f"{len(memory)} GPUs here, not {options.gpus_per_node}; set GPUS_PER_NODE, or take another node"
    plan = plan_of(words)
    need = sum(size for size, _ in training_parts(plan).values()) / GB
    found: dict[str, list[str]] = {}
    for number, (total, used, *_) in enumerate(
        [*line, 0, 0] for line in memory[: options.gpus_per_node] if line
    ):
        if problem := unfit(total, used, need) or crowded(total, plan):
            found.setdefault(problem, []).append(str(number))
    yield from (f"GPU {', '.join(numbers)}: {problem}" for problem, numbers in found.items())


def unfit(total: float, used: float, need: float) -> str:
    """Why a GPU cannot train; "" if it can. All in GB."""
    if used > 2:
        return f"in use ({used:.0f} GB); end what runs there, or take another node"
    hint = (
        "lower --max-tokens-per-gpu or add --optimizer-cpu-offload --use-precision-aware-optimizer"
    )
    return f"{total:.0f} GB, training needs about {need:.0f}; {hint}" if total < need else ""


def crowded(total: float, plan: Plan) -> str:
    """Why a GPU cannot serve; "" if it can: beside the weights there must be cache for one request of full length."""
    fraction = plan.words.number("sglang-mem-fraction-static", 0.85)
    weights = 2 * plan.shape.parameters / plan.engine_gpus / GB
    cache = (
        plan.words.number("rollout-max-response-len") * plan.shape.kv_bytes / plan.engine_gpus / GB
    )
    if fraction * total >= weights + cache:
        return ""
    return (f"{total:.0f} GB x --sglang-mem-fraction-static {fraction:g}, but an engine needs {weights:.0f} "
            f"for its weights and {cache:.0f} for one answer; raise --rollout-num-gpus-per-engine")  # fmt: skip
