"""The GPU run script on the real Ray that only counts GPUs: address, token, job, signals."""

import json
import re
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
from doubles.launch_world import KEY, World, program, ray_ports

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


def test_sigterm_takes_ray_the_job_and_its_servers_along(world):
    process = world.start("run_qwen3_8B.sh", "--", "stay")
    log = world.save / "train.log"
    world.until(lambda: log.exists() and re.search(r"ENGINE \d+\n", log.read_text()), 240)
    process.send_signal(signal.SIGTERM)
    assert world.end(process, 60).status == 143 and world.nothing_left()
