"""Nothing is lost: atomic checkpoints, rows cut back, kill -9 at every stage of a rollout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles.trainer import make_args, run_with_doubles, to_old_form, write_rows

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.cpu.metric_rows import append_row, read_evaluations, read_metrics, read_rows
from rubric_rl.cpu.run_directory import KEPT_CHECKPOINTS, TRACKER, RunDirectory


def column(rows: list[dict], key: str) -> list:
    return [row[key] for row in rows]


def prepare(run: RunDirectory, rollout_id: int) -> Path:
    def write(directory: Path) -> None:
        (directory / "weights").write_text(str(rollout_id))

    return run.prepare(rollout_id, {"sample_index": rollout_id}, write)


def save(run: RunDirectory, rollout_id: int, best: int | None = None) -> None:
    run.commit(rollout_id, prepare(run, rollout_id), best)


def test_commit_is_one_rename_and_keeps_the_last_few(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.newest() is None
    for rollout_id in range(5):
        prepare(run, rollout_id)
        before = rollout_id - 1 if rollout_id else None
        assert run.newest() == before  # nobody sees it before the commit
        save(run, rollout_id)
        assert run.newest() == rollout_id
        assert run.data_state(rollout_id) == {"sample_index": rollout_id}
    kept = sorted(path.name for path in tmp_path.glob("iter_*"))
    assert kept == [f"iter_{number:07d}" for number in range(5 - KEPT_CHECKPOINTS, 5)]
    assert (tmp_path / TRACKER).read_text().strip() == "4"


@pytest.mark.parametrize(
    "best, besides", [(3, [3]), (5, [3]), (6, [3]), (7, [7]), (2, []), (-1, []), (None, [])]
)
def test_of_the_best_evaluation_the_last_checkpoint_before_it_stays(tmp_path, best, besides):
    """Saved after each fourth rollout, evaluated after each."""
    run = RunDirectory(tmp_path)
    for rollout_id in range(3, 24, 4):
        save(run, rollout_id, best)
    kept = sorted(int(path.name[-7:]) for path in tmp_path.glob("iter_*"))
    assert kept == [*besides, 15, 19, 23]


def test_leftovers_are_removed_and_never_read(tmp_path):
    run = RunDirectory(tmp_path)
    save(run, 0)
    prepare(run, 1)
    (tmp_path / "iter_0000002").mkdir()  # without state.json: not one of ours, or half deleted
    assert run.newest() == 0
    assert not list(tmp_path.glob(".iter*"))


def test_a_resumed_run_keeps_its_name_in_the_records_and_no_other_run_has_it(tmp_path):
    run, other = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "other")
    name = run.run_name()
    run.close()
    assert RunDirectory(tmp_path / "run").run_name() == name != other.run_name()


def test_a_second_run_in_the_same_place_is_refused(tmp_path):
    first = RunDirectory(tmp_path)
    with pytest.raises(UserError, match="another run is at work here"):
        RunDirectory(tmp_path)
    first.close()
    RunDirectory(tmp_path)


@pytest.mark.parametrize("name", ["weights_{}.node.1-2.jsonl", "weights_{}.jsonl"])
def test_rows_are_cut_back_and_a_torn_line_is_dropped(tmp_path, name):
    run = RunDirectory(tmp_path)
    (tmp_path / "verdicts").mkdir()
    for number in range(4):
        append_row(tmp_path / "metrics.jsonl", {"rollout_id": number})
        evaluation = {"rollout_id": max(number - 1, 0), "weight_version": number}
        append_row(tmp_path / "eval.jsonl", evaluation)
        for split in ("train", "eval"):
            append_row(tmp_path / "verdicts" / name.format(number), {"split": split})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"rollout_id": 4, "rollo')
    run.cut_back(2)
    assert column(read_metrics(tmp_path), "rollout_id") == [0, 1]
    assert column(read_evaluations(tmp_path), "weight_version") == [0, 1, 2]
    verdicts = [tmp_path / "verdicts" / name.format(version) for version in range(4)]
    assert [len(read_rows(path)) for path in verdicts] == [2, 2, 1, 0]
    assert verdicts[2].stat().st_mode & 0o777 == 0o600
    run.cut_back(0)
    assert read_metrics(tmp_path) == read_evaluations(tmp_path) == []
    assert not list((tmp_path / "verdicts").iterdir())


def experiment_args(tmp_path, *more):
    rows = tmp_path / "rows.jsonl"
    if not rows.exists():
        write_rows(rows, 3)
    return make_args("--prompt-data", str(rows), "--save", str(tmp_path / "run"), *more)


def test_a_frozen_model_belongs_to_the_experiment_and_its_gpus_do_not(tmp_path):
    models = tmp_path / "models.yaml"

    def check(gpus: int, path: str = "", resuming: bool = True) -> None:
        groups = f"server_groups: [{{num_gpus: {gpus}}}]"
        models.write_text(f"sglang: [{{name: a, {groups}}}, {{name: b, model_path: '{path}'}}]")
        more = ["--sglang-config", str(models), "--rollout-num-gpus", "2"]
        run.check_experiment(experiment_args(tmp_path, *more), resuming)

    run = RunDirectory(tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    check(2, resuming=False)
    check(4)
    with pytest.raises(UserError, match=r"--sglang-config was .*'b'.*, is .*other"):
        check(2, str(other))
    with pytest.raises(UserError, match=r"--sglang-config was .*, is None"):
        run.check_experiment(experiment_args(tmp_path), resuming=True)


def test_the_probe_is_the_same_throughout_as_the_alarm_compares_its_rows(tmp_path):
    probe, config = tmp_path / "probe.jsonl", tmp_path / "grader.yaml"
    probe.write_text("{}\n")

    def check(rows: int, resuming: bool = True) -> None:
        config.write_text(f"grader_probe: {probe}\ngrader_probe_rows: {rows}\n")
        args = experiment_args(tmp_path, "--custom-config-path", str(config))
        run.check_experiment(args, resuming)

    run = RunDirectory(tmp_path / "run")
    check(5, resuming=False)
    check(5)
    with pytest.raises(UserError, match=r"grader_probe_rows was 5, is 3"):
        check(3)
    probe.write_text('{"other": 1}\n')
    with pytest.raises(UserError, match=r"grader_probe was probe\.jsonl \(\w+\), is probe"):
        check(5)


def test_another_experiment_is_refused_by_flag(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.check_experiment(experiment_args(tmp_path), resuming=False)
    longer = experiment_args(tmp_path, "--num-rollout", "9", "--save-interval", "2")
    run.check_experiment(longer, resuming=True)
    other = experiment_args(tmp_path, "--lr", "0.1", "--seed", "5")
    with pytest.raises(UserError, match=r"--lr was 1e-06, is 0.1.*--seed was 1234, is 5") as caught:
        run.check_experiment(other, resuming=True)
    assert "\n" not in str(caught.value)
    write_rows(tmp_path / "rows.jsonl", 4)
    with pytest.raises(UserError, match=r"--prompt-data was rows\.jsonl"):
        run.check_experiment(experiment_args(tmp_path), resuming=True)
    # Without a checkpoint there is nothing to protect.
    run.check_experiment(experiment_args(tmp_path), resuming=False)


def assert_complete(directory: Path, rollouts: int) -> None:
    rows = read_rows(directory / "metrics.jsonl")
    numbers = list(range(rollouts))
    assert column(rows, "rollout_id") == numbers
    # Each rollout began with the weights of the one before, and with the prompts after its prompts.
    assert column(rows, "weights") == numbers
    assert column(rows, "offset") == [number + 1 for number in numbers]
    evaluations = read_rows(directory / "eval.jsonl")
    versions = [0, *range(2, rollouts, 2), rollouts]
    assert column(evaluations, "weight_version") == versions
    assert column(evaluations, "eval/held") == versions
    assert column(evaluations, "rollout_id") == [max(version - 1, 0) for version in versions]
    last = rollouts - 1
    newest = directory / f"iter_{last:07d}"
    state = json.loads((newest / "state.json").read_text())
    assert state["rollout_id"] == last
    assert (newest / "weights").read_text() == str(rollouts)
    assert not list(directory.glob(".*.tmp"))


STAGES = [
    "0 eval",
    "0 rollout",
    "1 rollout",
    "1 grading",
    "2 update",
    "1 saving",
    "2 saving",
    "1 sync",
    "3 eval",
]


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_no_rollout_is_lost_or_counted_twice(tmp_path, stage):
    """The real loop on doubles, in a process that is killed as soon as its stage file says so."""
    program = [sys.executable, "-m", "doubles.trainer", str(tmp_path)]
    python_path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": python_path}
    process = subprocess.Popen(
        [*program, "0.1", "4"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    file = tmp_path / "stage"
    while not file.is_file() or file.read_text().strip() != stage:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, f"never came to {stage}"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*program, "0", "4"], env=environment, check=True, capture_output=True)
    assert_complete(tmp_path, 4)


def test_a_finished_run_can_grow(tmp_path):
    copy = tmp_path / "copy"
    run_with_doubles(str(tmp_path / "run"), 0.0, 2)
    shutil.copytree(tmp_path / "run", copy)
    run_with_doubles(str(copy), 0.0, 4)
    assert_complete(copy, 4)


def test_a_run_of_the_old_form_goes_on(tmp_path):
    run_with_doubles(str(tmp_path), 0.0, 2)
    to_old_form(tmp_path)
    assert read_rows(tmp_path / "metrics.jsonl")[1]["step"] == 1
    run_with_doubles(str(tmp_path), 0.0, 4)
    assert_complete(tmp_path, 4)


def test_a_line_cut_inside_a_character_is_left_out(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes('{"a": "é"}\n{"a": "é'.encode()[:-1])
    assert read_rows(tmp_path / "rows.jsonl") == [{"a": "é"}]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: broken JSON"):
        read_rows(tmp_path / "rows.jsonl")


def test_copies_under_other_names_are_neither_counted_nor_removed(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for name in ("iter_0000001.bak", "iter_best"):
        (run.path / name).mkdir()
        (run.path / name / "state.json").write_text("{}")
    for rollout_id in range(5):
        save(run, rollout_id)
    assert run.newest() == 4
    kept = {path.name for path in run.path.glob("iter_*")}
    assert kept == {"iter_0000001.bak", "iter_best", "iter_0000002", "iter_0000003", "iter_0000004"}


def test_a_damaged_checkpoint_is_set_aside_when_its_rollout_is_made_again(tmp_path):
    run = RunDirectory(tmp_path / "run")
    save(run, 0)
    save(run, 1)
    (run.checkpoint(1) / "state.json").unlink()
    assert run.newest() == 0
    save(run, 1)
    assert run.newest() == 1
    assert len(list(run.path.glob("iter_0000001.damaged.*/weights"))) == 1
