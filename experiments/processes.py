"""Processes beside a run: an endpoint of the tiny world, and a command that runs to its end."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.cpu.engine import HOST, request
from rubric_rl.cpu.process import ServerProcess

PATHS = {"PYTHONPATH": str(ROOT)}


def serve(module: str, port: int, log: Path, name: str) -> ServerProcess:
    """Starts an endpoint of the tiny world (`python -m MODULE --serve PORT`); it answers by now."""
    words = [sys.executable, "-m", module, "--serve", str(port)]
    server = ServerProcess.start(words, log, os.environ | PATHS, name=name)
    try:
        server.wait_until(lambda: _answers(port), seconds=120, pause=0.5)
    except BaseException:
        server.stop()
        raise
    return server


def _answers(port: int) -> bool:
    try:
        request(f"http://{HOST}:{port}/v1/models", timeout=5)
    except UserError:  # nobody there yet
        return False
    return True


def run_to_end(
    words: list[str], log: Path, environment: Mapping[str, str], name: str, grace: float
) -> None:
    """Runs a command to its end; stopped before, it gets `grace` seconds to stop its own processes.

    Raises:
        UserError: where its exit status is not 0; the message has the end of its log.
    """
    process = ServerProcess.start(words, log, dict(environment), name=name, grace=grace)
    with process:
        while process.alive():
            time.sleep(1)
    if process.returncode != 0:
        status = f"{name} ended with status {process.returncode}"
        raise UserError(f"{status}; the end of {log}:\n{process.end_of_log()}")
