"""`BACKEND=slime bash run_qwen3_tiny.sh` on one GPU: two rollouts, then the same goes on."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from rubric_rl import ROOT
from rubric_rl.evaluation.read_run import Run

PROMPTS, GROUP = 4, 4
FLAGS = [
    *("--rollout-batch-size", str(PROMPTS), "--n-samples-per-prompt", str(GROUP)),
    *("--global-batch-size", str(PROMPTS * GROUP)),
    *("--eval-interval", "2", "--lr-warmup-iters", "0"),
]
pytestmark = pytest.mark.gpu


@pytest.fixture
def save(tmp_path) -> Path:
    """Where the run goes. Skips where there is no NVIDIA GPU or no slime."""
    if (
        not shutil.which("nvidia-smi")
        or subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode
    ):
        pytest.skip("no NVIDIA GPU here (nvidia-smi lists none)")
    for name in ("SLIME_DIR", "MEGATRON_DIR"):
        if not os.environ.get(name):
            pytest.skip(f"{name} is not set: it names the checkout in slime's image")
    return tmp_path / "run"


def run(save: Path, rollouts: int) -> None:
    """The command as a user gives it, in the interpreter that PYTHON names (slime's)."""
    env = os.environ | {"BACKEND": "slime", "SAVE_PATH": str(save)}
    command = ["bash", "run_qwen3_tiny.sh", "--num-rollout", str(rollouts), *FLAGS]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def assert_whole(save: Path, rollouts: int) -> None:
    """Checkpoint, metrics and one record per graded answer are those of `rollouts` rollouts."""
    assert (save / "latest_checkpointed_iteration.txt").read_text().strip() == str(rollouts - 1)
    assert any((save / f"iter_{rollouts - 1:07d}").iterdir())
    log = (save / "train.log").read_text(errors="replace")
    for rollout in range(rollouts):
        lines = [
            line for line in log.splitlines() if f"perf {rollout}: " in line
        ]  # the engines' and the trainer's
        (figures,) = [line for line in lines if "'rollout/" in line]
        assert "'grading/" in figures and "'tiny/grader_accuracy'" in figures
        assert any("'perf/actor_train_time'" in line for line in lines)
    assert "eval/held_out" in log and list((save / "tensorboard").glob("events.*"))
    records = Run(save / "verdicts", split="train", every=True)
    trained = Counter(record.index for record in records)
    assert trained == Counter(range(rollouts * PROMPTS * GROUP))


def test_two_rollouts_train_and_the_same_command_goes_on(save):
    run(save, 2)
    assert_whole(save, 2)
    run(save, 3)
    assert_whole(save, 3)
