"""Which records of a training run count: weight versions restart, rollouts are made again."""

import sys
from pathlib import Path

import pytest
from doubles.records import made, write_run

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.record_file import append_record
from rubric_rl.evaluation import compare, rescore
from rubric_rl.evaluation.read_run import Run
from rubric_rl.report import __main__ as report

GOOD, BAD = (True, False), (False, True)


def append(folder: Path, *records) -> None:
    for record in records:
        append_record(folder, record)


def trained(version: int, index: int, mets=BAD, run: str = "first", prompt: str = "", **more):
    """A training record: of the prompt that this sample always has."""
    prompt = prompt or f"t{index}"
    fields = {"index": index, "weights": str(version), "split": "train", "run": run}
    return made(prompt, (5, -5), mets, **fields | more)


def evaluated(version: int, mets=BAD, run: str = "first", prompts: int = 3, **more) -> list:
    """The records of an evaluation, whose samples are always numbered from 0."""
    records = []
    for index in range(prompts):
        fields = {"index": index, "weights": str(version), "run": run}
        records.append(made(f"h{index}", (5, -5), mets, **fields | more))
    return records


def resumed(folder: Path, first: str = "first", second: str = "second") -> Path:
    """A run that was killed in rollout 6 and went on from its checkpoint after rollout 3.

    slime counts the weights from 1 in each of both starts.
    """
    for rollout in range(6):
        append(folder, trained(rollout + 1, rollout, run=first))
        if rollout in (0, 5):
            append(folder, *evaluated(rollout + 1, run=first))
    for rollout in range(4, 8):
        append(folder, trained(rollout - 3, rollout, GOOD, run=second))
    append(folder, *evaluated(1, GOOD, run=second))
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command's main in this process; returns what it printed on stdout and stderr."""

    def run(main, *words) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        status = main()
        out, err = capsys.readouterr()
        assert status == 0, err
        return out, err

    return run


# A writer that names no run leaves the order of its versions.
RUNS = pytest.mark.parametrize("first, second", [("first", "second"), ("", "")])


class TestAResumedRun:
    @RUNS
    def test_the_last_evaluation_is_the_one_written_last(self, tmp_path, first, second):
        run = Run(resumed(tmp_path, first, second), "eval")
        assert (run.weights, len(run)) == ("1", 3)
        assert {record.score for record in run} == {1.0}

    @RUNS
    def test_an_evaluation_of_another_policy_is_not_replaced(self, tmp_path, first, second):
        run = Run(resumed(tmp_path, first, second), "eval", every=True)
        assert len(run) == 9

    @RUNS
    def test_a_rollout_made_again_counts_once_and_the_newer_one_wins(self, tmp_path, first, second):
        run = Run(resumed(tmp_path, first, second), "train", every=True)
        scores = {record.index: record.score for record in run}
        assert len(run) == len(scores) == 8
        assert [scores[index] for index in range(8)] == [-1.0] * 4 + [1.0] * 4

    @RUNS
    def test_rescoring_averages_no_two_policies(self, tmp_path, command, first, second):
        out, _ = command(rescore.main, resumed(tmp_path, first, second), "--split", "eval")
        lines = [line.split() for line in out.splitlines()[2:5]]
        assert [line[1:-4] for line in lines] == [["1,", "run", "1"], ["6"], ["1,", "run", "2"]]
        assert [line[-1] for line in lines] == ["-1.0000", "-1.0000", "1.0000"]

    def test_its_summary_is_of_the_last_evaluation(self, tmp_path, command):
        out, _ = command(rescore.main, resumed(tmp_path), "--split", "eval", "--summary")
        assert f"{tmp_path.name} (1): 3 answers" in out
        assert "answers  3: 3 graded" in out

    def test_a_version_that_two_runs_have_is_the_newer_ones_and_that_is_said(
        self, tmp_path, command
    ):
        out = tmp_path / "r"
        words = [resumed(tmp_path / "v"), "--split", "eval", "--weights", 1, "--out", out]
        _, told = command(report.main, *words)
        assert told.count("\n") == 1
        assert "note: " in told and "2 runs or restarts have weights 1; taken: the last" in told
        assert "| v \\(1\\) | 1.0000 |" in out.with_suffix(".md").read_text()

    def test_a_version_that_one_run_has_is_shown_without_a_word(self, tmp_path, command):
        run = resumed(tmp_path / "v")
        _, told = command(report.main, run, "--split", "eval", "--weights", 6, "--out", run / "r")
        assert told == ""

    def test_two_of_its_evaluations_are_compared(self, tmp_path, command):
        run = resumed(tmp_path)
        words = [run, run, "--split", "eval", "--weights", 6, 1]
        out, told = command(compare.main, *words)
        assert "-1.0000   1.0000  +2.0000" in out
        assert told.count("note: ") == 1

    def test_its_second_start_alone_is_a_file(self, tmp_path):
        """One of each process and version: so the older policy is still to be had."""
        run = resumed(tmp_path, first="", second="")
        (path,) = tmp_path.glob("weights_6.*.jsonl")
        assert len(Run(path, "eval")) == len(Run(run, "eval", "6")) == 3


def test_processes_of_one_run_are_read_together(tmp_path):
    """On several nodes the hooks run side by side."""
    one, two = evaluated(2, run="r"), evaluated(2, run="r", prompts=5)[3:]
    for name, records in (("a.1-1", one), ("b.1-1", two)):
        items = [record.to_json() | {"time": 1e9} for record in records]
        write_jsonl(tmp_path / f"weights_2.{name}.jsonl", items)
    run = Run(tmp_path)
    assert len(run) == 5
    assert run.notes == []


def test_of_a_run_the_later_rollout_was_written_later_whatever_a_clock_says(tmp_path):
    """Another process of the run, or another node, may have a clock that was set back."""
    for version, mets, time in ((9, BAD, 100.0), (10, GOOD, 50.0)):
        fields = {"rollout": version - 9, "time": time}
        items = [record.to_json() | fields for record in evaluated(version, mets)]
        write_jsonl(tmp_path / f"weights_{version}.a.{version}-1.jsonl", items)
    run = Run(tmp_path)
    assert run.weights == "10"
    assert {record.score for record in run} == {1.0}


def test_records_of_the_older_form_are_made_again_by_newer_ones(tmp_path):
    old = [trained(3, 0, run=""), trained(3, 1, run=""), *evaluated(3, run="")]
    write_jsonl(tmp_path / "weights_3.jsonl", [record.to_json() for record in old])
    append(tmp_path, trained(1, 1, GOOD), *evaluated(1, GOOD))
    assert len(Run(tmp_path, "eval", every=True)) == 6
    assert Run(tmp_path, "eval").weights == "1"
    scores = {record.index: record.score for record in Run(tmp_path, "train", every=True)}
    assert scores == {0: -1.0, 1: 1.0}


class TestAnEvaluationsFolder:
    def test_a_copy_beside_its_file_is_named_and_left_out(self, tmp_path, command):
        run = write_run(tmp_path / "run", evaluated(0, GOOD, run=""))
        copy = run / "verdicts" / "verdicts_old.jsonl"
        write_jsonl(copy, [record.to_json() for record in evaluated(0, BAD, run="")])
        out, told = command(rescore.main, run)
        assert "1.0000    1.0000" in out
        assert told == f"note: {copy}: no file of this evaluation; its records are left out\n"

    def test_an_evaluation_among_a_training_runs_records_is_left_out(self, tmp_path):
        write_run(tmp_path, evaluated(0, GOOD, run=""))
        append(tmp_path / "verdicts", trained(1, 0))
        run = Run(tmp_path)
        assert (len(run), run.weights) == (1, "1")
        assert "verdicts.jsonl: no file of this training run" in run.notes[0]

    def test_one_that_began_before_records_named_their_run_is_one(self, tmp_path):
        one, two, three = evaluated(0, run="")
        two.run, two.time = "r", 1e9
        run = Run(write_run(tmp_path, [one, two, three]))
        assert len(run) == 3


def test_a_time_that_is_none_is_no_record(tmp_path):
    write_jsonl(tmp_path / "weights_1.jsonl", [evaluated(1)[0].to_json() | {"time": -1}])
    with pytest.raises(DataError, match=r"weights_1.jsonl:1: not a verdict record"):
        Run(tmp_path)
