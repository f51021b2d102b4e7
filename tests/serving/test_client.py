"""One request and its reply: what is sent, which failure is which, and that each is bounded."""

import asyncio
import json
import time
from email.utils import formatdate

import pytest
from doubles.asking import APIS, NOBODY, SCHEMA, ask, direct, question
from doubles.engine import TEMPLATE, Fail, FakeEngine, Say, chat_model, skip_pauses

from rubric_rl.common.errors import UserError
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.settings import Grading
from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.in_flight import LOOK_EVERY
from rubric_rl.serving.question import Aborted, Unavailable


class TestRequest:
    def test_sglang_gets_the_rendered_turn_the_schema_and_the_seed(self, model):
        engine = FakeEngine()
        ask(engine, model, max_tokens=99, temperature=0.5, top_p=0.8, top_k=11)
        (body,) = engine.bodies
        turn = "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        assert body["text"] == turn
        sampling = body["sampling_params"]
        assert json.loads(sampling.pop("json_schema")) == SCHEMA
        assert sampling == {
            "temperature": 0.5,
            "top_p": 0.8,
            "top_k": 11,
            "max_new_tokens": 99,
            "sampling_seed": 7,
        }

    def test_with_thinking_the_turn_is_open_and_no_schema_forbids_thoughts(self, model):
        engine = FakeEngine()
        ask(engine, model, thinking=True)
        (body,) = engine.bodies
        assert body["text"].endswith("<|im_start|>assistant\n")
        assert "json_schema" not in body["sampling_params"]

    @pytest.mark.parametrize("api", APIS)
    def test_without_a_schema_none_is_sent(self, model, api):
        engine = FakeEngine()
        ask(engine, model, question(schema=None), api=api)
        (body,) = engine.bodies
        assert "response_format" not in body
        assert "json_schema" not in body.get("sampling_params", {})

    @pytest.mark.parametrize("api", APIS)
    def test_a_whole_conversation_is_continued(self, model, api):
        turns = [
            {"role": "user", "content": "Is it?"},
            {"role": "assistant", "content": "It is."},
            {"role": "user", "content": "Sure?"},
        ]
        engine = FakeEngine()
        ask(engine, model, question(messages=turns, schema=None), api=api)
        (body,) = engine.bodies
        if api == "openai":
            assert body["messages"] == turns
        else:
            contents = [turn["content"] for turn in turns]
            places = [body["text"].index(content) for content in contents]
            assert places == sorted(places)
            assert body["text"].count("<|im_start|>") == 4

    def test_an_opening_asks_sglang_for_the_likeliest_tokens_probabilities(self, model):
        engine = FakeEngine(Say(true=0.6, false=0.2))
        assert ask(engine, model, direct()).probability == pytest.approx(0.75)
        (body,) = engine.bodies
        assert body["text"].endswith('{"criteria_met":')
        assert body["sampling_params"]["max_new_tokens"] == 1
        assert body["return_logprob"]
        assert body["top_logprobs_num"] == 20
        assert "token_ids_logprob" not in body, "ends some engines: sglang issue 34719"

    def test_openai_gets_messages_schema_and_further_fields(self, model):
        engine = FakeEngine()
        ask(engine, model, api="openai", extra_body={"top_k": 5})
        (body,) = engine.bodies
        assert body["messages"] == [{"role": "user", "content": "Is it?"}]
        assert (body["model"], body["seed"], body["top_k"]) == ("m", 7, 5)
        assert body["response_format"]["json_schema"]["schema"] == SCHEMA

    def test_an_opening_is_openais_last_message_to_be_continued(self, model):
        engine = FakeEngine(Say(true=0.2, false=0.6))
        assert ask(engine, model, direct(), api="openai").probability == pytest.approx(0.25)
        (body,) = engine.bodies
        assert body["messages"][-1] == {"role": "assistant", "content": '{"criteria_met":'}
        assert body["continue_final_message"]
        assert not body["add_generation_prompt"]
        assert body["logprobs"]

    @pytest.mark.parametrize("key", ["a1-b2", "naïve id\r\nX-Evil: 1"])
    def test_one_routing_key_is_one_header(self, model, key):
        engine = FakeEngine()
        ask(engine, model, question(routing_key=key), times=2)
        (sent,) = set(engine.routing_keys)
        assert (sent == key) is key.isascii()
        assert not any("X-Evil" in headers for headers in engine.headers)


class TestReply:
    @pytest.mark.parametrize("api", APIS)
    def test_text_tokens_and_weight_version_are_read(self, model, api):
        reply = ask(FakeEngine(Say("hello")), model, api=api)
        assert (reply.text, reply.complete) == ("hello", True)
        assert (reply.prompt_tokens, reply.completion_tokens) == (100, 7)
        assert reply.weight_version == "3"
        assert reply.probability is None

    @pytest.mark.parametrize("api", APIS)
    def test_a_reply_at_the_length_limit_is_not_complete(self, model, api):
        assert not ask(FakeEngine(Say(reason="length")), model, api=api).complete

    @pytest.mark.parametrize("true, false", [(0.0, 0.0), (0.05, 0.04), (0.01, 0.0)])
    @pytest.mark.parametrize("api", APIS)
    def test_a_model_that_was_saying_something_else_gives_no_probability(
        self, model, api, true, false
    ):
        engine = FakeEngine(Say(true=true, false=false))
        assert ask(engine, model, direct(), api=api).probability is None

    def test_a_thought_that_the_template_opened_belongs_to_the_reply(self, tmp_path):
        model = chat_model(tmp_path, TEMPLATE + "{% if enable_thinking %}<think>\n{% endif %}")
        engine = FakeEngine(Say('I lean to {"criteria_met": true}'))
        assert ask(engine, model, thinking=True).text.startswith("<think>")
        assert not ask(FakeEngine(), model).text.startswith("<think>")

    def test_an_openai_endpoint_may_leave_out_what_it_does_not_count(self, model):
        reply = ask(FakeEngine(Say(meta={"usage": None, "metadata": None})), model, api="openai")
        assert (reply.prompt_tokens, reply.cached_tokens, reply.weight_version) == (0, 0, "")


NO_TEXT = '{"text": null, "meta_info": {"finish_reason": {"type": "stop"}}, "choices": [{}]}'
PASSING = {
    "500": Fail(500),
    "502": Fail(502, "<html>bad gateway</html>"),
    "503": Fail(503, '{"code":"no_available_workers"}'),
    "429": Fail(429, headers={"Retry-After": "7"}),
    "408": Fail(408),
    "reset": Fail(reset=True),
    "HTML": Fail(200, "<html>busy</html>"),
    "empty": Fail(200, ""),
    "null": Fail(200, "null"),
    "list": Fail(200, "[]"),
    "not UTF-8": Fail(200, "\ud800".encode("utf-16", "surrogatepass").decode("latin-1")),
    "deep": Fail(200, "[" * 100_000),
    "missing fields": Fail(200, '{"text": "x", "choices": []}'),
    "abort": Say(reason="abort"),
    "text missing": Fail(200, NO_TEXT),
}


class TestFailuresThatMayPass:
    @pytest.mark.parametrize("api", APIS)
    @pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
    def test_are_tried_again(self, model, monkeypatch, failure, api):
        skip_pauses(monkeypatch)
        engine = FakeEngine(failure, failure, Say("fine"))
        assert ask(engine, model, api=api).text == "fine"
        assert len(engine.bodies) == 3

    @pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
    def test_end_as_unavailable_after_the_last_attempt(self, model, monkeypatch, failure):
        pauses = skip_pauses(monkeypatch)
        engine = FakeEngine(failure)
        with pytest.raises(Unavailable, match=r"\(4 attempts\)"):
            ask(engine, model)
        assert len(engine.bodies) == 4
        assert len(pauses) == 3

    def test_the_first_one_is_shown_once(self, model, monkeypatch, caplog):
        """Else a wrong URL would be waited for in silence."""
        skip_pauses(monkeypatch)
        ask(FakeEngine(Fail(500)), model, times=3)
        (message,) = caplog.messages
        assert ": HTTP 500: no; each request is sent again up to 3 times" in message

    def test_pauses_grow_and_follow_the_server_within_bounds(self, model, monkeypatch):
        pauses = skip_pauses(monkeypatch)
        asked_for = ("7", "9" * 400, "²", "soon")
        busy = [Fail(429, headers={"Retry-After": value}) for value in asked_for]
        ask(FakeEngine(Fail(500), Fail(500), *busy, Say()), model, retries=6)
        assert pauses[0] < pauses[1] < 2
        assert pauses[2:4] == [7, 120]
        assert len(pauses) == 6
        assert max(pauses) <= 120

    def test_a_date_to_come_is_waited_for(self, model, monkeypatch):
        pauses = skip_pauses(monkeypatch)
        to_come = formatdate(time.time() + 30, usegmt=True)
        gone_by = formatdate(time.time() - 30, usegmt=True)
        no_dates = ("Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 99 Oct 2026")
        dates = (to_come, gone_by, *no_dates)
        busy = [Fail(503, headers={"Retry-After": date}) for date in dates]
        ask(FakeEngine(*busy, Say()), model, retries=4)
        assert 25 < pauses[0] <= 30
        assert max(pauses[1:]) < 6, "the ordinary pause"

    def test_a_reply_that_never_comes_times_out(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(seconds=60), Say("fine"))
        assert ask(engine, model, timeout=1).text == "fine"
        assert engine.in_flight == 0

    def test_nobody_listening_is_unavailable(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        with pytest.raises(Unavailable, match=f"{NOBODY}/generate: Cannot connect to host"):
            ask(FakeEngine(), model, url=NOBODY)


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    @pytest.mark.parametrize("api", APIS)
    def test_fail_at_once_with_the_servers_reason_on_one_line(self, model, status, api):
        engine = FakeEngine(Fail(status, '{"error":\n{"message": "input too long"}}' + "x" * 5000))
        with pytest.raises(Unavailable, match=f"HTTP {status}: .*input too long") as error:
            ask(engine, model, api=api)
        assert len(engine.bodies) == 1
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500

    @pytest.mark.parametrize(
        "more", ["", ', "code": 400', ', "type": "invalid_request_error", "code": 400']
    )
    @pytest.mark.parametrize("status", [400, 200])
    def test_a_request_that_a_router_sent_twice_is_asked_again(
        self, model, monkeypatch, status, more
    ):
        skip_pauses(monkeypatch)
        said = f'{{"error": {{"message": "Duplicate request ID detected: rubric-1"{more}}}}}'
        engine = FakeEngine(Fail(status, said), Say("fine"))
        assert ask(engine, model).text == "fine"

    def test_an_error_page_with_a_byte_order_mark_is_read(self, model):
        page = '\ufeff{"error": {"code": "insufficient_quota", "message": "no credit"}}'
        engine = FakeEngine(Fail(429, page))
        with pytest.raises(Unavailable, match="HTTP 429: no credit"):
            ask(engine, model)
        assert len(engine.bodies) == 1

    def test_a_redirect_is_not_followed(self, model):
        engine = FakeEngine(Fail(307, headers={"Location": "http://elsewhere.example/generate"}))
        with pytest.raises(Unavailable, match=r"HTTP 307: http://elsewhere.example/generate"):
            ask(engine, model)
        assert len(engine.bodies) == 1

    def test_an_error_page_in_an_unknown_encoding_is_read_all_the_same(self, model):
        headers = {"Content-Type": "text/html; charset=idna"}
        with pytest.raises(Unavailable, match=r"HTTP 400: .*no"):
            ask(FakeEngine(Fail(400, "no \u00e9", headers=headers)), model)

    def test_an_endpoint_without_logprobs_cannot_serve_direct_mode(self, model):
        choice = {"message": {"content": " true"}, "finish_reason": "length", "logprobs": None}
        engine = FakeEngine(Say(meta={"choices": [choice]}))
        said = r"grader_mode direct and cascade: .*use grader_mode explain"
        with pytest.raises(Unavailable, match=said):
            ask(engine, model, direct(), api="openai")
        assert len(engine.bodies) == 1


class TestKey:
    @pytest.mark.parametrize(
        "failure",
        [
            Fail(401, "no such key: secret-123"),
            Fail(500, "secret-123"),
            Fail(307, headers={"Location": "http://x/secret-123"}),
            Fail(reset=True),
        ],
    )
    def test_is_sent_and_never_shown(self, model, monkeypatch, failure):
        skip_pauses(monkeypatch)
        monkeypatch.setenv("GRADER_KEY", "secret-123\n")
        engine = FakeEngine(failure)
        with pytest.raises(Unavailable) as error:
            ask(engine, model, api_key_env="GRADER_KEY")
        assert engine.headers[0]["Authorization"] == "Bearer secret-123"
        assert "secret" not in str(error.value)

    def test_put_in_place_of_its_variables_name_is_not_shown_either(self, model):
        with pytest.raises(UserError, match=r"grader_api_key_env .* not set") as error:
            Client(Endpoint(api_key_env="sk-secret"), NOBODY, model)
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        "url", ["http://user:secret@127.0.0.1:9", "127.0.0.1:9", "file:///etc/passwd"]
    )
    def test_an_address_that_cannot_work_is_refused_and_not_shown(self, model, url):
        with pytest.raises(UserError, match="grader_url must begin with http") as error:
            Client(Endpoint(), url, model)
        assert url not in str(error.value)


class TestLimits:
    def test_no_more_requests_in_flight_than_allowed(self, model):
        engine = FakeEngine(Say(seconds=0.1))
        ask(engine, model, times=12, concurrency=3)
        assert engine.peak == 3
        assert len(engine.bodies) == 12

    def test_a_stopped_rollout_sends_nothing_more_not_even_what_was_waiting_its_turn(
        self, model, monkeypatch
    ):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(reason="abort"))

        def stopped() -> bool:
            return len(engine.bodies) >= 2

        results = ask(engine, model, times=20, concurrency=2, stopped=stopped)
        assert all(isinstance(result, Aborted) for result in results)
        assert len(engine.bodies) == 2

    def test_a_stopped_rollout_ends_the_requests_in_flight_where_the_server_does_not(self, model):
        engine = FakeEngine(Say(seconds=60))

        async def main():
            stopped = False
            async with engine, Client(Endpoint(), engine.url, model, lambda: stopped) as client:
                tasks = [asyncio.create_task(client.ask(question())) for _ in range(3)]
                while engine.in_flight < 3:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(3 * LOOK_EVERY)
                assert not any(task.done() for task in tasks)
                stopped = True
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(result, Aborted) for result in results)
                while engine.in_flight:  # the server sees that nobody waits any more
                    await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(main(), 30))

    def test_a_time_out_is_no_abort(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(seconds=60))
        with pytest.raises(Unavailable, match=r"/generate: no reply within 0\.1 seconds"):
            ask(engine, model, timeout=0.1, retries=1)

    def test_a_stopped_rollout_ends_a_long_pause(self, model, monkeypatch):
        waited, sleep = [], asyncio.sleep

        async def note(seconds):
            if seconds:
                waited.append(seconds)
            await sleep(0)

        engine = FakeEngine(Fail(429, headers={"Retry-After": "100"}))
        monkeypatch.setattr("rubric_rl.serving.client.asyncio.sleep", note)
        with pytest.raises(Aborted):
            ask(engine, model, stopped=lambda: len(waited) >= 3)
        assert len(engine.bodies) == 1
        assert len(waited) == 3
        assert max(waited) <= 1

    def test_cancellation_leaves_no_request_behind(self, model):
        engine = FakeEngine(Say(seconds=60))

        async def main():
            async with engine, Client(Endpoint(), engine.url, model) as client:
                task = asyncio.create_task(client.ask(question()))
                while not engine.in_flight:
                    await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait([task])
                while engine.in_flight:
                    await asyncio.sleep(0.01)
                return task.cancelled()

        assert asyncio.run(asyncio.wait_for(main(), 10))
        assert engine.replied == []

    def test_an_endpoint_that_is_silent_for_too_long_counts_as_gone(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(seconds=60))
        limits = {"timeout": 0.2, "silence": 0.3, "retries": 50, "concurrency": 2}
        start = time.monotonic()
        results = ask(engine, model, times=40, **limits)
        assert all(isinstance(result, Unavailable) for result in results)
        assert "no response at all for 0.3 seconds" in str(results[-1])
        assert time.monotonic() - start < 5, "not 40 times 51 time-outs, two at a time"

    def test_idle_time_is_no_silence(self, model):
        """A question that was given up leaves nothing behind that the next one pays for."""
        engine = FakeEngine(Say(seconds=60), Say("fine"))
        endpoint = Endpoint(model="m", timeout=0.1, silence=0.15, retries=0)

        async def main():
            async with engine, Client(endpoint, engine.url, model) as client:
                task = asyncio.create_task(client.ask(question()))
                while not engine.in_flight:
                    await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait([task])
                await asyncio.sleep(0.2)
                return await client.ask(question())

        assert asyncio.run(main()).text == "fine"

    def test_one_that_answers_again_is_asked_again(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        monkeypatch.setattr("rubric_rl.serving.client.GONE_FOR", 0.0)
        sick = [True]
        engine = FakeEngine(lambda prompt: Say(seconds=60) if sick[0] else Say("fine"))
        endpoint = Endpoint(model="m", timeout=0.1, silence=0.15, retries=5)

        async def main():
            async with engine, Client(endpoint, engine.url, model) as client:
                with pytest.raises(Unavailable, match="is it still running"):
                    await client.ask(question())
                sick[0] = False
                return await client.ask(question())

        assert asyncio.run(main()).text == "fine"

    def test_open_files_are_allowed_for_all_connections_or_refused_at_the_start(
        self, model, monkeypatch
    ):
        allowed = []
        monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))
        monkeypatch.setattr("resource.setrlimit", lambda _, limits: allowed.append(limits))
        Client(Endpoint(concurrency=100), NOBODY, model)
        assert allowed == []
        Client(Endpoint(concurrency=1000), NOBODY, model)
        assert allowed == [(2064, 4096)]
        with pytest.raises(UserError, match=r"grader_concurrency 9999 needs .* lower it to 2016"):
            Client(Endpoint(concurrency=9999), NOBODY, model)


class TestModelFolder:
    @pytest.mark.parametrize("content", [None, "{}", "not JSON"])
    def test_without_a_tokenizer_there_is_one_clear_line(self, tmp_path, content):
        if content:
            (tmp_path / "tokenizer.json").write_text(content)
        complaint = "no usable tokenizer.*local folder of a chat model"
        with pytest.raises(UserError, match=complaint):
            Client(Endpoint(), NOBODY, str(tmp_path))

    @pytest.mark.parametrize(
        "template, complaint",
        [
            (None, "no chat template"),
            ("{% if %}", "broken"),
            ("{{ raise_exception('no') }}", r"refuses .*: no"),
        ],
    )
    def test_without_a_chat_template_too(self, tmp_path, template, complaint):
        folder = chat_model(tmp_path / "m", template)
        with pytest.raises(UserError, match=complaint):
            Client(Endpoint(), NOBODY, folder)

    def test_direct_mode_needs_each_verdict_as_one_token(self, model, monkeypatch):
        monkeypatch.setattr("rubric_rl.serving.apis.CHOICES", (" true", " neither nor"))
        client = Client(Endpoint(), NOBODY, model)
        Grader(client)
        with pytest.raises(UserError, match="direct and cascade need ' neither nor' as"):
            Grader(client, Grading(mode="direct"))


class TestNames:
    """Every error names the setting as the user writes it: grader_url, or policy_url."""

    def test_no_endpoint_and_no_model_name_are_refused(self, model):
        with pytest.raises(UserError, match="no grader endpoint: set grader_url"):
            Client(Endpoint(), "", model)
        with pytest.raises(UserError, match="grader_api openai needs grader_model"):
            Client(Endpoint(api="openai"), NOBODY)

    @pytest.mark.parametrize(
        "settings, url, complaint",
        [
            ({}, "", "no policy endpoint: set policy_url"),
            ({}, "ftp://x", "policy_url must begin with http.*policy_api_key_env"),
            ({"api": "openai"}, NOBODY, "policy_api openai needs policy_model"),
            ({"api_key_env": "NOT_SET"}, NOBODY, "policy_api_key_env must name"),
        ],
    )
    def test_a_policy_s_are_named_as_such(self, model, settings, url, complaint):
        with pytest.raises(UserError, match=complaint) as error:
            Client(Endpoint(**settings), url, model, prefix="policy_")
        assert "grader" not in str(error.value)

    def test_a_policy_s_value_that_cannot_be_is_named_as_such(self):
        with pytest.raises(UserError, match=r"^policy_top_p must be"):
            Endpoint.of({"top_p": 2.0}, "policy_")
