"""A private Ray head: on the loopback address, behind a token, ended with this process (stage 5, GRPO update).

Never use `ray stop`: it ends every Ray on the machine.
"""

import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

from rubric_rl.cpu.engine import HOST, free_port, require_memory
from rubric_rl.cpu.process import Child
from rubric_rl.errors import UserError

RAY_GB = (
    1.0  # head, control store, raylet and agents take 0.5 GB, the object store what is put into it
)
OBJECT_STORE_BYTES = 128 * 2**20
NUM_CPUS = 4  # what Ray may hand out: a count for its scheduler, not the machine's cores
TIMEOUT = 120.0  # seconds
STARTED = "Ray runtime started"
# `ray start` turns 127.0.0.1 into the address other machines would use, and listens there; it starts a server
# for remote clients, too, which nobody here is.
HEAD_MAIN = """
from ray._private import services
services.resolve_ip_for_localhost = lambda host: host
from ray.scripts import scripts
scripts.get_ray_client_dependency_error = lambda: "not wanted"
scripts.main()
"""
TEMP = Path(
    "/tmp"
)  # not TMPDIR: a unix socket's path, 65 characters below this, must stay under 108
PREFIX = "rubric-ray-"


class RayHead(Child):
    """The head's process; its logs end up in `log_dir`/ray when it is stopped."""

    temp: Path

    def stop(self) -> None:
        """As Child.stop; then the logs are kept and the temporary directory goes."""
        super().stop()
        if self.temp.exists():
            kept = self.log.parent / "ray"
            for logs in self.temp.glob("session_2*/logs"):
                shutil.copytree(logs, kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
            shutil.rmtree(self.temp, ignore_errors=True)


def start(log_dir: str | Path) -> tuple[RayHead, str]:
    """Start a Ray head and wait until it is up; returns it and the address for `ray.init(address=...)` in this process.

    The token that Ray asks for is put into this process's environment. Raises UserError (memory, time) and ServerDied
    (with the end of its log).
    """
    require_memory(RAY_GB, "Ray")
    _remove_leftovers()
    temp = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=TEMP))
    _trust_loopback(temp / "token")
    port = free_port()
    flags = (
        f"start --head --block --node-ip-address {HOST} --port {port} --num-cpus {NUM_CPUS} --num-gpus 0 "
        f"--object-store-memory {OBJECT_STORE_BYTES} --temp-dir {temp} --include-dashboard false "
        f"--dashboard-agent-listen-port {free_port()} --disable-usage-stats --include-log-monitor false --no-monitor "
        f"--log-style record"
    )
    command = [sys.executable, "-c", HEAD_MAIN, *flags.split()]
    log = Path(log_dir) / "ray.log"
    log.unlink(missing_ok=True)  # it is searched for STARTED, which an earlier run has written too
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_enable_metrics_collection": "0",
        "PYTHONWARNINGS": "ignore",
    }
    head = RayHead.start(command, log, env, name="the Ray head", grace=5.0)
    head.temp = temp
    try:
        _wait_started(head)
    except BaseException:
        head.stop()
        raise
    return head, f"{HOST}:{port}"


def _wait_started(head: RayHead) -> None:
    deadline = time.monotonic() + TIMEOUT
    while STARTED not in head.log.read_text(errors="replace"):
        head.check()
        if time.monotonic() > deadline:
            raise UserError(
                f"the Ray head is not up after {TIMEOUT:.0f} s; the end of {head.log}:\n{head.tail()}"
            )
        time.sleep(0.1)


def _trust_loopback(token: Path) -> None:
    """Make this process able to join: the address as it is, and the token (anyone who joins a Ray may run any code)."""
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    from ray._private import services
    from ray._raylet import Config

    Config.initialize("")  # Ray may have been imported, and have read the environment, before
    services.resolve_ip_for_localhost = lambda host: host


def _remove_leftovers() -> None:
    """Temporary directories of heads whose owner was killed before it could remove them."""
    for path in TEMP.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
