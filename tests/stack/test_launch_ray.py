"""The GPU run script on the real Ray that only counts GPUs: address, token, job, signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from doubles.launch_world import KEY, ROOT, World, program, ray_ports
from doubles.processes import listeners

from rubric_rl.launch.end_engines import session_name

pytestmark = pytest.mark.stack
TRAIN = """
import json, subprocess, sys, time
import ray
print("WORDS", json.dumps(sys.argv[-2:]), flush=True)
ray.init(address="auto")
@ray.remote(num_gpus=1)
class Engine:
    def start(self):
        return subprocess.Popen(["sleep", "600"]).pid   # as an engine starts its servers
engine = Engine.remote()
print("ENGINE", ray.get(engine.start.remote()), flush=True)
time.sleep(600 if sys.argv[-1] == "stay" else 1)
sys.exit(sys.argv[-1] == "fail")
"""


# A failed job of slime 0.4 leaves two detached actors; then they are ended.
ENDS_ENGINES = """
import sys
import tempfile
from pathlib import Path
import ray
from rubric_rl.common.errors import UserError
from rubric_rl.launch.end_engines import NAMESPACE, end_engines, session_name
folder, save = sys.argv[1:]
ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=folder)
@ray.remote(num_cpus=0)
class ServingCluster:
    def dispose(self):
        Path(save).write_text("disposed")
@ray.remote(num_cpus=0)
class RolloutManager:
    pass
name = session_name(save)
kept = {"lifetime": "detached", "namespace": NAMESPACE}
actors = [RolloutManager.options(name=name, **kept).remote()]
actors.append(ServingCluster.options(name=name + ":serving", **kept).remote())
ray.get([actor.__ray_ready__.remote() for actor in actors])
try:
    end_engines(ray, Path("/another/run"))
except UserError as error:
    print(error)
print(*end_engines(ray, Path(save)))
print(ray.util.list_named_actors(all_namespaces=True))
"""


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    program(
        Path(world.env["PYTHON"]).with_name("ray"),
        f'#!/bin/bash\nexec "{Path(sys.executable).parent}/ray" "$@"\n',
    )
    (tmp_path / "the lib" / "ray.py").unlink()
    (tmp_path / "sl ime" / "train.py").write_text(TRAIN)
    world.env |= ray_ports() | {"GPUS_PER_NODE": "2"}
    yield world
    world.clean()


# by address, by name
@pytest.mark.parametrize("nodes, last, status", [("", "end", 0), (socket.gethostname(), "fail", 1)])
def test_the_job_runs_with_its_words_and_ends_with_its_status(world, nodes, last, status):
    done = world.end(world.start("run_qwen3_8B.sh", "two  words", last, NODES=nodes), 240)
    log = (world.save / "train.log").read_text()
    assert done.status == status, done.err + log[-3000:]
    assert f"WORDS {json.dumps(['two  words', last])}" in log and log == done.out
    assert not [
        path for path in world.save.rglob("*") if path.is_file() and KEY in path.read_text()
    ]
    assert not psutil.pid_exists(int(re.search(r"ENGINE (\d+)", log)[1])) and world.nothing_left()


def test_on_one_node_ray_and_the_job_listen_on_the_loopback_only_and_sigterm_ends_all(world):
    process = world.start("run_qwen3_8B.sh", "--", "stay")
    log = world.save / "train.log"
    world.until(lambda: log.exists() and re.search(r"ENGINE \d+\n", log.read_text()), 240)
    sockets = listeners(psutil.Process(process.pid).children(recursive=True))
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in sockets}
    assert {address for _, address, _ in sockets} == {"127.0.0.1"}, sockets
    process.send_signal(signal.SIGTERM)
    assert world.end(process, 60).status == 143 and world.nothing_left()


def test_engines_that_a_failed_job_left_in_a_ray_are_ended(tmp_path):
    save = tmp_path / "run"
    env = os.environ | {"RAY_enable_metrics_collection": "0"}
    # A short path, for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        command = [sys.executable, "-c", ENDS_ENGINES, folder, str(save)]
        run = {"cwd": ROOT, "env": env, "capture_output": True, "text": True, "timeout": 240}
        done = subprocess.run(command, **run)
    assert done.returncode == 0, done.stderr[-2000:]
    others, ended, left = done.stdout.splitlines()[-3:]
    assert others.startswith("/another/run: no engines of this run, 2 actors of others")
    name = session_name(str(save))
    assert (ended, left) == (f"{name} {name}:serving", "[]")
    assert save.read_text() == "disposed"
