"""Records and folders of the first form are read by everything that reads the present one."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from doubles import old_form
from doubles.engine import Fail, FakeEngine, verdict
from doubles.old_form import (
    call,
    write_old_evaluation,
    write_old_meta_evaluation,
    write_old_training,
)
from doubles.records import made, raw_rows, write_run

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import json_line, read_jsonl, write_jsonl
from rubric_rl.data.download import digest
from rubric_rl.data.schema import Criterion, Record
from rubric_rl.evaluation import compare, meta_evaluate, rescore
from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser
from rubric_rl.evaluation.meta_evaluate import read_results
from rubric_rl.evaluation.read_run import Run
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.report import __main__ as report

OLD_RUNS = {"training": write_old_training, "evaluation": write_old_evaluation}


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command's main in this process; returns what it printed."""

    def run(main, *words) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        status = main()
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return run


class TestTrainingRun:
    def test_is_rescored(self, tmp_path, command):
        run = write_old_training(tmp_path / "verdicts")
        assert "4 answers, 0 of them with another score" in command(rescore.main, run)
        out = command(rescore.main, run, "--unreadable", "left_out", "--summary")
        assert "4 answers, 1 of them with another score" in out
        assert "criteria 12: 3 met, 2 not met, 1 unreadable" in out

    def test_keeps_probabilities_tokens_and_versions(self, tmp_path):
        run = write_old_training(tmp_path / "verdicts")
        records = {record.prompt_id: record for record in Run(run)}
        first = records["p0"]
        assert first.mets == [True, None, False]
        assert [each.probability for each in first.verdicts] == [0.9, None, 0.25]
        assert (first.rest_tokens.cached, first.grader_versions) == (388, ["0"])
        assert first.messages == ()
        assert records["p2"].grader == "teacher"
        assert records["p2"].error.endswith("too long")

    def test_may_go_on_in_the_present_form(self, tmp_path, command):
        run = write_old_training(tmp_path / "verdicts")
        again = made("p0", (5, 3, -4), (False, False, False), index=15, weights="1", split="train")
        with (run / "weights_1.jsonl").open("ab") as file:
            file.write(json_line(again.to_json()))
        records = {record.prompt_id: record for record in Run(run, split="train")}
        assert records["p0"] == again, "the later record of an answer counts"
        assert "4 answers, 0 of them" in command(rescore.main, run)


class TestEvaluation:
    def test_is_rescored(self, tmp_path, command):
        run = write_old_evaluation(tmp_path / "run")
        out = command(rescore.main, run, "--summary")
        assert "3 answers, 0 of them with another score" in out
        assert "answers  3: 1 graded, 1 no answer, 0 truncated, 0 too long, 1 ungraded" in out
        assert "policy   tokens: 200 in prompts, 90 of them cached, 14 generated" in out

    def test_is_compared_with_one_of_the_present_form(self, tmp_path, command):
        before = write_old_evaluation(tmp_path / "before")
        after = write_run(tmp_path / "after", [made("p0", (5, 3, -4), (True, True, False))])
        out = command(compare.main, before, after)
        assert "0.1250   1.0000  +0.8750" in out
        assert "1 prompts are in one run only" in out


@pytest.mark.parametrize("kind", OLD_RUNS)
def test_a_run_has_a_report(kind, tmp_path, command):
    run = OLD_RUNS[kind](tmp_path / "run")
    out = tmp_path / "report"
    command(report.main, run, "--out", out)
    for path in (out.with_suffix(".html"), out.with_suffix(".md")):
        text = path.read_text(encoding="utf-8")
        assert ("an answer" if kind == "evaluation" else "answer 0") in text
        assert ("because 2" in text) is (kind == "evaluation")


class TestAnswers:
    """A file of records is an answers file, so that another grader can grade them again."""

    def evaluated(self, tmp_path, given: Path, *flags) -> tuple[dict, FakeEngine]:
        engine = FakeEngine(verdict(True))

        async def run() -> EvaluationPlan:
            async with engine:
                words = ["--rows", raw_rows(tmp_path / "rows.jsonl"), "--out", tmp_path / "out"]
                words += ["--answers", given, "--grader-api", "openai", "--grader-model", "m"]
                words += ["--grader-url", engine.url, *flags]
                plan = EvaluationPlan(_parser().parse_args([str(word) for word in words]))
                await plan.run()
                return plan

        return asyncio.run(run()).report(), engine

    def test_of_a_training_run(self, tmp_path):
        given = write_old_training(tmp_path / "verdicts") / "weights_1.jsonl"
        result, engine = self.evaluated(tmp_path, given)
        answers = result["answers"]
        assert (answers["all"], answers["graded"], answers["truncated"]) == (3, 2, 1)
        assert len(engine.prompts) == 6
        assert not any("answer that was cut" in prompt for prompt in engine.prompts)

    def test_of_an_evaluation(self, tmp_path):
        given = write_old_evaluation(tmp_path / "run") / "verdicts" / "verdicts.jsonl"
        result, _ = self.evaluated(tmp_path, given, "--allow-missing")
        answers = result["answers"]
        assert (answers["all"], answers["graded"], answers["no_answer"]) == (2, 1, 1)


class TestMetaEvaluation:
    def test_is_read(self, tmp_path):
        agreement = read_results(write_old_meta_evaluation(tmp_path / "run"))
        result = agreement.result()
        assert result["rows"] == {"all": 3, "graded": 1, "unreadable": 1, "ungraded": 1}
        assert result["grader"]["unreadable_pairs"] == 2
        assert result["calibration"]["labels"] == 2

    def test_is_compared(self, tmp_path, command):
        run = write_old_meta_evaluation(tmp_path / "run")
        assert "Change on 2 prompts" in command(compare.main, run, run)

    def test_is_what_a_later_one_is_against(self, tmp_path, command):
        before = write_old_meta_evaluation(tmp_path / "before")
        rows, after = tmp_path / "rows.jsonl", tmp_path / "after"
        row = {
            "prompt_id": "274c93caba7c863a",
            "prompt": [{"role": "user", "content": "q"}],
            "completion": "c",
            "rubric": "r",
            "category": "c",
            "binary_labels": [True],
        }
        write_jsonl(rows, [row])
        judged = Record(
            "274c93caba7c863a",
            (Criterion("r", 0.0),),
            "graded",
            "c",
            verdicts=made("p", (1,), (True,)).verdicts,
            split="meta",
            index=1,
            category="c",
            labels=[True],
        )
        write_jsonl(after / "meta" / "rows.jsonl", [{"key": "1"} | judged.to_json()])
        flags = ["--grader-api", "openai", "--grader-url", "http://127.0.0.1:9"]
        words = ["--rows", rows, "--out", after, *flags, "--grader-model", "m"]
        out = command(meta_evaluate.main, *words, "--against", before)
        assert "Change on 1 prompts" in out


class TestResuming:
    """A policy answered three prompts and graded itself; it was killed before the last record."""

    @pytest.fixture
    def run(self, tmp_path) -> Path:
        """p0 and p2 have their records; of p1 there are the replies alone."""
        folder, rows = tmp_path / "run", raw_rows(tmp_path / "rows.jsonl")
        finished = old_form.EVALUATION[0]
        others = [finished | {"key": "p2#0", "prompt_id": "p2"}]
        write_jsonl(folder / "verdicts" / "verdicts.jsonl", [finished, *others])
        question = [{"role": "user", "content": "question 1"}]
        calls = [call("p1#0", "policy", question, "<think>hm</think>answer 1<|im_end|>")]
        for item in old_form.RUBRICS:
            criterion = Criterion(item["criterion"], item["points"])
            asked = grader_prompt("explain", question, "answer 1", [criterion])
            calls.append(call("p1#0", "grader", asked, '{"criteria_met": true}'))
        write_jsonl(folder / "calls.jsonl", calls)
        empty = [{"role": "user", "content": ""}]
        settings = {
            "kind": "evaluate",
            "name": "m",
            "rows": {"sha256": digest(str(rows)), "limit": 0},
            "answers": {"policy": old_form.POLICY},
            "repeats": 0,
            "grader": old_form.GRADER,
            "grader_prompt": grader_prompt("explain", empty, "", [Criterion("", 1.0)]),
        }
        (folder / "settings.json").write_text(json.dumps(settings) + "\n")
        return folder

    def resume(self, run: Path, *flags) -> dict:
        """The same command again, with nobody listening."""
        words = ["--rows", run.parent / "rows.jsonl", "--out", run, "--policy-model", "m"]
        words += ["--policy-url", old_form.POLICY["url"], "--policy-api", "openai"]
        words += ["--policy-retries", "0", "--grader-retries", "0", *flags]
        plan = EvaluationPlan(_parser().parse_args([str(word) for word in words]))
        asyncio.run(plan.run())
        return plan.report()

    def test_asks_nothing_again(self, run):
        result = self.resume(run)
        assert result["answers"]["graded"] == result["answers"]["all"] == 3
        records = {record.prompt_id: record for record in Run(run)}
        assert records["p1"].answer == "answer 1"
        assert records["p1"].mets == [True, True, True]
        assert records["p1"].score == (5 + 3 - 4) / 8
        assert len(list(read_jsonl(run / "calls.jsonl"))) == 4

    def test_is_refused_with_other_settings_under_their_old_names(self, run):
        with pytest.raises(UserError, match=r"other settings: grader.votes was 1, is 3;"):
            self.resume(run, "--grader-votes", "3")

    def test_asks_only_for_what_is_missing(self, run):
        calls = [item for _, item in read_jsonl(run / "calls.jsonl")]
        write_jsonl(run / "calls.jsonl", calls[:-1])
        engine = FakeEngine(verdict(False), Fail(500))

        async def again() -> EvaluationPlan:
            async with engine:
                words = ["--rows", run.parent / "rows.jsonl", "--out", run, "--moved"]
                words += ["--policy-url", engine.url, "--policy-api", "openai"]
                words += ["--policy-model", "m"]
                plan = EvaluationPlan(_parser().parse_args([str(word) for word in words]))
                await plan.run()
                return plan

        assert asyncio.run(again()).report()["answers"]["graded"] == 3
        (prompt,) = engine.prompts
        assert prompt.endswith("Criterion: [-4] says 2 (-4)")
