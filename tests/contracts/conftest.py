"""Where slime is and how its own code is run: in processes of its own, never imported here."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rubric_rl import ROOT

HERE = Path(__file__).parent


class Slime:
    """A checkout of slime and the Python that imports it."""

    def __init__(self, folder: str, megatron: str, python: str):
        self.dir = Path(folder)
        self.megatron = megatron
        self.python = python
        path = [str(ROOT), folder, megatron, str(HERE)]
        self.env = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "CUDA_DEVICE_MAX_CONNECTIONS": "1",
            "HF_HUB_OFFLINE": "1",
            "EVAL_NAME": "hard_by_policy",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def run(self, *words, cwd=ROOT, **more: str) -> subprocess.CompletedProcess:
        """Runs a Python that sees slime, Megatron, this repository and this folder."""
        return subprocess.run(
            [self.python, *map(str, words)],
            cwd=cwd,
            env=self.env | more,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def arguments(self, script: str, env: dict[str, str], *flags: str) -> list[str]:
        """What a run script of this repository gives to slime's train.py."""
        own = {
            "SLIME_DIR": str(self.dir),
            "MEGATRON_DIR": self.megatron,
            "PYTHON": self.python,
            "DRY_RUN": "1",
        }
        done = subprocess.run(
            ["bash", script, *flags],
            cwd=ROOT,
            env=self.env | env | own,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        words = shlex.split(done.stdout)
        return words[words.index(str(self.dir / "train.py")) + 1 :]


@pytest.fixture(scope="session")
def slime() -> Slime:
    """Skips without SLIME_DIR, and where slime cannot be imported."""
    if not os.environ.get("SLIME_DIR"):
        pytest.skip("SLIME_DIR does not name a checkout of slime")
    folder = os.path.abspath(os.environ["SLIME_DIR"])
    megatron = os.path.abspath(os.environ.get("MEGATRON_DIR", folder))
    python = os.environ.get("SLIME_PYTHON", sys.executable)
    if os.sep in python:
        # It is started in other folders. A link stays one: it is how Python finds its environment.
        python = os.path.abspath(python)
    slime = Slime(folder, megatron, python)
    probe = slime.run("-c", "import slime.utils.arguments, megatron.training")
    if probe.returncode:
        reason = probe.stderr.strip().splitlines()[-1]
        pytest.skip(
            f"slime cannot be imported by {slime.python}: {reason}; "
            "see scripts/contracts/requirements.txt"
        )
    return slime
