"""Waits until a Ray cluster has all its GPUs."""

import argparse
import socket
import sys
import time
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, exit_status, port, positive
from rubric_rl.common.errors import UserError
from rubric_rl.common.plain_text import one_line

WAIT = 600  # seconds; containers on other nodes may start late
PAUSE = 1.0  # seconds between two looks


class NotReady(Exception):
    """Ray's head listens, but Ray cannot be asked yet."""


def ended(processes: list[list[str]]) -> str:
    """One line on the first of the [pid, log] whose process is gone, with the last line of its log.

    "" while all live.
    """
    for pid, log in processes:
        if not Path(f"/proc/{pid}").exists():
            return f"a process of Ray has ended: {_last_line(Path(log))}; see {log}"
    return ""


def _last_line(log: Path) -> str:
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def gpus(address: str) -> int:
    """GPUs that the Ray at an address knows; 0 as long as nobody listens there.

    Raises NotReady while Ray's head is coming up, and UserError where Ray is not installed.
    """
    host, _, number = address.rpartition(":")
    try:
        # Without this look ray.init would wait for a minute, and could not be interrupted.
        socket.create_connection((host, int(number)), timeout=5).close()
    except OSError:
        return 0
    try:
        import ray
    except ImportError as error:
        raise UserError(f"PYTHON has no Ray ({error}); set it to slime's interpreter") from None
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        resources = ray.cluster_resources()
    except Exception as error:  # Ray raises all kinds meanwhile
        raise NotReady(one_line(str(error))) from error
    return int(resources.get("GPU", 0))


def wait(address: str, wanted: int, processes: list[list[str]]) -> None:
    """Returns when `wanted` GPUs are there; raises UserError when they will not come.

    `processes` are [pid, log] of what the cluster needs.
    """
    end = time.monotonic() + WAIT
    found = 0
    problem = ""
    while time.monotonic() < end:
        gone = ended(processes)
        if gone:
            raise UserError(gone)
        try:
            found = gpus(address)
            problem = ""
        except NotReady as error:
            problem = f" ({str(error)[:200]})"
        if found >= wanted:
            return
        time.sleep(PAUSE)
    logs = ", ".join(log for _, log in processes)
    what = f"{found} of {wanted} GPUs after {WAIT} s{problem}"
    raise UserError(f"Ray at {address} has {what}; see {logs}")


def _address(text: str) -> str:
    """HOST:PORT, the type of --address."""
    host, _, number = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")
    port(number)
    return text


def main() -> int:
    """Returns 0 when the GPUs are there; else one line on stderr and 2."""
    parser = CommandParser("python -m rubric_rl.launch.wait_for_gpus", __doc__)
    parser.add_argument("--address", type=_address, required=True, help="HOST:PORT of Ray's head")
    parser.add_argument("--gpus", type=positive, required=True, help="how many to wait for")
    parser.add_argument(
        "--process",
        nargs=2,
        action="append",
        default=[],
        metavar=("PID", "LOG"),
        help="a process that the cluster needs, and where its output goes",
    )
    return exit_status(lambda: _wait(parser.parse_args()))


def _wait(args: argparse.Namespace) -> int:
    wait(args.address, args.gpus, args.process)
    return 0


if __name__ == "__main__":
    sys.exit(main())
