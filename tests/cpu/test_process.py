"""A child process ends with its parent, whole family included; errors carry the end of its log (stage 2, rollout)."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from rubric_rl import ROOT
from rubric_rl.cpu import engine
from rubric_rl.cpu.engine import free_port
from rubric_rl.cpu.process import Child, ServerDied
from rubric_rl.errors import UserError

# Writes its pid and that of a grandchild in a session of its own, whose parent is gone and who ignores SIGTERM.
FAMILY = """
import os, pathlib, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(sys.argv[1], "grandchild").write_text(str(os.getpid()))
    time.sleep(600)
os.wait()
pathlib.Path(sys.argv[1], "child").write_text(str(os.getpid()))
time.sleep(600)
"""
SUPERVISOR = """
import sys, threading, time
from rubric_rl.cpu.process import Child
start = lambda: Child.start([sys.executable, "-c", sys.argv[2], sys.argv[1]], sys.argv[1] + "/log")
starter = threading.Thread(target=start)
starter.start(); starter.join()
time.sleep(600)
"""


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *args]


def wait_for(condition, seconds: float = 20.0):
    """Polls until `condition` gives something true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def pid_in(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text()))


def running(pid: int) -> bool:
    """Whether the process runs (a zombie nobody has collected yet does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_stop_ends_the_whole_family(tmp_path):
    with Child.start(python(FAMILY, str(tmp_path)), tmp_path / "log", grace=0.5) as child:
        family = [pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")]
        assert child.alive() and all(map(running, family))
        child.stop()
        assert not child.alive() and not any(map(running, family))
        child.stop()  # a second time does nothing


def test_family_dies_with_a_supervisor_killed_by_sigkill(tmp_path):
    supervisor = subprocess.Popen(python(SUPERVISOR, str(tmp_path), FAMILY), cwd=ROOT)
    family = [pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")]
    guard = psutil.Process(family[0]).ppid()
    # The thread that started it has ended: that alone must not end the child.
    assert all(map(running, [guard, *family]))
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not any(map(running, [guard, *family])))


def test_server_dies_with_its_guard(tmp_path):
    child = Child.start(python(FAMILY, str(tmp_path)), tmp_path / "log")
    server = pid_in(tmp_path / "child")
    grandchild = pid_in(tmp_path / "grandchild")
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not running(server))
    assert not child.alive()
    os.kill(grandchild, signal.SIGKILL)


def test_grandchildren_of_a_server_that_ended_by_itself_die(tmp_path):
    code = FAMILY.replace(
        "write_text(str(os.getpid()))\ntime.sleep(600)\n", 'write_text("1"); sys.exit(3)'
    )
    assert code != FAMILY
    with Child.start(python(code, str(tmp_path)), tmp_path / "log") as child:
        wait_for(lambda: not child.alive())
        assert child.returncode == 3
        grandchild = tmp_path / "grandchild"  # it may have been killed before it could write
        assert (
            not grandchild.exists()
            or not grandchild.read_text()
            or not running(int(grandchild.read_text()))
        )


FOREST = """
import os, pathlib, sys, time
def grow(depth):
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if depth:
                grow(depth - 1)
            pathlib.Path(sys.argv[1], f"pid{os.getpid()}").touch()
            time.sleep(600 if depth % 2 else 0.5)  # every second generation leaves orphans behind
            os._exit(0)
grow(3)
time.sleep(600)
"""


def test_a_forest_of_orphans_ends(tmp_path):
    with Child.start(python(FOREST, str(tmp_path)), tmp_path / "log", grace=0.0) as child:
        wait_for(lambda: len(list(tmp_path.glob("pid*"))) == 30)
        child.stop()
    assert not [path for path in tmp_path.glob("pid*") if running(int(path.name[3:]))]


def test_interrupt_of_the_terminal_does_not_reach_it(tmp_path):
    with Child.start(python(FAMILY, str(tmp_path)), tmp_path / "log", grace=0.5) as child:
        assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_death_is_told_with_status_and_end_of_log(tmp_path):
    code = "import sys\nfor i in range(500): print('line', i)\nsys.exit('no model here')"
    with Child.start(python(code), tmp_path / "deep" / "log", name="the toy server") as child:
        wait_for(lambda: not child.alive())
        with pytest.raises(
            ServerDied, match=r"the toy server ended with status 1; the end of .*log:\n"
        ) as error:
            child.check()
    assert str(error.value).endswith("line 498\nline 499\nno model here")
    assert "line 3\n" not in str(error.value)


def test_wait_healthy_tells_of_death_at_once_and_of_time_running_out(tmp_path):
    url = f"http://{engine.HOST}:{engine.free_port()}"
    with Child.start(python("raise SystemExit('broken')"), tmp_path / "log") as child:
        with pytest.raises(ServerDied, match="broken"):
            engine.wait_healthy(url, child, 60)
    with Child.start(
        python("import time; print('still loading', flush=True); time.sleep(600)"),
        tmp_path / "log2",
        grace=1,
    ) as child:
        wait_for(lambda: "loading" in child.tail())
        with pytest.raises(UserError, match="(?s)not up after 1 s.*still loading"):
            engine.wait_healthy(url, child, 1.0)


def test_signal_status_is_the_shells(tmp_path):
    with Child.start(
        python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), tmp_path / "log"
    ) as child:
        wait_for(lambda: not child.alive())
        assert child.returncode == 128 + signal.SIGSEGV


def test_port_in_use_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with socket.socket() as holder:
        holder.bind((engine.HOST, 0))
        holder.listen()
        port = holder.getsockname()[1]
        for start in (
            lambda: engine.start_engine(tmp_path, port, tmp_path),
            lambda: engine.start_router([], port, tmp_path),
        ):
            with pytest.raises(
                UserError, match=f"port {port} for the (engine|router) cannot be used"
            ) as error:
                start()
            assert "\n" not in str(error.value)
    engine.require_port(port, "engine")


def test_too_little_memory_and_a_missing_model_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no config.json"):
        engine.start_engine(tmp_path / "nowhere", engine.free_port(), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(engine, "available_gb", lambda: 0.7)
    with pytest.raises(
        UserError,
        match=r"too little memory for an SGLang engine: about 2.0 GB needed, 0.7 GB available",
    ):
        engine.start_engine(tmp_path, engine.free_port(), tmp_path)


def test_unreachable_server_is_a_user_error():
    with pytest.raises(UserError, match="cannot be reached"):
        engine.request(f"http://{engine.HOST}:{engine.free_port()}/health")


def test_a_free_port_is_none_that_the_kernel_gives_away():
    """Else an outgoing connection takes it while the engine is still loading, and the run waits for nothing."""
    ports = {free_port() for _ in range(20)}
    assert all(20_000 <= port < 32_000 for port in ports) and len(ports) > 10
