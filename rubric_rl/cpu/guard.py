"""The parent of one server process: ends the whole family when told to or when its own parent dies (stage 2, rollout).

Run as a script by `process.Child`, standard library only so that it stays small:
`python -I -S guard.py PARENT_PID GRACE_SECONDS COMMAND...`. As a "child subreaper" it inherits every descendant whose
parent ends, whatever session it moved to, so nothing the server started can outlive it.
"""

import ctypes
import functools
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


def prepare_server(guard: int) -> None:
    """In the server, before it execs: die with the guard, and take signals as usual."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it died before prctl: no signal will come
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


def descendants() -> list[int]:
    """Process ids of all descendants of this process, zombies included (their threads may still have children)."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                parent = stat.read().rpartition(")")[2].split()[1]
        except OSError:  # ended meanwhile
            continue
        children.setdefault(int(parent), []).append(int(entry))
    found, todo = [], [os.getpid()]
    while todo:
        todo += (new := children.get(todo.pop(), []))
        found += new
    return found


def reap() -> dict[int, int]:
    """Collect every ended child: exit status by process id. Raises ChildProcessError when there is no child at all."""
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
    """SIGKILL all descendants until the kernel says that none is left: whoever loses its parent becomes our child."""
    while True:
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            reap()
        except ChildProcessError:
            return
        time.sleep(0.02)


def main(parent: int, grace: float, command: list[str]) -> int:
    """Run `command` until it ends, the parent is gone or a signal says stop; its exit status (128 + n for signal n)."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    prepare = functools.partial(prepare_server, os.getpid())
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=prepare).pid
    deadline, status = None, None
    while status is None and (deadline is None or time.monotonic() < deadline):
        # The parent is polled, because PR_SET_PDEATHSIG fires already when the *thread* that started us ends.
        info = signal.sigtimedwait(WATCHED, 0.5 if deadline is None else 0.1)
        told = info is not None and info.si_signo != signal.SIGCHLD
        orphaned = os.getppid() != parent
        status = reap().get(server)
        if status is None and deadline is None and (told or orphaned):
            deadline = time.monotonic() + (min(grace, ORPHAN_GRACE) if orphaned else grace)
            os.kill(server, signal.SIGTERM)
    kill_rest()
    if status is None:
        status = -signal.SIGKILL
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
