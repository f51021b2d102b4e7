"""Before and around the loop: preflight, one line per error, exit status, what it starts from, dead servers."""

import argparse
import json
import os
import shutil
import signal
import socket

import pytest
from doubles.launch_world import WEIGHTS
from doubles.trainer import FLAGS, make_args, row, write_rows

from rubric_rl import ROOT
from rubric_rl.cpu import check_machine, serve, train
from rubric_rl.cpu.run_directory import RunDirectory
from rubric_rl.errors import UserError

TINY = json.loads((ROOT / "rubric_rl" / "tiny/model/config.json").read_text())
QWEN3_8B = dict(
    hidden_size=4096, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, intermediate_size=12288,
    head_dim=128, vocab_size=151936, tie_word_embeddings=False,
)  # fmt: skip


def model(path, kind="qwen3", weights=True, tokenizer=True, shape=()):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(TINY | {"model_type": kind} | dict(shape)))
    if weights:
        (path / "model.safetensors").write_bytes(WEIGHTS)
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(ROOT / "rubric_rl/tiny/model" / name, path)
    return path


def args_of(tmp_path, *more):
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    checkpoint = tmp_path / "model"
    if not checkpoint.exists():
        model(checkpoint)
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
        check_machine.check_model(model(tmp_path / "m", **change), "--hf-checkpoint")


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(UserError, match="no such folder; set HF_CKPT_PATH"):
        check_machine.check_model(tmp_path / "absent", "--hf-checkpoint")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="config.json: no Qwen3 configuration"):
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
    """An 8B checkpoint, exported for another run: 33 GB in the engine, four times that in the actor."""
    monkeypatch.setattr("rubric_rl.cpu.engine.available_gb", lambda: 100.0)
    model(tmp_path / "model", shape=QWEN3_8B)
    with pytest.raises(
        UserError, match="too little memory for this run of .*model: about 168.. GB needed"
    ):
        check_machine.check(args_of(tmp_path))


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
        UserError, match="too little memory for this run of .*: about .* needed, 1.0 GB available"
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
    with pytest.raises(UserError, match="no run can be kept here .*; set SAVE_PATH"):
        RunDirectory(tmp_path / path)


def test_another_experiment_is_refused_without_pointing_at_a_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train.check_machine, "check", lambda args: None)
    args, run = args_of(tmp_path), RunDirectory(tmp_path / "run")
    train.begin(args, run)
    run.commit(0, run.prepare(0, {"step": 0}, lambda directory: None))
    run._lock.close()
    words = [
        "--prompt-data",
        args.prompt_data,
        "--hf-checkpoint",
        args.hf_checkpoint,
        "--save",
        args.save,
    ]
    assert train.main([*FLAGS, *words, "--load", args.save, "--lr", "0.5"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_serving_what_is_no_model_is_one_line(tmp_path, capsys):
    assert serve.main(["--model", str(tmp_path), "--log-dir", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path} holds no Hugging Face checkpoint (no config.json)\n"
    )


def test_an_error_inside_the_run_is_one_line_with_the_traceback_in_train_log(
    tmp_path, capsys, monkeypatch
):
    class Wrapped(RuntimeError):  # as Ray raises what an actor raised
        cause = UserError("the engine on port 1 ended")

    def broken(*arguments):
        raise Wrapped("a page of traceback")

    monkeypatch.setattr(train.check_machine, "check", lambda args: None)
    monkeypatch.setattr(train, "_run", broken)
    args_of(tmp_path)
    words = [
        "--prompt-data",
        str(tmp_path / "rows.jsonl"),
        "--hf-checkpoint",
        str(tmp_path / "model"),
    ]
    assert train.main([*FLAGS, *words, "--save", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0] == "error: the engine on port 1 ended" and "train.log" in error[1]
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


def test_a_signal_that_a_library_turned_into_its_own_error_is_still_a_stop(
    tmp_path, capsys, monkeypatch
):
    """shutil.rmtree closes a file descriptor a second time when the signal comes within the first."""

    def interrupted(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            os.close(999_999)

    monkeypatch.setattr(check_machine, "check", lambda args: None)
    monkeypatch.setattr(train, "_run", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert train.main([*FLAGS, "--save", str(tmp_path / "run")]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.startswith("stopped; the same command resumes")


def test_going_on_needs_load(tmp_path):
    args, run = args_of(tmp_path), RunDirectory(tmp_path / "run")
    assert train.begin(args, run) == 0
    run.commit(4, run.prepare(4, {"step": 4}, lambda directory: None))
    assert train.begin(args, run) == 5
    args.load = None
    with pytest.raises(UserError, match="give --load"):
        train.begin(args, run)


def test_where_training_starts(tmp_path):
    model(tmp_path / "m")
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

    monkeypatch.setattr(cluster.ray, "wait", lambda pending, num_returns, timeout: ([], pending))
    waiting = cluster.Cluster(make_args(), tmp_path)
    waiting.children.append(Dead())
    with pytest.raises(ServerDied):
        waiting.wait(["never"])
