"""What is asked in which order, so that what prompts share is read once and no reply waited for."""

import asyncio

import pytest
from doubles.engine import VERDICT, Fail, FakeEngine, Say, chat_model, grader_settings
from doubles.grading import ROW, by_truth, graded

from rubric_rl.data.schema import TokenCounts
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.serving.client import Client


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


class TestOrder:
    def test_what_all_criteria_share_is_read_before_they_are_asked_together(self, model):
        engine = FakeEngine(Say(seconds=0.2))
        record = graded(engine, model)
        assert engine.peak == 3
        (shared,) = engine.read_ahead
        for prompt in engine.prompts:
            assert prompt.startswith(shared)
        assert shared.endswith("\nCriterion: [")
        assert record.first_tokens == TokenCounts(prompt=100, cached=0, completion=0)
        assert record.rest_tokens.prompt == 300
        assert record.calls == 3

    def test_where_more_is_asked_than_may_be_in_flight_the_first_reply_costs_no_time(self, model):
        engine = FakeEngine(by_truth)
        graded(engine, model, concurrency=2)
        assert engine.read_ahead == []
        graded(engine, model, concurrency=3)
        assert len(engine.read_ahead) == 1

    def test_an_engine_that_cannot_only_read_answers_the_first_criterion_alone(self, model):
        engine = FakeEngine(Say(seconds=0.1), reads_ahead=False)
        assert graded(engine, model).mets == [True] * 3
        assert engine.peak == 2

    @pytest.mark.parametrize("mode", ["explain", "direct"])
    def test_answers_of_one_prompt_have_its_conversation_read_once(self, model, mode):
        engine, most = FakeEngine(), []

        def act(prompt):
            most.append((len(engine.finished), engine.in_flight))
            return Say(seconds=0.1)

        engine.script, engine.model = [act], model
        chosen = grader_settings(mode=mode)

        async def main():
            async with engine, Client(chosen.endpoint, engine.url, model) as client:
                grader = Grader(client, chosen.grading)
                await asyncio.gather(*(grade(grader, ROW, f"Answer {n}.") for n in range(4)))

        asyncio.run(main())
        if mode == "direct":
            assert most[0] == (0, 1)
            assert most[1][0] == 1, "the second answer waits for the first reply"
        else:
            assert engine.most_read_ahead == 3, "all but the first"

    def test_a_failed_reading_keeps_nobody_waiting(self, model):
        engine = FakeEngine(Fail(401))
        chosen = grader_settings(mode="direct")

        async def main():
            async with engine, Client(chosen.endpoint, engine.url, model) as client:
                grader = Grader(client, chosen.grading)
                return await asyncio.gather(*(grade(grader, ROW, f"Answer {n}.") for n in range(4)))

        assert [record.status for record in asyncio.run(main())] == ["ungraded"] * 4

    def test_the_first_criterion_is_answered_before_the_others_are_asked(self, model):
        engine, seen = FakeEngine(), []

        def act(prompt):
            seen.append((len(engine.finished), engine.in_flight))
            return Say(VERDICT % "true", seconds=0.2)

        engine.script = [act]
        graded(engine, model, api="openai")
        assert seen[0] == (0, 1)
        assert [finished for finished, _ in seen[1:]] == [1, 1]
        assert engine.peak == 2, "the others go together"
        assert "] Greets." in engine.prompts[0]

    def test_in_direct_mode_the_others_are_one_request(self, model):
        engine = FakeEngine(by_truth)
        record = graded(engine, model, mode="direct", routing_key="answer-7")
        assert engine.requests == [1, 2]
        assert engine.routing_keys == ["answer-7"] * 2
        assert record.rest_tokens == TokenCounts(prompt=200, cached=180, completion=14)
        one_by_one = FakeEngine(by_truth)
        graded(one_by_one, model, mode="direct", api="openai")
        assert one_by_one.requests == [1, 1, 1]

    def test_without_warming_all_go_at_once(self, model):
        engine = FakeEngine(Say(seconds=0.2))
        graded(engine, model, warm_prefix=False)
        assert engine.peak == 3

    def test_all_calls_of_an_answer_share_routing_key_and_prefix(self, model):
        engine = FakeEngine(by_truth)
        graded(engine, model, routing_key="answer-7")
        assert engine.routing_keys == ["answer-7"] * 3
        prefixes = {prompt.rpartition("\nCriterion: ")[0] for prompt in engine.prompts}
        assert len(prefixes) == 1

    def test_tokens_of_the_first_call_are_booked_apart(self, model):
        record = graded(FakeEngine(by_truth), model, mode="direct")
        assert record.first_tokens == TokenCounts(prompt=100, cached=0, completion=7)
        assert record.rest_tokens == TokenCounts(prompt=200, cached=180, completion=14)
