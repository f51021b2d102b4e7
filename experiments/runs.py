"""Makes one run of an arm: its settings, its command, its processes; goes on with a killed one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.arms import FROZEN_COPY, ORACLE, PROBE, Arm
from experiments.other_starts import STARTS
from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl, write_text
from rubric_rl.cpu.engine import HOST, free_port, request
from rubric_rl.cpu.process import ServerProcess
from rubric_rl.tiny.labelled_rows import of_world

GRADER = ROOT / "configs" / "grader_tiny.yaml"
EVALUATION = "experiments/eval.yaml"
# Six rollouts lie between two evaluations: the last three tell of the last third of a run.
EVAL_INTERVAL = 6
PROBE_SEED = 0  # of the labelled rows, as rubric_rl.tiny.labelled_rows makes them
GRACE = 60.0  # seconds that a trainer is given to stop its own processes
# What a run is given by its caller's environment and not by its arm would not be in its record.
FOREIGN = ("BACKEND", "PROMPT_DATA_PATH", "EVAL_DATA_PATH", "HF_CKPT_PATH", "LOSS_AGGREGATION")


class Run(NamedTuple):
    """One arm with one seed, in a folder of its own."""

    name: str  # of the arm
    arm: Arm
    seed: int
    out: Path  # of all runs
    rollouts: int

    @property
    def folder(self) -> Path:
        """Settings, log, record and the trainer's SAVE_PATH."""
        return self.out / self.name / str(self.seed)

    @property
    def save_path(self) -> Path:
        """The trainer's own folder."""
        return self.folder / "run"

    @property
    def is_done(self) -> bool:
        """Whether it has been made to its end."""
        return self.record.is_file()

    @property
    def record(self) -> Path:
        """What was run, written when it is done."""
        return self.folder / "done.json"

    def label(self) -> str:
        """How lines call it."""
        return f"{self.name}, seed {self.seed}"


def command(run: Run) -> list[str]:
    """The words of the run; its paths are in `environment`."""
    seeds = ["--seed", str(run.seed), "--rollout-seed", str(run.seed)]
    length = ["--num-rollout", str(run.rollouts), "--eval-interval", str(EVAL_INTERVAL)]
    return ["bash", "run_qwen3_tiny.sh", *seeds, *length, *run.arm.flags]


def environment(run: Run) -> dict[str, str]:
    """What the run's command reads beside its words."""
    variables = {
        "SAVE_PATH": str(run.save_path),
        "GRADER_CONFIG": str(run.folder / "grader.yaml"),
        "EVAL_CONFIG": EVALUATION,
    }
    if run.arm.start in STARTS:
        variables["HF_CKPT_PATH"] = str(_start(run))
    return variables


def _start(run: Run) -> Path:
    """The folder of the checkpoint that the run starts from, if it is not the shipped one."""
    return run.out / f"{run.arm.start}_start"


def needs_oracle(arm: Arm) -> bool:
    """Whether the oracle has to be served beside the arm's runs."""
    return ORACLE in arm.grader.values()


def settings(run: Run, oracle_url: str) -> dict[str, Any]:
    """The run's grader settings. Those of another endpoint stand in a file beside them."""
    merged = yaml.safe_load(GRADER.read_text(encoding="utf-8"))
    for key, value in run.arm.grader.items():
        if value == ORACLE:
            value = oracle_url if key == "grader_url" else str(run.folder / "oracle.yaml")
        elif value == FROZEN_COPY:
            value = str(run.folder / "frozen_copy.yaml")
        elif value == PROBE:
            value = str(run.out / "probe.jsonl")
        merged[key] = value
    return merged


def write_settings(run: Run, oracle_url: str) -> None:
    oracle = {
        "grader_api": "openai",
        "grader_url": oracle_url,
        "grader_model": "tiny-oracle",
        "grader_mode": "direct",
    }
    files = {"grader.yaml": settings(run, oracle_url)}
    if needs_oracle(run.arm):
        files["oracle.yaml"] = oracle
    if FROZEN_COPY in run.arm.grader.values():
        files["frozen_copy.yaml"] = {"grader_engine": "grader", "grader_mode": "direct"}
    if PROBE in run.arm.grader.values():
        write_jsonl(run.out / "probe.jsonl", of_world(PROBE_SEED))
    for name, content in files.items():
        text = yaml.safe_dump(content, sort_keys=False)
        write_text(run.folder / name, text)


def make(run: Run, oracle_port: int) -> None:
    """Makes the run, or goes on with one that was killed; writes its record at the end.

    Raises:
        UserError: when the run fails; the message names its log.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    if run.arm.start in STARTS:
        STARTS[run.arm.start](_start(run))
    oracle_url = f"http://{HOST}:{oracle_port}"
    write_settings(run, oracle_url)
    outer = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    own = environment(run)
    oracle = None
    try:
        if needs_oracle(run.arm):
            oracle = _serve_oracle(oracle_port, run.folder)
        trainer = ServerProcess.start(
            command(run), run.folder / "run.log", outer | own, name=run.label(), grace=GRACE
        )
        with trainer:
            while trainer.alive():
                time.sleep(1)
        if trainer.returncode != 0:
            status = f"{run.label()} ended with status {trainer.returncode}"
            raise UserError(f"{status}; the end of {trainer.log}:\n{trainer.end_of_log()}")
    finally:
        if oracle:
            oracle.stop()
    written = {"arm": run.name, "seed": run.seed, "rollouts": run.rollouts, "commit": commit()}
    write_text(run.record, json.dumps(written | asked(run), indent=1) + "\n")


def asked(run: Run) -> dict[str, Any]:
    """What makes the run what it is: in its record, and compared with it later.

    Files are named as in arms.py, wherever they lie.
    """
    common = yaml.safe_load(GRADER.read_text(encoding="utf-8"))
    return {
        "command": command(run),
        "environment": sorted(environment(run)),
        "grader": common | dict(run.arm.grader),
    }


def _serve_oracle(port: int, folder: Path) -> ServerProcess:
    words = [sys.executable, "-m", "rubric_rl.tiny.oracle", "--serve", str(port)]
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    oracle = ServerProcess.start(words, folder / "oracle.log", paths, name="the oracle")
    try:
        oracle.wait_until(lambda: _answers(port), seconds=120, pause=0.5)
    except BaseException:
        oracle.stop()
        raise
    return oracle


def _answers(port: int) -> bool:
    try:
        request(f"http://{HOST}:{port}/v1/models", timeout=5)
    except UserError:  # nobody there yet
        return False
    return True


def port_for_oracle(out: Path) -> int:
    """The oracle's port, the same when runs go on: it stands in their settings."""
    path = out / "oracle_port"
    if not path.is_file():
        write_text(path, f"{free_port()}\n")
    return int(path.read_text())


def commit() -> str:
    """The code's commit; "-changed" after it where files differ from it."""
    words = ["git", "describe", "--always", "--abbrev=12", "--dirty=-changed", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
