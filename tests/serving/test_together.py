"""Several questions in one request: each reply holds to the rules of a single one."""

import asyncio
import math

import pytest
from doubles.asking import APIS, direct
from doubles.engine import Fail, FakeEngine, Say, skip_pauses, top_logprobs

from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Aborted, Question, Reply, Unavailable

BELIEFS = {"Is it red?": 0.9, "Is it blue?": 0.4, "Is it both?": 0.2}


def asked(text: str) -> Question:
    return direct(messages=[{"role": "user", "content": text}], routing_key="answer-7")


def by_belief(prompt: str) -> Say:
    true = next(belief for text, belief in BELIEFS.items() if text in prompt)
    return Say(true=true, false=1 - true)


def ask_together(
    engine: FakeEngine, model: str, stopped=lambda: False, questions=None, **settings
) -> list[Reply]:
    engine.model = model
    endpoint = Endpoint(**{"model": "m", "retries": 3} | settings)

    async def main():
        async with engine, Client(endpoint, engine.url, model, stopped) as client:
            return await client.ask_together(questions or [asked(text) for text in BELIEFS])

    return asyncio.run(main())


def probabilities(replies: list[Reply]) -> list[float | None]:
    return [reply.probability for reply in replies]


def first_time(failure: Say | Fail, text: str):
    """Lets it happen to the question with `text`, when that is asked for the first time."""
    happened = []

    def act(prompt: str) -> Say | Fail:
        if text in prompt and not happened:
            happened.append(prompt)
            return failure
        return by_belief(prompt)

    return act


def test_sglang_gets_them_in_one_request_and_openai_one_by_one(model):
    for api, requests in (("sglang", [3]), ("openai", [1, 1, 1])):
        engine = FakeEngine(by_belief)
        replies = ask_together(engine, model, api=api)
        assert engine.requests == requests
        assert probabilities(replies) == pytest.approx(list(BELIEFS.values()))
        assert set(engine.routing_keys) == {"answer-7"}


def test_each_is_asked_as_it_is_alone(model):
    together, alone = FakeEngine(by_belief), FakeEngine(by_belief)
    ask_together(together, model)
    for text in BELIEFS:
        ask_together(alone, model, questions=[asked(text)])
    assert together.bodies == alone.bodies


def test_one_alone_and_none_need_no_list(model):
    engine = FakeEngine(by_belief)
    ask_together(engine, model, questions=[asked("Is it red?")])
    assert "text" in engine.bodies[0]
    assert engine.requests == [1]


PASSING = {
    "aborted": Say(reason="abort"),
    "not a number": Say(meta={"output_top_logprobs": [top_logprobs(math.nan, -1.0)]}),
    "no tokens": Say(meta={"output_top_logprobs": [[]]}),
    "no reason": Say(reason=None),
    "no probabilities": Say(meta={"output_top_logprobs": []}),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_only_what_failed_is_asked_again(model, monkeypatch, failure):
    pauses = skip_pauses(monkeypatch)
    engine = FakeEngine(first_time(failure, "blue"))
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 1]
    assert "Is it blue?" in engine.bodies[3]["text"]
    assert len(pauses) == 1


@pytest.mark.parametrize("failure", [Fail(503), Fail(reset=True), Fail(200, "[]"), Fail(200, "5")])
def test_a_failed_request_is_sent_again_whole(model, monkeypatch, failure):
    skip_pauses(monkeypatch)
    engine = FakeEngine(first_time(failure, "red"))
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 3]


@pytest.mark.parametrize("failure", [Fail(503), Say(reason="abort"), Fail(200, '[{"text": ""}]')])
def test_the_attempts_are_bounded(model, monkeypatch, failure):
    skip_pauses(monkeypatch)
    engine = FakeEngine(failure)
    with pytest.raises(Unavailable, match=r"\(4 attempts\)"):
        ask_together(engine, model)
    assert len(engine.requests) == 4


@pytest.mark.parametrize("depth", [100, 990, 1010, 1500])
def test_an_error_that_is_nested_too_deeply_is_a_failure(model, monkeypatch, depth):
    skip_pauses(monkeypatch)
    page = '{"error":' + "[" * depth + "]" * depth + "}"
    with pytest.raises(Unavailable):
        ask_together(FakeEngine(Fail(200, page)), model)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_asked_question_by_question(model, status):
    """The refusal may be of one question, or of the size of all."""

    def act(prompt: str) -> Say | Fail:
        return Fail(status) if len(engine.requests) == 1 else by_belief(prompt)

    engine = FakeEngine(act)
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 1, 1, 1]


def test_a_refused_question_is_named_by_its_own_refusal(model):
    def act(prompt: str) -> Say | Fail:
        return Fail(400, "blue is too long") if "blue" in prompt else by_belief(prompt)

    with pytest.raises(Unavailable, match="HTTP 400: blue is too long"):
        ask_together(FakeEngine(act), model)


@pytest.mark.parametrize("failure", [Fail(401), Say(reason="content_filter")])
def test_what_no_other_try_can_cure_is_not_tried_again(model, failure):
    engine = FakeEngine(failure)
    with pytest.raises(Unavailable):
        ask_together(engine, model)
    assert engine.requests == [3]


def test_a_stopped_rollout_asks_nothing_again(model, monkeypatch):
    skip_pauses(monkeypatch)
    engine = FakeEngine(Say(reason="abort"))
    with pytest.raises(Aborted):
        ask_together(engine, model, stopped=lambda: bool(engine.requests))
    assert engine.requests == [3]


@pytest.mark.parametrize("key", ["EMPTY", "sk-abcdef0123456789"])
def test_no_key_changes_what_a_model_said(model, monkeypatch, key):
    monkeypatch.setenv("GRADER_KEY", key)
    said = f"on an empty stomach, says {key}"
    for reply in ask_together(FakeEngine(Say(said)), model, api_key_env="GRADER_KEY"):
        assert reply.text == said


@pytest.mark.parametrize("api", APIS)
def test_each_reply_has_its_own_weight_version_and_tokens(model, api):
    engine = FakeEngine(by_belief)
    for reply in ask_together(engine, model, api=api):
        assert (reply.weight_version, reply.prompt_tokens) == ("3", 100)


def test_a_list_counts_as_one_request_in_flight(model):
    engine = FakeEngine(Say(seconds=0.05))
    ask_together(engine, model, concurrency=1)
    assert (engine.requests, engine.peak) == ([3], 1)


class Disordered:
    """An engine that gives its replies to a list another order, each time or the first time.

    It names them as `name` says: by request and place, by a number of their own, or not at all.
    """

    def __init__(self, order, name: str, always: bool):
        self.order, self.name, self.always, self.lists = order, name, always, 0

    def replies(self, body: dict, right: list[dict]) -> list[dict]:
        for place, (reply, ids) in enumerate(zip(right, body["input_ids"], strict=True)):
            names = {"SGLang's": f"{body['rid']}_{place}", "its own": f"{place}", "one": "r"}
            reply["meta_info"] |= {"id": names[self.name], "prompt_tokens": len(ids)}
        self.lists += 1
        return self.order(right) if self.always or self.lists == 1 else right


ORDERS = {
    "reversed": lambda replies: replies[::-1],
    "the first twice": lambda replies: [replies[0], *replies[:-1]],
    "one for all": lambda replies: [replies[0]] * len(replies),
}


def by_disordered(engine: FakeEngine, disorder: Disordered, monkeypatch) -> None:
    def renamed(replies: list[dict], body: dict) -> None:
        if isinstance(body["input_ids"][0], list):
            replies[:] = disorder.replies(body, replies)

    monkeypatch.setattr("doubles.engine._name_by_place", renamed)


@pytest.mark.parametrize("name", ["SGLang's", "its own", "one"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_replies_in_another_order_are_none(model, monkeypatch, order, name):
    skip_pauses(monkeypatch)
    by_disordered(engine := FakeEngine(by_belief), Disordered(order, name, False), monkeypatch)
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 3]
    by_disordered(engine := FakeEngine(by_belief), Disordered(order, name, True), monkeypatch)
    with pytest.raises(Unavailable, match=r"to another question|comes twice"):
        ask_together(engine, model)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_prompts_of_one_length_are_told_apart_by_the_name_that_sglang_gives(
    model, monkeypatch, order
):
    skip_pauses(monkeypatch)
    alike = [asked("Is it red?")] * 3
    by_disordered(engine := FakeEngine(by_belief), Disordered(order, "SGLang's", True), monkeypatch)
    with pytest.raises(Unavailable, match="to another question"):
        ask_together(engine, model, questions=alike)


@pytest.mark.parametrize("name", ["SGLang's", "its own", "one"])
def test_replies_in_their_order_may_have_any_name(model, monkeypatch, name):
    by_disordered(engine := FakeEngine(by_belief), Disordered(list, name, True), monkeypatch)
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
