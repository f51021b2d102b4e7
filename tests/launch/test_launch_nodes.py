"""The GPU run scripts on several nodes of a fake cluster: ssh, Slurm, a running one, addresses."""

import errno
import os
import socket
import sys
from types import SimpleNamespace

import pytest
from doubles.launch_world import KEY, ROOT, World, after

from rubric_rl.common.errors import UserError
from rubric_rl.launch import node_addresses, wait_for_gpus

pytestmark = pytest.mark.slow

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.clean()


def assert_joined(world: World) -> None:
    """Three workers were started with the head's address, their own and the key, and ended."""
    calls = world.calls("ray start")
    (head,) = [call for call in calls if "--head" in call["words"]]
    workers = [call for call in calls if call is not head]
    heads = [after(call["words"], "--address") for call in workers]
    own = [after(call["words"], "--node-ip-address") for call in workers]
    assert heads == [f"127.0.0.1:{world.port}"] * 3
    assert sorted(own) == HOSTS
    assert {call["key"] for call in calls} == {KEY}
    assert {call["cwd"] for call in workers} == {str(ROOT)}
    assert len(world.calls("worker ended")) == 3
    assert len(world.calls("head ended")) == 1
    assert world.nothing_left()
    runtime_env = after(world.call("ray job submit"), "--runtime-env-json")
    assert all(host in runtime_env for host in HOSTS)  # no proxy between them
    assert "SLIME_HOST_IP" not in runtime_env  # the others could not reach the loopback


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_nodes_join_over_ssh(world, end):
    nodes = end.join(["localhost", *HOSTS, ""])  # as in a file
    done = world.run("run_qwen3_32B.sh", NODES=nodes)
    assert done.status == 0, done.err
    called = sorted(call["words"] for call in world.calls("ssh"))
    assert called == [["-o", "BatchMode=yes", host, "bash", "-s"] for host in HOSTS]
    assert_joined(world)
    for host in HOSTS:
        assert (world.save / f"ray.{host}.log").is_file()


def test_nodes_of_a_slurm_job_join_by_srun(world):
    nodes = ",".join(["localhost", *HOSTS])
    done = world.run("run_qwen3_32B.sh", SLURM_JOB_ID="7", SLURM_JOB_NODELIST=nodes)
    assert done.status == 0, done.err
    called = [call["words"][:6] for call in world.calls("srun")]
    assert called == [["--nodes", "1", "--ntasks", "1", "--overlap", "--nodelist"]] * 3
    assert_joined(world)


@pytest.mark.parametrize(
    "env, said",
    [
        ({"SSH_BREAKS": HOSTS[1]}, f"Connection refused; see {{}}/ray.{HOSTS[1]}.log"),
        ({"RAY_BREAKS": "head"}, "this Ray cannot start; see {}/ray.log"),
    ],
)
def test_a_node_that_does_not_come_up_is_one_line(world, env, said):
    done = world.run("run_qwen3_32B.sh", NODES=" ".join(["localhost", *HOSTS]), **env)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: a process of Ray has ended: ")
    assert said.format(world.save) in done.err
    assert not world.calls("ray job submit")
    assert world.nothing_left()


def test_a_running_cluster_gets_the_job_and_is_left_alone(world):
    process = world.start_job("run_qwen3_32B.sh", RAY_ADDRESS="http://there:8265")
    process.terminate()
    assert world.end(process).status == 143
    for name in ("ray job submit", "ray job stop"):
        assert after(world.call(name), "--address") == "http://there:8265"
    assert not world.calls("ray start")
    assert world.nothing_left()


def test_a_single_node_is_the_loopback_and_a_number_stays_one():
    assert node_addresses.node_addresses(["localhost"]) == ["127.0.0.1"]
    assert node_addresses.node_addresses(["192.0.2.7"]) == ["192.0.2.7"]


def no_way(*args):
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


def test_this_nodes_outer_address_is_found_also_without_a_way_out(monkeypatch, capsys):
    monkeypatch.setattr(node_addresses.sys, "argv", ["addresses", "--own"])
    assert node_addresses.main() == 0
    socket.inet_aton(capsys.readouterr().out.strip())

    monkeypatch.setattr(node_addresses.socket, "socket", no_way)
    monkeypatch.setattr(node_addresses.socket, "gethostbyname", lambda name: "192.0.2.9")
    assert node_addresses.own_address() == "192.0.2.9"
    monkeypatch.setattr(node_addresses.socket, "gethostbyname", no_way)
    assert node_addresses.own_address() == "127.0.0.1"


def test_the_head_has_the_address_by_which_the_others_are_reached(monkeypatch):
    known = {"here": "127.0.1.1", "there": "127.9.9.9"}
    monkeypatch.setattr(node_addresses.socket, "gethostbyname", known.get)
    assert node_addresses.node_addresses(["here", "there"]) == ["127.0.0.1", "127.9.9.9"]


def test_a_node_that_is_named_twice_is_refused(monkeypatch):
    known = {"node1": "192.0.2.1", "node2": "192.0.2.2", "node2.local": "192.0.2.2"}
    monkeypatch.setattr(node_addresses.socket, "gethostbyname", known.get)
    with pytest.raises(UserError, match=r"^node2.local is 192.0.2.2, .*; name each node once"):
        node_addresses.node_addresses(["node1", "node2", "node2.local"])


def test_an_unknown_host_is_named():
    with pytest.raises(UserError, match=r"no-such-host\.invalid: no such host"):
        node_addresses.node_addresses(["localhost", "no-such-host.invalid"])


@pytest.mark.parametrize("host", ["", " ", "a" * 300, "a..b"])
def test_what_can_be_no_host_is_one_line(host, monkeypatch, capsys):
    monkeypatch.setattr(node_addresses.sys, "argv", ["addresses", "127.0.0.1", host])
    assert node_addresses.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "NODES" in said


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--address h:1 --gpus -1", "--gpus: '-1' is no whole number of 0 or more"),
        ("--address h:1 --gpus 0", "--gpus: '0' is no whole number of 1 or more"),
        ("--address h --gpus 1", "--address: 'h' is no HOST:PORT"),
        ("--address h:x --gpus 1", "--address: 'x' is no whole number"),
        ("--address h:99999 --gpus 1", "--address: '99999' is no port"),
    ],
)
def test_a_wait_for_what_cannot_be_is_one_line(flags, said, monkeypatch, capsys):
    monkeypatch.setattr(wait_for_gpus.sys, "argv", ["wait_for_gpus", *flags.split()])
    assert wait_for_gpus.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: argument {said}")


def test_a_node_that_no_network_leads_to_is_named(monkeypatch):
    known = {"here": "127.0.1.1", "there": "192.0.2.9"}
    monkeypatch.setattr(node_addresses.socket, "gethostbyname", known.get)
    monkeypatch.setattr(node_addresses.socket, "socket", no_way)
    with pytest.raises(UserError, match=r"there: no way there \(Network is unreachable"):
        node_addresses.node_addresses(["here", "there"])


ALIVE = [[str(os.getpid()), "ray.log"], [str(os.getpid()), "ray.host2.log"]]


@pytest.fixture
def short_wait(monkeypatch):
    monkeypatch.setattr(wait_for_gpus, "WAIT", 0.1)
    monkeypatch.setattr(wait_for_gpus, "PAUSE", 0.01)


def test_missing_gpus_are_counted_when_time_is_up(short_wait, monkeypatch):
    monkeypatch.setattr(wait_for_gpus, "gpus", lambda address: 24)
    with pytest.raises(UserError) as caught:
        wait_for_gpus.wait("h:1", 32, ALIVE)
    said = "Ray at h:1 has 24 of 32 GPUs after 0.1 s; see ray.log, ray.host2.log"
    assert str(caught.value) == said
    wait_for_gpus.wait("h:1", 24, ALIVE)


def listening_ray(monkeypatch, ray) -> None:
    """Somebody listens everywhere, and this is the module ray (None: there is none)."""
    connection = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(
        wait_for_gpus.socket, "create_connection", lambda where, timeout: connection
    )
    monkeypatch.setitem(sys.modules, "ray", ray)


def test_a_ray_that_is_coming_up_is_asked_again(short_wait, monkeypatch):
    answers = [ConnectionError("not\nyet"), {"CPU": 1}, {"GPU": 8.0}]

    def resources():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=resources)
    listening_ray(monkeypatch, ray)
    wait_for_gpus.wait("h:1", 8, ALIVE)
    assert answers == []
    answers += [ConnectionError("not\nyet")] * 100
    with pytest.raises(UserError, match=r"0 of 8 GPUs after 0\.1 s \(not yet\); see"):
        wait_for_gpus.wait("h:1", 8, ALIVE)


def test_a_python_without_ray_is_not_waited_for(monkeypatch):
    listening_ray(monkeypatch, None)
    with pytest.raises(UserError, match="PYTHON has no Ray"):
        wait_for_gpus.wait("h:1", 8, ALIVE)


def test_a_defect_is_no_reason_to_wait(monkeypatch):
    """It shows its traceback at once; it once was repeated for ten minutes."""
    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: None)
    listening_ray(monkeypatch, ray)
    with pytest.raises(AttributeError):
        wait_for_gpus.wait("h:1", 8, ALIVE)
