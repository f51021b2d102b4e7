"""Which models a run without a GPU serves, each by how many engines: slime's --sglang-config.

As in slime, --rollout-num-gpus counts the engines of all models together. How they are shared is
not read from the file, whose numbers are those of GPU nodes: a model beside the policy has one
engine, and the policy has all others.
"""

from argparse import Namespace
from dataclasses import dataclass

from rubric_rl.common.errors import UserError
from rubric_rl.serving.served_models import read_served_models

ONLY_MODEL = "default"  # slime's name for the policy where no file names it


@dataclass(frozen=True)
class ModelEngines:
    """A model, the Hugging Face folder that its engines start with, and how many there are."""

    name: str
    folder: str
    engines: int


def engine_plan(args: Namespace) -> list[ModelEngines]:
    """The models of a run, the policy first; all others keep the weights of their folder.

    Raises:
        UserError: for a --sglang-config of another form, or with more models than engines.
    """
    path, checkpoint, total = args.sglang_config, args.hf_checkpoint, args.rollout_num_gpus
    if not path:
        return [ModelEngines(ONLY_MODEL, checkpoint, total)]
    models = read_served_models(path)
    if total < len(models):
        what = f"--rollout-num-gpus {total}: {path} serves {len(models)} models"
        raise UserError(f"{what}, each with an engine of its own; give {len(models)} or more")
    policy, *others = models
    plan = [ModelEngines(policy, checkpoint, total - len(others))]
    for name in others:
        folder = models[name].path or checkpoint
        plan.append(ModelEngines(name, folder, 1))
    return plan


def plan_line(args: Namespace) -> str:
    """What --sglang-config means here, for the user; "" without it."""
    if not args.sglang_config:
        return ""
    shares = [f"{model.name} {model.engines}" for model in engine_plan(args)]
    why = "its numbers of GPUs are for GPU nodes"
    return f"--sglang-config {args.sglang_config}: engines of {', '.join(shares)} ({why})"
