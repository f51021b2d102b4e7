"""slime's flags: their names, a command line's values, a checkpoint's model flags, slime's parser.

python -m rubric_rl.launch.slime_flags model FOLDER
    prints the flags that describe a Qwen3 checkpoint, one word a line: for one whose shape has
    no file in slime's scripts/models, such as rubric_rl/tiny/model
python -m rubric_rl.launch.slime_flags check -- WORDS
    runs slime's own parsers on a command line; its last line of output is a JSON object that
    says what they make of it. Needs slime and Megatron on PYTHONPATH; nothing else here does
"""

import argparse
import difflib
import importlib
import json
import math
import os
import sys
import types
from collections.abc import Iterable, Mapping
from unittest import mock

from rubric_rl.common.command_line import exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.model_shape import Network, read_network
from rubric_rl.common.plain_text import one_line
from rubric_rl.launch.slime_version import NEW_IN_0_4, why_missing

# ---- names, as in slime 0.3.1 (main, 2026-08) and 0.4

_NOT_ON_CPU = """
allgather-cp async-save attention-backend balance-by-flops balance-data bf16 buffer-filter-path
check-weight-update-equal ci-disable-kl-checker ci-load-grad-norm ci-save-grad-norm ci-test
ci-train-rollout-logprob-abs-diff-threshold custom-advantage-function-path
custom-convert-samples-to-train-data-path custom-generate-function-path custom-loss-function-path
custom-megatron-before-log-prob-hook-path custom-megatron-before-train-step-hook-path
custom-megatron-init-path custom-model-provider-path custom-pg-loss-reducer-function-path
custom-tis-function-path custom-update-weight-post-write-path data-pad-size-multiplier
data-source-path debug-rollout-only debug-train-only disable-compute-advantages-and-returns
disable-rollout-global-dataset distributed-backend dump-details enable-mtp-training eps-clip-c
eval-function-path eval-label-key eval-max-context-len eval-tool-key expert-model-parallel-size
expert-tensor-parallel-size fetch-trajectory-retry-times fp16 freeze-indexer
freeze-params-name-list gamma get-mismatch-metrics group-rm http-proxy keep-old-actor kl-coef
label-key lambd load-debug-rollout-data load-debug-rollout-data-subsample load-forge-rollout-data
log-correct-samples log-multi-turn log-passrate log-probs-chunk-size log-probs-max-tokens-per-gpu
log-reward-category loss-mask-type loss-type mask-offpolicy-in-partial-rollout
megatron-config-path memory-recorder memory-snapshot-dir memory-snapshot-num-steps micro-batch-size
min-batch-collection-ratio model-name mtp-loss-scaling-factor mtp-num-layers multimodal-keys
no-load-optim no-load-rng no-save-optim normalize-advantages num-critic-only-steps
num-gpus-per-node offload offload-rollout offload-train only-train-params-name-list opd-kl-coef
opd-teacher-ckpt-step opd-teacher-load opd-type opsm-delta optimizer-cpu-offload
overlap-cpu-optimizer-d2h-h2d padded-vocab-size partial-rollout prefill-num-servers profile-target
qwen-gdn-backend recompute-granularity recompute-loss-function recompute-method
recompute-num-layers record-memory-history ref-ckpt-step ref-update-interval release-train
reset-optimizer-states rm-type rm-url rollout-all-samples-process-path rollout-buffer-url
rollout-data-postprocess-path rollout-data-transport rollout-external-engine-addrs
rollout-function-path rollout-health-check-first-wait rollout-health-check-interval
rollout-health-check-timeout rollout-max-context-len rollout-sample-hook-path rollout-task-type
save-debug-rollout-data save-debug-train-data save-hf sequence-parallel start-rollout-id
tb-experiment-name tb-project-name tis-clip tis-clip-low tool-key train-backend train-env-vars
update-weight-buffer-size update-weight-delta-checksum update-weight-delta-encoding
update-weight-disk-dir update-weight-disk-keep-files update-weight-local-checkpoint-dir
update-weight-mode update-weight-transport update-weights-interval use-distributed-optimizer
use-distributed-post use-fault-tolerance use-opd use-opsm use-precision-aware-optimizer
use-rollout-entropy use-rollout-routing-replay use-routing-replay use-stateless-adam use-tis
use-unbiased-kl use-wandb value-clip wandb-always-use-train-step wandb-dir wandb-group wandb-host
wandb-key wandb-mode wandb-project wandb-run-id wandb-team disable-wandb-random-suffix
disable-rewards-normalization
"""
# What slime's parser knows, in one version at least, and the trainer without a GPU does not do.
NOT_ON_CPU = frozenset(_NOT_ON_CPU.split()) | NEW_IN_0_4

# Why, where "slime knows it, this trainer does not" would leave the reader guessing.
REASONS = {
    "rm-type": "the reward is a hook: --custom-rm-path self_reward_rm.reward",
    "use-wandb": "use --use-tensorboard",
    "micro-batch-size": "micro-batches are packed by tokens: --max-tokens-per-gpu",
    "balance-data": "the two processes share equally many answers",
}

_MODEL_SHAPE = """
num-layers hidden-size ffn-hidden-size num-attention-heads group-query-attention num-query-groups
use-rotary-position-embeddings disable-bias-linear normalization norm-epsilon rotary-base
vocab-size kv-channels qk-layernorm swiglu add-qkv-bias untie-embeddings-and-output-weights
max-position-embeddings seq-length
"""
# The shape of a model (slime's scripts/models/*.sh); the trainer without a GPU reads it from the
# checkpoint's config.json.
MODEL_SHAPE = frozenset(_MODEL_SHAPE.split())

SHAPE_FIELDS = {  # flag -> field of model_shape.Shape
    "num-layers": "layers",
    "hidden-size": "hidden",
    "ffn-hidden-size": "ffn",
    "num-attention-heads": "heads",
    "num-query-groups": "groups",
    "kv-channels": "head_dim",
    "vocab-size": "vocab",
}

# What every Qwen3 network has in common.
ALL_QWEN3 = [
    "--swiglu",
    "--group-query-attention",
    "--use-rotary-position-embeddings",
    "--disable-bias-linear",
    "--qk-layernorm",
    "--normalization",
    "RMSNorm",
]


# ---- a command line as plain values

_MOST_DIGITS = 12  # of a size, far beyond what there can be, so that arithmetic stays finite


class CommandLine:
    """The flags of a slime command line and their values, by name without dashes.

    Reads without slime. A later flag wins, as with argparse.
    """

    def __init__(self, words: Iterable[str]):
        """Raises UserError for a word before the first flag."""
        self.values: dict[str, list[str]] = {}
        name = None
        for word in words:
            if word.startswith("--"):
                name, equals, value = word.removeprefix("--").partition("=")
                self.values[name] = [value] if equals else []
            elif name is None:
                raise UserError(no_flag(word))
            else:
                self.values[name].append(word)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag, or the default where it is not given."""
        values = self.values.get(name)
        return values[0] if values else default

    def whole(self, name: str, default: int = 0) -> int:
        """The value as a whole number of 0 or more; raises UserError for anything else."""
        text = self.text(name)
        if not text:
            return default
        if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
            raise UserError(f"--{name} {text[:40]}: not a whole number of 0 or more; write one")
        return int(text)

    def number(self, name: str, default: float = 0.0) -> float:
        """The value as a finite number; raises UserError for anything else."""
        text = self.text(name)
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"--{name} {text[:40]}: not a number; write one")
        return number


# ---- words that a parser would drop without a word


def values_per_flag(parser: argparse.ArgumentParser) -> dict[str, float]:
    """Flag -> how many values may follow it at most, for every flag that a parser defines."""
    return {flag: _most_values(action) for flag, action in parser._option_string_actions.items()}


def _most_values(action: argparse.Action) -> float:
    if isinstance(action.nargs, int):
        return action.nargs
    if action.nargs in (None, "?"):
        return 1
    return math.inf


def dropped_words(words: Iterable[str], known: Mapping[str, float]) -> list[str]:
    """The flags that are not `known` by exactly this name, and the values that belong to no flag.

    `known` is flag -> how many values it takes at most. slime drops these words silently; what
    follows an unknown flag is taken for its values.
    """
    dropped = []
    room = 0.0  # values that may still follow
    for word in words:
        if not word.startswith("--"):
            room -= 1
            if room < 0:
                dropped.append(word)
            continue
        flag, equals, _ = word.partition("=")
        if flag in known:
            room = known[flag] - len(equals)
        else:
            dropped.append(flag)
            room = math.inf
    return dropped


def why_dropped(word: str, known: Iterable[str]) -> str:
    """One line on a word of `dropped_words`: what is wrong with it, and what to write instead."""
    if not word.startswith("--"):
        return no_flag(word)
    name = word.removeprefix("--")
    reason = why_missing(name)
    if reason:
        return f"{word} {reason}"
    known = sorted(known)
    longer = [flag for flag in known if flag.startswith(word)]
    if longer:
        return f"{word} is an abbreviation; write {' or '.join(longer[:3])}"
    similar = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {similar[0]}?" if similar else "leave it out"
    return f"{word} is an unknown flag, which slime would ignore; {hint}"


def no_flag(word: str) -> str:
    """The line on a word that belongs to no flag."""
    return f"{word!r} belongs to no flag; flags begin with --"


# ---- the model flags of a checkpoint


def model_flags(network: Network) -> list[str]:
    """The words that describe a network to slime."""
    words = list(ALL_QWEN3)
    for flag, field in SHAPE_FIELDS.items():
        words += [f"--{flag}", str(getattr(network, field))]
    words += ["--norm-epsilon", str(network.eps)]
    words += ["--rotary-base", str(int(network.rope_theta))]
    if not network.tied:
        words.append("--untie-embeddings-and-output-weights")
    return words


# ---- slime's own parsers, run as a program


def ask_slime(words: list[str]) -> dict:
    """What slime's train.py would say of a command line.

    Returns {"unknown": lines on words that it would drop, "error": why it refuses the rest or "",
    "absent": why slime cannot be asked or ""}. Slime has several parsers, of which each knows some
    flags, so every one is overheard.
    """
    known: dict[str, float] = {}
    parse_known_args = argparse.ArgumentParser.parse_known_args

    def overhear(parser, *args, **kwargs):
        for flag, most in values_per_flag(parser).items():
            known[flag] = max(most, known.get(flag, 0))
        return parse_known_args(parser, *args, **kwargs)

    error = absent = ""
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", overhear),
        mock.patch.object(sys, "argv", ["train.py", *words]),
    ):
        try:
            pretend_gpu()
            arguments = importlib.import_module("slime.utils.arguments")
        except Exception as problem:  # a package or a shared library that is not there
            absent = _shown(problem)
        else:
            try:
                arguments.parse_args()
            except SystemExit:  # argparse wrote its reason to stderr
                error = "the parser refuses a value; see above"
            except ImportError as problem:
                absent = _shown(problem)
            except Exception as problem:  # slime checks by assertions, Megatron by all kinds
                error = _shown(problem)
    # The last parser is Megatron's: as long as it has not run, most flags would look unknown.
    complete = "--num-layers" in known
    dropped = dropped_words(words, known) if complete else []
    unknown = [why_dropped(word, known) for word in dropped]
    return {"unknown": unknown, "error": error, "absent": absent}


def _shown(problem: Exception) -> str:
    return one_line(f"{type(problem).__name__}: {problem}")


def pretend_gpu() -> None:
    """Lets slime's parsers run where there is no GPU (a login node, a test).

    They only ask for its generation.
    """
    import torch

    if not torch.cuda.is_available():
        hopper = types.SimpleNamespace(major=9, minor=0, total_memory=80 << 30, name="none")
        torch.cuda.get_device_properties = lambda *args, **kwargs: hopper
        torch.cuda.get_device_capability = lambda *args, **kwargs: (9, 0)


def main() -> int:
    """Runs one of the two commands; returns the exit status."""
    match sys.argv[1:]:
        case ["model", folder]:
            print("\n".join(model_flags(read_network(folder))))
        case ["check", "--", *words]:
            os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")  # Megatron refuses without
            answer = ask_slime(words)
            # On a line of its own, whatever slime has printed before.
            print("\n" + json.dumps(answer))
        case ["--help" | "-h"]:
            print(__doc__)
        case _:
            raise UserError("give model FOLDER, or check -- WORDS; --help explains them")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
