"""What tests ask of families of processes: what they listen on, whether they are gone."""

import contextlib
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


def names_of(processes: Iterable[psutil.Process]) -> set[str]:
    """The names of those that still exist."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return found


def runs(process: psutil.Process) -> bool:
    """Whether the process runs (a zombie that nobody has collected yet does not)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether none of them runs."""
    return not any(runs(process) for process in processes)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Polls until `condition` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
