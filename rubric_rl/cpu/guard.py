"""The parent of one server process: ends the whole family when told to or when its own parent dies (stage 2, rollout).

Run as a script by `process.Child`, standard library only so that it stays small:
`python -I -S guard.py PARENT_PID GRACE_SECONDS COMMAND...`. As a "child subreaper" it inherits every descendant whose
parent ends, whatever session it moved to, so nothing the server started can outlive it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
ORPHAN_GRACE = 2.0  # seconds: when nobody waits any more, be quick
LIBC = ctypes.CDLL(None, use_errno=True)


def prepare_server() -> None:
    """In the server, before it execs: die with the guard, and take signals as usual."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


def descendants() -> list[int]:
    """Process ids of all living descendants of this process (zombies are left to `reap`)."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
        except OSError:  # ended meanwhile
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry))
    found, todo = [], [os.getpid()]
    while todo:
        todo += (new := children.get(todo.pop(), []))
        found += new
    return found


def reap(server: int) -> int | None:
    """Collect every ended child; the server's exit status if it is among them."""
    status = None
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == server:
            status = os.waitstatus_to_exitcode(wait_status)


def kill_rest(server: int) -> None:
    """SIGKILL all descendants until none is left (a dying one may just have started another)."""
    while pids := descendants():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        reap(server)


def main(parent: int, grace: float, command: list[str]) -> int:
    """Run `command` until it ends, the parent is gone or a signal says stop; its exit status (128 + n for signal n)."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare_server).pid
    deadline, status = None, None
    while status is None and (deadline is None or time.monotonic() < deadline):
        # The parent is asked for twice a second instead of by PR_SET_PDEATHSIG, which fires already
        # when the *thread* that started us ends.
        info = signal.sigtimedwait(WATCHED, 0.5 if deadline is None else 0.1)
        told = info is not None and info.si_signo != signal.SIGCHLD
        orphaned = os.getppid() != parent
        status = reap(server)
        if status is None and deadline is None and (told or orphaned):
            deadline = time.monotonic() + (min(grace, ORPHAN_GRACE) if orphaned else grace)
            os.kill(server, signal.SIGTERM)
    kill_rest(server)
    if status is None:
        status = -signal.SIGKILL
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
