"""An arm becomes a run: its command, its settings, and what a second call makes again."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from experiments import claims, runs
from experiments.arms import ARMS, FROZEN_COPY, ORACLE, PROBE, Arm
from experiments.generated_rubrics import RUBRICS
from experiments.other_starts import STARTS
from experiments.runs import Run
from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.cpu import flags
from rubric_rl.grading.settings import GraderSettings

URL = "http://127.0.0.1:30001"


def run_of(name, tmp_path, seed=7) -> Run:
    return Run(name, ARMS[name], seed, tmp_path, 36)


@pytest.mark.parametrize("name", ARMS)
def test_every_arms_settings_are_valid(name, tmp_path):
    run = run_of(name, tmp_path)
    run.folder.mkdir(parents=True)
    runs.write_settings(run, URL)
    GraderSettings.load(str(run.folder / "grader.yaml"))
    written = yaml.safe_load((run.folder / "grader.yaml").read_text())
    assert not {ORACLE, FROZEN_COPY, PROBE} & set(written.values())
    for value in written.values():
        assert not str(value).startswith(str(tmp_path)) or Path(value).is_file()


def parsed(run: Run) -> argparse.Namespace:
    """The run's words as the trainer reads them, which knows them all."""
    words = runs.command(run)
    assert words[:2] == ["bash", "run_qwen3_tiny.sh"]
    return flags.build_parser().parse_args(["--rollout-batch-size", "1", *words[2:]])


@pytest.mark.parametrize("name", ARMS)
def test_every_arms_flags_are_the_trainers(name, tmp_path):
    found = parsed(run_of(name, tmp_path))
    assert (found.seed, found.rollout_seed, found.num_rollout) == (7, 7, 36)
    assert found.lr == (1e-3 if name.endswith("-fast") else 1e-6)  # the parser's: not given


def test_arms_of_one_seed_have_the_same_prompts_noise_and_evaluations(tmp_path):
    shared = set()
    for name in ARMS:
        found = parsed(run_of(name, tmp_path))
        shared.add((found.seed, found.rollout_seed, found.num_rollout, found.eval_interval))
    assert len(shared) == 1


def test_an_arm_is_compared_with_one_that_is_run():
    assert all(arm.compared_with in ARMS for arm in ARMS.values())


def test_a_teacher_is_a_file_that_names_the_oracle(tmp_path):
    run = run_of("teacher-25", tmp_path)
    run.folder.mkdir(parents=True)
    runs.write_settings(run, URL)
    written = yaml.safe_load((run.folder / "grader.yaml").read_text())
    assert written["grader_teacher_share"] == 0.25
    teacher = yaml.safe_load(Path(written["grader_teacher"]).read_text())
    assert teacher["grader_url"] == URL
    GraderSettings.load(written["grader_teacher"])


@pytest.mark.parametrize("start", list(STARTS))
def test_an_arm_starts_from_the_checkpoint_that_it_names_and_no_other_does(start, tmp_path):
    found = runs.environment(run_of(start, tmp_path))["HF_CKPT_PATH"]
    assert found == str(tmp_path / f"{start}_start")
    assert "HF_CKPT_PATH" not in runs.environment(run_of("self", tmp_path))


def test_every_start_that_an_arm_names_can_be_made():
    assert {arm.start for arm in ARMS.values()} == {"shipped", *STARTS}


@pytest.mark.parametrize("start", list(STARTS))
def test_a_start_that_is_there_is_kept(start, tmp_path):
    STARTS[start](tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_practised_start_is_a_whole_checkpoint_of_other_weights(tmp_path):
    STARTS["practised"](tmp_path / "start")
    shipped = ROOT / "rubric_rl" / "tiny" / "model"
    found, expected = (
        {file.name: file for file in folder.iterdir()} for folder in (tmp_path / "start", shipped)
    )
    assert found.keys() == expected.keys()
    differ = {
        name for name, file in found.items() if file.read_bytes() != expected[name].read_bytes()
    }
    assert differ == {"model.safetensors", "making.json"}


@pytest.mark.parametrize("rubrics", RUBRICS)
def test_an_arm_trains_on_the_rubrics_that_it_names_and_is_evaluated_as_all(rubrics, tmp_path):
    run = run_of(rubrics, tmp_path)
    found = runs.environment(run)
    assert found["PROMPT_DATA_PATH"] == str(tmp_path / "rubrics" / f"{rubrics}.jsonl")
    assert found["EVAL_DATA_PATH"] == runs.HELD_OUT
    by_default = yaml.safe_load((ROOT / found["EVAL_CONFIG"]).read_text())
    (data_set,) = by_default["eval"]["datasets"]
    assert data_set["path"] == f"${{oc.env:EVAL_DATA_PATH,{runs.HELD_OUT}}}"
    assert runs.asked(run)["rubrics"] == rubrics


def test_an_arm_on_the_experts_rubrics_is_recorded_as_before_there_were_others(tmp_path):
    run = run_of("self", tmp_path)
    assert "rubrics" not in runs.asked(run)
    assert not {"PROMPT_DATA_PATH", "EVAL_DATA_PATH"} & set(runs.environment(run))


def test_all_rubrics_that_an_arm_names_can_be_made():
    assert {arm.rubrics for arm in ARMS.values()} == {"expert", *RUBRICS}


def test_what_a_run_was_asked_names_no_place_of_this_machine(tmp_path):
    for name, arm in ARMS.items():
        here = runs.asked(Run(name, arm, 1, tmp_path, 36))
        assert here == runs.asked(Run(name, arm, 1, tmp_path / "elsewhere", 36))
        assert str(tmp_path) not in json.dumps(here)


# ---- what is made, and what is not made again


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Runs that only note that they were made; a run named in `broken` fails."""
    made, broken = [], set()

    def make(run, port):
        if run.label() in broken:
            raise UserError(f"{run.label()} ended with status 1")
        made.append(run.label())
        run.folder.mkdir(parents=True, exist_ok=True)
        written = {"rollouts": run.rollouts, "commit": "c"} | runs.asked(run)
        run.record.write_text(json.dumps(written))

    def collect(run, folder):
        path = claims.results.path_of(run.name, run.seed, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"kind": "run", **json.loads(run.record.read_text())},
            {"kind": "evaluation", "weight_version": 0, "true": 0.2, "accuracy": 0.9},
            {"kind": "evaluation", "weight_version": 6, "true": 0.5, "accuracy": 0.9},
            {"kind": "prompts", "true": {"a": 0.5}},
            {"kind": "probe", "ordinary": 0.9, "hostile": 0.8},
            {"kind": "training"},
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(claims.runs, "make", make)
    monkeypatch.setattr(claims.results, "collect", collect)

    def call(*words: str) -> int:
        return claims.main(
            ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "r"), *words]
        )

    return argparse.Namespace(call=call, made=made, broken=broken)


def test_runs_are_made_in_the_order_of_the_arms_and_only_once(world, capsys):
    words = ["--arms", "self", "oracle", "--seeds", "1", "2"]
    assert world.call(*words) == 0
    assert world.made == ["self, seed 1", "self, seed 2", "oracle, seed 1", "oracle, seed 2"]
    out = capsys.readouterr().out
    assert "4 runs, 4 of them to be made" in out
    assert "self, seed 1: true 0.200 -> 0.350" in out and "left for 3 runs" in out
    assert world.call(*words, "--arms", "self", "oracle", "frozen", "--seeds", "1") == 0
    assert world.made[4:] == ["frozen, seed 1"]
    assert "3 runs, 1 of them to be made" in capsys.readouterr().out


def test_a_failed_run_stops_no_other_and_is_tried_again(world, capsys):
    world.broken.add("self, seed 1")
    words = ["--arms", "self", "--seeds", "1", "2"]
    assert world.call(*words) == 2
    assert world.made == ["self, seed 2"]
    assert "self, seed 1 ended with status 1" in capsys.readouterr().err
    world.broken.clear()
    assert world.call(*words) == 0
    assert world.made == ["self, seed 2", "self, seed 1"]


def test_runs_of_another_length_are_not_mixed(world, capsys):
    assert world.call("--arms", "self", "--seeds", "1") == 0
    assert world.call("--arms", "self", "--seeds", "1", "2", "--rollouts", "24") == 2
    assert "--rollouts 36" in capsys.readouterr().err
    assert world.made == ["self, seed 1"]


def test_a_trial_leaves_nothing_in_the_results_of_a_longer_run(world, tmp_path, capsys):
    trial = ["--arms", "self", "--seeds", "1", "--rollouts", "2", "--out", str(tmp_path / "trial")]
    assert world.call(*trial) == 0
    assert world.call("--arms", "self", "--seeds", "2") == 2
    assert "several lengths" in capsys.readouterr().err
    assert world.call("--arms", "self", "--seeds", "1") == 0, "its own takes the trial's place"
    assert "| self | 2 |" in capsys.readouterr().out


def test_a_run_of_an_arm_that_has_changed_is_not_taken_for_it(world, monkeypatch, capsys):
    words = ["--arms", "self", "--seeds", "1"]
    assert world.call(*words) == 0
    monkeypatch.setitem(claims.ARMS, "self", Arm("another", {"grader_votes": 3}))
    assert world.call(*words) == 2
    assert "had other settings; remove it" in capsys.readouterr().err


def test_an_unknown_arm_is_named(world, capsys):
    assert world.call("--arms", "selff") == 2
    assert "no arm selff" in capsys.readouterr().err


def test_a_run_leaves_a_record_only_when_it_ends_well(tmp_path, monkeypatch):
    name, arm = "self", Arm("")
    statuses = {1: "exit 3", 2: "exit 0"}
    for seed, line in statuses.items():
        monkeypatch.setattr(runs, "command", lambda run, line=line: ["bash", "-c", line])
        run = Run(name, arm, seed, tmp_path, 2)
        if seed == 1:
            with pytest.raises(UserError, match="self, seed 1 ended with status 3"):
                runs.make(run, 30001)
        else:
            runs.make(run, 30001)
        assert run.is_done == (seed == 2)
    record = json.loads(run.record.read_text())
    assert record["commit"] and record["command"] == ["bash", "-c", "exit 0"]


def test_a_killed_command_takes_its_run_along(tmp_path):
    here = tmp_path / "pid"
    words = ["bash", "-c", f"echo $$ > {here}; exec sleep 60"]
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from experiments import runs\n"
        "from experiments.arms import Arm\n"
        f"runs.command = lambda run: {words!r}\n"
        f"runs.make(runs.Run('self', Arm(''), 1, Path({str(tmp_path)!r}), 2), 30001)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        while not (here.exists() and here.read_text().strip()):
            assert process.poll() is None
            time.sleep(0.05)
        pid = int(here.read_text())
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the run lives on")
    finally:
        process.kill()
