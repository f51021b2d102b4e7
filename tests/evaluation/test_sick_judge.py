"""A judge that falls ill is no bad model: its results are taken back and asked for again."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest
from doubles.engine import VERDICT, Fail, FakeEngine, Say, verdict
from doubles.records import made, raw_rows

from rubric_rl.common.command_line import exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.progress import GaveUp
from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser
from rubric_rl.evaluation.meta_evaluate import MetaEvaluationPlan
from rubric_rl.evaluation.meta_evaluate import _parser as meta_parser
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.resume import EvaluationFolder
from rubric_rl.evaluation.run_command import run_and_report
from rubric_rl.serving.defects import CURES
from rubric_rl.serving.question import Reply

CUT = Say("Let me think", reason="length")
PROMPTS = 6


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """Rows of three criteria, and an answer to each."""
    rows = raw_rows(tmp_path / "rows.jsonl", PROMPTS)
    lines = [{"prompt_id": f"p{number}", "answer": f"answer {number}"} for number in range(PROMPTS)]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows, answers


class Judged:
    """An evaluation by an engine that is there for as long as it runs."""

    def __init__(self, engine: FakeEngine, files, out: Path, *flags):
        rows, answers = files
        self.engine = engine
        self.words = ["--rows", rows, "--answers", answers, "--out", out, "--moved"]
        self.words += ["--grader-api", "openai", "--grader-model", "m", "--grader-rereads", "0"]
        self.words += ["--grader-concurrency", "1", *flags]

    async def run(self) -> None:
        async with self.engine:
            line = [*self.words, "--grader-url", self.engine.url]
            self.plan = EvaluationPlan(_parser().parse_args([str(word) for word in line]))
            await self.plan.run()

    def report(self) -> dict:
        return self.plan.report()

    def complaint(self, result: dict) -> str:
        return self.plan.complaint(result)


def run(*judged) -> tuple[dict, str]:
    """The result of one command, and what it complains of."""
    plan, stopped = Judged(*judged), ""
    try:
        asyncio.run(plan.run())
    except GaveUp as error:
        stopped = str(error)
    result = plan.report()
    return result, stopped or plan.complaint(result)


def test_answers_without_verdicts_are_ungraded_with_the_cause_and_asked_for_again(files, tmp_path):
    result, complaint = run(FakeEngine(CUT), files, tmp_path / "run")
    assert result["answers"]["ungraded"] == PROMPTS
    assert "overall_score" not in result["reference"]
    assert f"3 of 3 verdicts are unreadable: {CURES['cut']}" in complaint
    well = FakeEngine(verdict(True))
    result, complaint = run(well, files, tmp_path / "run")
    assert (result["answers"]["graded"], complaint) == (PROMPTS, "")
    assert len(well.bodies) == 3 * PROMPTS, "nothing that the sick judge said is taken for a reply"
    run(FakeEngine(Say("nobody is asked")), files, tmp_path / "run")


def test_what_the_judge_said_while_it_was_well_stays(files, tmp_path):
    def sick_after_two(prompt: str) -> Say:
        return verdict(True) if "answer 0" in prompt or "answer 1" in prompt else CUT

    result, _ = run(FakeEngine(sick_after_two), files, tmp_path / "run")
    assert (result["answers"]["graded"], result["answers"]["ungraded"]) == (2, 4)
    well = FakeEngine(verdict(True))
    run(well, files, tmp_path / "run")
    assert len(well.bodies) == 3 * 4


def test_one_answer_that_no_judge_can_read_counts_against_the_policy(files, tmp_path):
    def act(prompt: str) -> Say:
        return Say("I cannot say.") if "answer 3" in prompt else verdict(True)

    result, complaint = run(FakeEngine(act), files, tmp_path / "run")
    assert (result["answers"]["graded"], result["criteria"]["unreadable"]) == (PROMPTS, 3)
    assert "1 answers have no readable verdicts" in complaint
    again = FakeEngine(act)
    result, complaint = run(again, files, tmp_path / "run")
    assert len(again.bodies) == 3, "asked about once more, which does not help it"
    assert (result["criteria"]["unreadable"], complaint) == (3, "")
    run(nobody := FakeEngine(), files, tmp_path / "run")
    assert nobody.bodies == []


@pytest.mark.parametrize("well", [2, 4])
def test_a_judge_that_falls_ill_towards_the_end_is_named_and_asked_again(files, tmp_path, well):
    def act(prompt: str) -> Say:
        is_well = any(f"answer {number}" in prompt for number in range(well))
        return verdict(True) if is_well else CUT

    _, complaint = run(FakeEngine(act), files, tmp_path / "run")
    assert CURES["cut"] in complaint
    again = FakeEngine(verdict(True))
    result, complaint = run(again, files, tmp_path / "run")
    assert (result["criteria"]["met"], complaint) == (3 * PROMPTS, "")
    assert len(again.bodies) == 3 * (PROMPTS - well)


def test_a_kill_beside_a_sick_judge_settles_nothing(files, tmp_path):
    """Results of a sick judge that nobody has taken back: those lines are all that is left."""
    run(FakeEngine(CUT), files, tmp_path / "run", "--grader-most-unreadable", "1")
    again = FakeEngine(verdict(True))
    result, complaint = run(again, files, tmp_path / "run")
    assert (result["criteria"]["met"], complaint) == (3 * PROMPTS, "")


def test_many_in_a_row_end_the_run_early_and_are_taken_back(files, tmp_path):
    def act(prompt: str) -> Say:
        sick = "answer 4" in prompt or "answer 5" in prompt
        return CUT if sick else verdict(True)

    result, complaint = run(FakeEngine(act), files, tmp_path / "run", "--give-up-after", "2")
    assert "2 in a row failed, the last for: 3 of 3 verdicts" in complaint
    assert (result["answers"]["graded"], result["answers"]["ungraded"]) == (4, 2)


def test_what_a_sick_judge_said_of_unfinished_answers_is_asked_for_again(files, tmp_path):
    begun = set()

    def act(prompt: str) -> Say:
        answer = next(number for number in range(PROMPTS) if f"answer {number}\n" in prompt)
        if answer and answer in begun:
            return Say(seconds=20)  # the run ends before that
        begun.add(answer)
        return Say(CUT.text, reason="length", seconds=0.0 if answer else 0.2)

    at_once = ["--grader-concurrency", "64", "--give-up-after", "1"]
    _, complaint = run(FakeEngine(act), files, tmp_path / "run", *at_once)
    assert "1 in a row failed" in complaint
    assert len(begun) == PROMPTS, "a reply of each is kept"
    well = FakeEngine(verdict(True))
    result, complaint = run(well, files, tmp_path / "run", *at_once)
    assert (result["criteria"]["met"], complaint) == (3 * PROMPTS, "")
    assert len(well.bodies) == 3 * PROMPTS


@pytest.mark.parametrize("act, status", [(CUT, 1), (Fail(400, "down"), 2)])
def test_giving_up_ends_with_1_for_a_sick_judge_and_else_with_2(
    files, tmp_path, capsys, act, status
):
    plan = Judged(FakeEngine(act), files, tmp_path / "run", "--give-up-after", "2")
    assert exit_status(lambda: run_and_report(plan)) == status
    assert "error: 2 in a row failed" in capsys.readouterr().err


def test_an_answer_that_stayed_ungraded_for_another_reason_hides_no_sick_judge(
    files, tmp_path, monkeypatch
):
    def act(prompt: str) -> Say | Fail:
        if "answer 5" in prompt:
            return Fail(400, "down")
        return CUT if "answer 4" in prompt else verdict(True)

    result, complaint = run(FakeEngine(act), files, tmp_path / "run", "--give-up-after", "2")
    assert "2 in a row failed" in complaint
    assert (result["answers"]["graded"], result["answers"]["ungraded"]) == (4, 2)


def test_what_was_asked_for_again_is_not_asked_for_a_third_time(files, tmp_path):
    """The second run is killed on its way: its replies count, the sick judge's do not."""
    run(FakeEngine(CUT), files, tmp_path / "run")
    run(FakeEngine(verdict(True)), files, tmp_path / "run")
    (results := tmp_path / "run/verdicts/verdicts.jsonl").write_text(
        "".join(results.read_text().splitlines(keepends=True)[: 2 * PROMPTS])
    )
    nobody = FakeEngine(Say("nobody is asked"))
    result, complaint = run(nobody, files, tmp_path / "run")
    assert (result["answers"]["graded"], complaint) == (PROMPTS, "")
    assert nobody.bodies == []


def test_what_the_policy_answered_stays(tmp_path):
    """Only the grader's replies are taken back."""
    settings = {"kind": "evaluate", "grader": {}}
    said = Reply(VERDICT % "true", True, None, 1, 0, 1, "")
    folder = partial(EvaluationFolder, tmp_path / "run", settings, most_unreadable=0.5)
    with folder() as first:
        first.keep("policy", "p0#0", "asked of the policy", said)
        first.keep("grader", "p0#0", "asked of the grader", said)
        first.store_result("p0#0", made("p0", [5], [None]))
    with folder() as second:
        assert second.recall("asked of the policy") == said
        assert second.recall("asked of the grader") is None
        second.keep("grader", "p0#0", "asked again", said)
    with folder() as third:
        assert third.recall("asked again") == said
        assert third.recall("asked of the grader") is None


def test_the_limit_is_a_setting(files, tmp_path):
    result, complaint = run(FakeEngine(CUT), files, tmp_path / "a", "--grader-most-unreadable", "1")
    assert (result["criteria"]["unreadable"], complaint) == (3 * PROMPTS, "")


def test_a_judge_that_fails_its_check_question_is_asked_nothing_else(files, tmp_path):
    engine = FakeEngine(CUT, checked=False)
    with pytest.raises(UserError, match=r"failed its check question: 2 of 2 .*grader_max_tokens"):
        run(engine, files, tmp_path / "run")
    assert len(engine.bodies) == 2
    well = FakeEngine(verdict(True))
    assert run(well, files, tmp_path / "run")[0]["answers"]["graded"] == PROMPTS


def test_the_check_question_is_asked_once_and_is_no_result(files, tmp_path):
    engine = FakeEngine(verdict(True), checked=False)
    run(engine, files, tmp_path / "run")
    assert len(engine.bodies) == 2 + 3 * PROMPTS
    assert {record.prompt_id for record in Run(tmp_path / "run")} == {
        f"p{number}" for number in range(PROMPTS)
    }


def test_meta_evaluation_takes_back_too(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "Hello"}],
        "completion": "Hi",
        "rubric": "Greets.",
        "category": "c",
        "binary_labels": [True, False],
        "prompt_id": "p",
    }
    rows = tmp_path / "meta.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for _ in range(4)))

    def judge(engine: FakeEngine) -> tuple[dict, str]:
        async def main() -> MetaEvaluationPlan:
            async with engine:
                words = ["--rows", rows, "--out", tmp_path / "run", "--moved"]
                words += ["--grader-api", "openai", "--grader-model", "m"]
                words += ["--grader-url", engine.url]
                plan = MetaEvaluationPlan(meta_parser().parse_args([str(w) for w in words]))
                await plan.run()
                return plan

        plan = asyncio.run(main())
        result = plan.report()
        return result, plan.complaint(result)

    result, complaint = judge(FakeEngine(Say("", reason="stop")))
    assert result["rows"]["ungraded"] == 4
    assert "4 rows stayed ungraded" in complaint and CURES["empty"] in complaint
    result, complaint = judge(FakeEngine(Say(VERDICT % "true")))
    assert (result["rows"]["graded"], complaint) == (4, "")
