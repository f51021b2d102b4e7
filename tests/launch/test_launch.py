"""The GPU run scripts without slime or a GPU: the command that they print, and what they refuse."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from doubles.launch_world import ROOT, script

from rubric_rl.launch.slime_flags import CommandLine

SCRIPTS = ("run_qwen3_8B.sh", "run_qwen3_32B.sh")


def printed(name: str, **env: str) -> CommandLine:
    """The flags of the command that a script prints."""
    words = shlex.split(script(name, DRY_RUN="1", **env).stdout)
    return CommandLine(words[2:])


@pytest.mark.parametrize("name", [*SCRIPTS, "run_qwen3_tiny.sh"])
def test_a_script_finds_its_folder_whatever_cdpath_says(name, tmp_path):
    """With it, `cd` may enter another folder of the same name, or print where it has gone."""
    (tmp_path / "decoy" / ROOT.name).mkdir(parents=True)
    plain = script(name, DRY_RUN="1")
    inside = script(name, DRY_RUN="1", CDPATH=f".:{tmp_path}")
    assert (inside.returncode, inside.stdout) == (0, plain.stdout)
    above = subprocess.run(
        ["bash", f"{ROOT.name}/{name}"],
        cwd=ROOT.parent,
        env={**os.environ, "DRY_RUN": "1", "CDPATH": str(tmp_path / "decoy")},
        capture_output=True,
        text=True,
    )
    assert above.returncode == 0, above.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_link_to_a_script_is_the_script(tmp_path, name):
    link = tmp_path / "train"
    link.symlink_to(ROOT / name)
    env = {**os.environ, "DRY_RUN": "1"}
    done = subprocess.run(["bash", str(link)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, *words = done.stdout.splitlines()  # but for the Python
    assert words == script(name, DRY_RUN="1").stdout.splitlines()[1:]


def test_cdpath_leads_the_setup_nowhere_else(tmp_path):
    nowhere = {"PYTHON": "/no/such", "VENV": str(tmp_path / "venv")}
    done = script("scripts/cpu/setup.sh", CDPATH=f".:{tmp_path}", **nowhere)
    assert "Python 3.11 or newer is needed" in done.stderr


def test_an_environment_may_be_a_link_to_another_disk(tmp_path):
    disk, link, python = tmp_path / "disk", tmp_path / ".venv", tmp_path / "python"
    disk.mkdir()
    link.symlink_to(disk)
    python.write_text('#!/bin/sh\n[ "$1" != -m ] || { echo "no $3" && exit 1; }\n')
    python.chmod(0o755)
    for _ in range(2):  # an install that failed leaves a mark, and the next one begins anew
        done = script("scripts/cpu/setup.sh", PYTHON=str(python), VENV=str(link))
        assert f"cannot make a virtual environment: no {disk}\n" in done.stderr
        assert link.is_symlink()


def test_a_link_to_a_disk_that_is_gone_is_one_line(tmp_path):
    link = tmp_path / ".venv"
    link.symlink_to(tmp_path / "disk/venv")
    done = script("scripts/cpu/setup.sh", VENV=str(link))
    assert (done.returncode, done.stderr) == (2, f"error: {link} is a link that leads nowhere\n")


def test_a_python_that_trusts_no_folder_finds_this_one():
    done = script("run_qwen3_tiny.sh", BACKEND="slime", DRY_RUN="1", PYTHONSAFEPATH="1")
    assert done.returncode == 0 and "--swiglu" in done.stdout, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_dry_run_prints_the_command_word_by_word_without_slime(name):
    done = script(
        name, "--lr", "2e-6", "--note", "two words", DRY_RUN="1", HF_CKPT_PATH="/models/a b"
    )
    assert done.returncode == 0 and "note: without SLIME_DIR" in done.stderr
    words = [shlex.split(line)[0] if line else "" for line in done.stdout.splitlines()]
    assert words[1] == "<SLIME_DIR>/train.py"
    assert words[-4:] == ["--lr", "2e-6", "--note", "two words"]
    flags = CommandLine(words[2:])
    assert flags.text("hf-checkpoint") == flags.text("ref-load") == "/models/a b"
    # Absolute, since the job runs elsewhere.
    assert flags.text("custom-config-path") == str(ROOT / "configs/grader.yaml")


@pytest.mark.parametrize(
    "name, split, per_token", [("run_qwen3_8B.sh", True, False), ("run_qwen3_32B.sh", False, True)]
)
def test_sizes_differ_in_placement_and_loss_aggregation(name, split, per_token):
    default = printed(name)
    assert ("colocate" in default, "calculate-per-token-loss" in default) == (not split, per_token)
    other = printed(name, PLACEMENT="colocate" if split else "split")
    assert ("colocate" in other) == split
    experiment = (
        "rollout-batch-size",
        "n-samples-per-prompt",
        "global-batch-size",
        "lr",
        "rollout-max-response-len",
        "num-epoch",
    )
    assert [default.values[key] for key in experiment] == [other.values[key] for key in experiment]


@pytest.mark.parametrize("name", SCRIPTS)
def test_requests_that_an_engine_refuses_do_not_shut_it_out(name):
    """The router of the CPU engines has the same setting (cpu/engine.py)."""
    assert printed(name).values["router-disable-circuit-breaker"] == []


@pytest.mark.parametrize("name", [*SCRIPTS, "run_qwen3_tiny.sh"])
def test_the_schedule_of_a_checkpoint_gives_way_to_the_flags(name):
    """Else Megatron refuses to go on with more rollouts than the run began with."""
    assert "override-opt-param-scheduler" in printed(name, BACKEND="slime")


@pytest.mark.parametrize("backend, file", [("cpu", "_skill"), ("slime", "")])
def test_the_tiny_run_keeps_the_graders_skill_where_the_trainer_can(backend, file):
    words = shlex.split(script("run_qwen3_tiny.sh", DRY_RUN="1", BACKEND=backend).stdout)
    path = words[words.index("--custom-config-path") + 1]
    assert Path(path).name == f"grader_tiny{file}.yaml"


def test_the_tiny_checkpoint_is_served_as_it_is_trained_on_kernels_for_its_heads():
    flags = printed("run_qwen3_tiny.sh", BACKEND="slime")
    assert flags.text("sglang-dtype") == "bfloat16" and "fp16" not in flags
    assert flags.text("sglang-attention-backend") == "triton"
    # FlashInfer, SGLang's choice but on Hopper, has none below 64.
    assert flags.whole("kv-channels") == 32


def test_model_flags_come_from_slimes_own_file(tmp_path):
    models = tmp_path / "scripts" / "models"
    models.mkdir(parents=True)
    (models / "qwen3-8B.sh").write_text("MODEL_ARGS=(--num-layers 36)\n")
    done = script("run_qwen3_8B.sh", DRY_RUN="1", SLIME_DIR=str(tmp_path))
    assert "--num-layers\n36\n" in done.stdout


def test_wandb_is_an_environment_variable_and_no_key_is_printed():
    done = script(
        "run_qwen3_8B.sh",
        DRY_RUN="1",
        WANDB_PROJECT="rubrics",
        WANDB_API_KEY="secret",
        SAVE_PATH="/runs/first",
    )
    assert "--wandb-project\nrubrics\n--wandb-group\nfirst" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", [*SCRIPTS, "run_qwen3_tiny.sh"])
@pytest.mark.parametrize("flags", [["--wandb-key", "secret"], ["--lr", "1", "--wandb-key=secret"]])
def test_a_key_on_the_command_line_is_refused_and_not_repeated(name, flags):
    for backend in ("cpu", "slime"):
        done = script(name, *flags, DRY_RUN="1", BACKEND=backend)
        assert (done.returncode, done.stdout) == (2, "")
        assert "export WANDB_API_KEY instead" in done.stderr
        assert "secret" not in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_engines_write_json_without_blanks(name):
    assert "sglang-constrained-json-disable-any-whitespace" in printed(name)


@pytest.mark.parametrize(
    "env, message",
    [
        ({}, "not set: HF_CKPT_PATH PROMPT_DATA_PATH SAVE_PATH SLIME_DIR MEGATRON_DIR"),
        ({"DRY_RUN": "1", "PLACEMENT": "both"}, "PLACEMENT is split or colocate"),
        ({"DRY_RUN": "yes"}, "DRY_RUN is 1 or 0, not yes"),  # not a run of two days
        (
            {"DRY_RUN": "1", "PYTHON": "/no/such"},
            "PYTHON is the path of slime's Python, not /no/such",
        ),
        ({"PYTHON": "python3 -u"}, "PYTHON is the path of slime's Python, not python3 -u"),
        ({"DRY_RUN": "1", "NNODES": "two"}, "NNODES is a number from 1 to 9999, not two"),
        ({"DRY_RUN": "1", "NNODES": "9" * 30}, "NNODES is a number from 1 to 9999, not 9999"),
        ({"DRY_RUN": "1", "RAY_GRACE": "soon"}, "RAY_GRACE is a number from 1 to 9999, not soon"),
        ({"DRY_RUN": "1", "GPUS_PER_NODE": "0"}, "GPUS_PER_NODE is a number from 1 to 9999, not 0"),
        ({"DRY_RUN": "1", "SAVE_PATH": "~/runs"}, "SAVE_PATH is ~/runs: quotes keep the ~"),
    ],
)
def test_what_is_missing_is_one_line(env, message):
    done = script("run_qwen3_8B.sh", **env)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("backend", ["cpu", "slime"])
def test_the_tiny_run_takes_no_other_word_for_a_dry_run(backend, tmp_path):
    """It would begin a run of ten minutes; here it could not, without a Python."""
    nowhere = {"PYTHON": "/no/such", "VENV": str(tmp_path / "venv")}
    done = script("run_qwen3_tiny.sh", DRY_RUN="true", BACKEND=backend, **nowhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: DRY_RUN is 1 or 0, not true\n"


def test_nodes_must_be_named(tmp_path):
    models = tmp_path / "scripts" / "models"
    models.mkdir(parents=True)
    (models / "qwen3-32B.sh").write_text("MODEL_ARGS=()\n")
    paths = dict.fromkeys(
        ("HF_CKPT_PATH", "PROMPT_DATA_PATH", "SAVE_PATH", "SLIME_DIR", "MEGATRON_DIR"),
        str(tmp_path),
    )
    done = script("run_qwen3_32B.sh", **paths)
    assert done.returncode == 2
    assert "NNODES is 4, but 1 node(s) are known; name them in NODES" in done.stderr
