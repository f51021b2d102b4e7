"""One request and its reply: what is sent, which failure is which, and that every failure is bounded (stage 3)."""

import asyncio
import json
import time
from email.utils import formatdate

import pytest
from doubles.engine import TEMPLATE, Fail, FakeEngine, Say, chat_model, skip_pauses
from rubric_rl.grading.endpoints import Unavailable

from rubric_rl.errors import UserError
from rubric_rl.grading.client import Aborted, GraderClient
from rubric_rl.grading.settings import GraderSettings

SCHEMA = {"type": "object"}
APIS = ["sglang", "openai"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


def ask(
    engine: FakeEngine, model: str, times: int = 1, stopped=lambda: False, key: str = "", **settings
):
    """Starts the engine, asks it `times` at once, and gives the reply (or the list of what became of each)."""
    chosen = GraderSettings(**{"model": "m", "retries": 3} | settings)

    async def main():
        async with engine, GraderClient(chosen, engine.url, model, stopped) as client:
            results = [client.ask("Is it?", SCHEMA, 7, key) for _ in range(times)]
            return await asyncio.gather(*results, return_exceptions=times > 1)

    replies = asyncio.run(main())
    return replies if times > 1 else replies[0]


class TestRequest:
    def test_sglang_gets_the_rendered_turn_the_schema_and_the_seed(self, model):
        engine = FakeEngine()
        ask(engine, model, max_tokens=99, temperature=0.5, top_p=0.8, top_k=11)
        (body,) = engine.bodies
        turn = "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        assert body["text"] == turn
        sampling = {
            "temperature": 0.5,
            "top_p": 0.8,
            "top_k": 11,
            "max_new_tokens": 99,
            "sampling_seed": 7,
        }
        assert body["sampling_params"] == sampling | {"json_schema": json.dumps(SCHEMA)}

    def test_with_thinking_the_turn_is_open_and_no_schema_forbids_thoughts(self, model):
        engine = FakeEngine()
        ask(engine, model, thinking=True)
        assert engine.bodies[0]["text"].endswith("<|im_start|>assistant\n")
        assert "json_schema" not in engine.bodies[0]["sampling_params"]

    def test_direct_mode_opens_the_verdict_and_asks_for_two_tokens_probabilities(self, model):
        engine = FakeEngine(Say(true=0.6, false=0.2))
        assert ask(engine, model, mode="direct").probability == pytest.approx(0.75)
        (body,) = engine.bodies
        assert (
            body["text"].endswith('{"criteria_met":')
            and body["sampling_params"]["max_new_tokens"] == 1
        )
        assert body["return_logprob"] and len(set(body["token_ids_logprob"])) == 2

    def test_openai_gets_messages_schema_and_further_fields(self, model):
        engine = FakeEngine()
        ask(engine, model, api="openai", extra_body={"top_k": 5})
        (body,) = engine.bodies
        assert body["messages"] == [{"role": "user", "content": "Is it?"}]
        assert (body["model"], body["seed"], body["top_k"]) == ("m", 7, 5)
        assert body["response_format"]["json_schema"]["schema"] == SCHEMA

    def test_openai_direct_mode_continues_the_verdict(self, model):
        engine = FakeEngine(Say(true=0.2, false=0.6))
        assert ask(engine, model, api="openai", mode="direct").probability == pytest.approx(0.25)
        (body,) = engine.bodies
        assert body["messages"][-1] == {"role": "assistant", "content": '{"criteria_met":'}
        assert (
            body["continue_final_message"]
            and not body["add_generation_prompt"]
            and body["logprobs"]
        )

    @pytest.mark.parametrize("key", ["a1-b2", "naïve id\r\nX-Evil: 1"])
    def test_one_routing_key_is_one_header(self, model, key):
        engine = FakeEngine()
        ask(engine, model, times=2, key=key)
        sent = {headers["X-SMG-Routing-Key"] for headers in engine.headers}
        assert len(sent) == 1 and (key in sent) is key.isascii()
        assert not any("X-Evil" in headers for headers in engine.headers)


class TestReply:
    @pytest.mark.parametrize("api", APIS)
    def test_text_tokens_and_weight_version_are_read(self, model, api):
        reply = ask(FakeEngine(Say("hello")), model, api=api)
        assert (reply.text, reply.complete, reply.prompt_tokens, reply.completion_tokens) == (
            "hello",
            True,
            100,
            7,
        )
        assert reply.weight_version == "3" and reply.probability is None

    @pytest.mark.parametrize("api", APIS)
    def test_a_reply_at_the_length_limit_is_not_complete(self, model, api):
        assert not ask(FakeEngine(Say(reason="length")), model, api=api).complete

    @pytest.mark.parametrize("true, false", [(0.0, 0.0), (0.05, 0.04), (0.01, 0.0)])
    @pytest.mark.parametrize("api", APIS)
    def test_a_grader_that_was_saying_something_else_gives_no_probability(
        self, model, api, true, false
    ):
        assert (
            ask(FakeEngine(Say(true=true, false=false)), model, api=api, mode="direct").probability
            is None
        )

    def test_a_thought_that_the_template_opened_belongs_to_the_reply(self, tmp_path):
        model = chat_model(tmp_path, TEMPLATE + "{% if enable_thinking %}<think>\n{% endif %}")
        engine = FakeEngine(Say('I lean to {"criteria_met": true}'))
        assert ask(engine, model, thinking=True).text.startswith("<think>")
        assert not ask(FakeEngine(), model).text.startswith("<think>")

    def test_an_openai_endpoint_may_leave_out_what_it_does_not_count(self, model):
        reply = ask(FakeEngine(Say(meta={"usage": None, "metadata": None})), model, api="openai")
        assert (reply.prompt_tokens, reply.cached_tokens, reply.weight_version) == (0, 0, "")


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
    "no end": Say(reason=None),
    "text missing": Fail(
        200, '{"text": null, "meta_info": {"finish_reason": {"type": "stop"}}, "choices": [{}]}'
    ),
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
        assert len(engine.bodies) == 4 and len(pauses) == 3

    def test_the_first_one_is_shown_once(self, model, monkeypatch, caplog):
        """Else a wrong URL would be waited for in silence."""
        skip_pauses(monkeypatch)
        ask(FakeEngine(Fail(500)), model, times=3)
        (message,) = caplog.messages
        assert "Retryable HTTP 500; each request is sent again up to 3 times" in message

    def test_pauses_grow_and_follow_the_server_within_bounds(self, model, monkeypatch):
        pauses = skip_pauses(monkeypatch)
        asked = [
            Fail(429, headers={"Retry-After": value}) for value in ("7", "9" * 400, "²", "soon")
        ]
        ask(FakeEngine(Fail(500), Fail(500), *asked, Say()), model, retries=6)
        assert pauses[0] < pauses[1] < 2 and pauses[2:4] == [7, 120]
        assert len(pauses) == 6 and max(pauses) <= 120

    def test_a_date_to_come_is_waited_for(self, model, monkeypatch):
        pauses = skip_pauses(monkeypatch)
        dates = (formatdate(time.time() + 30, usegmt=True), formatdate(time.time() - 30, usegmt=True),
                 "Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 99 Oct 2026")  # fmt: skip
        ask(
            FakeEngine(*[Fail(503, headers={"Retry-After": date}) for date in dates], Say()),
            model,
            retries=4,
        )
        assert (
            25 < pauses[0] <= 30 and max(pauses[1:]) < 6
        )  # gone by, or no date: the ordinary pause

    def test_a_reply_that_never_comes_times_out(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(seconds=60), Say("fine"))
        assert ask(engine, model, timeout=1).text == "fine"
        assert engine.in_flight == 0

    def test_nobody_listening_is_unavailable(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        with pytest.raises(Unavailable, match="http://127.0.0.1:9: ClientConnectorError"):
            ask(FakeEngine(), model, url="http://127.0.0.1:9")


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    @pytest.mark.parametrize("api", APIS)
    def test_fail_at_once_with_the_servers_reason_on_one_line(self, model, status, api):
        engine = FakeEngine(Fail(status, '{"error":\n{"message": "input too long"}}' + "x" * 5000))
        with pytest.raises(Unavailable, match=f"HTTP {status}: .*input too long") as error:
            ask(engine, model, api=api)
        assert len(engine.bodies) == 1
        assert "\n" not in str(error.value) and len(str(error.value)) < 500

    def test_a_redirect_is_not_followed(self, model):
        engine = FakeEngine(Fail(307, headers={"Location": "http://elsewhere.example/generate"}))
        with pytest.raises(Unavailable, match="HTTP 307: http://elsewhere.example/generate"):
            ask(engine, model)
        assert len(engine.bodies) == 1

    def test_an_error_page_in_an_unknown_encoding_is_read_all_the_same(self, model):
        headers = {"Content-Type": "text/html; charset=idna"}
        with pytest.raises(Unavailable, match="HTTP 400: .*no"):
            ask(FakeEngine(Fail(400, "no \u00e9", headers=headers)), model)

    def test_an_endpoint_without_logprobs_cannot_serve_direct_mode(self, model):
        choice = {"message": {"content": " true"}, "finish_reason": "length", "logprobs": None}
        engine = FakeEngine(Say(meta={"choices": [choice]}))
        with pytest.raises(Unavailable, match="use mode explain"):
            ask(engine, model, api="openai", mode="direct")
        assert len(engine.bodies) == 1


class TestKey:
    @pytest.mark.parametrize(
        "failure",
        [
            Fail(401, "no such key: secret-123"),
            Fail(500, "secret-123"),
            Fail(307, headers={"Location": "http://x/secret-123"}),
            Fail(reset=True),
            Say(reason="secret-123"),
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
        with pytest.raises(UserError, match="not set") as error:
            GraderClient(GraderSettings(api_key_env="sk-secret"), "http://127.0.0.1:9", model)
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        "url", ["http://user:secret@127.0.0.1:9", "127.0.0.1:9", "file:///etc/passwd"]
    )
    def test_an_address_that_cannot_work_is_refused_and_not_shown(self, model, url):
        with pytest.raises(UserError, match="grader_url must begin with http") as error:
            GraderClient(GraderSettings(), url, model)
        assert url not in str(error.value)


class TestLimits:
    def test_no_more_requests_in_flight_than_allowed(self, model):
        engine = FakeEngine(Say(seconds=0.1))
        ask(engine, model, times=12, concurrency=3)
        assert engine.peak == 3 and len(engine.bodies) == 12

    def test_a_stopped_rollout_sends_nothing_more_not_even_what_was_waiting_its_turn(
        self, model, monkeypatch
    ):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(reason="abort"))
        stopped = lambda: len(engine.bodies) >= 2  # noqa: E731
        results = ask(engine, model, times=20, concurrency=2, stopped=stopped)
        assert all(isinstance(result, Aborted) for result in results)
        assert len(engine.bodies) == 2

    def test_a_stopped_rollout_ends_a_long_pause(self, model, monkeypatch):
        waited, sleep = [], asyncio.sleep

        async def note(seconds):
            if seconds:
                waited.append(seconds)
            await sleep(0)

        engine = FakeEngine(Fail(429, headers={"Retry-After": "100"}))
        monkeypatch.setattr("rubric_rl.grading.client.asyncio.sleep", note)
        with pytest.raises(Aborted):
            ask(engine, model, stopped=lambda: len(waited) >= 3)
        assert len(engine.bodies) == 1 and len(waited) == 3 and max(waited) <= 1

    def test_cancellation_leaves_no_request_behind(self, model):
        engine = FakeEngine(Say(seconds=60))

        async def main():
            async with engine, GraderClient(GraderSettings(), engine.url, model) as client:
                task = asyncio.create_task(client.ask("Is it?", SCHEMA, 0))
                while not engine.in_flight:
                    await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait([task])
                while engine.in_flight:
                    await asyncio.sleep(0.01)
                return task.cancelled()

        assert asyncio.run(asyncio.wait_for(main(), 10))
        assert engine.finished == []


class TestModelFolder:
    def test_without_a_tokenizer_there_is_one_clear_line(self, tmp_path, model):
        for content in (None, "{}", "not JSON"):
            if content:
                (tmp_path / "tokenizer.json").write_text(content)
            with pytest.raises(
                UserError, match="no usable tokenizer.*local folder of a chat model"
            ):
                GraderClient(GraderSettings(), "http://127.0.0.1:9", str(tmp_path))

    @pytest.mark.parametrize(
        "template, complaint",
        [
            (None, "no chat template"),
            ("{% if %}", "broken"),
            ("{{ raise_exception('no') }}", "refuses this conversation: no"),
        ],
    )
    def test_without_a_chat_template_too(self, tmp_path, template, complaint):
        folder = chat_model(tmp_path / "m", template)
        with pytest.raises(UserError, match=complaint):
            GraderClient(GraderSettings(), "http://127.0.0.1:9", folder)

    def test_no_endpoint_and_no_model_name_are_refused(self, model):
        with pytest.raises(UserError, match="no grader endpoint"):
            GraderClient(GraderSettings(), "", model)
        with pytest.raises(UserError, match="grader_model"):
            GraderClient(GraderSettings(api="openai"), "http://127.0.0.1:9")
