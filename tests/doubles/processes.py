"""What tests ask of families of processes: what they listen on, whether they are gone."""

import time
from collections.abc import Callable, Iterable

import psutil


def listeners(processes: Iterable[psutil.Process]) -> set[tuple[str, str, int]]:
    """(process name, address, port) of all sockets that these processes listen on."""
    found = set()
    for process in processes:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = connection.laddr.ip.removeprefix("::ffff:")  # IPv4 on an IPv6 socket
                    found.add((process.name(), address, connection.laddr.port))
        except psutil.NoSuchProcess:
            continue
    return found


def all_gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether none of them runs (a zombie nobody has collected yet does not)."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Polls until `condition` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
