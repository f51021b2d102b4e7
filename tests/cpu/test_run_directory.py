"""Nothing is lost: atomic checkpoints, rows cut back, kill -9 at every stage of a step, another experiment refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles.trainer import make_args, run_with_doubles, write_rows

from rubric_rl import ROOT
from rubric_rl.cpu.run_directory import KEEP, TRACKER, RunDirectory, append_row, read_rows
from rubric_rl.errors import UserError


def save(run: RunDirectory, step: int) -> None:
    run.commit(
        step,
        run.prepare(
            step, {"step": step}, lambda directory: (directory / "weights").write_text(str(step))
        ),
    )


def test_commit_is_one_rename_and_keeps_the_last_few(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.newest() is None
    for step in range(5):
        temporary = run.prepare(
            step, {"step": step}, lambda directory: (directory / "weights").write_text("x")
        )
        assert run.newest() == (step - 1 if step else None)  # nobody sees it before the commit
        temporary = run.prepare(
            step, {"step": step}, lambda directory: (directory / "weights").write_text("x")
        )
        run.commit(step, temporary)
        assert run.newest() == step and run.state(step) == {"step": step}
    assert sorted(p.name for p in tmp_path.glob("iter_*")) == [
        f"iter_{s:07d}" for s in range(5 - KEEP, 5)
    ]
    assert (tmp_path / TRACKER).read_text().strip() == "4"


def test_leftovers_are_removed_and_never_read(tmp_path):
    run = RunDirectory(tmp_path)
    save(run, 0)
    run.prepare(1, {"step": 1}, lambda directory: None)
    (tmp_path / "iter_0000002").mkdir()  # without state.json: not one of ours, or half deleted
    assert run.newest() == 0
    assert not list(tmp_path.glob(".iter*"))


def test_a_second_run_in_the_same_place_is_refused(tmp_path):
    first = RunDirectory(tmp_path)
    with pytest.raises(UserError, match="another run is at work here"):
        RunDirectory(tmp_path)
    assert first


def test_rows_are_cut_back_and_a_torn_line_is_dropped(tmp_path):
    run = RunDirectory(tmp_path)
    (tmp_path / "verdicts").mkdir()
    for step in range(4):
        append_row(tmp_path / "metrics.jsonl", {"step": step})
        append_row(tmp_path / "eval.jsonl", {"step": step})
        for split in ("train", "eval"):
            append_row(tmp_path / "verdicts" / f"weights_{step}.jsonl", {"split": split})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rollo')
    run.cut_back(2)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0, 1]
    assert [row["step"] for row in read_rows(tmp_path / "eval.jsonl")] == [0, 1, 2]
    assert [
        len(read_rows(tmp_path / "verdicts" / f"weights_{step}.jsonl")) for step in range(4)
    ] == [2, 2, 1, 0]
    run.cut_back(0)
    assert read_rows(tmp_path / "metrics.jsonl") == read_rows(tmp_path / "eval.jsonl") == []
    assert not list((tmp_path / "verdicts").iterdir())


def experiment_args(tmp_path, *more):
    rows = tmp_path / "rows.jsonl"
    if not rows.exists():
        write_rows(rows, 3)
    return make_args("--prompt-data", str(rows), "--save", str(tmp_path / "run"), *more)


def test_another_experiment_is_refused_by_flag(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.check_experiment(experiment_args(tmp_path), resuming=False)
    run.check_experiment(
        experiment_args(tmp_path, "--num-rollout", "9", "--save-interval", "2"), resuming=True
    )
    with pytest.raises(UserError, match=r"--lr was 1e-06, is 0.1.*--seed was 1234, is 5") as caught:
        run.check_experiment(experiment_args(tmp_path, "--lr", "0.1", "--seed", "5"), resuming=True)
    assert "\n" not in str(caught.value)
    write_rows(tmp_path / "rows.jsonl", 4)
    with pytest.raises(UserError, match="--prompt-data was rows.jsonl"):
        run.check_experiment(experiment_args(tmp_path), resuming=True)
    run.check_experiment(
        experiment_args(tmp_path), resuming=False
    )  # without a checkpoint there is nothing to protect


def assert_complete(directory: Path, rollouts: int) -> None:
    rows = read_rows(directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(rollouts))
    assert [row["weights"] for row in rows] == list(
        range(rollouts)
    )  # each step began with the weights of the one before
    assert [row["offset"] for row in rows] == list(
        range(1, rollouts + 1)
    )  # and with the prompts after its prompts
    evaluations = read_rows(directory / "eval.jsonl")
    expected = [0, *range(2, rollouts, 2), rollouts]
    assert [row["step"] for row in evaluations] == expected and [
        row["eval/held"] for row in evaluations
    ] == expected
    assert (
        json.loads((directory / f"iter_{rollouts - 1:07d}" / "state.json").read_text())["step"]
        == rollouts - 1
    )
    assert (directory / f"iter_{rollouts - 1:07d}" / "weights").read_text() == str(rollouts)
    assert not list(directory.glob(".*.tmp"))


@pytest.mark.parametrize(
    "stage",
    [
        "0 eval",
        "0 rollout",
        "1 rollout",
        "1 grading",
        "2 update",
        "1 saving",
        "2 saving",
        "1 sync",
        "3 eval",
    ],
)
def test_killed_at_any_stage_no_step_is_lost_or_counted_twice(tmp_path, stage):
    """The real loop on doubles in a process of its own; it is killed as soon as its stage file says so."""
    command = [sys.executable, "-m", "doubles.trainer", str(tmp_path), "0.02", "4"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "stage").is_file() or (tmp_path / "stage").read_text().strip() != stage:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, f"never came to {stage}"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command[:-2], "0", "4"], env=environment, check=True, capture_output=True)
    assert_complete(tmp_path, 4)


def test_a_finished_run_can_grow(tmp_path):
    run_with_doubles(str(tmp_path), 0.0, 2)
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    run_with_doubles(str(tmp_path.with_name("copy")), 0.0, 4)
    rows = read_rows(tmp_path.with_name("copy") / "metrics.jsonl")
    assert [(row["step"], row["weights"]) for row in rows] == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_a_line_cut_inside_a_character_is_left_out(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes('{"a": "é"}\n{"a": "é'.encode()[:-1])
    assert read_rows(tmp_path / "rows.jsonl") == [{"a": "é"}]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(UserError, match="rows.jsonl:2: broken JSON"):
        read_rows(tmp_path / "rows.jsonl")


def test_copies_under_other_names_are_neither_counted_nor_removed(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for name in ("iter_0000001.bak", "iter_best"):
        (run.path / name).mkdir()
        (run.path / name / "state.json").write_text("{}")
    for step in range(5):
        run.commit(step, run.prepare(step, {"step": step}, lambda directory: None))
    assert run.newest() == 4
    kept = {path.name for path in run.path.glob("iter_*")}
    assert kept == {"iter_0000001.bak", "iter_best", "iter_0000002", "iter_0000003", "iter_0000004"}


def test_a_damaged_checkpoint_is_set_aside_when_its_step_is_made_again(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for step in range(2):
        run.commit(
            step,
            run.prepare(
                step, {"step": step}, lambda directory: (directory / "weights").write_text("w")
            ),
        )
    (run.iteration(1) / "state.json").unlink()
    assert run.newest() == 0
    run.commit(1, run.prepare(1, {"step": 1}, lambda directory: None))
    assert run.newest() == 1 and len(list(run.path.glob("iter_0000001.damaged.*/weights"))) == 1
