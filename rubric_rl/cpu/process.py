"""Server processes (engines, router, Ray) that never outlive the process that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rubric_rl.common.errors import UserError

GUARD = Path(__file__).with_name("guard.py")
KILL_SECONDS = 60.0  # that the guard is given for SIGKILL after the grace period


class ServerDied(UserError):
    """A server process ended by itself; the message carries the end of its log."""


class ServerProcess:
    """A command running under `guard.py`, its output in `log`.

    As a context manager it stops the server at the end.
    """

    def __init__(self, process: subprocess.Popen, log: Path, name: str, grace: float):
        self._process = process
        self._grace = grace
        self.log = log
        self.name = name

    @classmethod
    def start(
        cls,
        command: list[str],
        log: Path,
        environment: dict[str, str] | None = None,
        *,
        name: str = "",
        grace: float = 10.0,
    ) -> Self:
        """Starts `command` in a session of its own.

        So Ctrl-C reaches only this process, which then stops the server.

        Args:
            command: program and arguments.
            log: a file to append to; its folder is made.
            environment: the whole environment; None for this process's.
            name: what messages call the server.
            grace: seconds between SIGTERM and SIGKILL.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        # -I -S: the guard needs the standard library alone, and stays small without the rest.
        guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(grace)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                guard + command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log, name or Path(command[0]).name, grace)

    @property
    def pid(self) -> int:
        """Process id of the guard; the server and all it started are below it."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status of the server (128 + n for signal n), None while it runs."""
        return self._process.poll()

    def alive(self) -> bool:
        """Whether the server still runs."""
        return self.returncode is None

    def end_of_log(self, lines: int = 15) -> str:
        """The last lines of the log."""
        with self.log.open("rb") as file:
            size = self.log.stat().st_size
            file.seek(max(0, size - 400 * lines))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def check(self) -> None:
        """Raises ServerDied when the server has ended."""
        if not self.alive():
            what = f"{self.name} ended with status {self.returncode}"
            raise ServerDied(f"{what}; the end of {self.log}:\n{self.end_of_log()}")

    def wait_until(self, ready: Callable[[], bool], seconds: float, pause: float) -> float:
        """Asks `ready` every `pause` seconds until it says yes; returns the seconds waited.

        Raises:
            ServerDied: when the server ends first.
            UserError: after `seconds`.
        """
        start = time.monotonic()
        while (waited := time.monotonic() - start) < seconds:
            self.check()
            if ready():
                return waited
            time.sleep(pause)
        what = f"{self.name} is not up after {seconds:.0f} s"
        raise UserError(f"{what}; the end of {self.log}:\n{self.end_of_log()}")

    def stop(self) -> None:
        """SIGTERM to the server, SIGKILL to its family after the grace period.

        Calling it again does nothing.
        """
        if not self.alive():
            return
        self._process.send_signal(signal.SIGTERM)
        # When not even SIGKILL has ended it, the guard keeps trying, also after this process.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace + KILL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
