"""The GPU run scripts on several nodes of a fake cluster: ssh, Slurm, a running cluster, addresses (all stages)."""

import os
import socket

import pytest
from doubles.launch_world import KEY, ROOT, World

from rubric_rl.errors import UserError
from rubric_rl.launch import node_addresses as addresses
from rubric_rl.launch import wait_for_gpus as cluster

pytestmark = pytest.mark.slow

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.clean()


def assert_joined(world: World) -> None:
    """Three workers were started with the head's address, their own and the key in their environment, and ended."""
    head, *workers = sorted(
        world.calls("ray start"), key=lambda call: "--head" not in call["words"]
    )
    assert [call["words"][call["words"].index("--address") + 1] for call in workers] == [
        f"127.0.0.1:{world.port}"
    ] * 3
    assert (
        sorted(call["words"][call["words"].index("--node-ip-address") + 1] for call in workers)
        == HOSTS
    )
    assert {call["key"] for call in (head, *workers)} == {KEY} and {
        call["cwd"] for call in workers
    } == {str(ROOT)}
    assert (
        len(world.calls("worker ended")) == 3
        and len(world.calls("head ended")) == 1
        and world.nothing_left()
    )
    (submit,) = world.calls("ray job submit")
    runtime_env = submit["words"][submit["words"].index("--runtime-env-json") + 1]
    assert all(host in runtime_env for host in HOSTS)  # no proxy between them


def test_nodes_join_over_ssh(world):
    done = world.run("run_qwen3_32B.sh", NODES=" ".join(["localhost", *HOSTS]))
    assert done.status == 0, done.err
    assert sorted(call["words"] for call in world.calls("ssh")) == [
        ["-o", "BatchMode=yes", host, "bash", "-s"] for host in HOSTS
    ]
    assert_joined(world)
    assert {f"ray.{host}.log" for host in HOSTS} <= {path.name for path in world.save.iterdir()}


def test_nodes_of_a_slurm_job_join_by_srun(world):
    done = world.run(
        "run_qwen3_32B.sh", SLURM_JOB_ID="7", SLURM_JOB_NODELIST=",".join(["localhost", *HOSTS])
    )
    assert done.status == 0, done.err
    assert sorted(call["words"][:6] for call in world.calls("srun")) == [
        ["--nodes", "1", "--ntasks", "1", "--overlap", "--nodelist"]] * 3  # fmt: skip
    assert_joined(world)


@pytest.mark.parametrize("env, said", [({"SSH_BREAKS": HOSTS[1]}, f"Connection refused; see {{}}/ray.{HOSTS[1]}.log"),
                                       ({"RAY_BREAKS": "head"}, "this Ray cannot start; see {}/ray.log")])  # fmt: skip
def test_a_node_that_does_not_come_up_is_one_line(world, env, said):
    done = world.run("run_qwen3_32B.sh", NODES=" ".join(["localhost", *HOSTS]), **env)
    assert (
        done.status == 2
        and done.err.startswith("error: a process of Ray has ended: ")
        and done.err.count("\n") == 1
    )
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


def test_a_single_node_is_the_loopback_and_a_number_stays_one():
    assert addresses.addresses(["localhost"]) == ["127.0.0.1"] and addresses.addresses(
        ["192.0.2.7"]
    ) == ["192.0.2.7"]


def test_this_nodes_outer_address_is_found_also_without_a_way_out(monkeypatch, capsys):
    monkeypatch.setattr(addresses.sys, "argv", ["addresses", "--own"])
    assert addresses.main() == 0
    socket.inet_aton(capsys.readouterr().out.strip())

    def no_way(*args):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(addresses.socket, "socket", no_way)
    monkeypatch.setattr(addresses.socket, "gethostbyname", lambda name: "192.0.2.9")
    assert addresses.own() == "192.0.2.9"
    monkeypatch.setattr(addresses.socket, "gethostbyname", no_way)
    assert addresses.own() == "127.0.0.1"


def test_the_head_has_the_address_by_which_the_others_are_reached(monkeypatch):
    monkeypatch.setattr(
        addresses.socket, "gethostbyname", {"here": "127.0.1.1", "there": "127.9.9.9"}.get
    )
    assert addresses.addresses(["here", "there"]) == ["127.0.0.1", "127.9.9.9"]


def test_an_unknown_host_is_named():
    with pytest.raises(UserError, match="no-such-host.invalid: no such host"):
        addresses.addresses(["localhost", "no-such-host.invalid"])


def test_missing_gpus_are_counted_when_time_is_up(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "WAIT", 0.1)
    monkeypatch.setattr(cluster, "PAUSE", 0.01)
    monkeypatch.setattr(cluster, "gpus", lambda address: 24)
    alive = [[str(os.getpid()), "ray.log"], [str(os.getpid()), "ray.host2.log"]]
    assert (
        cluster.wait("h:1", 32, alive)
        == "Ray at h:1 has 24 of 32 GPUs after 0.1 s; see ray.log, ray.host2.log"
    )
    assert cluster.wait("h:1", 24, alive) == ""
