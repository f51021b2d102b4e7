"""The addresses of a run's nodes as numbers: Ray finds no job agent on a node called by its name.

For example:
    python -m rubric_rl.launch.node_addresses host1 host2
    python -m rubric_rl.launch.node_addresses --own       # where slime serves on this node
"""

import argparse
import socket
import sys

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError


def node_addresses(hosts: list[str]) -> list[str]:
    """One IPv4 address per host, this node first.

    Raises UserError for a name that nobody knows, a node that no network leads to, and one that is
    named twice: Ray would count its GPUs twice.
    """
    found = [_resolve(host) for host in hosts]
    for place, address in enumerate(found):
        if address in found[:place]:
            what = f"{hosts[place]} is {address}, as a node before it is"
            raise UserError(f"{what}; name each node once in NODES")
    if not found[0].startswith("127."):
        return found
    if len(found) == 1:
        return ["127.0.0.1"]
    # /etc/hosts often calls this node so; the others cannot reach it there.
    try:
        here = _address_towards(found[1])
    except OSError as error:
        hint = "check NODES, or set MASTER_ADDR to this node's address"
        raise UserError(f"{hosts[1]}: no way there ({error.strerror}); {hint}") from None
    return [here, *found[1:]]


def own_address() -> str:
    """This node's outer address: slime's router and engines are there, also on a single node.

    slime finds it in the same way.
    """
    try:
        return _address_towards("8.8.8.8")
    except OSError:  # no way out of here
        pass
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def _address_towards(there: str) -> str:
    """The address by which this node reaches another one; asks the routing table, sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((there, 9))
        return probe.getsockname()[0]


def _resolve(host: str) -> str:
    hint = "name nodes in NODES by host name or address"
    if not host.strip():  # which would be every address of this machine
        raise UserError(f"{host!r} is no host; {hint}")
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        reason = error.strerror
    except UnicodeError as error:  # a part of the name is longer than names may be
        reason = str(error)
    raise UserError(f"{host[:80]}: no such host ({reason}); {hint}")


def main() -> int:
    """Prints the addresses on one line; returns the exit status."""
    parser = CommandParser(
        "python -m rubric_rl.launch.node_addresses", "Addresses of a run's nodes."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--own", action="store_true", help="this node's outer address")
    which.add_argument("hosts", nargs="*", default=[], help="the nodes, this one first")
    return exit_status(lambda: _print_addresses(parser.parse_args()))


def _print_addresses(args: argparse.Namespace) -> int:
    print(*([own_address()] if args.own else node_addresses(args.hosts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
