"""The real thing: `bash run_qwen3_tiny.sh`, killed at each stage and started again.

Nothing is lost, nothing is left, and nothing listens beyond this machine.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from doubles.processes import all_gone, listeners, wait_for

import data_preprocess
from rubric_rl import ROOT
from rubric_rl.cpu.metric_rows import read_rows

ROLLOUTS = 3
ANSWERS = 16  # per rollout
FLAGS = [
    *("--num-rollout", str(ROLLOUTS), "--eval-interval", str(ROLLOUTS)),
    *("--rollout-batch-size", "4", "--n-samples-per-prompt", "4"),
    *("--global-batch-size", str(ANSWERS), "--lr-warmup-iters", "0"),
    *("--rollout-max-response-len", "32"),
]
KILLS = [
    ("0 starting", signal.SIGTERM),
    ("0 rollout", signal.SIGKILL),
    ("0 grading", signal.SIGKILL),
    ("1 update", signal.SIGKILL),
    ("2 saving", signal.SIGKILL),
]

pytestmark = pytest.mark.stack


def start(directory: Path) -> subprocess.Popen:
    """The run as a user starts it.

    The script execs the supervisor, so the pid is the supervisor's.
    """
    data = ROOT / "runs/tiny/data/healthbench_hard.jsonl@[0:4]"
    grader = directory.with_name("grader.yaml")
    # Long replies: grading goes on after the last answer.
    grader.write_text("grader_mode: explain\ngrader_max_tokens: 48\ngrader_truncated: grade\n")
    environment = {
        **os.environ,
        "SAVE_PATH": str(directory),
        "EVAL_DATA_PATH": str(data),
        "GRADER_CONFIG": str(grader),
    }
    with directory.with_name("console.txt").open("ab") as console:
        return subprocess.Popen(
            ["bash", "run_qwen3_tiny.sh", *FLAGS],
            cwd=ROOT,
            env=environment,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def wait_for_stage(stage: str, directory: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    file = directory / "stage"
    while not file.is_file() or file.read_text().strip() != stage:
        assert process.poll() is None, directory.with_name("console.txt").read_text()[-3000:]
        assert time.monotonic() < deadline, f"never came to {stage}"
        time.sleep(0.002)


def stop_at(stage: str, how: signal.Signals, directory: Path) -> set[str]:
    """Starts the run and stops it; returns the addresses that its processes listened on then."""
    process = start(directory)
    try:
        wait_for_stage(stage, directory, process)
        supervisor = psutil.Process(process.pid)
        wait_for(lambda: bool(supervisor.children()), 60)
        family = supervisor.children(recursive=True)  # engines, Ray, router, their parts
        addresses = {address for _, address, _ in listeners([supervisor, *family])}
    finally:
        process.send_signal(how)
    status = process.wait(60)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    wait_for(lambda: all_gone(family), 30)
    numbers = [row["rollout_id"] for row in read_rows(directory / "metrics.jsonl")]
    assert numbers == list(range(len(numbers)))
    return addresses


def watch(process: subprocess.Popen, seconds: float) -> set[str]:
    """Waits for the run's end; returns the addresses that its processes listened on meanwhile.

    Many sockets live shorter than a stage: torch's and gloo's, when ranks meet.
    """
    addresses: set[str] = set()
    supervisor = psutil.Process(process.pid)
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < deadline, "the run does not end"
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [supervisor, *supervisor.children(recursive=True)]
            addresses |= {address for _, address, _ in listeners(family)}
        time.sleep(0.1)
    return addresses


def assert_whole(directory: Path) -> None:
    rows = read_rows(directory / "metrics.jsonl")
    numbers = list(range(ROLLOUTS))
    assert [row["rollout_id"] for row in rows] == numbers
    assert [row["rollout/weight_version"] for row in rows] == numbers
    assert [row["train/step"] for row in rows] == numbers
    evaluations = read_rows(directory / "eval.jsonl")
    assert [row["weight_version"] for row in evaluations] == [0, ROLLOUTS]
    assert [row["rollout_id"] for row in evaluations] == [0, ROLLOUTS - 1]
    newest = directory / f"iter_{ROLLOUTS - 1:07d}"
    state = json.loads((newest / "state.json").read_text())
    assert state["data"]["sample_group_index"] == 4 * ROLLOUTS
    assert (newest / "hf" / "model.safetensors").stat().st_size > 0
    assert not list(directory.glob(".iter*"))
    for version in range(ROLLOUTS):
        files = (directory / "verdicts").glob(f"weights_{version}.*.jsonl")
        records = [record for file in files for record in read_rows(file)]
        trained = [record["index"] for record in records if record["split"] == "train"]
        first = ANSWERS * version
        assert sorted(trained) == list(range(first, first + ANSWERS))  # each answer graded once
    figures = {path.name for path in directory.glob("*.png")}
    assert figures >= {"reward.png", "response_length.png", "seconds.png"}
    for path in directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is not the user's alone"


def test_killed_at_every_stage_and_gone_on_with(tmp_path):
    directory = tmp_path / "run"
    console = directory.with_name("console.txt")
    addresses = set()
    for stage, how in KILLS:
        addresses |= stop_at(stage, how, directory)
    process = start(directory)
    addresses |= watch(process, 400)
    assert process.returncode == 0, console.read_text()[-3000:]
    assert addresses == {"127.0.0.1"}
    assert_whole(directory)
    before = (directory / "metrics.jsonl").read_text()
    again = start(directory)  # finished: only the figures are drawn again
    assert again.wait(120) == 0 and (directory / "metrics.jsonl").read_text() == before
    assert f"rollout {ROLLOUTS - 1} ({ROLLOUTS} of {ROLLOUTS}) |" in console.read_text()
    assert "going on after rollout 1" in console.read_text()


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder with the rows of the tiny run."""
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "rubric_rl.tiny.world", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    raw = ["--source", str(folder / "tiny_all.jsonl"), "--hard", str(folder / "tiny_hard.jsonl")]
    assert data_preprocess.main([*raw, "--out", str(folder), "--allow-subset"]) == 0
    return folder


def test_bad_input_stops_before_anything_starts(tmp_path, data):
    def run(*flags: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "run_qwen3_tiny.sh", *flags],
            cwd=ROOT,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )

    hard = str(data / "healthbench_hard.jsonl")
    environment = {
        **os.environ,
        "SAVE_PATH": str(tmp_path / "run"),
        "PROMPT_DATA_PATH": str(data / "healthbench_easy.jsonl"),
        "EVAL_DATA_PATH": hard,
    }
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama"}')
    easy = (data / "healthbench_easy.jsonl").read_text()
    broken = tmp_path / "broken.jsonl"
    broken.write_text(easy + '{"metadata": {"prompt_id": "x"\n')
    cases = [
        (run("--no-such-flag", "1"), "--no-such-flag"),
        (run(HF_CKPT_PATH=str(llama)), "not a Qwen3ForCausalLM checkpoint (model_type 'llama'"),
        (run(HF_CKPT_PATH=str(tmp_path / "absent")), "no such folder"),
        (run(PROMPT_DATA_PATH=str(broken)), "broken.jsonl:321"),
        (run(PROMPT_DATA_PATH=hard), "training on the test set"),
    ]
    for result, said in cases:
        assert result.returncode == 2 and said in result.stderr, result.stderr
        assert result.stderr.strip().count("\n") == 0
