"""The real thing: `bash run_qwen3_tiny.sh`, killed at each stage and started again; nothing lost, nothing left."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from rubric_rl import ROOT
from rubric_rl.cpu.run_directory import read_rows

ROLLOUTS = 3
FLAGS = f"""
    --num-rollout {ROLLOUTS} --rollout-batch-size 4 --n-samples-per-prompt 4 --global-batch-size 16
    --rollout-max-response-len 32 --eval-interval {ROLLOUTS} --lr-warmup-iters 0
""".split()
KILLS = [
    ("0 starting", signal.SIGTERM),
    ("0 rollout", signal.SIGKILL),
    ("0 grading", signal.SIGKILL),
    ("1 update", signal.SIGKILL),
    ("2 saving", signal.SIGKILL),
]

pytestmark = pytest.mark.stack


def start(directory: Path) -> subprocess.Popen:
    """The run as a user starts it; the script execs the supervisor, so the pid is the supervisor's."""
    data = ROOT / "runs/tiny/data/healthbench_hard.jsonl@[0:4]"
    grader = directory.with_name("grader.yaml")
    grader.write_text(
        "grader_mode: explain\ngrader_max_tokens: 48\ngrader_truncated: grade\n"
    )  # long replies: grading goes on after the last answer
    environment = {
        **os.environ,
        "SAVE_PATH": str(directory),
        "EVAL_DATA_PATH": str(data),
        "GRADER_CONFIG": str(grader),
    }
    with open(directory.with_name("console.txt"), "ab") as console:
        command = ["bash", "run_qwen3_tiny.sh", *FLAGS]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def wait_for(stage: str, directory: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not (directory / "stage").is_file() or (directory / "stage").read_text().strip() != stage:
        assert process.poll() is None, directory.with_name("console.txt").read_text()[-3000:]
        assert time.monotonic() < deadline, f"never came to {stage}"
        time.sleep(0.002)


def assert_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def stop_at(stage: str, how: signal.Signals, directory: Path) -> None:
    process = start(directory)
    try:
        wait_for(stage, directory, process)
        while not (
            family := psutil.Process(process.pid).children(recursive=True)
        ):  # engines, Ray, router, their parts
            time.sleep(0.05)
    finally:
        process.send_signal(how)
    status = process.wait(60)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert_gone(family)
    steps = [row["step"] for row in read_rows(directory / "metrics.jsonl")]
    assert steps == list(range(len(steps)))


def assert_whole(directory: Path) -> None:
    rows = read_rows(directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(ROLLOUTS))
    assert [row["rollout/weight_version"] for row in rows] == list(range(ROLLOUTS))
    assert [row["train/step"] for row in rows] == list(range(ROLLOUTS))
    assert [row["step"] for row in read_rows(directory / "eval.jsonl")] == [0, ROLLOUTS]
    newest = directory / f"iter_{ROLLOUTS - 1:07d}"
    assert (
        json.loads((newest / "state.json").read_text())["data"]["sample_group_index"]
        == 4 * ROLLOUTS
    )
    assert (newest / "hf" / "model.safetensors").stat().st_size > 0
    assert not list(directory.glob(".iter*"))
    for version in range(ROLLOUTS):
        records = read_rows(directory / "verdicts" / f"weights_{version}.jsonl")
        trained = [record["index"] for record in records if record["split"] == "train"]
        assert sorted(trained) == list(
            range(16 * version, 16 * (version + 1))
        )  # each answer graded once
    assert {path.name for path in directory.glob("*.png")} >= {
        "reward.png",
        "response_length.png",
        "seconds.png",
    }


def test_killed_at_every_stage_and_gone_on_with(tmp_path):
    directory = tmp_path / "run"
    for stage, how in KILLS:
        stop_at(stage, how, directory)
    process = start(directory)
    assert process.wait(400) == 0, directory.with_name("console.txt").read_text()[-3000:]
    assert_whole(directory)
    before = (directory / "metrics.jsonl").read_text()
    again = start(directory)  # finished: only the figures are drawn again
    assert again.wait(120) == 0 and (directory / "metrics.jsonl").read_text() == before
    console = directory.with_name("console.txt").read_text()
    assert f"step {ROLLOUTS}/{ROLLOUTS} |" in console and "going on after step 2" in console


def test_bad_input_stops_before_anything_starts(tmp_path):
    def run(*flags: str, **variables: str):
        environment = {**os.environ, "SAVE_PATH": str(tmp_path / "run"), **variables}
        command = ["bash", "run_qwen3_tiny.sh", *flags]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )

    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama"}')
    broken = tmp_path / "broken.jsonl"
    broken.write_text(
        (ROOT / "runs/tiny/data/healthbench_easy.jsonl").read_text()
        + '{"metadata": {"prompt_id": "x"\n'
    )
    hard = str(ROOT / "runs/tiny/data/healthbench_hard.jsonl")
    cases = [
        (run("--no-such-flag", "1"), "--no-such-flag"),
        (run(HF_CKPT_PATH=str(llama)), "not a Qwen3ForCausalLM checkpoint (model_type 'llama'"),
        (run(HF_CKPT_PATH=str(tmp_path / "absent")), "no such directory"),
        (run(PROMPT_DATA_PATH=str(broken), EVAL_DATA_PATH=hard), "broken.jsonl:321"),
        (run(PROMPT_DATA_PATH=hard, EVAL_DATA_PATH=hard), "training on the evaluation"),
    ]
    for result, said in cases:
        assert result.returncode == 2 and said in result.stderr, result.stderr
        assert result.stderr.strip().count("\n") == 0
