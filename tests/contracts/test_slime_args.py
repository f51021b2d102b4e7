"""slime's own argument parser on the whole command of every run script."""

import json
from pathlib import Path

import pytest

from rubric_rl.launch.slime_version import (
    NEW_IN_0_4,
    REMOVED_BEFORE,
    REMOVED_IN_0_4,
    V0_4,
    read_version,
)

pytestmark = pytest.mark.contract

SCHEDULE = Path(__file__).parent / "slime_schedule.py"
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


def checkpoint(folder: Path, name: str) -> Path:
    """A folder with the config.json of a published model."""
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


def tiny_arguments(slime, tmp_path: Path, *flags: str) -> list[str]:
    """The arguments of the tiny run, with further flags."""
    env = {"BACKEND": "slime", "SAVE_PATH": str(tmp_path)}
    return slime.arguments("run_qwen3_tiny.sh", env, *flags)


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
        env["BACKEND"] = "slime"
    else:
        env["PLACEMENT"] = placement
        env["HF_CKPT_PATH"] = str(checkpoint(tmp_path / "hf", name))
        env["WANDB_PROJECT"] = "rubrics"
    words = slime.arguments(f"run_qwen3_{name}.sh", env)
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
    found = answer(slime, tiny_arguments(slime, tmp_path, *flags))["unknown"]
    assert [line.split(" ")[0] for line in found] == [
        "--n-sample-per-prompt",
        "--use-slime-router",
        "--sglang-mem-frac",
        "--qkv-format",
    ]
    assert "did you mean --n-samples-per-prompt?" in found[0]
    assert "removed" in found[1]
    assert "write --sglang-mem-fraction-static" in found[2]
    assert "removed" in found[3]


def test_slimes_own_checks_are_reported(slime, tmp_path):
    words = tiny_arguments(slime, tmp_path, "--rollout-temperature", "0")
    assert "temperature" in answer(slime, words)["error"]


def test_a_longer_run_goes_on_with_the_optimizers_schedule(slime, tmp_path):
    words = tiny_arguments(slime, tmp_path, "--lr-warmup-iters", "2")
    done = slime.run(SCHEDULE, *words, EVAL_DATA_PATH="/nowhere/hard.jsonl")
    assert done.stdout.endswith("went on after 384 of 576\n"), done.stderr[-2000:]


def test_the_cpu_trainer_knows_what_slime_removed(slime):
    found = answer(slime, [f"--{name}" for name in sorted(REMOVED_BEFORE)])["unknown"]
    assert len(found) == len(REMOVED_BEFORE), (
        f"this slime still has some of {sorted(REMOVED_BEFORE)}: {found}"
    )


def test_the_flags_of_another_version_are_refused_and_those_of_this_one_taken(slime):
    mine, others = REMOVED_IN_0_4, NEW_IN_0_4
    if read_version(slime.dir) >= V0_4:
        mine, others = others, mine
    flags = [f"--{name}" for name in [*sorted(mine), *sorted(others)]]
    found = answer(slime, flags)["unknown"]
    assert [line.split(" ")[0] for line in found] == [f"--{name}" for name in sorted(others)]
    assert all("slime 0.4" in line for line in found)
