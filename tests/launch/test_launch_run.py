"""The GPU run scripts executed on a fake cluster: what is started, told, and left behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from doubles.launch_world import KEY, NO_TORCH, ROOT, World, after, row

from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.launch.node_addresses import own_address

pytestmark = pytest.mark.slow

# Words that a shell between here and the job would change.
FLAGS = ["--note", "two  words", "--json", '{"a": "it\'s \\"$HOME\\" `x`"}']
FLAGS += ["--empty", "", "--glob", "*", "--last", "line\nbreak"]
PARSER = """
import argparse, sys
def parse_args():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in {word for word in sys.argv if word.startswith("--") and word != "--qqqqq"}:
        parser.add_argument(flag, nargs="*")
    parser.parse_known_args()
"""


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.clean()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from start to end, with somebody else's Ray on the same machine.

    Its .world, how it was .done, and that .neighbour.
    """
    world = World(tmp_path_factory.mktemp("launch run"))
    other = World(tmp_path_factory.mktemp("neighbour"))
    command = f"ray start --head --block --node-ip-address 127.0.0.1 --port {other.port}"
    neighbour = subprocess.Popen(
        [*command.split(), "--num-gpus", "8"], env=other.env, executable=other.program("ray")
    )
    other.until(lambda: list(other.state.glob("gpus.*")))
    done = world.run("run_qwen3_8B.sh", *FLAGS)
    yield SimpleNamespace(world=world, done=done, neighbour=neighbour)
    neighbour.terminate()
    neighbour.wait()


class TestAWholeRun:
    def test_ends_well(self, whole):
        assert (whole.done.status, whole.done.err) == (0, "")

    def test_gives_the_job_what_dry_run_prints_and_the_users_words_last(self, whole):
        # Without the last word, whose line break no line of DRY_RUN could show.
        dry = whole.world.run("run_qwen3_8B.sh", *FLAGS[:-1], DRY_RUN="1")
        printed = shlex.split(dry.out)[2:]
        job = whole.world.job()
        assert job["words"] == [*printed, FLAGS[-1]]
        assert job["words"][-len(FLAGS) :] == FLAGS
        assert job["cwd"] == str(ROOT)

    def test_starts_one_head_here_and_ends_it(self, whole):
        world = whole.world
        (head,) = world.calls("ray start")
        words = " ".join(head["words"])
        assert f"--head --block --node-ip-address 127.0.0.1 --port {world.port} " in words
        assert "--num-gpus 8" in words and "--dashboard-host 127.0.0.1" in words
        assert [call["pid"] for call in world.calls("head ended")] == [head["pid"]]
        assert world.nothing_left()

    def test_touches_no_other_ray(self, whole):
        assert whole.neighbour.poll() is None

    def test_the_runtime_environment_is_json_without_a_secret(self, whole):
        runtime_env = after(whole.world.call("ray job submit"), "--runtime-env-json")
        variables = json.loads(runtime_env)["env_vars"]
        env = whole.world.env
        path = [str(ROOT), env["SLIME_DIR"], env["MEGATRON_DIR"], env["PYTHONPATH"]]
        assert variables["PYTHONPATH"] == ":".join(path)
        assert variables["EVAL_NAME"] == "hard_by_policy" and variables["NCCL_NVLS_ENABLE"] == "1"
        # slime asks its own router and engines by HTTP, past any proxy
        direct = variables["no_proxy"].split(",")
        assert {"localhost", "127.0.0.1", own_address()} <= set(direct)
        assert variables["NO_PROXY"] == variables["no_proxy"]
        assert KEY not in json.dumps(variables)

    def test_the_key_reaches_the_job_and_stands_nowhere(self, whole):
        assert whole.world.job()["env"]["WANDB_API_KEY"] == KEY
        calls = (whole.world.state / "calls.jsonl").read_text().splitlines()
        words = [json.loads(call)["words"] for call in calls]
        files = [path.read_text() for path in whole.world.save.rglob("*") if path.is_file()]
        assert KEY not in json.dumps([words, files, whole.done.out, whole.done.err])

    def test_figures_and_evaluation_rows_are_found_from_anywhere(self, whole):
        env = whole.world.job()["env"]
        save = whole.world.save
        rows = save.with_name("healthbench_hard_sample.jsonl")
        assert env["TENSORBOARD_DIR"] == f"{save}/tensorboard"
        assert env["EVAL_DATA_PATH"] == str(rows)

    def test_rays_token_is_the_users_alone(self, whole):
        token = whole.world.save / "ray.token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert whole.world.job()["env"]["RAY_AUTH_TOKEN_PATH"] == str(token)
        assert token.read_text().strip() not in (whole.world.state / "calls.jsonl").read_text()

    def test_what_it_writes_is_the_users_alone(self, whole):
        folder = whole.world.save
        assert folder.stat().st_mode & 0o077 == 0
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path

    def test_rays_files_lie_in_a_folder_of_its_own_and_are_gone(self, whole):
        folder = Path(after(whole.world.call("ray start"), "--temp-dir"))
        assert folder.parent.name.startswith("slime-ray-")
        assert not folder.parent.exists()

    def test_on_one_node_slime_stays_on_the_loopback_too(self, whole):
        env = whole.world.job()["env"]
        assert env["SLIME_HOST_IP"] == "127.0.0.1"
        assert env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"

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
    assert done.status == 1
    assert "training" in done.out
    assert world.nothing_left()


def test_a_job_is_submitted_again_when_rays_agent_is_late(world):
    done = world.run("run_qwen3_8B.sh", AGENT_IS_LATE="1")
    assert done.status == 0, done.err
    assert "note: Ray has no job agent yet" in done.err
    first, second = world.calls("ray job submit")
    assert first["words"] == second["words"]
    assert "training" in done.out


# 2: something that the user can fix, 1: a defect of the check
@pytest.mark.parametrize("status", [2, 1])
def test_what_the_check_finds_ends_the_script_before_ray(world, status):
    assert world.run("run_qwen3_8B.sh", CHECK_RUN=str(status)).status == status
    assert not world.calls("ray start")
    assert not (world.save / "command.sh").exists()


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_the_job_and_ray(world, number, status):
    process = world.start_job("run_qwen3_8B.sh")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal tells the whole group
    else:
        process.send_signal(number)
    assert world.end(process).status == status
    assert len(world.calls("ray job stop")) == 1
    assert len(world.calls("head ended")) == 1
    assert world.nothing_left()


def test_an_impatient_second_signal_leaves_nothing_behind(world):
    process = world.start_job("run_qwen3_8B.sh")
    process.send_signal(signal.SIGINT)
    world.until(lambda: world.calls("ray job stop"))
    process.send_signal(signal.SIGINT)
    assert world.end(process).status == 130
    assert world.calls("head ended")
    assert world.nothing_left()


def test_a_ray_that_does_not_end_when_told_to_is_killed(world):
    process = world.start_job("run_qwen3_8B.sh", RAY_IS_DEAF="1", RAY_GRACE="1")
    process.send_signal(signal.SIGTERM)
    assert world.end(process).status == 143
    assert not world.calls("head ended")
    assert world.nothing_left()


def test_a_signal_ends_the_wait_for_ray(world):
    process = world.start("run_qwen3_8B.sh", RAY_WITHOUT_GPUS="1")
    world.until(lambda: list(world.state.glob("gpus.*")))
    process.send_signal(signal.SIGTERM)
    assert world.end(process).status == 143
    assert not world.calls("ray job submit")
    assert world.nothing_left()


def test_a_job_stopped_by_somebody_else_is_no_success(world):
    process = world.start_job("run_qwen3_8B.sh")
    subprocess.run([world.program("ray"), "job", "stop", "j"], env=world.env, check=True)
    done = world.end(process)
    assert done.status == 1
    assert done.err == "error: the job did not succeed: Job 'j' was stopped\n"


def test_a_job_that_the_alarm_has_ended_has_a_status_of_its_own(world):
    why = world.save / "stopped_by_alarm.txt"
    why.parent.mkdir(parents=True, exist_ok=True)
    why.write_text("of an earlier start\n")
    process = world.start_job("run_qwen3_8B.sh")
    assert not why.exists()
    why.write_text("alarm after rollout 20\n")
    subprocess.run([world.program("ray"), "job", "stop", "j"], env=world.env, check=True)
    done = world.end(process)
    assert done.status == 3
    assert done.err.endswith("alarm after rollout 20\n")


def test_a_job_outlives_the_connection_to_its_log(world):
    process = world.start("run_qwen3_8B.sh", LOG_BREAKS="1", JOB_WAITS="1")
    world.until(lambda: len(world.calls("ray job status")) > 1)
    assert process.poll() is None
    assert not world.calls("head ended")
    job = int((world.state / "job.pid").read_text())
    for child in psutil.Process(job).children():
        child.send_signal(signal.SIGUSR1)  # the job fails
    done = world.end(process)
    assert done.status == 1
    assert done.err.count("the job goes on") == 1
    assert world.nothing_left()


def test_a_second_run_in_the_same_place_is_refused_and_harms_nothing(world):
    first = world.start_job("run_qwen3_8B.sh")
    command = (world.save / "command.sh").read_text()
    second = world.run("run_qwen3_8B.sh", "--other", CHECK_RUN="2")
    assert second.status == 2
    who = f"(process {first.pid} (bash run_qwen3_8B.sh ))"
    hint = "end that one, or set another SAVE_PATH"
    assert second.err == f"error: {world.save} is in use by another run {who}; {hint}\n"
    assert first.poll() is None
    assert (world.save / "command.sh").read_text() == command
    first.terminate()
    assert world.end(first).status == 143


def test_what_a_killed_launcher_left_at_work_is_named(world):
    """Its Ray and its job go on and write here, so they keep the lock."""
    first = world.start_job("run_qwen3_8B.sh")
    first.kill()
    first.wait()
    second = world.run("run_qwen3_8B.sh")
    (head,) = world.calls("ray start")
    assert second.status == 2
    assert "is in use by another run (process " in second.err
    assert f"{head['pid']} (" in second.err
    assert second.err.count("\n") == 1
    Path(after(head["words"], "--temp-dir")).parent.rmdir()  # which a launcher does at its end


def test_a_lock_that_nobody_holds_is_none(world):
    world.save.mkdir()
    (world.save / "lock").touch()
    assert world.run("run_qwen3_8B.sh").status == 0


def test_a_full_disk_is_one_line_before_ray(world):
    world.save.mkdir()
    (world.save / "command.sh").symlink_to("/dev/full")
    done = world.run("run_qwen3_8B.sh")
    assert done.status == 2
    assert done.err == f"error: {world.save}/command.sh cannot be written; is the disk full?\n"
    assert not world.calls("ray start")


@pytest.mark.parametrize("version, lines", [("0.3.1", 0), ("0.4.0", 1)])
def test_engines_that_outlive_a_failed_job_are_named_with_how_to_end_them(world, version, lines):
    (Path(world.env["SLIME_DIR"]) / "setup.py").write_text(f'setup(version="{version}",)')
    there = {"RAY_ADDRESS": "http://there:8265"}
    assert world.run("run_qwen3_8B.sh", **there).err == ""
    done = world.run("run_qwen3_8B.sh", JOB_STATUS="3", **there)
    assert done.status == 1
    assert done.err.count("ServingCluster") == done.err.count("\n") == lines
    if lines:
        command = shlex.split(done.err.partition("this one ends them: ")[2])
        assert after(command, "--address") == "http://there:8265"
        assert json.loads(after(command, "--runtime-env-json"))["env_vars"]["PYTHONPATH"]
        assert command[-4:] == ["-m", "rubric_rl.launch.end_engines", "--save", str(world.save)]
    own = world.run("run_qwen3_8B.sh", JOB_STATUS="3")  # they end with their Ray
    assert own.err == ""


def test_the_tiny_run_goes_through_slime_on_one_gpu(world):
    env = {"BACKEND": "slime", "HF_CKPT_PATH": "rubric_rl/tiny/model"}
    done = world.run("run_qwen3_tiny.sh", "--num-rollout", "2", **env)
    assert done.status == 0
    words = world.job()["words"]
    assert words[-2:] == ["--num-rollout", "2"]
    assert "--colocate" in words
    assert after(words, "--hidden-size") == "128"  # from the checkpoint's own config.json
    assert after(world.call("ray start"), "--num-gpus") == "1"


def test_the_check_itself_lets_the_tiny_run_pass_and_finds_a_slip(world, tmp_path):
    """The real one, against a slime whose parser knows every flag but one."""
    slime = tmp_path / "sl ime"
    package = slime / "slime" / "utils"
    package.mkdir(parents=True)
    (package / "arguments.py").write_text(PARSER)
    (slime / "setup.py").write_text('setup(version="0.3.1",)')
    (tmp_path / "the lib" / "torch.py").write_text(NO_TORCH)
    (tmp_path / "mega tron" / "megatron").mkdir()
    write_jsonl(tmp_path / "the rows.jsonl", map(row, range(32)))
    write_jsonl(tmp_path / "held out.jsonl", map(row, range(100, 104)))
    env = {
        "BACKEND": "slime",
        "HF_CKPT_PATH": "rubric_rl/tiny/model",
        "EVAL_DATA_PATH": str(tmp_path / "held out.jsonl"),
        "PYTHON": sys.executable,
    }
    slip = world.run("run_qwen3_tiny.sh", "--qqqqq", "1", **env)
    said = "--qqqqq is an unknown flag, which slime would ignore; leave it out"
    assert slip.status == 2
    assert slip.err == f"error: {said}\n"
    assert not world.calls("ray start")
    good = world.run("run_qwen3_tiny.sh", **env)
    assert good.status == 0, good.err
    assert good.out.startswith("preflight: nothing found that would stop the run\n")


def test_a_checkpoint_without_a_shape_is_one_line(world):
    done = world.run("run_qwen3_tiny.sh", BACKEND="slime")
    assert done.status == 2
    assert "no Qwen3 configuration" in done.err
    assert done.err.count("\n") == 1


# In /proc nobody can make a file, not even root.
@pytest.mark.parametrize(
    "save, what", [("/proc/run", "cannot be made"), ("/proc", "cannot be written")]
)
def test_without_a_place_to_write_there_is_one_line(world, save, what):
    done = world.run("run_qwen3_8B.sh", SAVE_PATH=save)
    assert done.status == 2
    assert done.err == f"error: SAVE_PATH {save} {what}; set it to a folder of your own\n"
    assert not world.calls("ray start")


def test_without_ray_there_is_one_line(world):
    world.program("ray").unlink()
    done = world.run("run_qwen3_8B.sh")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "there is no command ray on PATH" in done.err
