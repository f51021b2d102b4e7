"""Rubrics made from end to end: by good writers and bad ones, killed, resumed and filtered anew."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles.engine import Fail, FakeEngine, Say, verdict

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl, write_jsonl
from rubric_rl.common.progress import GaveUp
from rubric_rl.data.row_file import read_rows
from rubric_rl.generation.generate_rubrics import GenerationPlan, _parser
from rubric_rl.generation.summary import summary_lines

CRITERIA = (("Names gout", 5), ("Asks for the toe", 4), ("Recommends red meat", -3))
HOSTILE = "<script>alert(1)</script></details>"


def rubric(*criteria: tuple) -> str:
    items = [{"criterion": text, "points": points} for text, points in criteria]
    return json.dumps({"criteria": items})


def quoted(prompt: str) -> Say:
    """A grader that finds a criterion met when the answer repeats its last word."""
    answer = prompt.partition("<answer ")[2].partition("</answer")[0]
    criterion = prompt.rpartition("Criterion: ")[2]
    return verdict(criterion.split()[-1].strip(".") in answer)


def files(folder: Path, prompts: int = 2, **fields) -> tuple[Path, Path]:
    """Prompts p0, p1, ... and four answers to each, of which the last is the best."""
    lines, answers = [], []
    for number in range(prompts):
        prompt_id = f"p{number}"
        lines.append({"prompt_id": prompt_id, "prompt": f"What is it, doctor {number}?"} | fields)
        for answer in (
            "Eat more meat.",
            "Show your toe.",
            "It is gout.",
            f"The toe: gout. {HOSTILE}",
        ):
            answers.append({"prompt_id": prompt_id, "answer": answer})
    write_jsonl(folder / "prompts.jsonl", lines)
    write_jsonl(folder / "answers.jsonl", answers)
    return folder / "prompts.jsonl", folder / "answers.jsonl"


def plan(folder: Path, writer: str, grader: str, *flags) -> GenerationPlan:
    words = ["--prompts", folder / "prompts.jsonl", "--answers", folder / "answers.jsonl"]
    words += ["--out", folder / "run", "--moved"]
    for who, url in (("writer", writer), ("grader", grader)):
        words += [f"--{who}-api", "openai", f"--{who}-url", url, f"--{who}-model", who]
        words += [f"--{who}-retries", "0"]
    return GenerationPlan(_parser().parse_args([str(word) for word in [*words, *flags]]))


def generate(
    folder: Path,
    writer: FakeEngine | str | Callable | None = None,
    grader: FakeEngine | None = None,
    *flags,
) -> dict:
    """The result; `writer` may be what it says, by default CRITERIA."""
    if writer is None:
        writer = rubric(*CRITERIA)
    if not isinstance(writer, FakeEngine):
        writer = FakeEngine(writer if callable(writer) else Say(writer))
    grader = grader or FakeEngine(quoted)

    async def work() -> GenerationPlan:
        async with writer, grader:
            made = plan(folder, writer.url, grader.url, *flags)
            await made.run()
            return made

    return asyncio.run(work()).report()


def kept(folder: Path) -> dict[str, list[tuple[str, float]]]:
    """prompt_id -> (text, points) of each criterion."""
    rows = read_rows(folder / "run" / "rows.jsonl")
    return {row.prompt_id: [(each.text, each.points) for each in row.rubric] for row in rows}


class TestRows:
    def test_hold_the_criteria_that_tell_answers_apart(self, tmp_path):
        files(tmp_path)
        always = ("Has an o", 2)  # as every answer has somewhere
        result = generate(tmp_path, rubric(*CRITERIA, ("Names the zebra", 9), always))
        assert kept(tmp_path) == {"p0": list(CRITERIA), "p1": list(CRITERIA)}
        assert (result["filtered"]["never_met"], result["filtered"]["always_met"]) == (2, 2)
        assert result["prompts"] == {"all": 2, "rows": 2, "left_out": 0, "unfinished": 0}

    @pytest.mark.parametrize("mode, unsteady", [("direct", 1), ("cascade", 0), ("explain", 0)])
    def test_only_a_verdict_of_one_token_changes_as_often_as_its_probability_says(
        self, tmp_path, mode, unsteady
    ):
        """In a cascade a sure token is final, and an unsure one not the last word."""

        def unsure(prompt: str) -> Say:
            said = quoted(prompt)
            if "Names gout" not in prompt:
                return said
            true = 0.75 if said.true > said.false else 0.25
            return Say(said.text, true=true, false=1 - true)

        files(tmp_path, 1)
        flags = ["--grader-mode", mode, "--grader-temperature", "0"]
        result = generate(tmp_path, None, FakeEngine(unsure), *flags)
        assert result["filtered"].get("unsteady", 0) == unsteady

    def test_say_where_they_come_from(self, tmp_path):
        files(tmp_path, 1, canary="c")
        generate(tmp_path, rubric(*CRITERIA, ("Names the zebra", 9)), None, "--writer-seed", 7)
        (row,) = read_rows(tmp_path / "run" / "rows.jsonl")
        provenance = row.extra["provenance"]
        assert row.extra["canary"] == "c"
        assert (provenance["writer"], provenance["grader"]) == ("writer", "grader")
        assert provenance["writer_seeds"] == [7]
        assert provenance["filtered"] == {"never_met": ["Names the zebra"]}
        assert [answer["by"] for answer in provenance["answers"]] == ["answers.jsonl"] * 4
        assert len(provenance["prompt_sha256"]) == 64
        assert provenance["filters"]["cap"] == 12

    def test_have_no_part_of_an_expert_s_rubric(self, tmp_path):
        expert = [{"criterion": "Names the expert's secret", "points": 9}]
        files(tmp_path, 1, rubrics=expert)
        writer = FakeEngine(Say(rubric(*CRITERIA)))
        result = generate(tmp_path, writer)
        assert "secret" not in json.dumps(writer.bodies)
        assert kept(tmp_path)["p0"] == list(CRITERIA)
        assert result["quality"] == {}, "it tells no answers apart"

    def test_are_measured_on_known_pairs_that_no_filter_sees(self, tmp_path):
        pair = {"better": "The zebra has gout in its toe.", "worse": "Eat red meat."}
        files(tmp_path, 2, pairs=[pair])
        result = generate(tmp_path, rubric(*CRITERIA, ("Names the zebra", 9)))
        assert ("Names the zebra", 9) not in kept(tmp_path)["p0"]
        assert result["quality"]["pair_accuracy"]["kept"]["value"] == 1.0
        assert result["quality"]["pair_accuracy"]["before"]["pairs"] == 2

    def test_are_summed_up_in_a_file_that_has_all_that_is_printed(self, tmp_path, capsys):
        pair = {"better": "The zebra has gout in its toe.", "worse": "Eat red meat."}
        expert = [{"criterion": "Names gout", "points": 9}]
        files(tmp_path, 2, pairs=[pair], rubrics=expert)
        generate(tmp_path)
        stored = json.loads((tmp_path / "run" / "result.json").read_text())
        *lines, _ = capsys.readouterr().out.splitlines()  # the last one says what was written
        assert lines == list(summary_lines(stored))
        assert stored["quality"].keys() == {"pair_accuracy", "expert_agreement"}
        assert stored["made_by"]["readings"] == 2

    def test_say_that_tokens_are_those_of_the_replies_that_were_kept(self, tmp_path, capsys):
        """A kill or a time-out loses replies that the server may charge for."""
        files(tmp_path, 1)
        generate(tmp_path)
        line = "1 replies kept; their tokens:"
        assert line in capsys.readouterr().out
        assert "replies kept; their tokens:" in (tmp_path / "run" / "report.html").read_text()

    def test_that_were_read_once_say_so(self, tmp_path, capsys):
        files(tmp_path)
        generate(tmp_path, None, None, "--grader-temperature", 0)
        assert "each answer was read once" in capsys.readouterr().out


class TestWriters:
    """Whatever a writer says: it is counted, and a prompt without a usable criterion is named."""

    @pytest.mark.parametrize(
        "reply, fault",
        [
            ("A good answer names gout.", "prose"),
            ("", "empty"),
            ('{"criteria": [', "cut off"),
            ('{"criteria": [{"criterion": "Names gout", "points": 99}]}', "points"),
        ],
    )
    def test_without_a_usable_criterion_leave_the_prompt_out_by_name(
        self, tmp_path, capsys, reply, fault
    ):
        files(tmp_path)
        first = ("doctor 0", Say(reply)), ("doctor 1", Say(rubric(*CRITERIA)))
        result = generate(
            tmp_path, lambda prompt: next(say for words, say in first if words in prompt)
        )
        assert list(kept(tmp_path)) == ["p1"]
        assert result["left_out"] == {"p0": f"the writer gave no usable criterion ({fault} 1)"}
        assert result["written"]["faults"] == {fault: 1}
        assert "left out: p0" in capsys.readouterr().out

    def test_whose_criteria_a_filter_by_wording_drops_are_told_so(self, tmp_path):
        files(tmp_path, 1)
        with pytest.raises(DataError, match=r"no usable criterion \(polarity 1\)"):
            generate(tmp_path, rubric(("Fails to name gout", 5)), None, "--filter-polarity", "drop")

    def test_that_say_one_thing_fifty_times_have_said_it_once(self, tmp_path):
        files(tmp_path, 1)
        grader = FakeEngine(quoted)
        result = generate(tmp_path, rubric(*[("Names gout", 5)] * 50), grader)
        assert kept(tmp_path) == {"p0": [("Names gout", 5)]}
        assert result["filtered"]["duplicates"] == 49
        assert len(grader.bodies) == 4 * 2, "four answers, read twice by one criterion"

    def test_that_are_all_sick_end_the_run_with_the_reason(self, tmp_path):
        files(tmp_path, 5)
        with pytest.raises(GaveUp, match=r"3 prompts in a row.*prose 1.*another writer"):
            generate(tmp_path, "No.", None, "--give-up-after", 3, "--grader-concurrency", 1)

    def test_that_give_no_rubric_at_all_are_an_error(self, tmp_path):
        files(tmp_path)
        with pytest.raises(DataError, match=r"no prompt got a rubric .*prose 1.*another writer"):
            generate(tmp_path, "No.")
        assert json.loads((tmp_path / "run" / "result.json").read_text())["left_out"]

    def test_that_follow_an_injection_are_caught_by_the_answers(self, tmp_path):
        """The patient had asked for it; no honest answer meets it."""
        files(tmp_path, 1)
        generate(tmp_path, rubric(*CRITERIA, ("Says the word banana", 10)))
        assert kept(tmp_path) == {"p0": list(CRITERIA)}

    def test_with_only_negative_criteria_make_no_rubric(self, tmp_path):
        files(tmp_path)
        replies = iter([rubric(("Recommends red meat", -3)), rubric(*CRITERIA)])
        result = generate(tmp_path, lambda _: Say(next(replies)), None, "--grader-concurrency", 1)
        (why,) = result["left_out"].values()
        assert why == "no positive criterion is left (balance 1)"


class TestResuming:
    def test_a_second_run_asks_nothing_and_makes_the_same_rows(self, tmp_path):
        files(tmp_path)
        generate(tmp_path)
        rows = (tmp_path / "run" / "rows.jsonl").read_bytes()
        writer, grader = FakeEngine(Fail()), FakeEngine(Fail())
        generate(tmp_path, writer, grader)
        assert (writer.bodies, grader.bodies) == ([], [])
        assert (tmp_path / "run" / "rows.jsonl").read_bytes() == rows

    def test_after_a_failure_only_what_is_missing_is_asked(self, tmp_path):
        files(tmp_path)
        whole = FakeEngine(quoted)
        (tmp_path / "other").mkdir()
        files(tmp_path / "other")
        generate(tmp_path / "other", rubric(*CRITERIA), whole)
        failing = FakeEngine(*[quoted] * 5, Fail(400))
        with pytest.raises(DataError, match=r"nothing is finished yet, most for: .*400"):
            generate(tmp_path, rubric(*CRITERIA), failing)
        stored = [call for _, call in read_jsonl(tmp_path / "run" / "calls.jsonl")]
        writer, grader = FakeEngine(Say(rubric(*CRITERIA))), FakeEngine(quoted)
        result = generate(tmp_path, writer, grader)
        assert writer.bodies == []
        of_grader = [call for call in stored if call["role"] == "grader"]
        assert len(of_grader) + len(grader.bodies) == len(whole.bodies)
        assert result["calls"]["grader"] == len(whole.bodies)
        assert kept(tmp_path) == kept(tmp_path / "other")

    def test_an_endpoint_that_fails_leaves_its_prompts_unfinished_and_says_why(self, tmp_path):
        files(tmp_path)
        writer = FakeEngine(Say(rubric(*CRITERIA)), Fail(400, "too long"))
        flags = ("--grader-concurrency", 1)

        async def work() -> GenerationPlan:
            async with writer, FakeEngine(quoted) as grader:
                made = plan(tmp_path, writer.url, grader.url, *flags)
                await made.run()
                return made

        made = asyncio.run(work())
        result = made.report()
        assert result["prompts"]["unfinished"] == 1
        assert "1 prompts are unfinished" in made.complaint(result)
        assert "too long" in made.complaint(result)

    def test_a_grader_that_fell_ill_is_asked_again(self, tmp_path):
        """Its silence is no word on the criteria, whatever filters make of it."""
        files(tmp_path)
        ill = FakeEngine(*[quoted] * 4, Say("I cannot help with that."))
        with pytest.raises(DataError, match=r"nothing is finished yet, most for: .* unreadable"):
            generate(tmp_path, None, ill)
        result = generate(tmp_path)
        assert (result["prompts"]["rows"], result["prompts"]["unfinished"]) == (2, 0)
        assert kept(tmp_path)["p0"] == list(CRITERIA)

    def test_other_filters_by_verdicts_ask_nothing(self, tmp_path):
        files(tmp_path, 1)
        zebra = ("Names the zebra", 9)
        generate(tmp_path, rubric(*CRITERIA, zebra))
        nobody = FakeEngine(Fail())
        generate(tmp_path, nobody, nobody, "--filter-never-met", "false")
        assert nobody.bodies == []
        assert zebra in kept(tmp_path)["p0"]

    def test_another_writer_needs_another_folder(self, tmp_path):
        files(tmp_path)
        generate(tmp_path)
        with pytest.raises(UserError, match=r"writer\.temperature was 0\.6, is 0\.9"):
            generate(tmp_path, "", None, "--writer-temperature", 0.9)


class TestAnswers:
    def test_a_model_that_answers_is_asked_with_other_seeds(self, tmp_path):
        files(tmp_path, 1)
        answers = iter(["It is gout.", "It is gout.", "Toe.", "Eat more meat."])
        policy = FakeEngine(lambda _: Say(next(answers)))
        flags = ["--policy-api", "openai", "--policy-model", "p", "--candidates", 4]

        async def work() -> GenerationPlan:
            async with policy, FakeEngine(Say(rubric(*CRITERIA))) as w, FakeEngine(quoted) as g:
                made = plan(tmp_path, w.url, g.url, "--policy-url", policy.url, *flags)
                await made.run()
                return made

        result = asyncio.run(work()).report()
        assert sorted(body["seed"] for body in policy.bodies) == [0, 1, 2, 3]
        assert result["answers"]["used"] == {"answers.jsonl": 4, "p": 1}
        assert result["answers"]["unused"] == {"repeated": 3}

    def test_that_show_the_same_are_one(self, tmp_path):
        files(tmp_path, 1)
        answers = ("It is gout.", "It is gout. \n", "\u200bIt  is gout.", "Show your toe.")
        lines = [{"prompt_id": "p0", "answer": answer} for answer in answers]
        write_jsonl(tmp_path / "answers.jsonl", lines)
        result = generate(tmp_path)
        assert result["answers"] == {"used": {"answers.jsonl": 2}, "unused": {"repeated": 2}}

    def test_that_differ_in_case_or_indents_are_two(self, tmp_path):
        files(tmp_path, 1)
        answers = ("if gout:\n    rest()", "if gout:\nrest()", "IF GOUT:\nREST()")
        lines = [{"prompt_id": "p0", "answer": answer} for answer in answers]
        write_jsonl(tmp_path / "answers.jsonl", lines)
        result = generate(tmp_path, rubric(("Says gout", 3)))
        assert result["answers"]["used"] == {"answers.jsonl": 3}

    def test_one_too_long_for_the_grader_is_left_out_with_its_pair(self, tmp_path):
        """The others tell the criteria apart, and so does the expert's rubric."""

        def short_of_room(prompt: str) -> Say | Fail:
            long = "very long" in prompt
            return Fail(400, "the prompt is too long") if long else quoted(prompt)

        pairs = [
            {"better": "A very long gout.", "worse": "Meat."},
            {"better": "The zebra has gout in its toe.", "worse": "Eat red meat."},
        ]
        files(tmp_path, 1, pairs=pairs, rubrics=[{"criterion": "Names gout", "points": 9}])
        lines = [answer for _, answer in read_jsonl(tmp_path / "answers.jsonl")]
        lines.insert(1, {"prompt_id": "p0", "answer": "A very long answer."})
        write_jsonl(tmp_path / "answers.jsonl", lines)
        result = generate(tmp_path, None, FakeEngine(short_of_room))
        assert result["prompts"] == {"all": 1, "rows": 1, "left_out": 0, "unfinished": 0}
        unused = {"too long for the grader": 1}
        assert result["answers"] == {"used": {"answers.jsonl": 4}, "unused": unused}
        assert kept(tmp_path)["p0"] == list(CRITERIA)
        assert result["quality"]["pair_accuracy"]["kept"]["pairs"] == 1
        assert result["quality"]["expert_agreement"]["kept"]["value"] == 1.0

    def test_all_too_long_for_the_grader_leave_the_prompt_unfinished(self, tmp_path):
        files(tmp_path, 1)
        small = FakeEngine(Fail(400, "the prompt is too long"))
        with pytest.raises(DataError, match=r"nothing is finished yet, most for: .*too long"):
            generate(tmp_path, None, small)

    def test_a_prompt_with_one_answer_is_left_out_before_its_rubric_is_paid_for(self, tmp_path):
        files(tmp_path, 1)
        write_jsonl(tmp_path / "answers.jsonl", [{"prompt_id": "p0", "answer": "Gout."}])
        writer = FakeEngine(Say(rubric(*CRITERIA)))
        with pytest.raises(DataError, match=r"fewer than 2 answers .*; give more answers"):
            generate(tmp_path, writer)
        assert writer.bodies == []

    def test_answers_to_prompts_that_are_not_there_are_counted(self, tmp_path):
        files(tmp_path, 2)
        result = generate(tmp_path, None, None, "--limit", 1)
        assert result["answers"]["unused"] == {"of other prompts": 4}

    def test_a_reference_is_an_answer_too_and_the_writer_sees_it(self, tmp_path):
        files(tmp_path, 1, reference="The zebra has gout.")
        writer = FakeEngine(Say(rubric(*CRITERIA, ("Names the zebra", 9))))
        generate(tmp_path, writer)
        assert "The zebra has gout." in writer.prompts[0]
        assert ("Names the zebra", 9) in kept(tmp_path)["p0"]

    @pytest.mark.parametrize("flag", ["--prompts", "--answers"])
    def test_a_file_that_the_rows_would_replace_is_refused(self, tmp_path, flag):
        files(tmp_path)
        rows = tmp_path / "run" / ".." / "run" / "rows.jsonl"
        with pytest.raises(UserError, match=r"rows\.jsonl: the rows of this run would replace it"):
            generate(tmp_path, None, None, flag, rows)

    def test_without_answers_or_a_writer_one_line_says_what_to_give(self, tmp_path):
        files(tmp_path)
        words = ["--prompts", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "run")]
        with pytest.raises(UserError, match=r"give --policy-url .* or --answers"):
            GenerationPlan(_parser().parse_args(words))
        words += ["--answers", str(tmp_path / "answers.jsonl")]
        with pytest.raises(UserError, match="nobody writes: give --writer-url"):
            GenerationPlan(_parser().parse_args(words))


class TestPage:
    def test_shows_rubrics_beside_answers_and_lets_no_text_out(self, tmp_path):
        files(tmp_path, 2)
        fails = (f"Fails to name {HOSTILE}", 3)
        generate(tmp_path, rubric(*CRITERIA, fails, ("Names the zebra", 9)))
        page = (tmp_path / "run" / "report.html").read_text()
        assert "Recommends red meat" in page and "never_met" in page and "polarity" in page
        assert "<script" not in page and "&lt;script&gt;" in page
        assert page.count("<details") == page.count("</details>") == 2

    def test_shows_no_more_prompts_than_asked_for(self, tmp_path):
        files(tmp_path, 3)
        generate(tmp_path, rubric(*CRITERIA), None, "--page-prompts", 1)
        assert (tmp_path / "run" / "report.html").read_text().count("<details") == 1
