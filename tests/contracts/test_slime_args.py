"""slime's own argument parser on the whole command of every run script (contract)."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from rubric_rl import ROOT
from rubric_rl.launch.slime_flags import REMOVED

pytestmark = pytest.mark.contract

SHAPES = {  # of the published config.json
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
    "32B": {
        "hidden_size": 5120,
        "intermediate_size": 25600,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
    },
}

SCHEDULES = """  # of a run of two rollouts, and what a run of three makes of its checkpoint
from types import SimpleNamespace
from rubric_rl.launch.slime_flags import pretend_gpu
pretend_gpu()
from slime.utils.arguments import parse_args
from slime.backends.megatron_utils.model import get_optimizer_param_scheduler
def schedule(rollouts):
    args = parse_args()
    args.num_rollout = rollouts
    return get_optimizer_param_scheduler(args, SimpleNamespace(param_groups=[]))
short, longer = schedule(2), schedule(3)
short.step(2 * 192)
longer.load_state_dict(short.state_dict())
print("went on after", longer.num_steps, "of", longer.lr_decay_steps)
"""


def checkpoint(folder: Path, name: str) -> Path:
    folder.mkdir()
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rope_theta": 1000000,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 40960,
    }
    (folder / "config.json").write_text(json.dumps(config | SHAPES[name]))
    return folder


def command(slime, script: str, env: dict, *flags: str) -> list[str]:
    """The arguments that a run script gives to slime's train.py."""
    paths = {
        "SLIME_DIR": str(slime.dir),
        "MEGATRON_DIR": slime.megatron,
        "PYTHON": slime.python,
    }
    env = slime.env | env | paths | {"DRY_RUN": "1"}
    done = subprocess.run(
        ["bash", script, *flags], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    words = shlex.split(done.stdout)
    return words[words.index(str(slime.dir / "train.py")) + 1 :]


def answer(slime, words: list[str]) -> dict:
    """What slime's parsers say of a command line."""
    program = ["-m", "rubric_rl.launch.slime_flags", "check", "--"]
    done = slime.run(*program, *words, EVAL_DATA_PATH="/nowhere/hard.jsonl")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "name, placement",
    [("8B", "split"), ("8B", "colocate"), ("32B", "split"), ("32B", "colocate"), ("tiny", "")],
)
def test_slime_accepts_the_whole_command(slime, tmp_path, name, placement):
    env = {"PROMPT_DATA_PATH": str(tmp_path / "easy.jsonl"), "SAVE_PATH": str(tmp_path / "run")}
    if name == "tiny":
        env |= {"BACKEND": "slime"}
    else:
        env |= {
            "PLACEMENT": placement,
            "HF_CKPT_PATH": str(checkpoint(tmp_path / "hf", name)),
            "WANDB_PROJECT": "rubrics",
        }
    words = command(slime, f"run_qwen3_{name}.sh", env)
    assert answer(slime, words) == {"unknown": [], "error": "", "absent": ""}


def test_misspelt_removed_and_abbreviated_flags_are_named(slime, tmp_path):
    flags = [
        "--n-sample-per-prompt",
        "8",
        "--use-slime-router",
        "--sglang-mem-frac=0.5",
        "--qkv-format",
        "thd",
    ]
    env = {"BACKEND": "slime", "SAVE_PATH": str(tmp_path)}
    found = answer(slime, command(slime, "run_qwen3_tiny.sh", env, *flags))["unknown"]
    named = [flag.partition("=")[0] for flag in flags if flag.startswith("--")]
    assert [line.split(" ")[0] for line in found] == named
    assert "did you mean --n-samples-per-prompt?" in found[0] and "removed" in found[1]
    assert "write --sglang-mem-fraction-static" in found[2] and "removed" in found[3]


def test_slimes_own_checks_are_reported(slime, tmp_path):
    env = {"BACKEND": "slime", "SAVE_PATH": str(tmp_path)}
    words = command(slime, "run_qwen3_tiny.sh", env, "--rollout-temperature", "0")
    assert "temperature" in answer(slime, words)["error"]


def test_a_longer_run_goes_on_with_the_optimizers_schedule(slime, tmp_path):
    env = {"BACKEND": "slime", "SAVE_PATH": str(tmp_path)}
    words = command(slime, "run_qwen3_tiny.sh", env, "--lr-warmup-iters", "2")
    done = slime.run("-c", SCHEDULES, *words, EVAL_DATA_PATH="/nowhere/hard.jsonl")
    assert done.stdout.endswith("went on after 384 of 576\n"), done.stderr[-2000:]


def test_the_cpu_trainer_knows_what_slime_removed(slime):
    found = answer(slime, [f"--{name}" for name in sorted(REMOVED)])["unknown"]
    assert len(found) == len(REMOVED), f"this slime still has some of {sorted(REMOVED)}: {found}"
    assert os.path.isdir(slime.dir)
