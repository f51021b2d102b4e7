"""What the hooks do with an evaluation: figures against the first one, the alarm, the stop."""

import asyncio
from argparse import Namespace
from pathlib import Path

import pytest
from doubles.hooked import hook_args, sample
from doubles.judged import HONEST, LENIENT, records

import self_reward_rm as hooks
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.schema import Anchored
from rubric_rl.trust.evaluations import FOLDER
from rubric_rl.trust.moved import Move
from rubric_rl.trust.watch import (
    STOPPED,
    TRACKER,
    stop_if_alarmed,
    watch_evaluation,
    watch_update,
)


@pytest.fixture
def args(tmp_path) -> Namespace:
    anchor = tmp_path / "anchor.yaml"
    return hook_args("m", save=str(tmp_path), grader_anchor=str(anchor), grader_alarm="stop")


def two_evaluations(args) -> dict[str, float]:
    """The figures of the second, whose grader has turned lenient."""
    watch_evaluation(args, 0, records(HONEST, "0"), None)
    return watch_evaluation(args, 3, records(LENIENT, "4"), None)


def checkpoint(args, rollout: int) -> None:
    with open(f"{args.save}/latest_checkpointed_iteration.txt", "w") as file:
        file.write(f"{rollout}\n")


def test_figures_are_those_against_the_first_evaluation(args):
    assert watch_evaluation(args, 0, records(HONEST, "0"), None) == {"alarm/raised": 0.0}
    figures = watch_evaluation(args, 3, records(LENIENT, "4"), None)
    assert figures["held/grading/anchor/exploitation"] == 1.0
    assert figures["held/grading/anchor/newly_credited"] == 60
    assert figures["alarm/raised"] == 1.0


def test_without_anchor_and_probe_nothing_is_kept(tmp_path):
    args = hook_args("m", save=str(tmp_path))
    assert watch_evaluation(args, 0, records(HONEST, "0"), None) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_alarm_ends_a_run_after_a_checkpoint_and_not_before(args, tmp_path):
    two_evaluations(args)
    stop_if_alarmed(args)
    checkpoint(args, 2)
    stop_if_alarmed(args)
    checkpoint(args, 3)
    with pytest.raises(UserError, match="alarm after rollout 3: the reward can no longer be"):
        hooks.log_rollout(4, args, [], {}, 1.0)
    assert "alarm after rollout 3" in (tmp_path / STOPPED).read_text()


def test_an_update_ends_a_run_after_the_next_checkpoint(args, tmp_path):
    """Of its rollout or a later one: no evaluation need come before."""
    watch_evaluation(args, 0, records(HONEST, "0"), None)
    checkpoint(args, 1)
    watch_update(args, Move(2, 0.9, tokens=100))
    stop_if_alarmed(args)
    checkpoint(args, 2)
    with pytest.raises(UserError, match="alarm after rollout 2: the policy is suddenly another"):
        hooks.log_rollout(3, args, [], {}, 1.0)
    text = (tmp_path / STOPPED).read_text()
    assert "seen: the update after rollout 2 moved the policy by 0.90 nats a token" in text
    assert "best by the anchor: before the first rollout: the start" in text
    stop_if_alarmed(Namespace(**vars(args) | {"grader_alarm_moved": 1.0}))


def test_a_run_that_starts_again_asks_nobody_before_it_ends(args, monkeypatch):
    two_evaluations(args)
    checkpoint(args, 3)
    monkeypatch.setattr(hooks, "WatchedGraders", None)
    with pytest.raises(UserError, match="alarm after rollout 3"):
        asyncio.run(hooks.reward(args, sample()))


@pytest.mark.parametrize("damage", [b"", b"release", b"12\x00", b"\xff"])
def test_a_damaged_tracker_is_said_once_and_the_alarm_still_ends_the_run(args, caplog, damage):
    """Nobody can tell then whether a checkpoint follows; the alarm is not lost with that."""
    watch_evaluation(args, 0, records(HONEST, "0"), None)
    tracker = Path(args.save, TRACKER)
    tracker.write_bytes(damage)
    for _ in range(3):
        stop_if_alarmed(args)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(f"{tracker}: names no rollout") and "\n" not in line
    watch_evaluation(args, 3, records(LENIENT, "4"), None)
    with pytest.raises(UserError, match="alarm after rollout 3"):
        stop_if_alarmed(args)


def test_a_damaged_evaluation_ends_a_run_that_the_alarm_may_end(args):
    two_evaluations(args)
    checkpoint(args, 3)
    path = next(Path(args.save, FOLDER).iterdir())
    path.write_text("half")
    with pytest.raises(DataError, match=path.name):
        stop_if_alarmed(args)


def test_a_run_that_it_has_ended_goes_on_when_told_so(args):
    two_evaluations(args)
    checkpoint(args, 3)
    for changed in ({"grader_alarm": "warn"}, {"grader_alarm_exploitation": 2.0}):
        stop_if_alarmed(Namespace(**vars(args) | changed))
    with pytest.raises(UserError):
        stop_if_alarmed(args)


def test_an_evaluation_that_is_well_again_ends_the_alarm(args):
    two_evaluations(args)
    watch_evaluation(args, 7, records(HONEST, "8"), None)
    checkpoint(args, 7)
    stop_if_alarmed(args)


def test_a_dead_anchor_is_said_and_ends_nothing(args, caplog):
    for rollout, weights in ((0, "0"), (3, "4")):
        silent = records(HONEST, weights)
        for record in silent["held"]:
            record.anchored = Anchored("judge", error="HTTP 500")
        figures = watch_evaluation(args, rollout, silent, None)
    assert figures["alarm/raised"] == 1.0
    assert "no verdict of the anchor, judge" in caplog.text
    checkpoint(args, 3)
    stop_if_alarmed(args)


def test_warn_never_ends_a_run(args, caplog):
    args.grader_alarm = "warn"
    two_evaluations(args)
    checkpoint(args, 3)
    stop_if_alarmed(args)
    assert "the reward can no longer be trusted" in caplog.text
