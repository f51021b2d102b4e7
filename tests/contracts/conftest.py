"""Where slime is and how its own code is run: in processes of its own, never imported here."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rubric_rl import ROOT


@pytest.fixture(scope="session")
def slime():
    """.dir, .env and .run(*words): a Python process that sees slime, Megatron and this repository.

    Skips without SLIME_DIR.
    """
    if not os.environ.get("SLIME_DIR"):
        pytest.skip("SLIME_DIR does not name a checkout of slime")
    folder = os.path.abspath(os.environ["SLIME_DIR"])
    python = os.environ.get("SLIME_PYTHON", sys.executable)
    megatron = os.path.abspath(os.environ.get("MEGATRON_DIR", folder))
    path = os.pathsep.join([str(ROOT), folder, megatron, str(Path(__file__).parent)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
                        "CUDA_DEVICE_MAX_CONNECTIONS": "1", "HF_HUB_OFFLINE": "1",
                        "EVAL_NAME": "hard_by_policy", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # fmt: skip

    def run(*words, cwd=ROOT, **more):
        return subprocess.run(
            [python, *map(str, words)],
            cwd=cwd,
            env=env | more,
            capture_output=True,
            text=True,
            timeout=600,
        )

    probe = run("-c", "import slime.utils.arguments, megatron.training")
    if probe.returncode:
        pytest.skip(
            f"slime cannot be imported by {python}: {probe.stderr.strip().splitlines()[-1]}; "
            "see scripts/contracts/requirements.txt"
        )
    return SimpleNamespace(dir=Path(folder), megatron=megatron, python=python, env=env, run=run)
