"""A sick grader is told from a bad answer: before the first question, and by its replies."""

import asyncio

import pytest
from aiohttp import web
from doubles.engine import VERDICT, Fail, FakeEngine, Say, chat_model, skip_pauses, verdict
from doubles.records import made

from rubric_rl.common.tokenizer import thinking_switch
from rubric_rl.data.schema import Record
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.health import check, failure_of, sickness
from rubric_rl.grading.settings import Grading
from rubric_rl.serving.client import Client
from rubric_rl.serving.defects import CURES
from rubric_rl.serving.endpoint import Endpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


def checked(engine: FakeEngine, model: str = "", mode: str = "explain", **settings) -> Record:
    """The record of the check question that this engine was asked."""
    api = {} if model else {"api": "openai", "model": "m"}
    endpoint = Endpoint(**{"retries": 1} | api | settings)

    async def main():
        async with engine, Client(endpoint, engine.url, model) as client:
            return await check(Grader(client, Grading(mode=mode)))

    return asyncio.run(main())


def message(content=None, finish: str = "stop", **more) -> Say:
    """A reply of an OpenAI endpoint with other fields beside its content."""
    choice = {"message": {"content": content} | more, "finish_reason": finish}
    return Say(meta={"choices": [choice]})


@pytest.mark.parametrize("mode", ["explain", "direct", "checklist"])
@pytest.mark.parametrize("api", ["sglang", "openai"])
def test_a_healthy_grader_passes_in_each_mode(model, mode, api):
    record = checked(FakeEngine(), model if api == "sglang" else "", mode)
    assert record.mets == [True, False]
    assert failure_of(record, 0.5) == ""


SICK = {
    "cut": message("Let me think about this", "length"),
    "blanks": message('{"explanation": "It says so."' + " \n" * 40, "length"),
    "empty": message(""),
    "refusal": message(refusal="I can't help with that."),
    "thoughts": message(reasoning_content="so: " + VERDICT % "true"),
    "open thoughts": message("<think>so: " + VERDICT % "true"),
    "tools": message(tool_calls=[{"function": {"arguments": VERDICT % "true"}}]),
    "no verdict": message("I think so."),
}


@pytest.mark.parametrize(
    "said",
    [
        message(reasoning_details=[{"text": VERDICT % "true"}]),
        message("<think>so: " + VERDICT % "true" + "</think>\n"),
    ],
)
def test_thoughts_have_several_forms(said):
    assert CURES["thoughts"] in failure_of(checked(FakeEngine(said, checked=False)), 0.5)


@pytest.mark.parametrize("cause", SICK)
def test_a_sick_one_is_found_with_the_likely_cause_and_what_to_change(cause):
    record = checked(FakeEngine(SICK[cause], checked=False))
    assert CURES[cause] in failure_of(record, 0.5)


def test_direct_mode_needs_mass_on_the_two_words(model):
    engine = FakeEngine(Say(true=0.04, false=0.03), checked=False)
    assert CURES["other words"] in failure_of(checked(engine, model, "direct"), 0.5)


def test_an_endpoint_that_refuses_is_named_with_its_words(monkeypatch):
    skip_pauses(monkeypatch)
    engine = FakeEngine(message(), checked=False)
    engine.script = [Say(meta={"choices": None, "error": {"message": "no credit", "code": 402}})]
    assert "cannot be asked: " in (failure := failure_of(checked(engine), 0.5))
    assert "no credit (402)" in failure


def test_a_small_model_that_errs_is_no_sick_one(caplog):
    record = checked(FakeEngine(verdict(True), checked=False))
    assert failure_of(record, 0.5) == ""
    assert "errs on its check question ([True, True])" in caplog.text


SWITCH = "chat_template_kwargs"


class Hybrid(FakeEngine):
    """A model that thinks unless a field of the request says not to, which it may not know."""

    def __init__(self, knows_the_switch: bool):
        super().__init__(checked=False)
        self.knows_the_switch = knows_the_switch

    def _reply(self, request: web.Request, say: Say, number: int, body: dict) -> dict:
        switch = body.get("chat_template_kwargs")
        if switch and not self.knows_the_switch:
            return {"error": {"message": "unknown field", "code": 400}}
        met = "pediatricians" in body["messages"][0]["content"].rpartition("Criterion:")[2]
        thoughts = None if switch == thinking_switch(False) else "hm"
        return self._chat(message(VERDICT % str(met).lower(), reasoning_content=thoughts))


def test_a_hybrid_model_that_thinks_by_itself_gets_the_switch(caplog):
    engine = Hybrid(knows_the_switch=True)
    assert checked(engine).mets == [True, False]
    assert engine.bodies[-1]["chat_template_kwargs"] == thinking_switch(False)
    assert "thinks by itself" in caplog.text


class Leaking(FakeEngine):
    """A model behind a service that leaves its thoughts in the reply when they are switched off."""

    def _reply(self, request: web.Request, say: Say, number: int, body: dict) -> dict:
        met = "pediatricians" in body["messages"][0]["content"].rpartition("Criterion:")[2]
        said = VERDICT % str(met).lower()
        if body.get(SWITCH):
            return self._chat(message(f"Hmm, so I write {said} then."))
        return self._chat(message(said, reasoning_content="hm"))


def test_a_switch_that_costs_the_verdicts_is_taken_back(caplog):
    engine = Leaking(checked=False)
    record = checked(engine)
    assert record.mets == [True, False]
    assert failure_of(record, 0.5) == ""
    assert "it gets no switch, and goes on; name its own" in caplog.text


def test_a_model_that_goes_on_thinking_is_said_to(caplog):
    engine = FakeEngine(message(VERDICT % "true", reasoning_content="hm"), checked=False)
    checked(engine)
    assert engine.bodies[-1][SWITCH] == thinking_switch(False)
    assert "and goes on; name its own switch in grader_extra_body" in caplog.text


def test_an_endpoint_that_does_not_know_the_switch_is_asked_without_it():
    record = checked(Hybrid(knows_the_switch=False))
    assert record.mets == [True, False]


class OfTokens(FakeEngine):
    """An endpoint asked for tokens, whose template opens thoughts unless a field says not to.

    The field may be refused. Nothing that it sends shows the thoughts.
    """

    def __init__(self, knows_the_switch: bool):
        super().__init__(checked=False)
        self.knows_the_switch = knows_the_switch

    def _reply(self, request: web.Request, say: Say, number: int, body: dict) -> dict:
        if body.get(SWITCH) and not self.knows_the_switch:
            return {"error": {"message": "unknown field", "code": 400}}
        met = "pediatricians" in body["messages"][0]["content"].rpartition("Criterion:")[2]
        return self._chat(verdict(met))


@pytest.mark.parametrize("mode", ["direct", "cascade"])
def test_one_token_shows_no_thoughts_so_the_switch_is_sent_where_it_is_taken(mode, caplog):
    engine = OfTokens(knows_the_switch=True)
    assert checked(engine, mode=mode).mets == [True, False]
    assert engine.bodies[-1][SWITCH] == thinking_switch(False)
    assert caplog.text == ""
    engine = OfTokens(knows_the_switch=False)
    assert checked(engine, mode=mode).mets == [True, False]


@pytest.mark.parametrize("chosen", [None, {"enable_thinking": True}])
def test_the_users_own_switch_stays(chosen):
    engine = OfTokens(knows_the_switch=True)
    checked(engine, mode="direct", extra_body={SWITCH: chosen})
    assert [body.get(SWITCH) for body in engine.bodies] == [chosen, chosen]


def test_an_endpoint_that_is_gone_is_not_asked_for_tokens_twice(monkeypatch):
    skip_pauses(monkeypatch)
    engine = FakeEngine(Fail(500), checked=False)
    assert checked(engine, mode="direct").status == "ungraded"
    assert engine.requests == [1, 1], "one question and its repetition"


def test_a_grader_that_shall_think_is_not_stopped_from_it():
    engine = Hybrid(knows_the_switch=True)
    checked(engine, thinking=True)
    assert not any("chat_template_kwargs" in body for body in engine.bodies)


class TestSickness:
    def records(self, *mets: bool | None) -> list[Record]:
        return [made(f"p{number}", [5], [met]) for number, met in enumerate(mets)]

    def test_is_a_share_of_unreadable_verdicts_above_the_limit(self):
        half = self.records(True, None)
        assert sickness(half, 0.5) == ""
        assert sickness(half, 0.4) == "1 of 2 verdicts are unreadable"
        assert sickness(self.records(None), 1.0) == ""
        assert sickness([], 0.0) == ""

    def test_names_the_most_frequent_cause(self):
        records = self.records(None, None, None)
        for record, cause in zip(records, ("cut", "empty", "cut"), strict=True):
            record.unreadable_causes = {cause: 1}
        assert sickness(records, 0.5) == f"3 of 3 verdicts are unreadable: {CURES['cut']}"
