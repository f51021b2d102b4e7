"""The alarm ends a run of the trainer without a GPU, after a checkpoint and with its own status."""

import pytest
from doubles.judged import HONEST, LENIENT, records
from doubles.trainer import Call, FakeCluster, make_args

from rubric_rl.cpu import train
from rubric_rl.cpu.recorder import Recorder
from rubric_rl.cpu.run_directory import RunDirectory
from rubric_rl.trust.evaluations import stored
from rubric_rl.trust.moved import Move, kept_moves
from rubric_rl.trust.watch import watch_evaluation, watch_update

LENIENT_FROM = 3  # weight version


def args_of(tmp_path, alarm: str, save_interval: int = 1):
    config = tmp_path / "grader.yaml"
    config.write_text(f"grader_anchor: anchor.yaml\ngrader_alarm: {alarm}\n")
    save = str(tmp_path / "run")
    flags = ["--save", save, "--load", save, "--num-rollout", "8"]
    flags += ["--eval-prompt-data", "held", "rows.jsonl", "--eval-interval", "1"]
    flags += ["--save-interval", str(save_interval), "--custom-config-path", str(config)]
    return make_args(*flags)


def run(args, large: int = -1) -> tuple[bool, RunDirectory]:
    """A run whose grader turns lenient; the update after rollout `large` moves the policy far."""
    directory = RunDirectory(args.save)
    cluster = FakeCluster(0.0)
    answer = cluster.manager.generate.remote

    def generate(rollout_id: int, weight_version: str):
        data, found = answer(rollout_id, weight_version)
        if rollout_id:
            nats = 0.9 if rollout_id == large + 1 else 0.01
            watch_update(args, Move(rollout_id - 1, nats, tokens=100))
            found["grading/moved"] = nats
        return data, found

    def evaluate(rollout_id: int) -> dict:
        mets = LENIENT if cluster.weights >= LENIENT_FROM else HONEST
        return watch_evaluation(args, rollout_id, records(mets, str(cluster.weights)), None) | {
            "eval/held": 0.5
        }

    cluster.manager.evaluate = Call(evaluate)
    cluster.manager.generate = Call(generate)
    recorder = Recorder(directory.path, 0, 8, tensorboard=False)
    return train.Trainer(args, directory, cluster, recorder).run(0), directory


@pytest.mark.parametrize("save_interval, last", [(1, 2), (4, 3)])
def test_after_the_next_checkpoint(tmp_path, save_interval, last):
    args = args_of(tmp_path, "stop", save_interval)
    finished, directory = run(args)
    assert not finished
    assert directory.newest() == last
    log = (directory.path / "train.log").read_text()
    assert "alarm after rollout 2: the reward can no longer be trusted" in log
    assert train.is_stopped(args), "the same command ends at once"


def test_warn_says_so_and_goes_on_and_keeps_the_best_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "best_rollout", lambda evaluations: 1)
    args = args_of(tmp_path, "warn")
    finished, directory = run(args)
    assert finished
    assert not train.is_stopped(args)
    assert "alarm after rollout 7" in (directory.path / "train.log").read_text()
    kept = sorted(path.name for path in directory.path.glob("iter_*"))
    assert kept == [f"iter_{number:07d}" for number in (1, 5, 6, 7)]


@pytest.mark.parametrize(
    "best, kept", [(-1, [3, 5, 7]), (0, [3, 5, 7]), (1, [1, 3, 5, 7]), (2, [1, 3, 5, 7])]
)
def test_with_fewer_checkpoints_the_last_one_up_to_the_best_is_kept(
    tmp_path, monkeypatch, best, kept
):
    monkeypatch.setattr(train, "best_rollout", lambda evaluations: best)
    _, directory = run(args_of(tmp_path, "warn", save_interval=2))
    names = sorted(path.name for path in directory.path.glob("iter_*"))
    assert names == [f"iter_{number:07d}" for number in kept]


def test_what_is_made_again_is_dropped(tmp_path):
    _, directory = run(args_of(tmp_path, "warn"))
    directory.cut_back(3)
    assert [evaluation.rollout for evaluation in stored(directory.path)] == [0, 0, 1, 2]
    assert [move.rollout for move in kept_moves(directory.path)] == [0, 1, 2]


def test_a_large_update_is_said_at_once_and_ends_the_run(tmp_path):
    finished, directory = run(args_of(tmp_path, "stop"), large=0)
    assert not finished
    assert directory.newest() == 1, "the rollout after it tells"
    log = (directory.path / "train.log").read_text()
    assert log.index("alarm after rollout 0: the policy is suddenly another") < log.index(
        "rollout 1 ("
    )


@pytest.mark.parametrize("finished, status", [(True, 0), (False, 3)])
def test_has_a_status_of_its_own(tmp_path, monkeypatch, finished, status):
    given = args_of(tmp_path, "stop")
    monkeypatch.setattr(train.flags, "parse", lambda argv: given)
    monkeypatch.setattr(train.check_machine, "check", lambda args: None)
    monkeypatch.setattr(train, "train", lambda args, run: finished)
    assert train.main([]) == status
