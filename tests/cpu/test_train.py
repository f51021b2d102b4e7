"""Before and around the loop: checks, one line per error, exit status, what it starts from."""

import argparse
import errno
import importlib
import itertools
import json
import os
import pickle
import signal
import socket
from pathlib import Path

import pytest
from doubles.ranks import actor_args
from doubles.trainer import FLAGS, make_args, model_folder, row, write_rows

from rubric_rl.common.errors import UserError
from rubric_rl.cpu import check_machine, local_ray, serve, train
from rubric_rl.cpu.engine import RequestRefused
from rubric_rl.cpu.run_directory import RunDirectory

QWEN3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 12288,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}


def args_of(tmp_path, *more):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    checkpoint = tmp_path / "model"
    if not checkpoint.exists():
        model_folder(checkpoint)
    save = ["--save", str(tmp_path / "run"), "--load", str(tmp_path / "run")]
    return make_args("--prompt-data", str(rows), "--hf-checkpoint", str(checkpoint), *save, *more)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"kind": "llama"}, "not a Qwen3ForCausalLM checkpoint .model_type 'llama'"),
        ({"shape": {"rope_scaling": {"type": "yarn"}}}, "does not support rope_scaling"),
        ({"weights": False}, "no \\*.safetensors"),
        ({"tokenizer": False}, "no tokenizer.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_used(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        check_machine.check_model(model_folder(tmp_path / "m", **change), "--hf-checkpoint")


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(UserError, match="no such folder; set HF_CKPT_PATH"):
        check_machine.check_model(tmp_path / "absent", "--hf-checkpoint")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"config.json: no Qwen3 configuration"):
        check_machine.check_model(tmp_path / "empty", "--hf-checkpoint")
    (tmp_path / "empty" / "config.json").write_text("[")
    with pytest.raises(UserError, match="no Qwen3 configuration"):
        check_machine.check_model(tmp_path / "empty", "--hf-checkpoint")


def test_preflight_passes_what_is_right(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        check_machine, "require_memory", lambda gigabytes, what: asked.append(gigabytes)
    )
    check_machine.check(args_of(tmp_path))
    check_machine.check(args_of(tmp_path, "--rollout-num-gpus", "3"))
    assert asked[1] - asked[0] == pytest.approx(2 * check_machine.ENGINE_GB, abs=0.05)


def test_memory_counts_the_model(tmp_path, monkeypatch):
    """An 8B checkpoint, exported for another run: 33 GB in the engine, 130 in the actor."""
    monkeypatch.setattr("rubric_rl.cpu.engine.available_gb", lambda: 100.0)
    model_folder(tmp_path / "model", shape=QWEN3_8B)
    with pytest.raises(
        UserError, match=r"too little memory for this run of .*model: about 168.. GB needed"
    ):
        check_machine.check(args_of(tmp_path))


def frozen(tmp_path, folder: str) -> list[str]:
    """Flags for a frozen grader from this folder, "" for the policy's."""
    models = tmp_path / "models.yaml"
    groups = "server_groups: [{num_gpus: 4}]"
    grader = f"name: grader, update_weights: false, model_path: '{folder}', {groups}"
    models.write_text(f"sglang: [{{name: policy, {groups}}}, {{{grader}}}]")
    (tmp_path / "grader.yaml").write_text("grader_engine: grader\n")
    more = ["--sglang-config", str(models), "--custom-config-path", str(tmp_path / "grader.yaml")]
    return ["--rollout-num-gpus", "2", *more]


def test_memory_counts_the_engine_of_a_frozen_model(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        check_machine, "require_memory", lambda gigabytes, what: asked.append(gigabytes)
    )
    other = model_folder(tmp_path / "other", shape=QWEN3_8B)
    check_machine.check(args_of(tmp_path))  # one engine
    check_machine.check(args_of(tmp_path, *frozen(tmp_path, "")))
    check_machine.check(args_of(tmp_path, *frozen(tmp_path, str(other))))
    assert asked[1] - asked[0] == pytest.approx(check_machine.ENGINE_GB, abs=0.05)
    assert asked[2] - asked[1] == pytest.approx(4 * 8.19, abs=0.1)  # billions of parameters


def test_a_frozen_model_that_cannot_be_served_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(check_machine, "require_memory", lambda gigabytes, what: None)
    with pytest.raises(UserError, match=r"model_path of grader /nowhere: no such folder; set mod"):
        check_machine.check(args_of(tmp_path, *frozen(tmp_path, "/nowhere")))
    with pytest.raises(UserError, match=r"--rollout-num-gpus 1: .* serves 2 models"):
        flags = [*frozen(tmp_path, ""), "--rollout-num-gpus", "1"]
        check_machine.check(args_of(tmp_path, *flags))


def test_training_on_the_evaluation_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(check_machine, "require_memory", lambda gigabytes, what: None)
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps(row(9)) + "\n" + json.dumps(row(2)) + "\n")
    with pytest.raises(
        UserError, match=r"rows.jsonl are held out for evaluation in .*held.jsonl, e.g. p2"
    ):
        check_machine.check(args_of(tmp_path, "--eval-prompt-data", "held", str(held)))


def test_slices_of_one_file_that_do_not_meet_are_fine(tmp_path, monkeypatch):
    monkeypatch.setattr(check_machine, "require_memory", lambda gigabytes, what: None)
    rows = args_of(tmp_path).prompt_data
    check_machine.check(
        args_of(
            tmp_path, "--prompt-data", f"{rows}@[0:2]", "--eval-prompt-data", "held", f"{rows}@[2:]"
        )
    )
    with pytest.raises(UserError, match=r"are held out for evaluation in .*, e.g. p1"):
        check_machine.check(
            args_of(
                tmp_path,
                "--prompt-data",
                f"{rows}@[:2]",
                "--eval-prompt-data",
                "held",
                f"{rows}@[-2:]",
            )
        )


def test_too_little_memory_is_said_with_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("rubric_rl.cpu.engine.available_gb", lambda: 1.0)
    with pytest.raises(
        UserError, match=r"too little memory for this run of .*: about .* needed, 1.0 GB available"
    ):
        check_machine.check(args_of(tmp_path))


def test_a_port_in_use_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(check_machine, "require_memory", lambda gigabytes, what: None)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} for the router"):
            check_machine.check(args_of(tmp_path, "--sglang-router-port", port))


@pytest.mark.parametrize(
    "words, said", [(["--nonsense"], "--nonsense"), (["--hf-checkpoint", "absent"], "absent")]
)
def test_main_says_one_line_and_exits_2(tmp_path, capsys, words, said):
    assert train.main([*FLAGS, "--save", str(tmp_path / "run"), *words]) == 2
    captured = capsys.readouterr()
    assert (
        captured.err.startswith("error: ")
        and captured.err.count("\n") == 1
        and said in captured.err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", ["file", "file/run"])
def test_a_save_path_that_cannot_be_one(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no run can be kept here .*; set SAVE_PATH"):
        RunDirectory(tmp_path / path)


def commit(run, rollout_id):
    run.commit(rollout_id, run.prepare(rollout_id, {}, lambda directory: None))


def words_of(tmp_path, *more):
    """The command line of a run in tmp_path."""
    args = args_of(tmp_path)
    paths = {"--prompt-data": args.prompt_data, "--hf-checkpoint": args.hf_checkpoint}
    paths |= {"--save": args.save, "--load": args.load}
    return [*FLAGS, *itertools.chain(*paths.items()), *more]


def test_another_experiment_is_refused_without_pointing_at_a_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train.check_machine, "check", lambda args: None)
    run = RunDirectory(tmp_path / "run")
    train.first_rollout(args_of(tmp_path), run)
    commit(run, 0)
    run.close()
    assert train.main(words_of(tmp_path, "--lr", "0.5")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_serving_what_is_no_model_is_one_line(tmp_path, capsys):
    assert serve.main(["--model", str(tmp_path), "--log-dir", str(tmp_path)]) == 2
    said = f"error: {tmp_path} holds no Hugging Face checkpoint (no config.json)\n"
    assert capsys.readouterr().err == said


class WrappedByRay(RuntimeError):
    """As Ray raises what an actor raised."""

    def __init__(self, cause):
        super().__init__("a page of traceback")
        self.cause = cause


class ActorDiedError(RuntimeError):
    """As Ray names an actor whose process has ended."""


USERS = UserError("the engine on port 1 ended")
DEFECT = KeyError("rewards")
FULL = "the disk is full; make room, and the same command goes on from the last checkpoint"


@pytest.mark.parametrize(
    "error, status, line",
    [
        (USERS, 2, "the engine on port 1 ended"),
        (WrappedByRay(USERS), 2, "the engine on port 1 ended"),
        (DEFECT, 1, "KeyError: 'rewards'"),
        (WrappedByRay(DEFECT), 1, "KeyError: 'rewards'"),
        (ValueError("two\nlines"), 1, "ValueError: two"),
        (WrappedByRay(RuntimeError("no match")), 1, "RuntimeError: no match"),
        (RequestRefused("answered 400"), 1, "RequestRefused: answered 400"),
        (OSError(errno.ENOSPC, "No space left on device", "a.pt"), 2, f"a.pt: {FULL}"),
        (WrappedByRay(OSError(errno.EDQUOT, "Quota exceeded")), 2, f"SAVE_PATH: {FULL}"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, f"SAVE_PATH: {FULL}"),
        (
            ActorDiedError("it is gone\nwith details"),
            1,
            "a process of the trainer was killed or crashed, perhaps out of memory (it is gone)",
        ),
    ],
)
def test_the_users_mistake_exits_2_and_a_defect_1_wrapped_or_not(
    tmp_path, capsys, monkeypatch, error, status, line
):
    def broken(*arguments):
        raise error

    monkeypatch.setattr(train.check_machine, "check", lambda args: None)
    monkeypatch.setattr(train, "_run_cluster", broken)
    assert train.main(words_of(tmp_path)) == status
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"error: {line}" and "train.log" in said[1] and len(said) == 2
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


def test_a_defect_before_the_run_has_a_directory_shows_its_traceback(tmp_path, monkeypatch):
    def broken(args):
        raise DEFECT

    monkeypatch.setattr(train.check_machine, "check", broken)
    with pytest.raises(KeyError):
        train.main(words_of(tmp_path))


def errors_of_ours() -> list[type[UserError]]:
    """All classes of errors that the trainer's processes may raise for the user."""
    for name in ("actor", "generate", "rollout_manager"):
        importlib.import_module(f"rubric_rl.cpu.{name}")
    found, unvisited = [], [UserError]
    while unvisited:
        kind = unvisited.pop()
        found.append(kind)
        unvisited += kind.__subclasses__()
    return found


def test_errors_travel_between_processes():
    """Ray loses an exception that cannot be pickled, and what it was with it."""
    kinds = errors_of_ours()
    assert len(kinds) > 5
    for kind in kinds:
        copy = pickle.loads(pickle.dumps(kind("what is wrong")))
        assert type(copy) is kind and str(copy) == "what is wrong"


def test_what_can_fail_is_not_done_in_the_constructor_of_a_ray_actor(tmp_path):
    """From there Ray hands on that an actor died, and the user's mistake would exit 1."""
    from rubric_rl.cpu.cluster import TrainingActor
    from rubric_rl.cpu.rollout_manager import RolloutManager

    args = args_of(tmp_path)
    (Path(args.hf_checkpoint) / "tokenizer.json").write_text("{}")
    manager = RolloutManager(args)
    with pytest.raises(UserError, match="no usable tokenizer"):
        manager.load()
    actor = TrainingActor(actor_args(tensor_model_parallel_size=2), 0, 1, "store")
    with pytest.raises(UserError, match="does not divide 1 training processes"):
        actor.call("load", "model")


def test_a_signal_that_a_library_turned_into_its_own_error_is_still_a_stop(
    tmp_path, capsys, monkeypatch
):
    """shutil.rmtree closes a file descriptor a second time when the signal comes within."""

    def interrupted(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            os.close(999_999)

    monkeypatch.setattr(check_machine, "check", lambda args: None)
    monkeypatch.setattr(train, "_run_cluster", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert train.main(words_of(tmp_path)) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.startswith("stopped; the same command resumes")


def test_going_on_needs_load(tmp_path):
    args, run = args_of(tmp_path), RunDirectory(tmp_path / "run")
    assert train.first_rollout(args, run) == 0
    commit(run, 4)
    assert train.first_rollout(args, run) == 5
    args.load = None
    with pytest.raises(UserError, match="give --load"):
        train.first_rollout(args, run)


def test_where_training_starts(tmp_path):
    model_folder(tmp_path / "m")
    args = argparse.Namespace(load=str(tmp_path / "m"), ref_load="ref", hf_checkpoint="hf")
    assert train.initial_weights(args) == str(tmp_path / "m")
    args.load = str(tmp_path)  # a run directory, not weights
    assert train.initial_weights(args) == "ref"
    args.ref_load = None
    assert train.initial_weights(args) == "hf"


def test_a_dead_server_ends_the_waiting(monkeypatch, tmp_path):
    from rubric_rl.cpu import cluster
    from rubric_rl.cpu.process import ServerDied

    class Dead:
        def check(self):
            raise ServerDied("the engine ended")

        def stop(self):
            """Nothing to stop."""

    monkeypatch.setattr(cluster.ray, "wait", lambda pending, num_returns, timeout: ([], pending))
    with cluster.Cluster(make_args(), tmp_path) as waiting:
        waiting.servers.append(Dead())
        with pytest.raises(ServerDied):
            waiting.wait(["never"])
    assert not waiting.private.exists()


def test_a_manager_whose_answers_are_of_other_weights_is_a_defect(tmp_path):
    from rubric_rl.cpu.rollout_manager import RolloutManager
    from rubric_rl.cpu.samples import Sample

    class Rollouts:
        async def rollout(self, source):
            return [Sample(weight_versions=["3"])], {"perf/rollout_time": 1.0}

    manager = RolloutManager(args_of(tmp_path))
    manager.source = manager.rollouts = Rollouts()
    with pytest.raises(RuntimeError, match="answers of weight version 3, not 4") as raised:
        manager.generate(4, "4")
    assert not isinstance(raised.value, UserError)


def test_folders_of_killed_runs_are_removed_and_a_new_one_is_private(tmp_path, monkeypatch):
    monkeypatch.setattr(local_ray, "TEMPORARY", tmp_path)
    gone = tmp_path / f"{local_ray.PREFIX}999999999-abc"
    alive = tmp_path / f"{local_ray.PREFIX}{os.getpid()}-abc"
    for folder in (gone, alive):
        folder.mkdir()
    private = local_ray.make_private_folder()
    assert not gone.exists() and alive.exists()
    assert private.stat().st_mode & 0o077 == 0
