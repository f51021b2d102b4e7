"""The report command, and what it makes of an evaluation's and of a training run's records."""

import sys

import pytest
from doubles.records import made, rubric, write_run

from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.record_file import append_record
from rubric_rl.data.schema import Record, Row, Verdict
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.report import __main__ as command
from rubric_rl.report.run_view import RunView

MISSING = "The conversation is not in these records"


@pytest.fixture
def report(monkeypatch):
    """Calls the command and returns its exit status."""

    def call(*args) -> int:
        words = [str(arg) for arg in args]
        monkeypatch.setattr(sys, "argv", ["report", *words])
        return command.main()

    return call


def as_first_form(record) -> dict:
    """The JSON of a record as training wrote it first: without messages, verdicts in lists."""
    item = record.to_json()
    verdicts = item.pop("verdicts")
    del item["messages"]
    del item["grader_versions"]
    lists = {"verdicts": "met", "probabilities": "probability", "explanations": "explanation"}
    for name, part in lists.items():
        item[name] = [verdict[part] for verdict in verdicts]
    item["weight_versions"] = ["7"]
    return item


def test_writes_beside_the_run_and_shows_the_prompts_asked_for(tmp_path, records, report):
    run = write_run(tmp_path / "run", records)
    assert report(run, "--prompt-id", "p-high") == 0
    assert (run / "report.html").exists()
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "## Prompt p\\-high" in text
    assert "## Prompt p\\-low" not in text


def test_a_prompt_or_a_folder_that_is_not_there_is_one_line(tmp_path, records, report, capsys):
    run = write_run(tmp_path / "run", records)
    assert report(run, "--prompt-id", "nobody") == 2
    assert report(tmp_path / "nothing") == 2
    in_a_file = run / "verdicts" / "verdicts.jsonl" / "report"
    assert report(run, "--out", in_a_file) == 2
    assert report(run, "--out", ".") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)


def test_of_a_training_run_shows_the_last_weights(tmp_path, report, data):
    records = []
    for version in (2, 10, 9):
        records.append(made("p", (1,), (version > 9,), weights=str(version)))
    run = write_run(tmp_path / "run", records)
    assert report(run / "verdicts", "--out", tmp_path / "r") == 0
    index = data(tmp_path / "r.html")["index"]
    assert index == [["p", "t", "question of p", [1.0]]]


def test_of_a_training_run_shows_the_conversation(tmp_path, report, data):
    """The record that training writes holds it, as an evaluation's does."""
    messages = (
        {"role": "user", "content": "I cough."},
        {"role": "assistant", "content": "For how long?"},
        {"role": "user", "content": "A\nweek."},
    )
    row = Row("p", messages, rubric(1))
    record = Record.of(row, "graded", "Rest.", score=1.0, verdicts=[Verdict(True)])
    record.split = "train"
    record.index = 12
    record.weight_version = "3"
    append_record(tmp_path / "verdicts", record)
    assert report(tmp_path / "verdicts", "--out", tmp_path / "r") == 0
    blocks = data(tmp_path / "r.html")
    assert blocks["prompt0"]["messages"] == list(messages)
    assert blocks["index"][0][2] == "A week."
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "assistant:\n\n```text\nFor how long?\n```" in text
    assert MISSING not in text


def test_records_of_the_first_form_are_shown_and_their_lack_is_said(tmp_path, report, data):
    folder = tmp_path / "verdicts"
    item = as_first_form(made("p", (1, -2), (True, None)))
    write_jsonl(folder / "weights_w.jsonl", [item])
    assert report(folder, "--out", tmp_path / "r") == 0
    shown = data(tmp_path / "r.html")["prompt0"]
    assert shown["messages"] == []
    answer = shown["runs"][0][0]
    mets = [verdict["met"] for verdict in answer["verdicts"]]
    assert mets == [True, None]
    assert MISSING in (tmp_path / "r.md").read_text(encoding="utf-8")


def test_a_conversation_that_one_of_two_runs_lacks_comes_from_the_other(tmp_path, report, data):
    record = made("p", (1,), (True,))
    old = tmp_path / "old.jsonl"
    write_jsonl(old, [as_first_form(record)])
    new = write_run(tmp_path / "new", [record])
    assert report(new, "--against", old, "--out", tmp_path / "r") == 0
    blocks = data(tmp_path / "r.html")
    assert blocks["prompt0"]["messages"] == list(record.messages)
    assert blocks["index"][0][2] == "question of p"


def test_nothing_graded_is_still_a_report(tmp_path, records, report):
    run = write_run(tmp_path / "run", records[2:3])
    assert report(run) == 0
    assert "no answer was graded" in (run / "report.html").read_text(encoding="utf-8")
    assert "| \N{EN DASH} | \N{EN DASH} |" in (run / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", [{"rows": 5}, {"grader": "x"}, {"grader": {"extra_body": [1]}}])
def test_damaged_settings_of_an_evaluation_leave_its_answers_to_see(tmp_path, report, damage):
    run = write_run(tmp_path / "run", [made("p", (5,), (True,))])
    write_jsonl(run / "settings.json", [{"kind": "evaluate"} | damage])
    assert report(run) == 0


def test_the_cost_of_a_criterion_is_weighed_as_the_rule_weighs_it(tmp_path):
    run = Run(write_run(tmp_path / "run", [made("p", (10, 2), (True, False))]))
    view = RunView(run, ScoringRule(uniform=True))
    (row,) = view.worst(5)
    assert row.cost == 0.5


def test_a_verdict_of_another_rubric_is_not_asked(tmp_path, report, data):
    before = write_run(tmp_path / "before", [made("p", (5, 3), (True, False))])
    after = write_run(tmp_path / "after", [made("p", (5,), (False,))])
    assert report(after, "--against", before, "--out", tmp_path / "r") == 0
    _, answers = data(tmp_path / "r.html")["prompt0"]["runs"]
    mets = [verdict and verdict["met"] for verdict in answers[0]["verdicts"]]
    assert mets == [False, None]
    assert "| not asked |" in (tmp_path / "r.md").read_text(encoding="utf-8")
