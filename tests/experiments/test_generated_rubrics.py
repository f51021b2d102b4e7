"""Rows with generated rubrics: what the command is given, and what it leaves behind."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from experiments import generated_rubrics as made
from experiments.generated_rubrics import FILTERED, RUBRICS, UNFILTERED
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.evaluation.endpoint_flags import settings_from
from rubric_rl.generation.filters import OFF, Filters
from rubric_rl.generation.generate_rubrics import GenerationPlan, _parser
from rubric_rl.generation.prompts import Prompt
from rubric_rl.tiny.measure_filters import judged, written_for
from rubric_rl.tiny.prompts_and_answers import answers_to
from rubric_rl.tiny.world import pair_of, rows


@pytest.fixture
def asked(monkeypatch):
    """The commands that would have been run: each leaves a row."""
    ran = []

    def run_to_end(words, log, environment, name, grace):
        ran.append(words)
        (out,) = [words[place + 1] for place, word in enumerate(words) if word == "--out"]
        row = rows(held_out=False)[0].to_json()
        write_jsonl(Path(out) / "rows.jsonl", [row])

    monkeypatch.setattr(made, "run_to_end", run_to_end)
    monkeypatch.setattr(made, "serve", lambda *_: nullcontext())
    monkeypatch.setattr(made, "start_engine", lambda *_: nullcontext())
    monkeypatch.setattr(made, "wait_healthy", lambda *_: None)
    return ran


def filters_of(words: list[str]) -> Filters:
    assert words[1:3] == ["-m", "rubric_rl.generate"]
    return settings_from(_parser().parse_args(words[3:]), "filter", Filters, {})


def test_one_kind_has_the_usual_filters_and_the_other_none(tmp_path):
    usual = filters_of(made.command(FILTERED, tmp_path, 1, 2))
    assert usual == Filters(polarity="drop")
    assert filters_of(made.command(UNFILTERED, tmp_path, 1, 2)) == OFF


def test_both_kinds_are_of_the_same_drafts(asked, tmp_path):
    writers = []
    for rubrics in RUBRICS:
        made.make_rows(rubrics, tmp_path)
        plan = GenerationPlan(_parser().parse_args(asked[-1][3:]))
        told = plan.identity()
        del told["writer"]["url"]
        writers.append([told["writer"], told["writer_prompt"], told["prompts"]])
    assert writers[0] == writers[1]


def test_the_policy_grades(asked, tmp_path):
    made.make_rows(FILTERED, tmp_path)
    plan = GenerationPlan(_parser().parse_args(asked[-1][3:]))
    assert plan.grader_endpoint.tokenizer == str(made.MODEL)
    assert plan.grading.mode == "direct"


@pytest.mark.parametrize("rubrics", RUBRICS)
def test_the_prompts_are_those_of_training_in_their_order_without_a_rubric(
    rubrics, asked, tmp_path
):
    made.make_rows(rubrics, tmp_path)
    plan = GenerationPlan(_parser().parse_args(asked[-1][3:]))
    assert plan.prompts.prompt_ids == [row.prompt_id for row in rows(held_out=False)]
    assert not any(prompt.row.rubric for prompt in plan.prompts)


def test_rows_that_are_there_are_kept(asked, tmp_path, capsys):
    made.make_rows(FILTERED, tmp_path)
    assert "1 of 320 prompts have a rubric" in capsys.readouterr().out
    path = made.rows_path(FILTERED, tmp_path)
    path.write_text("")
    made.make_rows(FILTERED, tmp_path)
    assert path.read_text() == "" and len(asked) == 1


def test_a_command_that_fails_leaves_no_rows(asked, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("status 1")

    monkeypatch.setattr(made, "run_to_end", fail)
    with pytest.raises(UserError, match="status 1"):
        made.make_rows(FILTERED, tmp_path)
    assert not made.rows_path(FILTERED, tmp_path).exists()


def test_an_expert_agrees_with_himself_and_not_with_the_opposite():
    experts = rows(held_out=False)[:4]
    assert made.agreement(experts, experts) == 1
    opposite = []
    for row in experts:
        turned = tuple(each._replace(points=-each.points) for each in row.rubric)
        opposite.append(replace(row, rubric=turned))
    assert made.agreement(opposite, experts) == 0


def test_a_line_says_what_came_out(tmp_path):
    experts = rows(held_out=False)
    for rubrics in RUBRICS:
        path = made.rows_path(rubrics, tmp_path)
        write_jsonl(path, [row.to_json() for row in experts[:4]])
    expert, filtered, unfiltered = made.lines(tmp_path)
    assert expert.startswith("expert") and "320 prompts" in expert
    assert filtered.startswith("generated ") and "4 prompts" in filtered
    assert "agreement with the expert 1.000" in unfiltered


def test_what_the_filters_did_is_counted_by_the_stored_verdicts(tmp_path):
    """As if the oracle had graded, which tells what is vague by answering anew each time."""
    lines = []
    for patient in rows(held_out=False)[:20]:
        answers = answers_to(Random(0), pair_of(patient), 16)
        written = written_for(patient, seed=3)
        graded = judged(Prompt(patient), written, Filters(polarity="drop"), answers).graded
        graded.drafts = [{"seed": 3}]
        lines.append(graded.to_json())
    write_jsonl(tmp_path / "rubrics/generated/made/generated/prompts.jsonl", lines)
    counts = made.filters_at_work(tmp_path)
    assert counts.made["vague"] > 0
    assert counts.caught["vague"] + counts.by_others["vague"] == counts.made["vague"]
    assert counts.good_dropped["unsteady"] == 0 < counts.good
