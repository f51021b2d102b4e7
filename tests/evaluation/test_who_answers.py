"""Who answers and who grades, as records say it; and what is graded of an answer with thoughts."""

import asyncio

import pytest
from doubles.engine import TEMPLATE, FakeEngine, Say, chat_model
from doubles.records import raw_rows

from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.who_answers import recorded_grader
from rubric_rl.serving.endpoint import Endpoint

POLICY = Endpoint(url="http://127.0.0.1:3000", api="openai", model="m")


@pytest.mark.parametrize(
    "url, model, name",
    [
        ("http://127.0.0.1:3000", "m", "policy"),
        ("http://127.0.0.1:3000/v1/", "m", "policy"),
        ("http://localhost:3000", "m", "policy"),
        ("http://127.0.0.1:3000", "judge", "judge"),
        ("http://127.0.0.1:3001", "m", "m"),
    ],
)
def test_the_policy_is_known_by_its_place_and_model(url, model, name):
    grader = Endpoint(url=url, api="openai", model=model)
    assert recorded_grader(grader, POLICY) == name
    assert recorded_grader(grader, None) == (model or url)


@pytest.mark.parametrize(
    "thinking, said, graded",
    [
        (True, "It hurts.</think>\n\nSee a doctor.", "See a doctor."),
        (True, "<think>It hurts.</think>\n\nSee a doctor.", "See a doctor."),
        (True, "See a doctor.", "See a doctor."),
        (False, "It hurts.</think>\n\nSee a doctor.", "It hurts.</think>\n\nSee a doctor."),
    ],
)
def test_thoughts_that_a_template_opened_are_no_part_of_the_answer(
    tmp_path, thinking, said, graded
):
    rows = raw_rows(tmp_path / "rows.jsonl")
    policy = FakeEngine(Say(said))

    async def run() -> None:
        async with policy, FakeEngine() as judge:
            flags = f"""
                --rows {rows} --out {tmp_path / "run"} --policy-url {policy.url}
                --policy-api openai --policy-model m --policy-thinking {str(thinking).lower()}
                --grader-url {judge.url} --grader-api openai --grader-model judge
            """
            await EvaluationPlan(_parser().parse_args(flags.split())).run()

    asyncio.run(run())
    assert {record.answer for record in Run(tmp_path / "run")} == {graded}


@pytest.mark.parametrize("family, graded", [("[THINK][/THINK]", "See."), ("", None)])
def test_a_served_policys_thoughts_are_known_by_its_template(tmp_path, family, graded):
    rows = raw_rows(tmp_path / "rows.jsonl")
    model = chat_model(tmp_path / "policy", f"{TEMPLATE}{{{{ '{family}' if false }}}}")
    said = "[THINK]It hurts.[/THINK]See."
    policy = FakeEngine(Say(said))

    async def run() -> None:
        async with policy, FakeEngine() as judge:
            flags = f"""
                --rows {rows} --out {tmp_path / "run"} --policy-url {policy.url}
                --policy-tokenizer {model} --policy-thinking true
                --grader-url {judge.url} --grader-api openai --grader-model judge
            """
            await EvaluationPlan(_parser().parse_args(flags.split())).run()

    asyncio.run(run())
    assert {record.answer for record in Run(tmp_path / "run")} == {graded or said}
