"""A private Ray: on the loopback address, behind a token, ended with this process.

Never use `ray stop`: it ends every Ray on the machine.
"""

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import psutil

from rubric_rl.cpu.engine import HOST, require_memory
from rubric_rl.cpu.process import ServerProcess

# Head, control store, raylet and agents take 0.6 GB, the object store what is put into it.
RAY_GB = 1.0
# Not TMPDIR: a unix socket's path, 69 characters below the private folder, must stay under 108.
TEMPORARY = Path("/tmp")
PREFIX = "rubric-ray-"
ADDRESS_FILE = "address"  # in the private folder, written when all is up


def set_environment() -> None:
    """Sets what Ray reads when it is imported, so call it before that.

    All that this process starts from then on inherits it.
    """
    os.environ |= {
        # Ray's switch for machines that are no part of a cluster. Otherwise it turns 127.0.0.1 into
        # the address that other machines would use, and listens there.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Asked of everyone who joins: whoever joins a Ray may run any code.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_enable_metrics_collection": "0",
    }


def make_private_folder() -> Path:
    """A folder that only this user can enter, for Ray's files and what else processes share.

    Those whose owner was killed before it could remove them are removed first.
    """
    for path in TEMPORARY.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=TEMPORARY))


def start(private: Path, log_dir: Path) -> ServerProcess:
    """Starts Ray's servers, their files in the `private` folder; waits until they are up.

    Raises:
        UserError: when memory is short, or after two minutes.
        ServerDied: with the end of the log.
    """
    require_memory(RAY_GB, "Ray")
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    address_file = private / ADDRESS_FILE
    program = [sys.executable, "-m", "rubric_rl.cpu.ray_head"]
    command = [*program, str(private / "ray"), str(address_file)]
    head = ServerProcess.start(
        command, log_dir / "ray.log", environment, name="the Ray head", grace=5.0
    )
    try:
        head.wait_until(address_file.exists, 120.0, pause=0.1)
    except BaseException:
        head.stop()
        raise
    return head


def connect(private: Path) -> None:
    """Joins the Ray that was started with the `private` folder."""
    import ray

    address = (private / ADDRESS_FILE).read_text()
    # Ray installs a SIGTERM handler that exits: block the signal meanwhile, then restore ours.
    handler = signal.getsignal(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ray.init(
        address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="rubric_rl"
    )
    signal.signal(signal.SIGTERM, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    own_address = ray.util.get_node_ip_address()
    if own_address != HOST:
        raise RuntimeError(f"Ray listens on {own_address}, not on {HOST}: was it imported early?")


def keep_logs(private: Path, log_dir: Path) -> None:
    """Copies Ray's own logs to `log_dir`/ray and removes the private folder."""
    for logs in (private / "ray").glob("session_2*/logs"):
        kept = log_dir / "ray"
        shutil.copytree(logs, kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        for path in [kept, *kept.rglob("*")]:  # Ray lets everybody write them
            path.chmod(path.stat().st_mode & 0o700)
    shutil.rmtree(private, ignore_errors=True)
