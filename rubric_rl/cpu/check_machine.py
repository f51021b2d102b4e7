"""Checks model, rows, hooks, memory and ports before any process of a run starts."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import read_trainable_network
from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.cpu.engine import ENGINE_GB, require_memory, require_port
from rubric_rl.cpu.engine_plan import engine_plan
from rubric_rl.cpu.flags import training_processes
from rubric_rl.data.row_file import read_slice
from rubric_rl.data.schema import Row
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.launch import shared_checks
from rubric_rl.launch.check_inputs import check_endpoints
from rubric_rl.launch.check_served_models import asked_engines, check_served_models

ACTOR_GB = 0.8  # a training process without its model: torch, Megatron-core
BASE_GB = 1.5  # this process, Ray's head and the rollout actor


def check(args: Namespace) -> None:
    """Raises UserError for the first thing that would stop the run."""
    for flag, folder in (("--hf-checkpoint", args.hf_checkpoint), ("--ref-load", args.ref_load)):
        if folder:
            check_model(folder, flag)
    grader = GraderSettings.load(vars(args))
    _raise_first(shared_checks.check_watch(grader.trust, args.eval_interval, args.save_interval))
    _raise_first(check_endpoints(grader, args.custom_config_path or "flags", args.hf_checkpoint))
    _check_frozen_models(args)
    rows = read_slice(args.prompt_data)
    _raise_first(_row_problems(args, rows))
    require_memory(_needed_gb(args), f"this run of {args.hf_checkpoint}")
    if args.sglang_router_port is not None:
        require_port(args.sglang_router_port, "router (--sglang-router-port)")
    _raise_first(_length_problems(args, rows))
    _raise_first(shared_checks.check_hooks(hooks_of(args)))


def check_model(folder: str | Path, flag: str, variable: str = "HF_CKPT_PATH") -> None:
    """Raises UserError for what is missing in a folder of a Qwen3 model with its tokenizer.

    `flag` names the folder in the message, `variable` is what the user sets to another one.
    """
    _raise_first(shared_checks.check_folder(flag, str(folder), variable))
    read_trainable_network(folder)
    _raise_first(shared_checks.check_checkpoint(flag, Path(folder), ["tokenizer.json"]))


def _check_frozen_models(args: Namespace) -> None:
    """Raises UserError for a --sglang-config that cannot be served, or serves in vain."""
    path = args.sglang_config or ""
    engines = asked_engines(GraderSettings.load(vars(args)).training)
    _raise_first(check_served_models(path, engines, args.hf_checkpoint))
    _, *others = engine_plan(args)
    for model in others:
        check_model(model.folder, f"model_path of {model.name}", f"model_path in {path}")


def _row_problems(args: Namespace, rows: list[Row]) -> Iterator[str]:
    evaluation = [dataset.path for dataset in args.eval_datasets]
    yield from shared_checks.check_held_out_prompts(args.prompt_data, rows, evaluation)
    yield from shared_checks.check_run_length(
        num_rollout=args.num_rollout,
        num_epoch=args.num_epoch,
        batch=args.rollout_batch_size,
        prompts=len(rows),
    )


def _length_problems(args: Namespace, rows: list[Row]) -> Iterator[str]:
    template = ChatTokenizer(args.hf_checkpoint)
    training = shared_checks.prompt_lengths(
        args.prompt_data,
        rows,
        template,
        template_options=args.apply_chat_template_kwargs,
        max_prompt=args.rollout_max_prompt_len,
        limit="--rollout-max-response-len",
        answer=args.rollout_max_response_len,
    )
    lengths = [training]
    for dataset in args.eval_datasets:
        evaluation = shared_checks.prompt_lengths(
            dataset.path,
            read_slice(dataset.path),
            template,
            template_options=dataset.apply_chat_template_kwargs,
            max_prompt=args.eval_max_prompt_len,
            limit=f"max_response_len of {dataset.name}",
            answer=dataset.max_response_len,
        )
        lengths.append(evaluation)
    context = read_trainable_network(args.hf_checkpoint).max_positions
    grader = GraderSettings.load(vars(args))
    reply = shared_checks.policy_reply_limit(args.custom_rm_path, grader)
    instructions = shared_checks.instruction_tokens(grader)
    yield from shared_checks.check_context(context, lengths, reply, instructions)


def hooks_of(args: Namespace) -> list[str]:
    """The dotted paths of all hooks that the run will call."""
    named = [
        args.custom_rm_path,
        args.custom_reward_post_process_path,
        args.custom_rollout_log_function_path,
        args.custom_eval_rollout_log_function_path,
        args.dynamic_sampling_filter_path,
        args.rollout_sample_filter_path,
        *(dataset.custom_rm_path for dataset in args.eval_datasets),
    ]
    return [name for name in named if name]


def _needed_gb(args: Namespace) -> float:
    """Memory of all processes of the run in GB; every number is fp32 here."""
    # Weights, gradients and two moments, shared by the tensor-parallel processes.
    trained = 4 * _weights_gb(args.hf_checkpoint) / args.tensor_model_parallel_size
    needed = BASE_GB + training_processes(args) * (ACTOR_GB + trained)
    for model in engine_plan(args):
        needed += model.engines * (ENGINE_GB + _weights_gb(model.folder))
    return needed


def _weights_gb(folder: str) -> float:
    return 4 * read_trainable_network(folder).parameters / 1e9


def _raise_first(problems: Iterator[str]) -> None:
    for problem in problems:
        raise UserError(problem)
