"""The command line of the trainer without a GPU: slime's flags, by slime's names and defaults.

One recipe, two trainers: whatever `configs/recipe.sh` says must reach both, so an unknown flag is
an error here (slime drops it silently), and a flag that only slime can honour is refused with a
reason. A "GPU" is one CPU process.
"""

import argparse
import json
from collections.abc import Iterator

from rubric_rl.common.command_line import CommandParser, refuse_keys
from rubric_rl.common.errors import UserError
from rubric_rl.data import eval_config
from rubric_rl.grading.settings import GraderSettings, read_settings
from rubric_rl.launch import shared_checks
from rubric_rl.launch.schedule import Schedule, answers_per_step, schedule
from rubric_rl.launch.slime_flags import (
    MODEL_SHAPE,
    NOT_ON_CPU,
    REASONS,
    dropped_words,
    values_per_flag,
    why_dropped,
)
from rubric_rl.serving.endpoint import GRADER


def _json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text} is not a JSON object")
    return value


def build_parser() -> CommandParser:
    """The parser of every honoured flag.

    Names, destinations and defaults are slime's, the optimizer's are Megatron's.
    """
    parser = CommandParser(
        "python -m rubric_rl.cpu.train", "The trainer without a GPU. Its flags are slime's."
    )
    for add in (_cluster, _data, _rollout, _reward, _evaluation, _objective, _optimizer, _saving):
        add(parser)
    return parser


def _cluster(parser):
    add = parser.add_argument
    add("--actor-num-nodes", type=int, default=1)
    add("--actor-num-gpus-per-node", type=int, default=8, help="training processes")
    add(
        "--rollout-num-gpus",
        type=int,
        default=None,
        help="engines of all served models; with --colocate: the training processes",
    )
    add("--rollout-num-gpus-per-engine", type=int, default=1)
    add("--colocate", action="store_true")
    add("--tensor-model-parallel-size", type=int, default=1)
    add("--pipeline-model-parallel-size", type=int, default=1)
    add("--context-parallel-size", type=int, default=1)
    add("--distributed-timeout-minutes", type=int, default=10)
    add("--sglang-config", default=None, help="YAML of the policy and frozen models beside it")
    add(
        "--sglang-enable-deterministic-inference",
        action="store_true",
        help="each answer is sampled with a seed of its own, derived from --rollout-seed",
    )
    add("--sglang-server-concurrency", type=int, default=512)
    add("--sglang-router-port", type=int, default=None)
    add("--sglang-router-request-timeout-secs", type=int, default=14400)
    add(
        "--router-policy",
        choices=["cache_aware", "manual", "round_robin", "random"],
        default="cache_aware",
    )


def _data(parser):
    add = parser.add_argument
    add("--hf-checkpoint")
    add("--prompt-data")
    add("--input-key", default="input")
    add("--metadata-key", default="metadata")
    add("--apply-chat-template", action="store_true")
    add("--apply-chat-template-kwargs", type=_json_object, default="{}")
    add("--rollout-shuffle", action="store_true")
    add("--rollout-seed", type=int, default=42)
    add("--rollout-max-prompt-len", type=int, default=None)
    add("--num-rollout", type=int, default=None)
    add("--num-epoch", type=int, default=None)


def _rollout(parser):
    add = parser.add_argument
    add("--rollout-batch-size", type=int, required=True)
    add("--n-samples-per-prompt", type=int, default=1)
    add("--over-sampling-batch-size", type=int, default=None)
    add("--dynamic-sampling-filter-path", default=None)
    add("--rollout-sample-filter-path", default=None)
    add("--rollout-temperature", type=float, default=1.0)
    add("--rollout-top-p", type=float, default=1.0)
    add("--rollout-top-k", type=int, default=-1)
    add("--rollout-max-response-len", type=int, default=None)
    add("--rollout-stop", nargs="+", default=None)
    add("--rollout-stop-token-ids", type=int, nargs="+", default=None)
    add("--rollout-skip-special-tokens", action="store_true")


def _reward(parser):
    add = parser.add_argument
    add("--custom-rm-path", default=None)
    add("--custom-reward-post-process-path", default=None)
    add("--custom-config-path", default=None, help="YAML of grader_* settings")
    add("--reward-key", default=None)
    add("--eval-reward-key", default=None)
    add("--custom-rollout-log-function-path", default=None)
    add("--custom-eval-rollout-log-function-path", default=None)


def _evaluation(parser):
    add = parser.add_argument
    add("--eval-interval", type=int, default=None)
    add("--eval-config", default=None)
    add("--eval-prompt-data", nargs="+", default=None)
    add("--skip-eval-before-train", action="store_true")
    add("--n-samples-per-eval-prompt", type=int, default=1)
    add("--eval-temperature", type=float, default=None)
    add("--eval-top-p", type=float, default=None)
    add("--eval-top-k", type=int, default=None)
    add("--eval-max-response-len", type=int, default=None)
    add("--eval-max-prompt-len", type=int, default=None)
    add("--eval-min-new-tokens", type=int, default=None)
    add("--eval-input-key", default=None)


def _objective(parser):
    add = parser.add_argument
    add("--advantage-estimator", default="grpo")
    add("--disable-grpo-std-normalization", action="store_false", dest="grpo_std_normalization")
    add("--eps-clip", type=float, default=0.2)
    add("--eps-clip-high", type=float, default=None)
    add("--entropy-coef", type=float, default=0.0)
    add("--use-kl-loss", action="store_true")
    add("--kl-loss-coef", type=float, default=0.0)
    add("--kl-loss-type", choices=["k1", "k2", "k3", "low_var_kl"], default="k1")
    add("--calculate-per-token-loss", action="store_true")
    add("--use-rollout-logprobs", action="store_true")
    add("--global-batch-size", type=int, default=None)
    add("--num-steps-per-rollout", type=int, default=None)
    add("--use-dynamic-batch-size", action="store_true")
    add("--max-tokens-per-gpu", type=int, default=None)


def _optimizer(parser):
    add = parser.add_argument
    add("--optimizer", default="adam")
    add("--lr", type=float, default=1e-6)
    add("--min-lr", type=float, default=0.0)
    add(
        "--lr-decay-style",
        choices=["constant", "linear", "cosine", "inverse-square-root"],
        default="linear",
    )
    add("--lr-decay-iters", type=int, default=None)
    add("--lr-warmup-iters", type=int, default=0)
    add("--lr-warmup-fraction", type=float, default=None)
    add("--lr-warmup-init", type=float, default=0.0)
    add("--weight-decay", type=float, default=0.01)
    add("--adam-beta1", type=float, default=0.9)
    add("--adam-beta2", type=float, default=0.999)
    add("--adam-eps", type=float, default=1e-8)
    add("--clip-grad", type=float, default=1.0)
    add("--attention-dropout", type=float, default=0.1)
    add("--hidden-dropout", type=float, default=0.1)
    add(
        "--accumulate-allreduce-grads-in-fp32",
        action="store_true",
        help="always so: everything here is fp32",
    )
    add("--attention-softmax-in-fp32", action="store_true", help="always so")
    add("--seed", type=int, default=1234)


def _saving(parser):
    add = parser.add_argument
    add("--save", default=None)
    add("--load", default=None)
    add("--ref-load", default=None)
    add("--save-interval", type=int, default=None)
    add("--use-tensorboard", action="store_true")


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads and checks a command line.

    Raises:
        UserError: one line that names the flag: unknown (with the nearest known one), slime's but
            not possible without a GPU, or at odds with another flag.
    """
    parser = build_parser()
    known = values_per_flag(parser)
    if "-h" in argv:  # the only flag with one dash
        argv = ["--help"]
    refuse_keys(argv)
    for word in dropped_words(argv, known):
        raise UserError(_why_refused(word, known))
    args = parser.parse_args(argv)
    args.eval_datasets = eval_config.resolve(args)
    for problem in _problems(args):
        raise UserError(problem)
    _derive(args)
    if args.custom_config_path:
        _take_grader_settings(args)
    return args


# ---- what is refused


def _why_refused(word: str, known: dict[str, float]) -> str:
    """One line on a word that the parser does not know: the reason and the next step."""
    name = word.removeprefix("--")
    if name in shared_checks.AGAINST_SELF_GRADING:
        (line,) = shared_checks.check_self_grading([name], temperature=1.0)
        return line
    if name in MODEL_SHAPE:
        why = "without a GPU the model's shape is read from the checkpoint's config.json"
        return f"{word}: {why}; leave it out"
    if name in NOT_ON_CPU or name.startswith(("sglang-", "router-", "megatron-deepgemm-")):
        reason = REASONS.get(name, "leave it out, or run on GPUs with run_qwen3_8B.sh")
        return f"{word} is slime's, but the trainer without a GPU cannot honour it: {reason}"
    return why_dropped(word, [*known, *(f"--{name}" for name in NOT_ON_CPU)])


_DROPOUT = "Megatron's default of 0.1 would make the policy differ from the engine"
# What slime can vary and this trainer cannot: the one value it takes, and why.
_ONLY = {
    "advantage_estimator": ("grpo", "GRPO is what it computes"),
    "optimizer": ("adam", "Adam with decoupled weight decay is what it runs"),
    "attention_dropout": (0.0, _DROPOUT),
    "hidden_dropout": (0.0, _DROPOUT),
    "rollout_top_p": (1.0, "log-probabilities are those of the full distribution"),
    "pipeline_model_parallel_size": (1, "it has tensor and data parallelism"),
    "context_parallel_size": (1, "it has tensor and data parallelism"),
    "rollout_num_gpus_per_engine": (1, "an engine is one process"),
}
# Flags that slime does not require, but no run here works without.
_REQUIRED = (
    "hf_checkpoint",
    "prompt_data",
    "save",
    "custom_rm_path",
    "rollout_max_response_len",
)


def _problems(args: argparse.Namespace) -> Iterator[str]:
    """One line for each flag that cannot be honoured or contradicts another."""
    for name, (value, why) in _ONLY.items():
        given = getattr(args, name)
        if given != value:
            flag = f"--{name.replace('_', '-')} {given}"
            yield f"{flag}: the trainer without a GPU takes only {value} ({why})"
    for name in _REQUIRED:
        if getattr(args, name) is None:
            yield f"--{name.replace('_', '-')} is missing; give it"
    yield from _batch_problems(args)
    yield from shared_checks.check_self_grading((), args.rollout_temperature)
    yield from shared_checks.check_run_length(
        num_rollout=args.num_rollout,
        num_epoch=args.num_epoch,
        batch=args.rollout_batch_size,
        prompts=None,
    )
    if args.use_kl_loss and not args.ref_load:
        yield "--use-kl-loss needs the reference model: --ref-load"
    if args.use_dynamic_batch_size and not args.max_tokens_per_gpu:
        yield "--use-dynamic-batch-size needs --max-tokens-per-gpu"
    if args.eval_interval is not None and not args.eval_datasets:
        yield "--eval-interval needs data: --eval-config or --eval-prompt-data"
    if not args.colocate and not args.rollout_num_gpus:
        yield "--rollout-num-gpus (the number of engines) is missing; 1 suits two cores"


def _batch_problems(args: argparse.Namespace) -> Iterator[str]:
    processes = training_processes(args)
    tensor = args.tensor_model_parallel_size
    data_parallel = None
    if processes < 1 or tensor < 1 or processes % tensor:
        yield (
            f"--tensor-model-parallel-size {tensor} does not divide the {processes} "
            "training processes"
        )
    else:
        data_parallel = processes // tensor
    yield from shared_checks.check_batch_sizes(
        prompts=args.rollout_batch_size,
        answers=args.n_samples_per_prompt,
        global_batch=args.global_batch_size,
        steps=args.num_steps_per_rollout,
        over_sampling=args.over_sampling_batch_size,
        data_parallel=data_parallel,
    )


# ---- what follows from the flags


def training_processes(args: argparse.Namespace) -> int:
    """The number of training processes of a run."""
    return args.actor_num_nodes * args.actor_num_gpus_per_node


def schedule_of(args: argparse.Namespace) -> Schedule:
    """The run in optimizer steps; raises UserError for a warm-up as long as the run."""
    answers = args.num_rollout * args.rollout_batch_size * args.n_samples_per_prompt
    return schedule(
        answers,
        args.global_batch_size,
        args.lr_decay_iters,
        args.lr_warmup_iters,
        args.lr_warmup_fraction,
    )


def _derive(args: argparse.Namespace) -> None:
    """Fills in what slime derives from other flags.

    Raises UserError for a warm-up as long as the run.
    """
    args.num_rollout = args.num_rollout or None
    if args.rollout_num_gpus is None:
        args.rollout_num_gpus = training_processes(args)
    if args.global_batch_size is None:
        answers = args.rollout_batch_size * args.n_samples_per_prompt
        args.global_batch_size = answers_per_step(answers, None, args.num_steps_per_rollout)
    if args.over_sampling_batch_size is None:
        args.over_sampling_batch_size = args.rollout_batch_size
    if args.eps_clip_high is None:
        args.eps_clip_high = args.eps_clip
    if args.eval_reward_key is None:
        args.eval_reward_key = args.reward_key
    if args.num_rollout is not None:  # --num-epoch has to wait for the rows
        schedule_of(args)
    args.sglang_router_ip = "127.0.0.1"


def _take_grader_settings(args: argparse.Namespace) -> None:
    """Sets the grader_* keys of the YAML file on args, as slime does.

    Raises UserError for a key that is not valid.
    """
    written = read_settings(args.custom_config_path)
    GraderSettings.load(args.custom_config_path)
    for name, value in written.items():
        setattr(args, GRADER + name, value)
