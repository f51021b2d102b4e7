"""The private Ray: on the loopback address, behind a token, ended with its owner; its errors."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from doubles.processes import all_gone, listeners, names_of, wait_for
from doubles.trainer import FLAGS, model_folder, write_rows

from rubric_rl import ROOT
from rubric_rl.cpu import local_ray

pytestmark = pytest.mark.stack

# Raises in a Ray actor what it is told to, and prints how `train` reports it.
TRAINER = """
import json, os, sys
from pathlib import Path
from rubric_rl.cpu import local_ray, train
from rubric_rl.common.errors import DataError

local_ray.set_environment()
import ray
from rubric_rl.cpu.cluster import Cluster

class Raises:
    def users(self):
        raise DataError("rows.jsonl:3: broken JSON")
    def defect(self):
        raise KeyError("rewards")
    def defect_after_the_users(self):
        try:
            raise DataError("handled badly")
        except DataError as error:
            raise RuntimeError("no match") from error
    def dies(self):
        os._exit(3)

def run(args, run_directory, recorder, start):
    with Cluster(args, run_directory.path) as cluster:
        cluster.servers.append(local_ray.start(cluster.private, cluster.logs))
        local_ray.connect(cluster.private)
        actor = ray.remote(Raises).options(num_cpus=0).remote()
        cluster.wait([getattr(actor, how).remote()])

train._run_cluster = run
train.check_machine.check = lambda args: None
for how in ("users", "defect", "defect_after_the_users", "dies"):
    folder = Path(sys.argv[1]) / how
    status = train.main(json.loads(sys.argv[2]) + ["--save", str(folder)])
    print(json.dumps([how, status]), flush=True)
"""


def test_the_users_mistake_in_an_actor_exits_2_and_a_defect_1(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 2)
    checkpoint = model_folder(tmp_path / "model")
    flags = [*FLAGS, "--prompt-data", str(rows), "--hf-checkpoint", str(checkpoint)]
    command = [sys.executable, "-c", TRAINER, str(tmp_path), json.dumps(flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    expected = [["users", 2], ["defect", 1], ["defect_after_the_users", 1], ["dies", 1]]
    assert found == expected, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines[:3] == [
        "error: rows.jsonl:3: broken JSON",
        "error: KeyError: 'rewards'",
        "error: RuntimeError: no match",
    ]
    assert "killed or crashed" in lines[3]
    assert (tmp_path / "users" / "logs" / "ray" / "raylet.out").exists()  # Ray's logs are kept


# Joins a Ray with a token of its own.
STRANGER = """
import sys
from rubric_rl.cpu import local_ray
local_ray.set_environment()
import ray
ray.init(address=sys.argv[1])
"""
# Starts all kinds of processes, tells its token, waits to be killed.
SUPERVISOR = """
import os, sys, time
from pathlib import Path
from rubric_rl.cpu import engine, local_ray
model, logs = sys.argv[1:]
local_ray.set_environment()
import ray
port = engine.free_port()
server = engine.start_engine(model, port, logs)
engine.start_router([], engine.free_port(), logs)
private = local_ray.make_private_folder()
local_ray.start(private, Path(logs))
local_ray.connect(private)
@ray.remote
class Actor:
    def wait(self): time.sleep(600)
actors = [Actor.options(num_cpus=0).remote() for _ in range(2)]
calls = [actor.wait.remote() for actor in actors]
engine.wait_healthy(f"http://127.0.0.1:{port}", server)
address = (private / local_ray.ADDRESS_FILE).read_text()
print(private, address, os.environ["RAY_AUTH_TOKEN"], flush=True)
time.sleep(600)
"""


def test_ray_is_private_and_nothing_outlives_a_supervisor_killed_by_sigkill(tiny_model, tmp_path):
    command = [sys.executable, "-c", SUPERVISOR, str(tiny_model), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        try:
            private, address, token = supervisor.stdout.readline().split()
            owner = psutil.Process(supervisor.pid)
            family = owner.children(recursive=True)
            names = " ".join(names_of(family))
            listening = {where for _, where, _ in listeners([owner, *family])}
            stranger = [sys.executable, "-c", STRANGER, address]
            joined = subprocess.run(stranger, cwd=ROOT, capture_output=True, text=True, timeout=120)
        finally:
            supervisor.kill()
    assert listening == {"127.0.0.1"}
    assert joined.returncode != 0 and "token" in joined.stderr
    assert len(family) > 12 and all(name in names for name in ("sglang", "raylet", "gcs_server"))
    wait_for(lambda: all_gone(family), 30)
    tell_token = subprocess.run(["grep", "-rl", token, private, str(tmp_path)], capture_output=True)
    assert tell_token.stdout == b""
    local_ray.make_private_folder().rmdir()  # the next run clears away what this one left
    assert not Path(private).exists()
