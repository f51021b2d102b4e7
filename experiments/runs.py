"""Makes one run of an arm: its settings, its command, its processes; goes on with a killed one."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.arms import FROZEN_COPY, ORACLE, PROBE, Arm
from experiments.generated_rubrics import RUBRICS, make_rows, rows_path
from experiments.other_starts import STARTS, start_path
from experiments.processes import run_to_end, serve
from rubric_rl import ROOT
from rubric_rl.common.jsonl import write_jsonl, write_text
from rubric_rl.cpu.engine import HOST, free_port
from rubric_rl.tiny.labelled_rows import of_world

GRADER = ROOT / "configs" / "grader_tiny.yaml"
EVALUATION = "experiments/eval.yaml"
HELD_OUT = "runs/tiny/data/healthbench_hard.jsonl"  # where run_qwen3_tiny.sh makes them
ORACLE_MODULE = "rubric_rl.tiny.oracle"
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
        variables["HF_CKPT_PATH"] = str(start_path(run.arm.start, run.out))
    if run.arm.rubrics in RUBRICS:
        variables["PROMPT_DATA_PATH"] = str(rows_path(run.arm.rubrics, run.out))
        variables["EVAL_DATA_PATH"] = HELD_OUT  # as every arm: by the experts' rubrics
    return variables


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
        STARTS[run.arm.start](start_path(run.arm.start, run.out))
    if run.arm.rubrics in RUBRICS:
        make_rows(run.arm.rubrics, run.out)
    oracle_url = f"http://{HOST}:{oracle_port}"
    write_settings(run, oracle_url)
    outer = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    own = environment(run)
    with ExitStack() as beside:
        if needs_oracle(run.arm):
            log = run.folder / "oracle.log"
            beside.enter_context(serve(ORACLE_MODULE, oracle_port, log, "the oracle"))
        run_to_end(command(run), run.folder / "run.log", outer | own, run.label(), GRACE)
    written = {"arm": run.name, "seed": run.seed, "rollouts": run.rollouts, "commit": commit()}
    write_text(run.record, json.dumps(written | asked(run), indent=1) + "\n")


def asked(run: Run) -> dict[str, Any]:
    """What makes the run what it is: in its record, and compared with it later.

    Files are named as in arms.py, wherever they lie.
    """
    common = yaml.safe_load(GRADER.read_text(encoding="utf-8"))
    found = {
        "command": command(run),
        "environment": sorted(environment(run)),
        "grader": common | dict(run.arm.grader),
    }
    if run.arm.rubrics in RUBRICS:
        found["rubrics"] = run.arm.rubrics
    return found


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
