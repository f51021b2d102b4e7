"""Several questions in one request: each reply holds to the rules of a single one."""

import asyncio
import math
import re
from types import SimpleNamespace

import pytest
from doubles.asking import APIS, direct, question
from doubles.engine import Fail, FakeEngine, Say, is_list, skip_pauses, top_logprobs

from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.lists import MOST_TRIALS, PAUSE
from rubric_rl.serving.question import Aborted, Question, Reply, Unavailable

BELIEFS = {"Is it red?": 0.9, "Is it blue?": 0.4, "Is it both?": 0.2}


def asked(text: str) -> Question:
    return direct(messages=[{"role": "user", "content": text}], routing_key="answer-7")


def in_words(text: str, seed: int = 7) -> Question:
    return question(messages=[{"role": "user", "content": text}], seed=seed)


def echo(prompt: str) -> Say:
    return Say(next(text for text in BELIEFS if text in prompt))


def by_belief(prompt: str) -> Say:
    true = next(belief for text, belief in BELIEFS.items() if text in prompt)
    return Say(true=true, false=1 - true)


def ask_together(
    engine: FakeEngine, model: str, stopped=lambda: False, questions=None, times=1, **settings
) -> list[Reply]:
    """The replies when the same client asks for the last of so many times."""
    engine.model = model
    endpoint = Endpoint(**{"model": "m", "retries": 3} | settings)

    async def main():
        async with engine, Client(endpoint, engine.url, model, stopped) as client:
            for _ in range(times):
                replies = await client.ask_together(questions or [asked(text) for text in BELIEFS])
            return replies

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
def test_a_list_that_fails_is_asked_question_by_question(model, monkeypatch, failure):
    pauses = skip_pauses(monkeypatch)
    engine = FakeEngine(first_time(failure, "red"))
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 1, 1, 1]
    assert len(pauses) == 1


class WithoutLists(FakeEngine):
    """An engine that fails lists from the number `good` on, and answers what is asked alone."""

    def __init__(self, good: int):
        super().__init__(lambda prompt: self.act(prompt), checked=False)
        self.good = good

    def act(self, prompt: str) -> Say | Fail:
        lists = [count for count in self.requests if count > 1]
        failed = self.requests[-1] > 1 and len(lists) > self.good
        return Fail(500) if failed else by_belief(prompt)


@pytest.mark.parametrize(
    "good, requests",
    [
        (0, [3, 1, 1, 1, 1, 1, 1]),
        (1, [3, 3, 1, 1, 1]),
        (2, [3, 3]),
    ],
)
def test_lists_that_never_went_well_are_not_tried_again(model, monkeypatch, caplog, good, requests):
    skip_pauses(monkeypatch)
    engine = WithoutLists(good)
    replies = ask_together(engine, model, times=2)
    assert probabilities(replies) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == requests
    assert caplog.text.count("for 30 seconds each is asked alone") == (good == 0)


@pytest.mark.parametrize("failure", [Fail(503), Fail(reset=True), Fail(200, "[]")])
@pytest.mark.parametrize("kind", [asked, in_words])
def test_lists_that_failed_by_chance_are_tried_again_after_a_pause(
    model, monkeypatch, failure, kind
):
    """Again after 30 seconds, then after 60; once one goes well, always."""
    skip_pauses(monkeypatch)
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("rubric_rl.serving.lists.time", clock)

    def act(prompt: str) -> Say | Fail:
        fails = engine.requests[-1] == 3 and engine.requests.count(3) < 3
        return failure if fails else by_belief(prompt)

    engine, alone = FakeEngine(act, checked=False, model=model), [1, 1, 1]
    questions = [kind(text) for text in BELIEFS]

    async def main():
        async with engine, Client(Endpoint(), engine.url, model) as client:
            for clock.now in (0.0, 29.0, 31.0, 90.0, 92.0, 93.0):
                await client.ask_together(questions)

    asyncio.run(main())
    assert engine.requests == [3, *alone, *alone, 3, *alone, *alone, 3, 3]


@pytest.mark.parametrize("good, lists", [(0, 1 + MOST_TRIALS), (2, 3 + MOST_TRIALS)])
def test_an_engine_that_hangs_on_lists_costs_few_time_outs(model, monkeypatch, good, lists):
    """Also one that took some lists before: else each answer would wait for a time-out."""
    skip_pauses(monkeypatch)
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("rubric_rl.serving.lists.time", clock)

    def act(prompt: str) -> Say:
        hangs = engine.requests[-1] == 3 and engine.requests.count(3) > good
        return Say(seconds=9) if hangs else by_belief(prompt)

    engine = FakeEngine(act, checked=False, model=model)

    async def main() -> None:
        async with engine, Client(Endpoint(timeout=0.2), engine.url, model) as client:
            for call in range(good + 10):
                for _ in range(2):
                    replies = await client.ask_together([asked(text) for text in BELIEFS])
                    assert probabilities(replies) == pytest.approx(list(BELIEFS.values()))
                clock.now = PAUSE * 2.0**call * 2

    asyncio.run(main())
    assert engine.requests.count(3) == lists


def test_without_repetitions_a_list_that_fails_is_asked_question_by_question(model, monkeypatch):
    skip_pauses(monkeypatch)
    engine = WithoutLists(0)
    replies = ask_together(engine, model, retries=0)
    assert probabilities(replies) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 1, 1, 1]


def test_without_repetitions_a_question_of_a_list_is_not_asked_again(model):
    engine = FakeEngine(first_time(Say(reason="abort"), "blue"))
    with pytest.raises(Unavailable, match=r"\(1 attempts\)"):
        ask_together(engine, model, retries=0)
    assert engine.requests == [3]


class WithoutTexts(FakeEngine):
    """An engine behind SGLang's router 0.3, which refuses lists of texts."""

    def __init__(self, model: str):
        super().__init__(lambda prompt: self.act(prompt), checked=False, model=model)

    def act(self, prompt: str) -> Say | Fail:
        of_texts = self.requests[-1] > 1 and "return_logprob" not in self.bodies[-1]
        return Fail(422, "text: expected a string") if of_texts else by_belief(prompt)


def test_lists_of_texts_that_a_router_refuses_are_not_sent_again(model):
    engine = WithoutTexts(model)
    tokens, words = ([kind(text) for text in BELIEFS] for kind in (asked, in_words))

    async def main():
        async with engine, Client(Endpoint(retries=0), engine.url, model) as client:
            for questions in (tokens, words, words, tokens):
                assert len(await client.ask_together(questions)) == 3

    asyncio.run(main())
    assert engine.requests == [3, 3, 1, 1, 1, 1, 1, 1, 3]


def test_lists_are_sent_again_after_one_question_was_refused(model):
    def act(prompt: str) -> Say | Fail:
        return Fail(400, "too long") if "blue" in prompt else by_belief(prompt)

    engine = FakeEngine(act, model=model)
    good = [asked(text) for text in BELIEFS if "blue" not in text]

    async def main():
        async with engine, Client(Endpoint(retries=0), engine.url, model) as client:
            with pytest.raises(Unavailable):
                await client.ask_together([asked(text) for text in BELIEFS])
            await client.ask_together(good)

    asyncio.run(main())
    assert engine.requests[-1] == len(good)


@pytest.mark.parametrize("failure", [Fail(503), Say(reason="abort"), Fail(200, '[{"text": ""}]')])
def test_the_attempts_are_bounded(model, monkeypatch, failure):
    skip_pauses(monkeypatch)
    engine = FakeEngine(failure)
    with pytest.raises(Unavailable, match=r"\(4 attempts\)"):
        ask_together(engine, model)
    assert engine.requests == [3, 1, 1, 1], "one request to an attempt, as long as all fail"


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


def test_a_list_of_tokens_counts_as_one_request_in_flight(model):
    engine = FakeEngine(Say(seconds=0.05))
    ask_together(engine, model, concurrency=1)
    assert (engine.requests, engine.peak) == ([3], 1)


@pytest.mark.parametrize("concurrency, peak", [(3, 1), (5, 1), (6, 2), (9, 3)])
def test_a_list_of_words_counts_as_many_as_its_replies(model, concurrency, peak):
    engine = FakeEngine(Say(seconds=0.05), model=model)
    endpoint = Endpoint(concurrency=concurrency, retries=0)

    async def main():
        async with engine, Client(endpoint, engine.url, model) as client:
            questions = [in_words(text) for text in BELIEFS]
            await asyncio.gather(*(client.ask_together(questions) for _ in range(3)))
            await client.ask(questions[0])

    asyncio.run(main())
    assert (engine.requests, engine.peak) == ([3, 3, 3, 1], peak)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_no_more_words_than_may_be_in_flight_go_in_a_list(model, concurrency):
    engine = FakeEngine(Say(seconds=0.05))
    questions = [in_words(text) for text in BELIEFS]
    ask_together(engine, model, questions=questions, concurrency=concurrency)
    assert (engine.requests, engine.peak) == ([1, 1, 1], concurrency)


class Disordered:
    """An engine that gives its replies to a list another order.

    It names them as `name` says: by request and place, by a number of their own, or not at all.
    """

    def __init__(self, order, name: str):
        self.order, self.name = order, name

    def replies(self, body: dict, right: list[dict]) -> list[dict]:
        prompts = body.get("text") or body["input_ids"]
        for place, (reply, prompt) in enumerate(zip(right, prompts, strict=True)):
            names = {"SGLang's": f"{body['rid']}_{place}", "its own": f"{place}", "one": "r"}
            reply["meta_info"] |= {"id": names[self.name], "prompt_tokens": len(prompt)}
        return self.order(right)


def of_another_list(replies: list[dict]) -> list[dict]:
    """The replies that SGLang gave to another answer's questions."""
    for place, reply in enumerate(replies):
        reply["meta_info"]["id"] = f"{'0' * 32}_{place}"
    return replies


@pytest.mark.parametrize("kind", [asked, in_words])
def test_replies_to_another_list_are_none(model, monkeypatch, kind):
    skip_pauses(monkeypatch)
    engine = FakeEngine(by_belief)
    by_disordered(engine, Disordered(of_another_list, "SGLang's"), monkeypatch)
    ask_together(engine, model, questions=[kind(text) for text in BELIEFS])
    assert engine.requests == [3, 1, 1, 1]


ORDERS = {
    "reversed": lambda replies: replies[::-1],
    "the first twice": lambda replies: [replies[0], *replies[:-1]],
    "one for all": lambda replies: [replies[0]] * len(replies),
}


def by_disordered(engine: FakeEngine, disorder: Disordered, monkeypatch) -> None:
    def renamed(replies: list[dict], body: dict) -> None:
        if is_list(body):
            replies[:] = disorder.replies(body, replies)

    monkeypatch.setattr("doubles.engine._name_by_place", renamed)


@pytest.mark.parametrize("name", ["SGLang's", "its own", "one"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_replies_in_another_order_are_none(model, monkeypatch, caplog, order, name):
    skip_pauses(monkeypatch)
    by_disordered(engine := FakeEngine(by_belief), Disordered(order, name), monkeypatch)
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))
    assert engine.requests == [3, 1, 1, 1]
    assert re.search("to another question|comes twice", caplog.text)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_prompts_of_one_length_are_told_apart_by_the_name_that_sglang_gives(
    model, monkeypatch, caplog, order
):
    skip_pauses(monkeypatch)
    alike = [asked("Is it red?")] * 3
    by_disordered(engine := FakeEngine(by_belief), Disordered(order, "SGLang's"), monkeypatch)
    ask_together(engine, model, questions=alike)
    assert engine.requests == [3, 1, 1, 1]
    assert "to another question" in caplog.text


@pytest.mark.parametrize("name", ["SGLang's", "its own", "one"])
def test_replies_in_their_order_may_have_any_name(model, monkeypatch, name):
    by_disordered(engine := FakeEngine(by_belief), Disordered(list, name), monkeypatch)
    assert probabilities(ask_together(engine, model)) == pytest.approx(list(BELIEFS.values()))


@pytest.fixture
def asked_in_words() -> list[Question]:
    return [in_words(text) for text in BELIEFS]


class TestWords:
    def test_come_for_a_list_of_texts(self, model, asked_in_words):
        together, alone = FakeEngine(echo), FakeEngine(echo)
        replies = ask_together(together, model, questions=asked_in_words)
        assert [reply.text for reply in replies] == list(BELIEFS)
        assert together.requests == [3]
        for each in asked_in_words:
            ask_together(alone, model, questions=[each])
        assert together.bodies == alone.bodies

    def test_of_several_votes_are_sampled_with_their_seeds(self, model):
        engine = FakeEngine(echo)
        ask_together(engine, model, questions=[in_words("Is it red?", seed) for seed in (3, 5, 3)])
        assert engine.requests == [3]
        assert [body["sampling_params"]["sampling_seed"] for body in engine.bodies] == [3, 5, 3]

    @pytest.mark.parametrize("name", ["SGLang's", "its own", "one"])
    @pytest.mark.parametrize("order", [list, *ORDERS.values()], ids=["right", *ORDERS])
    def test_are_believed_only_where_sglang_names_their_places(
        self, model, monkeypatch, asked_in_words, order, name
    ):
        skip_pauses(monkeypatch)
        by_disordered(engine := FakeEngine(echo), Disordered(order, name), monkeypatch)
        replies = ask_together(engine, model, questions=asked_in_words)
        assert [reply.text for reply in replies] == list(BELIEFS)
        believed = order is list and name == "SGLang's"
        assert engine.requests == ([3] if believed else [3, 1, 1, 1])
