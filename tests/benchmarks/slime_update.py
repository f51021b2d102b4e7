"""Sets slime's updates beside the CPU trainer's on the same answers, step by step.

BACKEND=slime SAVE_PATH=RUN bash run_qwen3_tiny.sh --num-rollout 2 --lr-warmup-iters 0 \\
    --save-hf 'RUN/hf_{rollout_id}' --save-debug-train-data 'RUN/train_{rollout_id}.pt'
python tests/benchmarks/slime_update.py RUN

slime wrote down what it trained on (tokens, rewards, log-probabilities), its log tells each step's
loss and gradient norm, and `hf_N` are its weights after rollout N. The CPU trainer starts from the
tiny model and makes the same steps. slime computes in bfloat16, the CPU trainer in float32.
"""

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rubric_rl.cpu.actor import Actor  # noqa: E402  (only now can it be found)
from rubric_rl.cpu.flags import parse  # noqa: E402

START = ROOT / "rubric_rl/tiny/model"
STEP = re.compile(r"model\.py:\d+ - step (\d+): (\{.*?\})")
COLORS = re.compile(r"\x1b\[[0-9;]*m")
COMPARED = ("loss", "grad_norm", "entropy_loss", "pg_clipfrac", "ppo_kl")


def settings() -> Namespace:
    """The tiny run's, by the command that its users give."""
    command = ["bash", "run_qwen3_tiny.sh", "--lr-warmup-iters", "0"]
    command += ["--actor-num-gpus-per-node", "1", "--rollout-num-gpus", "1"]
    printed = subprocess.check_output(
        command, cwd=ROOT, env=os.environ | {"DRY_RUN": "1"}, text=True
    )
    words = shlex.split(printed)
    flags = words.index("rubric_rl.cpu.train") + 1
    return parse(words[flags:])


def trained_on(file: Path) -> dict:
    """A rollout as slime's actor had it, in the CPU trainer's form."""
    samples = torch.load(file, weights_only=True)["samples"]
    return {
        "tokens": [sample["tokens"].tolist() for sample in samples],
        "response_lengths": [sample["response_lengths"] for sample in samples],
        "loss_masks": [sample["loss_masks"].tolist() for sample in samples],
        "rewards": [sample["rewards"] for sample in samples],
        "log_probs": torch.cat([sample["log_probs"] for sample in samples]),
    }


def steps_of_slime(log: Path) -> dict[int, dict[str, float]]:
    text = COLORS.sub("", log.read_text(errors="replace"))
    return {int(number): ast.literal_eval(found) for number, found in STEP.findall(text)}


def watched(actor: Actor) -> list[dict[str, float]]:
    """From now on the actor's steps write their metrics into the list returned."""
    steps: list[dict[str, float]] = []
    make_step = actor._step

    def step(*words):
        steps.append(make_step(*words))
        return steps[-1]

    actor._step = step
    return steps


def log_prob_difference(actor: Actor, rollout: dict) -> float:
    """Mean over the answers' tokens, before the rollout's first step."""
    found = []
    for tokens, length in zip(rollout["tokens"], rollout["response_lengths"], strict=True):
        inputs = torch.tensor(tokens)[None, :-1]
        columns = torch.arange(inputs.shape[1] - length, inputs.shape[1])
        batch = Namespace(inputs=inputs, rows=torch.zeros_like(columns), columns=columns)
        batch.targets = torch.tensor(tokens[-length:])
        found.append(actor._log_probs(actor.model, batch))
    return (torch.cat(found) - rollout["log_probs"]).abs().mean().item()


def movement(directory: Path, start: dict) -> torch.Tensor:
    """All weights less those of the start, as one vector."""
    weights = {}
    for file in directory.glob("*.safetensors"):
        weights |= load_file(file)
    return torch.cat([(weights[name].float() - start[name].float()).flatten() for name in start])


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("run", type=Path, help="the run's SAVE_PATH, from its first rollout on")
    run = parser.parse_args().run
    dumps = len(list(run.glob("train_*.pt")))
    for number in range(dumps or 1):
        for made in (run / f"train_{number}.pt", run / f"hf_{number}"):
            if not made.exists():
                parser.error(f"{made} is missing; --help says with which flags slime writes it")
    args = settings()
    theirs = steps_of_slime(run / "train.log")
    start = load_file(START / "model.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        actor = Actor(args, 0, 1, Path(scratch, "store"))
        actor.load(str(START))
        ours = watched(actor)
        for number in range(dumps):
            rollout = trained_on(run / f"train_{number}.pt")
            difference = log_prob_difference(actor, rollout)
            first = len(ours)
            actor.train(number, rollout)
            print(f"\nrollout {number}: log-probabilities differ by {difference:.4f} on average\n")
            print("| step | " + " | ".join(COMPARED) + " |\n|---" + "|---" * len(COMPARED) + "|")
            for step in range(first, len(ours)):
                pairs = [(theirs[step][f"train/{name}"], ours[step][name]) for name in COMPARED]
                cells = [f"{slime:.4f} / {here:.4f}" for slime, here in pairs]
                print(f"| {step} | " + " | ".join(cells) + " |")
            mine = Path(scratch, f"hf_{number}")
            actor.export_hf(str(mine))
            here, there = movement(mine, start), movement(run / f"hf_{number}", start)
            cosine = torch.cosine_similarity(here, there, dim=0).item()
            share = (there.norm() / here.norm()).item()
            print(f"\nweights moved: cosine {cosine:.4f}, slime's distance {share:.4f} of ours")
        actor.close()


if __name__ == "__main__":
    main()
