"""slime's own rollout loop with this repository's hooks, as its rollout manager runs it.

A program for a process that sees slime: slime_loop.py ROUTER_HOST ROUTER_PORT ROLLOUTS FLAGS...
It prints a line of JSON. Neither Ray nor a GPU is used.
"""

import importlib
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

from rubric_rl.launch.slime_flags import pretend_gpu
from rubric_rl.launch.slime_version import V0_4, read_version

pretend_gpu()

# slime asks for the GPU while it is imported, so its imports come after.
import slime  # noqa: E402
from slime.observability import rollout_metrics  # noqa: E402
from slime.rollout.base_types import call_rollout_fn  # noqa: E402
from slime.rollout.sglang_rollout import generate_rollout  # noqa: E402
from slime.utils.arguments import parse_args  # noqa: E402
from slime.utils.http_utils import init_http_client  # noqa: E402
from slime.utils.misc import load_function  # noqa: E402

LOGGED: list[dict] = []  # what slime would send to TensorBoard and W&B
IS_0_4 = read_version(Path(slime.__path__[0]).parent) >= V0_4


def data_source(args):
    """The prompts in slime's order."""
    name = "slime.data.data_source" if IS_0_4 else "slime.rollout.data_source"
    return importlib.import_module(name).RolloutDataSourceWithBuffer(args)


def training_data(args, samples: list) -> dict:
    """What slime makes of a rollout's samples, post-processed by the hook."""
    if IS_0_4:
        builder = importlib.import_module("slime.data.batch_builder").BatchBuilder(args)
        return builder.convert(samples)
    manager = SimpleNamespace(args=args, custom_convert_samples_to_train_data_func=None)
    manager.custom_reward_post_process_func = load_function(args.custom_reward_post_process_path)
    actor = importlib.import_module("slime.ray.rollout").RolloutManager
    methods = actor.__ray_metadata__.modified_class
    manager._post_process_rewards = lambda samples: methods._post_process_rewards(manager, samples)
    return methods._convert_samples_to_train_data(manager, samples)


def start(host: str, port: int):
    """slime's arguments as its manager has them once engines and router are up."""
    rollout_metrics.logging_utils.log = lambda args, metrics, **kwargs: LOGGED.append(metrics)
    args = parse_args()
    args.sglang_router_ip, args.sglang_router_port = host, port
    init_http_client(args)
    return args


def flatten(group: list) -> list:
    """The samples of a group, also of one whose answers have fanned out into several."""
    samples = []
    for sample in group:
        samples += sample if isinstance(sample, list) else [sample]
    return samples


def train(args, source, rollout_id: int) -> dict:
    """One rollout as RolloutManager.generate makes it: samples, metrics, training data."""
    generate = load_function(args.rollout_function_path)
    output = call_rollout_fn(generate, args, rollout_id, source, evaluation=False)
    groups = [flatten(group) for group in output.samples]
    samples = [sample for group in groups for sample in group]
    LOGGED.clear()
    rollout_metrics.log_rollout_data(rollout_id, args, samples, output.metrics, 1.0)
    data = training_data(args, samples)
    return {
        "groups": [[sample.index for sample in group] for group in groups],
        "statuses": [sample.status.value for sample in samples],
        "rewards": [finite(sample.reward) for sample in samples],
        "removed": [sample.remove_sample for sample in samples],
        "graders": [graded_by(sample) for sample in samples],
        "advantages": data["rewards"],
        "raw_reward": data["raw_reward"],
        "mask_sums": [sum(mask) for mask in data["loss_masks"]],
        "metrics": numbers({key: value for logged in LOGGED for key, value in logged.items()}),
    }


def graded_by(sample) -> tuple[str, str | None]:
    """A sample's prompt and the name of its grader, None for one that was not graded."""
    record = sample.metadata.get("grading", {})
    return sample.metadata["prompt_id"], record.get("grader")


def evaluate(args, source) -> dict:
    """The evaluation as RolloutManager.eval makes it."""
    result = call_rollout_fn(generate_rollout, args, 0, source, evaluation=True)
    rollout_metrics.log_eval_rollout_data(0, args, result.data, result.metrics)
    return numbers(LOGGED[-1])


def numbers(metrics: dict) -> dict:
    """The metrics that JSON can hold."""
    plain = {}
    for key, value in metrics.items():
        if isinstance(value, int | float):
            plain[key] = finite(float(value))
    return plain


def finite(value: float) -> float | None:
    """The value, None for NaN, which JSON has no word for."""
    return None if math.isnan(value) else value


def main() -> None:
    host, port, rollouts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    del sys.argv[1:4]  # the rest is slime's
    args = start(host, port)
    source = data_source(args)
    result: dict = {"rollouts": [train(args, source, number) for number in range(rollouts)]}
    in_turn = "fully_async" not in args.rollout_function_path  # 0.3.1 evaluates in no other rollout
    if args.eval_datasets and in_turn:
        result["eval"] = evaluate(args, source)
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
