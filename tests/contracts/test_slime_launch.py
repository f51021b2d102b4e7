"""The whole launch on one GPU that only nvidia-smi claims: up to where slime's engine looks for it (contract)."""

import os
import shutil
import subprocess
import sys

import pytest
from doubles.launch_world import program, ray_ports

import data_preprocess
from rubric_rl import ROOT

pytestmark = pytest.mark.contract
SMI = '#!/bin/bash\ncase "$*" in *query-gpu*) echo "81559, 1" ;; esac\n'


@pytest.fixture
def env(slime, tmp_path):
    """Rows as the script makes them, a `ray` of slime's Python, the claim of a GPU."""
    if shutil.which("nvidia-smi"):
        pytest.skip("an NVIDIA GPU may be here: tests/smoke runs the whole thing")
    (bin := tmp_path / "bin").mkdir()
    ray = f"#!{slime.python}\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n"
    for name, text in (("nvidia-smi", SMI), ("ray", ray)):
        program(bin / name, text)
    make = [sys.executable, "-m", "rubric_rl.tiny.world", "--out", str(tmp_path)]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    raw = [
        f"--{flag}={tmp_path}/tiny_{part}.jsonl"
        for flag, part in (("source", "all"), ("hard", "hard"))
    ]
    assert data_preprocess.main([*raw, f"--out={tmp_path}", "--allow-subset"]) == 0
    paths = {"SLIME_DIR": str(slime.dir), "MEGATRON_DIR": slime.megatron, "SAVE_PATH": str(tmp_path / "run"),
             "PROMPT_DATA_PATH": str(tmp_path / "healthbench_easy.jsonl"), "PYTHON": slime.python}  # fmt: skip
    return (
        os.environ
        | paths
        | ray_ports()
        | {"BACKEND": "slime", "PATH": f"{bin}:{os.environ['PATH']}"}
    )


def test_everything_before_the_first_gpu_second_works(env, tmp_path):
    """Preflight finds nothing, Ray and the job start, slime places the run and gets as far as its engine."""
    command = ["bash", "run_qwen3_tiny.sh", "--num-rollout", "4"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert "preflight: nothing found that would stop the run" in done.stdout, done.stderr
    log = (tmp_path / "run" / "train.log").read_text(errors="replace")
    assert "SGLangEngine.init()" in log and "No usable accelerator was detected" in log, log[-3000:]
    assert done.returncode == 1


def test_preflight_reads_the_command_with_slimes_parser(env):
    command = ["bash", "run_qwen3_tiny.sh", "--num-rollout", "4", "--lrr", "1", "--partial-rollout"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 2, done.stderr
    assert "--lrr is an unknown flag" in done.stderr and "error: --partial-rollout" in done.stderr
