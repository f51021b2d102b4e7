"""Child processes (engines, router, Ray) that never outlive the process that started them (stage 2, rollout)."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from rubric_rl.errors import UserError

GUARD = Path(__file__).with_name("guard.py")


class ServerDied(UserError):
    """A server process ended by itself; the message carries the end of its log."""


class Child:
    """A command running under `guard.py`, output in `log`; `with Child.start(...) as child:` stops it at the end."""

    def __init__(self, process: subprocess.Popen, log: Path, name: str, grace: float):
        self._process, self.log, self.name, self._grace = process, log, name, grace

    @classmethod
    def start(
        cls,
        cmd: list[str],
        log: Path,
        env: dict | None = None,
        *,
        name: str = "",
        grace: float = 10.0,
    ) -> Self:
        """Start `cmd` in a session of its own: Ctrl-C reaches only this process, which then stops the child.

        log: a file to append to; its folder is made. env: the whole environment, None for this process's.
        grace: seconds between SIGTERM and SIGKILL.
        """
        log = Path(log)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-I",
            "-S",
            str(GUARD),
            str(os.getpid()),
            str(grace),
            *map(str, cmd),
        ]
        with open(log, "ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, env=env, start_new_session=True, **streams)
        return cls(process, log, name or Path(str(cmd[0])).name, grace)

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

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log."""
        with open(self.log, "rb") as file:
            file.seek(max(0, self.log.stat().st_size - 400 * lines))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raises ServerDied when the server has ended."""
        if not self.alive():
            raise ServerDied(
                f"{self.name} ended with status {self.returncode}; the end of {self.log}:\n{self.tail()}"
            )

    def stop(self) -> None:
        """SIGTERM to the server, SIGKILL to its family after the grace period; calling it again does nothing."""
        if not self.alive():
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self._grace + 60)
        except subprocess.TimeoutExpired:
            pass  # not even SIGKILL has ended it yet; the guard keeps trying, also when this process is gone

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
