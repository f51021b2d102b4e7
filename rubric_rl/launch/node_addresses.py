"""The addresses of a run's nodes as numbers: Ray finds no job agent on a node that is called by its name (all stages).

For example:
    python -m rubric_rl.launch.node_addresses host1 host2
    python -m rubric_rl.launch.node_addresses --own       # where slime serves on this node, as it finds that out
"""

import socket
import sys

from rubric_rl.errors import UserError


def addresses(hosts: list[str]) -> list[str]:
    """One IPv4 address per host, this node first; raises UserError for a name that nobody knows."""
    found = [_number(host) for host in hosts]
    if (
        found[0].startswith("127.") and len(found) > 1
    ):  # /etc/hosts often has it so; others cannot reach that
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((found[1], 9))  # sends nothing: asks the routing table for the way there
            found[0] = probe.getsockname()[0]
    elif found[0].startswith("127."):
        found[0] = "127.0.0.1"
    return found


def own() -> str:
    """This node's outer address: slime's router and engines are there, also on a single node."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("8.8.8.8", 80))  # sends nothing
            return probe.getsockname()[0]
    except OSError:  # no way out of here
        try:
            return socket.gethostbyname(socket.gethostname())
        except OSError:
            return "127.0.0.1"


def _number(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UserError(f"{host}: no such host ({error.strerror}); "
                        "name nodes in NODES by host name or address") from None  # fmt: skip


def main() -> int:
    """Prints them on one line; returns the exit status."""
    try:
        print(*([own()] if sys.argv[1:] == ["--own"] else addresses(sys.argv[1:])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
