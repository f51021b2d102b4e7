"""What is asked in which order, so that what prompts share is read once and no reply waited for."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web
from doubles.engine import VERDICT, FakeEngine, Say, chat_model, grader_settings
from doubles.grading import ROW, by_truth, graded

from rubric_rl.data.schema import Record, TokenCounts
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.serving.client import Client
from rubric_rl.serving.question import Aborted


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


class FailsToRead(FakeEngine):
    """An engine that reads so many prompts ahead, and fails to read others."""

    def __init__(self, status: int, reads: int):
        super().__init__(by_truth)
        self.status, self.left, self.tried = status, reads, 0

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["sampling_params"]["max_new_tokens"] == 0:
            self.tried += 1
            self.left -= 1
            if self.left < 0:
                return web.Response(status=self.status, text="cannot only read")
        return await super()._handle(request)


def grade_in_turn(engine: FakeEngine, model: str, answers: int) -> list[Record]:
    """The records of so many answers, graded by one client."""
    chosen = grader_settings()
    engine.model = model

    async def main():
        async with engine, Client(chosen.endpoint, engine.url, model) as client:
            grader = Grader(client, chosen.grading)
            return [await grade(grader, ROW, f"Answer {n}.") for n in range(answers)]

    return asyncio.run(main())


class TestOrder:
    def test_what_all_criteria_share_is_read_before_they_are_asked_together(self, model):
        engine = FakeEngine(by_truth)
        record = graded(engine, model)
        assert engine.requests == [3]
        assert engine.read_ahead == [engine.prompts[0]], "the others share its beginning"
        assert record.first_tokens == TokenCounts(prompt=100, cached=0, completion=0)
        assert record.rest_tokens.prompt == 300
        assert record.calls == 3

    def test_no_criterion_waits_for_the_thoughts_about_another(self, model):
        engine = FakeEngine(Say(seconds=0.2))
        graded(engine, model, thinking=True)
        assert engine.requests == [1, 1, 1]
        assert engine.peak == 3

    def test_a_single_criterion_shares_nothing(self, model):
        engine = FakeEngine(by_truth)
        graded(engine, model, row=replace(ROW, rubric=ROW.rubric[:1]))
        assert engine.read_ahead == []
        assert len(engine.bodies) == 1

    def test_an_engine_that_cannot_only_read_answers_the_first_criterion_alone(self, model, caplog):
        engine = FakeEngine(by_truth, reads_ahead=False)
        for record in grade_in_turn(engine, model, answers=2):
            assert record.mets == [True, False, False]
        assert engine.requests == [1, 2] * 2
        (warning,) = caplog.messages
        assert "max_new_tokens must be at least 1" in warning

    @pytest.mark.parametrize("status", [404, 500])
    @pytest.mark.parametrize("reads, tried", [(0, 1), (1, 3)])
    def test_an_engine_that_fails_to_read_ahead_is_asked_at_once(
        self, model, caplog, status, reads, tried
    ):
        """One that never did it is not told to again; one that did may do so the next time."""
        engine = FailsToRead(status, reads)
        for record in grade_in_turn(engine, model, answers=3):
            assert record.mets == [True, False, False]
        assert engine.tried == tried
        (warning,) = caplog.messages
        assert f"was not read ahead, and its first reply is waited for: {engine.url}" in warning

    def test_a_rollout_that_aborts_while_a_prompt_is_read_asks_nothing_else(self, model):
        engine = FailsToRead(500, reads=0)
        with pytest.raises(Aborted):
            graded(engine, model, stopped=lambda: engine.tried > 0)
        assert engine.bodies == []

    def test_the_first_criterion_is_answered_before_the_others_are_asked(self, model):
        engine, seen = FakeEngine(), []

        def act(prompt):
            seen.append((len(engine.replied), engine.in_flight))
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
        engine = FakeEngine(by_truth)
        graded(engine, model, warm_prefix=False)
        assert (engine.requests, engine.read_ahead) == ([3], [])

    def test_all_calls_of_an_answer_share_routing_key_and_prefix(self, model):
        engine = FakeEngine(by_truth)
        graded(engine, model, routing_key="answer-7")
        assert set(engine.routing_keys) == {"answer-7"}
        prefixes = {prompt.rpartition("\nCriterion: ")[0] for prompt in engine.prompts}
        assert len(prefixes) == 1

    def test_tokens_of_the_first_call_are_booked_apart(self, model):
        record = graded(FakeEngine(by_truth), model, mode="direct")
        assert record.first_tokens == TokenCounts(prompt=100, cached=0, completion=7)
        assert record.rest_tokens == TokenCounts(prompt=200, cached=180, completion=14)
