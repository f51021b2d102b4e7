"""The whole launch on one GPU that only nvidia-smi claims: up to where slime's engine needs it."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from doubles.launch_world import program, ray_ports

import data_preprocess
from rubric_rl import ROOT

pytestmark = pytest.mark.contract

NVIDIA_SMI = '#!/bin/bash\ncase "$*" in *query-gpu*) echo "81559, 1" ;; esac\n'
RAY = """#!{python}
import sys
from ray.scripts.scripts import main
sys.exit(main())
"""


@pytest.fixture
def env(slime, tmp_path):
    """Rows as the script makes them, a `ray` of slime's Python, the claim of a GPU."""
    if shutil.which("nvidia-smi"):
        pytest.skip("an NVIDIA GPU may be here: tests/smoke runs the whole thing")
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs / "nvidia-smi", NVIDIA_SMI)
    program(programs / "ray", RAY.format(python=slime.python))

    make = [sys.executable, "-m", "rubric_rl.tiny.world", "--out", str(tmp_path)]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    words = [
        f"--source={tmp_path}/tiny_all.jsonl",
        f"--hard={tmp_path}/tiny_hard.jsonl",
        f"--out={tmp_path}",
        "--allow-subset",
    ]
    assert data_preprocess.main(words) == 0

    return {
        **os.environ,
        "SLIME_DIR": str(slime.dir),
        "MEGATRON_DIR": slime.megatron,
        "PYTHON": slime.python,
        "SAVE_PATH": str(tmp_path / "run"),
        "PROMPT_DATA_PATH": str(tmp_path / "healthbench_easy.jsonl"),
        **ray_ports(),
        "BACKEND": "slime",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


def launch(env: dict[str, str], *flags: str) -> SimpleNamespace:
    """The tiny run for four rollouts, with further flags: its .status, .out and .err.

    One that does not end is terminated, so that it ends its Ray.
    """
    command = ["bash", "run_qwen3_tiny.sh", "--num-rollout", "4", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:
        try:
            out, err = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    return SimpleNamespace(status=process.returncode, out=out, err=err)


def test_everything_before_the_first_gpu_second_works(env, tmp_path):
    """Preflight finds nothing, Ray and the job start, slime gets as far as its engine."""
    done = launch(env)
    assert "preflight: nothing found that would stop the run" in done.out, done.err
    log = (tmp_path / "run" / "train.log").read_text(errors="replace")
    assert "SGLangEngine.init()" in log, log[-3000:]
    assert "No usable accelerator was detected" in log, log[-3000:]
    assert done.status == 1


def test_preflight_reads_the_command_with_slimes_parser(env):
    done = launch(env, "--lrr", "1", "--partial-rollout")
    assert done.status == 2, done.err
    assert len(done.err.splitlines()) == 2, done.err
    assert "--lrr is an unknown flag" in done.err
    assert "error: --partial-rollout" in done.err
