"""The GPU run scripts executed on a fake cluster: what is started, what it is told, and what is left (all stages)."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from test_launch import row

from rubric_rl.gpu import addresses, cluster
from rubric_rl.schema import UserError, write_jsonl

ROOT = Path(__file__).parents[1]
KEY = "a-key-nobody-may-see"
FLAGS = ["--note", "two  words", "--json", '{"a": "it\'s \\"$HOME\\" `x`"}', "--empty", "", "--glob", "*", "--last", "line\nbreak"]
TRAIN = """
import json, os, signal, sys
open(os.environ["FAKE"] + "/job.json", "w").write(json.dumps({"words": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}))
print("training")
if "JOB_WAITS" in os.environ:
    signal.pause()
sys.exit(int(os.environ.get("JOB_STATUS", "0")))
"""
RAY_MODULE = """
import os, pathlib
is_initialized = lambda: True
cluster_resources = lambda: {"GPU": sum(int(p.read_text() or 0) for p in pathlib.Path(os.environ["FAKE"]).glob("gpus.*"))}
"""
PARSER = """
import argparse, sys
def parse_args():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in {word for word in sys.argv if word.startswith("--") and word != "--qqqqq"}:
        parser.add_argument(flag, nargs="*")
    parser.parse_known_args()
"""
PYTHON = """#!/bin/bash
if [[ "$*" == *rubric_rl.gpu.preflight* ]]; then exit "${PREFLIGHT:-0}"; fi   # has tests of its own
exec %s "$@"
"""


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """A machine with a fake cluster, every path with a space in it."""

    def __init__(self, path: Path):
        self.state, self.save = path / "the state", path / "a run"
        bin, lib, models = path / "the bin", path / "the lib", path / "sl ime" / "scripts" / "models"
        for folder in (self.state, bin, lib, models, path / "mega tron"):
            folder.mkdir(parents=True)
        for name in ("ray", "ssh", "srun", "scontrol", "nvidia-smi"):
            program(bin / name, f'#!/bin/bash\nexec {sys.executable} -SE {ROOT}/tests/fake_cluster.py {name} "$@"\n')
        program(bin / "sleep", '#!/bin/bash\nexec /bin/sleep 0.1\n')
        program(bin / "python", PYTHON % sys.executable)
        (lib / "ray.py").write_text(RAY_MODULE)
        (path / "sl ime" / "train.py").write_text(TRAIN)
        for name in ("qwen3-8B", "qwen3-32B"):
            (models / f"{name}.sh").write_text("MODEL_ARGS=(--num-layers 36)\n")
        self.port = free_port()
        self.env = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": str(path), "FAKE": str(self.state), "PYTHON": str(bin / "python"),
                    "PYTHONPATH": str(lib), "SLIME_DIR": str(path / "sl ime"), "MEGATRON_DIR": str(path / "mega tron"),
                    "HF_CKPT_PATH": str(path / "h f"), "PROMPT_DATA_PATH": str(path / "the rows.jsonl"), "SAVE_PATH": str(self.save),
                    "RAY_PORT": str(self.port), "RAY_DASHBOARD_PORT": "1", "WANDB_API_KEY": KEY}  # fmt: skip

    def start(self, script: str, *flags: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(["bash", script, *flags], cwd=ROOT, env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)  # fmt: skip

    def run(self, script: str, *flags: str, **env: str) -> SimpleNamespace:
        return self.end(self.start(script, *flags, **env))

    def end(self, process: subprocess.Popen, seconds: float = 60) -> SimpleNamespace:
        out, err = process.communicate(timeout=seconds)
        return SimpleNamespace(status=process.returncode, out=out, err=err)

    def calls(self, name: str) -> list[dict]:
        path = self.state / "calls.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in found if call["name"] == name]

    def job(self) -> dict:
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
                return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("FAKE") == str(self.state)
            except (psutil.Error, OSError):
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


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.clean()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from start to end, with somebody else's Ray on the same machine: .world, .done, .neighbour."""
    world = World(tmp_path_factory.mktemp("launch run"))
    other = World(tmp_path_factory.mktemp("neighbour"))
    command = ["ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(other.port), "--num-gpus", "8"]
    neighbour = subprocess.Popen(command, env=other.env, executable=Path(other.env["PYTHON"]).with_name("ray"))
    other.until(lambda: list(other.state.glob("gpus.*")))
    yield SimpleNamespace(world=world, done=world.run("run_qwen3_8B.sh", *FLAGS), neighbour=neighbour)
    neighbour.terminate()
    neighbour.wait()


class TestAWholeRun:
    def test_ends_well(self, whole):
        assert (whole.done.status, whole.done.err) == (0, "")

    def test_gives_the_job_what_dry_run_prints_and_the_users_words_last(self, whole):
        printed = whole.world.run("run_qwen3_8B.sh", *FLAGS[:-1], "end", DRY_RUN="1").out
        assert whole.world.job()["words"] == [*shlex.split(printed)[2:-1], FLAGS[-1]]
        assert whole.world.job()["words"][-len(FLAGS) :] == FLAGS
        assert whole.world.job()["cwd"] == str(ROOT)

    def test_starts_one_head_here_and_ends_it(self, whole):
        (head,), world = whole.world.calls("ray start"), whole.world
        words = " ".join(head["words"])
        assert f"--head --block --node-ip-address 127.0.0.1 --port {world.port} --num-gpus 8" in words
        assert "--dashboard-host 127.0.0.1" in words
        assert [call["pid"] for call in world.calls("head ended")] == [head["pid"]] and world.nothing_left()

    def test_touches_no_other_ray(self, whole):
        assert whole.neighbour.poll() is None

    def test_the_runtime_environment_is_json_without_a_secret(self, whole):
        (submit,) = whole.world.calls("ray job submit")
        variables = json.loads(submit["words"][submit["words"].index("--runtime-env-json") + 1])["env_vars"]
        env = whole.world.env
        assert variables["PYTHONPATH"] == ":".join([str(ROOT), env["SLIME_DIR"], env["MEGATRON_DIR"], env["PYTHONPATH"]])
        assert variables["EVAL_NAME"] == "hard_by_policy" and variables["NCCL_NVLS_ENABLE"] == "1"
        assert variables["no_proxy"].startswith("localhost,127.0.0.1")
        assert KEY not in json.dumps(variables)

    def test_the_key_reaches_the_job_and_stands_nowhere(self, whole):
        assert whole.world.job()["env"]["WANDB_API_KEY"] == KEY
        words = [call["words"] for call in map(json.loads, (whole.world.state / "calls.jsonl").read_text().splitlines())]
        files = [path.read_text() for path in whole.world.save.rglob("*") if path.is_file()]
        assert KEY not in json.dumps([words, files, whole.done.out, whole.done.err])

    def test_figures_and_evaluation_rows_are_found_from_anywhere(self, whole):
        env, save = whole.world.job()["env"], str(whole.world.save)
        assert env["TENSORBOARD_DIR"] == f"{save}/tensorboard"
        assert env["EVAL_DATA_PATH"] == str(Path(save).with_name("healthbench_hard_sample.jsonl"))

    def test_rays_token_is_the_users_alone(self, whole):
        token = whole.world.save / "ray.token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert whole.world.job()["env"]["RAY_AUTH_TOKEN_PATH"] == str(token)
        assert token.read_text().strip() not in (whole.world.state / "calls.jsonl").read_text()

    def test_its_output_is_shown_and_kept(self, whole):
        assert whole.done.out == (whole.world.save / "train.log").read_text()
        assert "training" in whole.done.out
        assert (whole.world.save / "command.sh").is_file()


def test_the_same_command_goes_on_in_the_same_files(world):
    for note in ("first", "second"):
        assert world.run("run_qwen3_8B.sh", "--note", note).status == 0
    assert (world.save / "train.log").read_text().count("training") == 2
    assert "--note second" in (world.save / "command.sh").read_text()


def test_a_failing_job_fails_the_script(world):
    done = world.run("run_qwen3_8B.sh", JOB_STATUS="3")
    assert done.status == 1 and "training" in done.out and world.nothing_left()


def test_what_preflight_finds_ends_the_script_before_ray(world):
    assert world.run("run_qwen3_8B.sh", PREFLIGHT="2").status == 2
    assert not world.calls("ray start") and not (world.save / "command.sh").exists()


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_job_and_ray(world, number, status):
    process = world.start("run_qwen3_8B.sh", JOB_WAITS="1")
    world.until((world.state / "job.json").exists)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # a terminal tells the whole group
    assert world.end(process).status == status
    assert len(world.calls("ray job stop")) == len(world.calls("head ended")) == 1 and world.nothing_left()


def test_an_impatient_second_signal_leaves_nothing_behind(world):
    process = world.start("run_qwen3_8B.sh", JOB_WAITS="1")
    world.until((world.state / "job.json").exists)
    process.send_signal(signal.SIGINT)
    world.until(lambda: world.calls("ray job stop"))
    process.send_signal(signal.SIGINT)
    assert world.end(process).status == 130 and world.calls("head ended") and world.nothing_left()


def test_a_signal_ends_the_wait_for_ray(world):
    process = world.start("run_qwen3_8B.sh", RAY_WITHOUT_GPUS="1")
    world.until(lambda: list(world.state.glob("gpus.*")))
    process.send_signal(signal.SIGTERM)
    assert world.end(process).status == 143 and not world.calls("ray job submit") and world.nothing_left()


def test_a_job_stopped_by_somebody_else_is_no_success(world):
    process = world.start("run_qwen3_8B.sh", JOB_WAITS="1")
    world.until((world.state / "job.json").exists)
    subprocess.run([Path(world.env["PYTHON"]).with_name("ray"), "job", "stop", "j"], env=world.env, check=True)
    done = world.end(process)
    assert done.status == 1 and done.err == "error: the job did not succeed: Job 'j' was stopped\n"


def test_a_job_outlives_the_connection_to_its_log(world):
    process = world.start("run_qwen3_8B.sh", LOG_BREAKS="1", JOB_WAITS="1")
    world.until(lambda: len(world.calls("ray job status")) > 1)
    assert process.poll() is None and not world.calls("head ended")
    for child in psutil.Process(int((world.state / "job.pid").read_text())).children():
        child.send_signal(signal.SIGUSR1)  # the job fails
    done = world.end(process)
    assert done.status == 1 and done.err.count("the job goes on") == 1 and world.nothing_left()


def test_a_second_run_in_the_same_place_is_refused_and_harms_nothing(world):
    first = world.start("run_qwen3_8B.sh", JOB_WAITS="1")
    world.until((world.state / "job.json").exists)
    command = (world.save / "command.sh").read_text()
    second = world.run("run_qwen3_8B.sh", "--other", PREFLIGHT="2")
    assert second.status == 2 and second.err == f"error: {world.save} is in use by another run; end that one, or set another SAVE_PATH\n"
    assert first.poll() is None and (world.save / "command.sh").read_text() == command
    first.terminate()
    assert world.end(first).status == 143


HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


def assert_joined(world: World) -> None:
    """Three workers were started with the head's address and their own, with the key in their environment, and ended."""
    head, *workers = sorted(world.calls("ray start"), key=lambda call: "--head" not in call["words"])
    assert [call["words"][call["words"].index("--address") + 1] for call in workers] == [f"127.0.0.1:{world.port}"] * 3
    assert sorted(call["words"][call["words"].index("--node-ip-address") + 1] for call in workers) == HOSTS
    assert {call["key"] for call in (head, *workers)} == {KEY} and {call["cwd"] for call in workers} == {str(ROOT)}
    assert len(world.calls("worker ended")) == 3 and len(world.calls("head ended")) == 1 and world.nothing_left()
    (submit,) = world.calls("ray job submit")
    assert all(host in submit["words"][submit["words"].index("--runtime-env-json") + 1] for host in HOSTS)  # no proxy between them


def test_nodes_join_over_ssh(world):
    done = world.run("run_qwen3_32B.sh", NODES=" ".join(["localhost", *HOSTS]))
    assert done.status == 0, done.err
    assert sorted(call["words"] for call in world.calls("ssh")) == [["-o", "BatchMode=yes", host, "bash", "-s"] for host in HOSTS]
    assert_joined(world)
    assert {f"ray.{host}.log" for host in HOSTS} <= {path.name for path in world.save.iterdir()}


def test_nodes_of_a_slurm_job_join_by_srun(world):
    done = world.run("run_qwen3_32B.sh", SLURM_JOB_ID="7", SLURM_JOB_NODELIST=",".join(["localhost", *HOSTS]))
    assert done.status == 0, done.err
    assert sorted(call["words"][:6] for call in world.calls("srun")) == [
        ["--nodes", "1", "--ntasks", "1", "--overlap", "--nodelist"]] * 3  # fmt: skip
    assert_joined(world)


@pytest.mark.parametrize("env, said", [({"SSH_BREAKS": HOSTS[1]}, f"Connection refused; see {{}}/ray.{HOSTS[1]}.log"),
                                       ({"RAY_BREAKS": "head"}, "this Ray cannot start; see {}/ray.log")])  # fmt: skip
def test_a_node_that_does_not_come_up_is_one_line(world, env, said):
    done = world.run("run_qwen3_32B.sh", NODES=" ".join(["localhost", *HOSTS]), **env)
    assert done.status == 2 and done.err.startswith("error: a process of Ray has ended: ") and done.err.count("\n") == 1
    assert said.format(world.save) in done.err
    assert not world.calls("ray job submit") and world.nothing_left()


def test_a_running_cluster_gets_the_job_and_is_left_alone(world):
    process = world.start("run_qwen3_32B.sh", RAY_ADDRESS="http://there:8265", JOB_WAITS="1")
    world.until((world.state / "job.json").exists)
    process.terminate()
    assert world.end(process).status == 143
    for call in ("ray job submit", "ray job stop"):
        (words,) = [call["words"] for call in world.calls(call)]
        assert words[words.index("--address") + 1] == "http://there:8265"
    assert not world.calls("ray start") and world.nothing_left()


def test_the_tiny_run_goes_through_slime_on_one_gpu(world):
    done = world.run("run_qwen3_tiny.sh", "--num-rollout", "2", BACKEND="slime", HF_CKPT_PATH="rubric_rl/tiny/model")
    words = world.job()["words"]
    assert done.status == 0 and words[-2:] == ["--num-rollout", "2"] and "--colocate" in words
    assert words[words.index("--hidden-size") + 1] == "128"  # from the checkpoint's own config.json
    assert " --num-gpus 1 " in " ".join(world.calls("ray start")[0]["words"])


@pytest.mark.slow
def test_preflight_itself_lets_the_tiny_run_pass_and_finds_a_slip(world, tmp_path):
    """The real one, against a slime whose parser knows every flag but one."""
    package = tmp_path / "sl ime" / "slime" / "utils"
    package.mkdir(parents=True)
    (package / "arguments.py").write_text(PARSER)
    (tmp_path / "sl ime" / "setup.py").write_text('setup(version="0.3.1",)')
    (tmp_path / "the lib" / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: True)\n")
    (tmp_path / "mega tron" / "megatron").mkdir()
    write_jsonl(tmp_path / "the rows.jsonl", map(row, range(32)))
    write_jsonl(tmp_path / "held out.jsonl", map(row, range(100, 104)))
    env = {"BACKEND": "slime", "HF_CKPT_PATH": "rubric_rl/tiny/model", "EVAL_DATA_PATH": str(tmp_path / "held out.jsonl"), "PYTHON": sys.executable}
    slip = world.run("run_qwen3_tiny.sh", "--qqqqq", "1", **env)
    assert slip.status == 2 and slip.err == "error: --qqqqq is unknown to this slime, which would ignore it\n"
    assert not world.calls("ray start")
    good = world.run("run_qwen3_tiny.sh", **env)
    assert good.status == 0, good.err
    assert good.out.startswith("preflight: nothing found that would stop the run\n")


def test_a_checkpoint_without_a_shape_is_one_line(world):
    done = world.run("run_qwen3_tiny.sh", BACKEND="slime")
    assert done.status == 2 and "no Qwen3 configuration" in done.err and done.err.count("\n") == 1


def test_without_ray_or_a_place_to_write_there_is_one_line(world, tmp_path):
    done = world.run("run_qwen3_8B.sh", SAVE_PATH="/proc/run")
    assert done.status == 2 and done.err == "error: SAVE_PATH /proc/run cannot be made; set it to a folder of your own\n"
    Path(world.env["PYTHON"]).with_name("ray").unlink()
    done = world.run("run_qwen3_8B.sh")
    assert done.status == 2 and "there is no command ray on PATH" in done.err and done.err.count("\n") == 1


# ---- addresses, the wait for the GPUs


def test_a_single_node_is_the_loopback_and_a_number_stays_one():
    assert addresses.addresses(["localhost"]) == ["127.0.0.1"] and addresses.addresses(["192.0.2.7"]) == ["192.0.2.7"]


def test_the_head_has_the_address_by_which_the_others_are_reached(monkeypatch):
    monkeypatch.setattr(addresses.socket, "gethostbyname", {"here": "127.0.1.1", "there": "127.9.9.9"}.get)
    assert addresses.addresses(["here", "there"]) == ["127.0.0.1", "127.9.9.9"]


def test_an_unknown_host_is_named():
    with pytest.raises(UserError, match="no-such-host.invalid: no such host"):
        addresses.addresses(["localhost", "no-such-host.invalid"])


def test_missing_gpus_are_counted_when_time_is_up(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "WAIT", 0.1)
    monkeypatch.setattr(cluster, "PAUSE", 0.01)
    monkeypatch.setattr(cluster, "gpus", lambda address: 24)
    alive = [[str(os.getpid()), "ray.log"], [str(os.getpid()), "ray.host2.log"]]
    assert cluster.wait("h:1", 32, alive) == "Ray at h:1 has 24 of 32 GPUs after 0.1 s; see ray.log, ray.host2.log"
    assert cluster.wait("h:1", 24, alive) == ""
