"""A machine with a fake cluster, on which tests execute the GPU run scripts."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil

from rubric_rl import ROOT
from rubric_rl.launch.check_run import PlannedRun

KEY = "a-key-nobody-may-see"
HEADER = b'{"w": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"abc"  # a whole safetensors file
# All that slime_flags asks of torch, for a process that shall not load the real one.
NO_TORCH = "class cuda:\n    is_available = staticmethod(lambda: True)\n"
TRAIN = """
import json, os, signal, sys
job = {"words": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
open(os.environ["FAKE"] + "/job.json", "w").write(json.dumps(job))
print("training")
if "JOB_WAITS" in os.environ:
    signal.pause()
sys.exit(int(os.environ.get("JOB_STATUS", "0")))
"""
RAY_MODULE = """
import os, pathlib
is_initialized = lambda: True
state = pathlib.Path(os.environ["FAKE"])
cluster_resources = lambda: {"GPU": sum(int(p.read_text() or 0) for p in state.glob("gpus.*"))}
"""
# The check of the run has tests of its own.
PYTHON = f"""#!/bin/bash
if [[ "$*" == *rubric_rl.launch.check_run* ]]; then exit "${{CHECK_RUN:-0}}"; fi
exec {sys.executable} "$@"
"""
# Without this repository or installed packages, so that it starts fast.
COMMAND = f"""#!/bin/bash
exec {sys.executable} -SE {ROOT}/tests/doubles/cluster_commands.py %s "$@"
"""


def script(name: str, *flags: str, **env: str) -> subprocess.CompletedProcess:
    """Runs a script of the repository with little else in its environment."""
    keep = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        ["bash", name, *flags],
        cwd=ROOT,
        env=keep | {"PYTHON": sys.executable} | env,
        capture_output=True,
        text=True,
    )


def row(number: int) -> dict:
    """A row with a conversation of its own."""
    messages = [{"role": "user", "content": f"ask {number}"}]
    metadata = {
        "prompt_id": f"id{number}",
        "messages": messages,
        "rubrics": [{"criterion": "c", "points": 1}],
    }
    return {"prompt": messages, "metadata": metadata}


def planned_run(**fields) -> PlannedRun:
    """A run on a node of eight GPUs."""
    common = {
        "command": [],
        "slime_dir": ROOT,
        "megatron_dir": ROOT,
        "nodes": 1,
        "gpus_per_node": 8,
        "ports": [],
        "running_ray": False,
    }
    return PlannedRun(**common | fields)


def after(words: list[str], flag: str) -> str:
    """The word that follows a flag."""
    return words[words.index(flag) + 1]


def program(path: Path, text: str) -> None:
    """Makes a file that can be executed."""
    path.write_text(text)
    path.chmod(0o755)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ray_ports() -> dict[str, str]:
    """Two ports for a Ray, below those of its workers (10002 and above)."""

    def free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    head, dashboard, *_ = filter(free, range(6380, 6480))
    return {
        "RAY_PORT": str(head),
        "RAY_DASHBOARD_PORT": str(dashboard),
        "RAY_enable_metrics_collection": "0",
    }


class World:
    """A machine with a fake cluster, every path with a space in it."""

    def __init__(self, path: Path):
        self.state, self.save = path / "the state", path / "a run"
        self.bin, lib, slime = path / "the bin", path / "the lib", path / "sl ime"
        models = slime / "scripts" / "models"
        for folder in (self.state, self.bin, lib, models, path / "mega tron"):
            folder.mkdir(parents=True)
        for name in ("ray", "ssh", "srun", "scontrol", "nvidia-smi"):
            program(self.bin / name, COMMAND % name)
        program(self.bin / "sleep", "#!/bin/bash\nexec /bin/sleep 0.1\n")
        program(self.bin / "python", PYTHON)
        (lib / "ray.py").write_text(RAY_MODULE)
        (slime / "train.py").write_text(TRAIN)
        for name in ("qwen3-8B", "qwen3-32B"):
            (models / f"{name}.sh").write_text("MODEL_ARGS=(--num-layers 36)\n")
        self.port = free_port()
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(path),
            "FAKE": str(self.state),
            "PYTHON": str(self.bin / "python"),
            "PYTHONPATH": str(lib),
            "SLIME_DIR": str(slime),
            "MEGATRON_DIR": str(path / "mega tron"),
            "HF_CKPT_PATH": str(path / "h f"),
            "PROMPT_DATA_PATH": str(path / "the rows.jsonl"),
            "SAVE_PATH": str(self.save),
            "RAY_PORT": str(self.port),
            "RAY_DASHBOARD_PORT": "1",
            "WANDB_API_KEY": KEY,
        }

    def program(self, name: str) -> Path:
        """A command of this machine."""
        return self.bin / name

    def start(self, script: str, *flags: str, **env: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # `env` undoes a nohup above: bash cannot catch a signal that it was started to ignore
        command = ["env", "--default-signal=HUP,INT", "bash", script, *flags]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.env | env, start_new_session=True, **pipes
        )

    def run(self, script: str, *flags: str, **env: str) -> SimpleNamespace:
        return self.end(self.start(script, *flags, **env))

    def end(self, process: subprocess.Popen, seconds: float = 60) -> SimpleNamespace:
        out, err = process.communicate(timeout=seconds)
        return SimpleNamespace(status=process.returncode, out=out, err=err)

    def start_job(self, script: str, **env: str) -> subprocess.Popen:
        """A run whose job is at work and waits to be ended."""
        process = self.start(script, JOB_WAITS="1", **env)
        self.until((self.state / "job.json").exists)
        return process

    def call(self, name: str) -> list[str]:
        """The words of a command that was called once."""
        (call,) = self.calls(name)
        return call["words"]

    def calls(self, name: str) -> list[dict]:
        """How a command was called, in order: cluster_commands.record."""
        path = self.state / "calls.jsonl"
        if not path.exists():
            return []
        calls = [json.loads(line) for line in path.read_text().splitlines()]
        return [call for call in calls if call["name"] == name]

    def job(self) -> dict:
        """What the job was given: its words, its environment, its folder."""
        return json.loads((self.state / "job.json").read_text())

    def until(self, truth, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not truth():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def processes(self) -> list[psutil.Process]:
        """Those of this cluster and of what was started in it."""

        def mine(process) -> bool:
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    return False
                return process.environ().get("FAKE") == str(self.state)
            except (psutil.Error, OSError):  # it has ended, or is another user's
                return False

        return list(filter(mine, psutil.process_iter()))

    def nothing_left(self) -> bool:
        """Whether every process of this cluster ends."""
        self.until(lambda: not self.processes())
        return True

    def clean(self) -> None:
        """After a failed test."""
        for process in self.processes():
            process.kill()
