"""The command line of the trainer without a GPU: slime's flags, by slime's names and defaults (all stages).

One recipe, two trainers: whatever `configs/recipe.sh` says must reach both, so an unknown flag is an error here (slime
drops it silently), and a flag that only slime can honour is refused with a reason. A "GPU" is one CPU process.
"""

import argparse
import difflib
import json

from rubric_rl.cpu import flag_checks
from rubric_rl.data import eval_config
from rubric_rl.errors import UserError
from rubric_rl.grading.settings import PREFIX, GraderSettings, read_settings
from rubric_rl.launch.slime_flags import MODEL_SHAPE, NOT_ON_CPU, REASONS, REMOVED


class FlagError(UserError):
    """A flag that cannot be honoured; the message names it and the next step."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise FlagError(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every honoured flag; names, destinations and defaults are slime's (the optimizer's Megatron's)."""
    parser = _Parser(
        prog="python -m rubric_rl.cpu.train",
        description=__doc__.splitlines()[0],
        allow_abbrev=False,
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
        help="rollout engines; with --colocate: the training processes",
    )
    add("--rollout-num-gpus-per-engine", type=int, default=1)
    add("--colocate", action="store_true")
    add("--tensor-model-parallel-size", type=int, default=1)
    add("--pipeline-model-parallel-size", type=int, default=1)
    add("--context-parallel-size", type=int, default=1)
    add("--distributed-timeout-minutes", type=int, default=10)
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
    add("--apply-chat-template-kwargs", type=json.loads, default="{}")
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
    add("--micro-batch-size", type=int, default=1)
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
        FlagError: one line that names the flag: unknown (with the nearest known one), slime's but not possible without
            a GPU, or at odds with another flag.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    _refuse(parser, rest)
    args.eval_datasets = eval_config.resolve(args)
    for problem in flag_checks.problems(args):
        raise FlagError(problem)
    flag_checks.derive(args)
    if args.custom_config_path:
        _grader_settings(args)
    return args


def _refuse(parser, rest: list[str]) -> None:
    """Raises FlagError for the first word that the parser does not know, with the reason and the next step."""
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    for word in rest:
        flag = word.split("=", 1)[0]
        name = flag.removeprefix("--")
        if not flag.startswith("--"):
            raise FlagError(f"{word!r} is not a flag and belongs to none; see --help")
        if name in REMOVED or name.startswith("slime-router-"):
            raise FlagError(
                f"{flag} was removed from slime and does nothing any more; leave it out"
            )
        if name in MODEL_SHAPE:
            why = "without a GPU the model's shape is read from the checkpoint's config.json"
            raise FlagError(f"{flag}: {why}; leave it out")
        if name in NOT_ON_CPU or name.startswith(("sglang-", "router-", "megatron-deepgemm-")):
            reason = REASONS.get(name, "leave it out, or run on GPUs with run_qwen3_8B.sh")
            raise FlagError(
                f"{flag} is slime's, but the trainer without a GPU cannot honour it: {reason}"
            )
        near = difflib.get_close_matches(flag, known + ["--" + other for other in NOT_ON_CPU], n=1)
        raise FlagError(
            f"unknown flag {flag}" + (f"; did you mean {near[0]}?" if near else "; see --help")
        )


def _grader_settings(args) -> None:
    """Sets the grader_* keys of the YAML file on args, as slime does; raises UserError for one that is not valid."""
    written = read_settings(args.custom_config_path)
    GraderSettings.load(args.custom_config_path)
    for name, value in written.items():
        setattr(args, PREFIX + name, value)
