"""The parent of one server: ends the whole family when told to or when its own parent dies.

`process.ServerProcess` runs it as a script, with the standard library only so that it stays small:
`python -I -S guard.py PARENT_PID GRACE_SECONDS COMMAND...`. As a "child subreaper" it inherits
every descendant whose parent ends, whatever session it moved to, so nothing that the server started
can outlive it.
"""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time

# Numbers of prctl(2), which the standard library does not name.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None, use_errno=True)

WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
ORPHAN_GRACE = 2.0  # seconds: when nobody waits any more, be quick


def prepare_server(guard: int) -> None:
    """In the server, before it execs: die with the guard, and take signals as usual."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before prctl: no signal will come
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


def children_of_all() -> dict[int, list[int]]:
    """The children of every process of the machine, by process id."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                text = stat.read()
        except OSError:  # ended meanwhile
            continue
        _, _, after_name = text.rpartition(")")
        _, parent, *_ = after_name.split()
        siblings = children.setdefault(int(parent), [])
        siblings.append(int(entry))
    return children


def descendants() -> list[int]:
    """Process ids of all descendants of this process.

    Zombies are among them, because their threads may still have children.
    """
    children = children_of_all()
    found = []
    unvisited = [os.getpid()]
    while unvisited:
        parent = unvisited.pop()
        below = children.get(parent, [])
        found.extend(below)
        unvisited.extend(below)
    return found


def reap() -> dict[int, int]:
    """Collects every ended child: exit status by process id.

    Raises:
        ChildProcessError: when there is no child at all.
    """
    ended = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            if ended:
                return ended
            raise
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_rest() -> None:
    """SIGKILL to all descendants until the kernel says that none is left.

    One round is not enough: whoever loses its parent becomes our child.
    """
    while True:
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            reap()
        except ChildProcessError:
            return
        time.sleep(0.02)


def main(parent: int, grace: float, command: list[str]) -> int:
    """Runs `command` until it ends, the parent is gone or a signal says stop.

    Returns its exit status (128 + n for signal n).
    """
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    own = os.getpid()
    prepare = functools.partial(prepare_server, own)
    # Kept to the end: a Popen object that is dropped may collect the server before `reap` does.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare)
    server = process.pid
    deadline = None  # set once the server has been told to end
    status = None
    while status is None and (deadline is None or time.monotonic() < deadline):
        # The parent is polled: PR_SET_PDEATHSIG fires already when the *thread* that started us
        # ends.
        seconds = 0.5 if deadline is None else 0.1
        event = signal.sigtimedwait(WATCHED, seconds)
        told = event is not None and event.si_signo != signal.SIGCHLD
        orphaned = os.getppid() != parent
        status = reap().get(server)
        if status is None and deadline is None and (told or orphaned):
            patience = grace
            if orphaned:
                patience = min(grace, ORPHAN_GRACE)
            deadline = time.monotonic() + patience
            os.kill(server, signal.SIGTERM)
    kill_rest()
    if status is None:
        status = -signal.SIGKILL
    if status < 0:
        return 128 - status
    return status


if __name__ == "__main__":
    _, parent_pid, grace_seconds, *words = sys.argv
    sys.exit(main(int(parent_pid), float(grace_seconds), words))
