"""What a person sees: rows, the line per rollout, the summary with its sentence, the figures."""

import json
import math
import shutil

import pytest
from doubles.trainer import to_old_form

from rubric_rl.common.errors import UserError
from rubric_rl.common.progress import StageBar
from rubric_rl.cpu import plots
from rubric_rl.cpu.metric_rows import (
    append_row,
    dataset_names,
    find_eval_metric,
    find_metric,
    read_evaluations,
    read_metrics,
    read_rows,
)
from rubric_rl.cpu.recorder import Recorder, eval_line, rollout_line

METRICS = {
    "rollout/raw_reward": 0.5,
    "tiny/true_score": 0.4,
    "tiny/grader_accuracy": 0.95,
    "rollout/response_len/mean": 30.0,
    "rollout/truncated_ratio": 0.25,
    "perf/generation_time": 4.0,
    "perf/grading_time": 3.0,
    "perf/grading_tail_time": 1.0,
    "perf/update_time": 3.0,
    "perf/sync_time": 0.5,
}
PLAIN = {key: value for key, value in METRICS.items() if not key.startswith("tiny/")}


def write_run(directory, drift: float, oracle: bool = True, rollouts: int = 12):
    for number in range(rollouts):
        row = {
            "rollout_id": number,
            **(METRICS if oracle else PLAIN),
            "rollout/raw_reward": 0.3 + drift * number / rollouts,
            "perf/memory_gb": 5.0,
        }
        append_row(directory / "metrics.jsonl", row)
    for version in (0, 10):
        row = {
            "rollout_id": max(version - 1, 0),
            "weight_version": version,
            "eval/held_out": 0.2 + version / 100,
            "eval/held_out/response_len/mean": 20.0,
        }
        if oracle:
            row["eval/held_out/tiny/true_score"] = 0.2 + version / 50
        append_row(directory / "eval.jsonl", row)
    return directory


def test_a_row_is_on_disk_when_the_call_returns(tmp_path, capsys):
    recorder = Recorder(tmp_path, 0, 10, tensorboard=False)
    recorder.rollout(3, METRICS | {"nothing": math.nan})
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row["rollout_id"] == 3 and row["rollout/raw_reward"] == 0.5 and row["nothing"] is None
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.strip() in (tmp_path / "train.log").read_text()
    recorder.evaluation(3, 4, {"eval/held": 0.5})
    (row,) = read_rows(tmp_path / "eval.jsonl")
    assert row == {"rollout_id": 3, "weight_version": 4, "eval/held": 0.5}


def test_the_line_of_a_rollout():
    assert rollout_line(4, 30, METRICS) == (
        "rollout 4 (5 of 30) | self-graded 0.500 | true 0.400 | grader acc 0.950 | length 30.0 | "
        "truncated 0.25 | seconds rollout 4.0, grading 3.0, of it after the rollout 1.0, "
        "update 3.0, sync 0.5"
    )
    line = rollout_line(4, 30, PLAIN)
    assert "true" not in line and "grader acc" not in line


def test_what_is_not_finite_has_no_place_in_a_line():
    assert "self-graded" not in rollout_line(0, 1, METRICS | {"rollout/raw_reward": math.nan})


def test_a_short_stage_leaves_no_bar_in_a_log_file(capfd):
    with StageBar("rollout", 3, "answer") as bar:
        bar.move_to(2)
    assert capfd.readouterr().err == ""


def test_the_line_of_an_evaluation():
    row = {
        "eval/held_out": 0.2,
        "eval/held_out/tiny/true_score": 0.3,
        "eval/held_out/response_len/mean": 9.0,
        "perf/eval_time": 2.0,
    }
    assert eval_line(10, row) == (
        "evaluation of weight version 10 | held_out self-graded 0.200 true 0.300 length 9.0 | "
        "seconds 2.0"
    )


def test_a_hooks_metric_is_found_whatever_its_prefix():
    assert find_metric({"tiny/true_score": 1}, "true_score") == 1
    assert find_metric({"untrue_score": 1}, "true_score") is None
    assert find_metric({}, "true_score") is None


def test_a_metric_of_one_data_set_is_found():
    two = {"eval/a": 1, "eval/b": 2, "eval/a/tiny/true_score": 3, "tiny/true_score": 4}
    assert dataset_names(two) == ["a", "b"]
    assert find_eval_metric(two, "a", "true_score") == 3
    assert find_eval_metric(two, "b", "true_score") is None
    assert find_eval_metric({"eval/a": 1, "tiny/true_score": 4}, "a", "true_score") == 4


def events_of(directory, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_events_of_a_resumed_run_hide_the_old_ones(tmp_path):
    first = Recorder(tmp_path, 0, 4)
    for rollout_id in range(3):
        first.rollout(rollout_id, {"a": float(rollout_id)})
    first.close()
    second = Recorder(tmp_path, 1, 4)  # killed; the last checkpoint was that of rollout 0
    for rollout_id in (1, 2):
        second.rollout(rollout_id, {"a": 10.0 + rollout_id})
    second.close()
    assert events_of(tmp_path, "a") == [(0, 0.0), (1, 11.0), (2, 12.0)]


def test_tensorboard_keeps_the_evaluation_that_belongs_to_the_last_checkpoint(tmp_path):
    """It evaluated the weights that the resumed run goes on with, and is not made again."""
    first = Recorder(tmp_path, 0, 4)
    first.evaluation(1, 2, {"eval/held": 0.25})  # after rollout 1, which is checkpointed
    first.evaluation(2, 3, {"eval/held": 0.5})  # after rollout 2, which is not
    first.close()
    second = Recorder(tmp_path, 2, 4)
    second.evaluation(2, 3, {"eval/held": 0.75})
    second.close()
    assert events_of(tmp_path, "eval/held") == [(1, 0.25), (2, 0.75)]


def test_summary_and_figures(tmp_path):
    text = plots.draw(write_run(tmp_path, drift=0.6))
    for said in ("diverge", "first 5 of 12 rollouts", "| true score", "held_out first"):
        assert said in text
    assert "at most 5.0 GB" in text
    figures = list(tmp_path.glob("*.png"))
    names = {"reward.png", "grader_accuracy.png", "response_length.png", "seconds.png"}
    assert {path.name for path in figures} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    assert (tmp_path / "summary.md").read_text().strip() == text.strip()


def test_a_run_of_the_old_form_is_read_and_drawn_as_the_new_one(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    new = write_run(tmp_path / "new", drift=0.6)
    old = write_run(tmp_path / "old", drift=0.6)
    to_old_form(old)
    assert "step" in read_rows(old / "metrics.jsonl")[0]
    assert read_metrics(old) == read_metrics(new)
    assert read_evaluations(old) == read_evaluations(new)
    assert plots.draw(old) == plots.draw(new)
    for figure in new.glob("*.png"):
        assert (old / figure.name).read_bytes() == figure.read_bytes()


def test_reward_and_true_score_that_move_together(tmp_path):
    assert "move together" in plots.draw(write_run(tmp_path, drift=0.0))


def test_a_short_run_is_not_judged():
    rows = [{"rollout/raw_reward": 0.1 * number, "true_score": 0.0} for number in range(9)]
    assert plots.divergence(rows) == []
    assert "diverge" in plots.divergence(rows + rows[-1:])[0]


def test_without_an_oracle_its_columns_are_left_out(tmp_path):
    text = plots.draw(write_run(tmp_path, drift=0.6, oracle=False))
    assert "true" not in text and "together" not in text and "self-graded reward" in text
    assert not (tmp_path / "grader_accuracy.png").exists()


def test_a_run_of_one_rollout_can_be_drawn(tmp_path):
    append_row(tmp_path / "metrics.jsonl", {"rollout_id": 0, **METRICS})
    assert "self-graded reward" in plots.draw(tmp_path)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(UserError, match="no finished rollout"):
        plots.draw(tmp_path)
    assert plots.main([str(tmp_path)]) == 2 and plots.main([]) == 2
    assert read_rows(tmp_path / "metrics.jsonl") == []
    shutil.rmtree(tmp_path)
    assert plots.main([str(tmp_path)]) == 2
