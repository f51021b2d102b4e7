"""A server process ends with its parent, whole family included; errors carry the end of its log."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.cpu import engine
from rubric_rl.cpu.engine import free_port
from rubric_rl.cpu.process import ServerDied, ServerProcess

# Writes its pid and that of a grandchild in a session of its own, whose parent is gone and who
# ignores SIGTERM.
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
pathlib.Path(sys.argv[1], "server").write_text(str(os.getpid()))
time.sleep(600)
"""
SUPERVISOR = """
import pathlib, sys, threading, time
from rubric_rl.cpu.process import ServerProcess
def start():
    command = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
    ServerProcess.start(command, pathlib.Path(sys.argv[1], "log"))
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
    with ServerProcess.start(python(FAMILY, str(tmp_path)), tmp_path / "log", grace=0.5) as server:
        family = [pid_in(tmp_path / "server"), pid_in(tmp_path / "grandchild")]
        assert server.alive() and all(map(running, family))
        server.stop()
        assert not server.alive() and not any(map(running, family))
        server.stop()  # a second time does nothing


def test_family_dies_with_a_supervisor_killed_by_sigkill(tmp_path):
    supervisor = subprocess.Popen(python(SUPERVISOR, str(tmp_path), FAMILY), cwd=ROOT)
    family = [pid_in(tmp_path / "server"), pid_in(tmp_path / "grandchild")]
    guard = psutil.Process(family[0]).ppid()
    # The thread that started it has ended: that alone must not end the server.
    assert all(map(running, [guard, *family]))
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not any(map(running, [guard, *family])))


def test_a_server_dies_with_its_guard(tmp_path):
    server = ServerProcess.start(python(FAMILY, str(tmp_path)), tmp_path / "log")
    pid = pid_in(tmp_path / "server")
    grandchild = pid_in(tmp_path / "grandchild")
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not running(pid))
    assert not server.alive()
    os.kill(grandchild, signal.SIGKILL)


def test_grandchildren_of_a_server_that_ended_by_itself_die(tmp_path):
    stays = "write_text(str(os.getpid()))\ntime.sleep(600)\n"
    assert FAMILY.endswith(stays)
    code = FAMILY.removesuffix(stays) + 'write_text("1"); sys.exit(3)'
    with ServerProcess.start(python(code, str(tmp_path)), tmp_path / "log") as server:
        wait_for(lambda: not server.alive())
        assert server.returncode == 3
        grandchild = tmp_path / "grandchild"  # it may have been killed before it could write
        written = grandchild.read_text() if grandchild.exists() else ""
        assert not written or not running(int(written))


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
    with ServerProcess.start(python(FOREST, str(tmp_path)), tmp_path / "log", grace=0.0) as server:
        wait_for(lambda: len(list(tmp_path.glob("pid*"))) == 30)
        server.stop()
    assert not [path for path in tmp_path.glob("pid*") if running(int(path.name[3:]))]


def test_interrupt_of_the_terminal_does_not_reach_it(tmp_path):
    with ServerProcess.start(python(FAMILY, str(tmp_path)), tmp_path / "log", grace=0.5) as server:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_death_is_told_with_status_and_end_of_log(tmp_path):
    code = "import sys\nfor i in range(500): print('line', i)\nsys.exit('no model here')"
    log = tmp_path / "deep" / "log"
    with ServerProcess.start(python(code), log, name="the toy server") as server:
        wait_for(lambda: not server.alive())
        said = r"the toy server ended with status 1; the end of .*log:\n"
        with pytest.raises(ServerDied, match=said) as error:
            server.check()
    assert str(error.value).endswith("line 498\nline 499\nno model here")
    assert "line 3\n" not in str(error.value)


def test_wait_healthy_tells_of_death_at_once_and_of_time_running_out(tmp_path):
    url = f"http://{engine.HOST}:{engine.free_port()}"
    broken = python("raise SystemExit('broken')")
    with (
        ServerProcess.start(broken, tmp_path / "log") as server,
        pytest.raises(ServerDied, match="broken"),
    ):
        engine.wait_healthy(url, server, 60)
    slow = python("import time; print('still loading', flush=True); time.sleep(600)")
    with ServerProcess.start(slow, tmp_path / "log2", grace=1) as server:
        wait_for(lambda: "loading" in server.end_of_log())
        with pytest.raises(UserError, match=r"(?s)not up after 1 s.*still loading"):
            engine.wait_healthy(url, server, 1.0)


def test_signal_status_is_the_shells(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with ServerProcess.start(python(code), tmp_path / "log") as server:
        wait_for(lambda: not server.alive())
        assert server.returncode == 128 + signal.SIGSEGV


def test_port_in_use_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with socket.socket() as holder:
        holder.bind((engine.HOST, 0))
        holder.listen()
        port = holder.getsockname()[1]
        said = f"port {port} for the (engine|router) cannot be used"
        with pytest.raises(UserError, match=said) as of_engine:
            engine.start_engine(tmp_path, port, tmp_path)
        with pytest.raises(UserError, match=said) as of_router:
            engine.start_router([], port, tmp_path)
    assert "\n" not in str(of_engine.value) + str(of_router.value)
    engine.require_port(port, "engine")


def test_too_little_memory_and_a_missing_model_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no config\.json"):
        engine.start_engine(tmp_path / "nowhere", engine.free_port(), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(engine, "available_gb", lambda: 0.7)
    numbers = r"about 2\.0 GB needed, 0\.7 GB available"
    with pytest.raises(UserError, match=f"too little memory for an SGLang engine: {numbers}"):
        engine.start_engine(tmp_path, engine.free_port(), tmp_path)


def test_a_server_that_cannot_be_reached_is_named_with_the_reason():
    url = f"http://{engine.HOST}:{engine.free_port()}/health"
    with pytest.raises(UserError, match=r"cannot be reached: .*Connection refused"):
        engine.request(url)


class Answer(http.server.BaseHTTPRequestHandler):
    """/json, /text, /slow, and a status that says no for all else."""

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(2)
        answers = {"/json": b'{"a": 1}', "/text": b"ok"}
        body = answers.get(self.path, b"no such thing")
        self.send_response(200 if self.path in answers else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        """Says nothing."""


@pytest.fixture
def answering():
    """The URL of an HTTP server in this process."""
    with http.server.ThreadingHTTPServer((engine.HOST, 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{engine.HOST}:{server.server_port}"
        server.shutdown()


def test_an_answer_is_decoded_without_a_proxy(answering, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert engine.request(answering + "/json") == {"a": 1}
    assert engine.request(answering + "/text") == "ok"
    with pytest.raises(UserError, match=r"cannot be reached: .*timed out"):
        engine.request(answering + "/slow", timeout=0.1)


def test_a_refused_request_of_ours_is_a_defect_and_not_the_users_mistake(answering):
    with pytest.raises(engine.RequestRefused, match="answered 400: no such thing") as raised:
        engine.request(answering + "/nothing")
    assert not isinstance(raised.value, UserError)


def test_a_free_port_is_none_that_the_kernel_gives_away():
    """Else an outgoing connection takes it while the engine loads, and the run waits in vain."""
    ports = {free_port() for _ in range(20)}
    assert all(20_000 <= port < 32_000 for port in ports) and len(ports) > 10
