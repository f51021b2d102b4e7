"""What a person sees: rows, the line per step, the summary with its sentence, the figures."""

import json
import math

import pytest

from rubric_rl.cpu import plots
from rubric_rl.cpu.recorder import Bar, Recorder, eval_line, pick, step_line
from rubric_rl.cpu.run_directory import append_row, read_rows
from rubric_rl.errors import UserError

STEP = {
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
PLAIN = {key: value for key, value in STEP.items() if not key.startswith("tiny/")}


def write_run(directory, drift: float, oracle: bool = True, steps: int = 12):
    for step in range(steps):
        row = {
            **(STEP if oracle else PLAIN),
            "step": step,
            "rollout/raw_reward": 0.3 + drift * step / steps,
            "perf/memory_gb": 5.0,
        }
        append_row(directory / "metrics.jsonl", row)
    for step in (0, 10):
        row = {
            "step": step,
            "eval/held_out": 0.2 + step / 100,
            "eval/held_out/response_len/mean": 20.0,
        }
        append_row(
            directory / "eval.jsonl",
            row | ({"eval/held_out/tiny/true_score": 0.2 + step / 50} if oracle else {}),
        )
    return directory


def test_a_row_is_on_disk_when_the_call_returns(tmp_path, capsys):
    recorder = Recorder(tmp_path, 0, 10, tensorboard=False)
    recorder.step(3, STEP | {"nothing": math.nan})
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row["step"] == 3 and row["rollout/raw_reward"] == 0.5 and row["nothing"] is None
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.strip() in (tmp_path / "train.log").read_text()


def test_the_line_of_a_step():
    assert step_line(4, 30, STEP) == (
        "step 5/30 | self-graded 0.500 | true 0.400 | grader acc 0.950 | length 30.0 | truncated 0.25 | "
        "seconds rollout 4.0, grading 3.0, of it after the rollout 1.0, update 3.0, sync 0.5"
    )
    assert "true" not in step_line(4, 30, PLAIN) and "grader acc" not in step_line(4, 30, PLAIN)


def test_a_short_stage_leaves_no_bar_in_a_log_file(capfd):
    with Bar("rollout", 3, "answer") as bar:
        bar.at(2)
    assert capfd.readouterr().err == ""


def test_the_line_of_an_evaluation():
    row = {
        "eval/held_out": 0.2,
        "eval/held_out/tiny/true_score": 0.3,
        "eval/held_out/response_len/mean": 9.0,
        "perf/eval_time": 2.0,
    }
    assert (
        eval_line(10, row)
        == "evaluation after 10 steps | held_out self-graded 0.200 true 0.300 length 9.0 | seconds 2.0"
    )


def test_pick_finds_a_hooks_key_whatever_its_prefix():
    assert pick({"tiny/true_score": 1}, "true_score") == 1 and pick({}, "true_score") is None
    assert pick({"untrue_score": 1}, "true_score") is None


def test_tensorboard_events_of_a_resumed_run_hide_the_old_ones(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Recorder(tmp_path, 0, 4)
    for step in range(3):
        first.step(step, {"a": float(step)})
    first.close()
    second = Recorder(tmp_path, 1, 4)  # killed; the last checkpoint was that of step 0
    for step in (1, 2):
        second.step(step, {"a": 10.0 + step})
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [
        (0, 0.0),
        (1, 11.0),
        (2, 12.0),
    ]


def test_summary_and_figures(tmp_path):
    text = plots.draw(write_run(tmp_path, drift=0.6))
    assert (
        "diverge" in text
        and "| true score" in text
        and "held_out first" in text
        and "at most 5.0 GB" in text
    )
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "reward.png",
        "grader_accuracy.png",
        "response_length.png",
        "seconds.png",
    }
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.glob("*.png"))
    assert (tmp_path / "summary.md").read_text().strip() == text.strip()


def test_reward_and_true_score_that_move_together(tmp_path):
    assert "move together" in plots.draw(write_run(tmp_path, drift=0.0))


def test_a_short_run_is_not_judged():
    steps = [{"rollout/raw_reward": 0.1 * step, "true_score": 0.0} for step in range(9)]
    assert plots.divergence(steps) == [] and "diverge" in plots.divergence(steps + steps[-1:])[0]


def test_without_an_oracle_its_columns_are_left_out(tmp_path):
    text = plots.draw(write_run(tmp_path, drift=0.6, oracle=False))
    assert "true" not in text and "together" not in text and "self-graded reward" in text
    assert not (tmp_path / "grader_accuracy.png").exists()


def test_a_run_of_one_step_can_be_drawn(tmp_path):
    append_row(tmp_path / "metrics.jsonl", {"step": 0, **STEP})
    assert "self-graded reward" in plots.draw(tmp_path)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(UserError, match="no finished step"):
        plots.draw(tmp_path)
    assert plots.main([str(tmp_path)]) == 2 and plots.main([]) == 2
    assert read_rows(tmp_path / "metrics.jsonl") == []
