"""Waits until a Ray cluster has all its GPUs (all stages)."""

import argparse
import socket
import sys
import time
from pathlib import Path

WAIT = 600  # seconds; containers on other nodes may start late
PAUSE = 1.0  # seconds between two looks


def ended(processes: list[list[str]]) -> str:
    """The first of the [pid, log] whose process is gone, with the last thing it said; empty while all live."""
    for pid, log in processes:
        if not Path(f"/proc/{pid}").exists():
            said = Path(log).read_text(errors="replace").split("\n") if Path(log).is_file() else []
            last = next(
                (line.strip() for line in reversed(said) if line.strip()), "it said nothing"
            )
            return f"a process of Ray has ended: {last[:300]}; see {log}"
    return ""


def gpus(address: str) -> int:
    """GPUs that the Ray at an address knows; 0 as long as nobody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection(
            (host, int(port)), timeout=5
        ).close()  # ray.init would wait for a minute
    except OSError:
        return 0
    import ray

    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    return int(ray.cluster_resources().get("GPU", 0))


def wait(address: str, wanted: int, processes: list[list[str]]) -> str:
    """Returns when `wanted` GPUs are there; else why they will not come, as one line."""
    end, found, problem = time.monotonic() + WAIT, 0, ""
    while time.monotonic() < end:
        if gone := ended(processes):
            return gone
        try:
            found = gpus(address)
        except Exception as error:  # Ray raises all kinds while its head is coming up
            problem = f" ({' '.join(str(error).split())[:200]})"
        if found >= wanted:
            return ""
        time.sleep(PAUSE)
    logs = ", ".join(log for _, log in processes)
    return f"Ray at {address} has {found} of {wanted} GPUs after {WAIT} s{problem}; see {logs}"


def main() -> int:
    """Returns 0 when the GPUs are there; else one line on stderr and 2."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--address", required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--process", nargs=2, action="append", default=[], metavar=("PID", "LOG"),
                        help="a process that the cluster needs, and where its output goes")  # fmt: skip
    args = parser.parse_args()
    if problem := wait(args.address, args.gpus, args.process):
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
