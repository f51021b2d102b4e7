"""What comes back from servers of all kinds, and what each of them wants to be sent."""

import asyncio
import gzip
import json
import math
import re
from dataclasses import replace

import pytest
from aiohttp import web
from doubles.asking import APIS, ask, direct, question
from doubles.engine import (
    TEMPLATE,
    VERDICT,
    Fail,
    FakeEngine,
    Say,
    chat_model,
    skip_pauses,
    top_logprobs,
)
from doubles.grading import ROW, graded
from tokenizers import AddedToken, Tokenizer, processors

from rubric_rl.common.errors import UserError
from rubric_rl.grading.verdict import read_verdict
from rubric_rl.serving.client import Client
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Unavailable


class TestProbabilities:
    """In direct mode the probability is the verdict: what is none is asked for again."""

    @pytest.mark.parametrize("log", [float("nan"), float("inf"), 0.5, None, "-0.1", True])
    def test_what_is_no_log_probability_is_not_taken_for_one(self, model, monkeypatch, log):
        skip_pauses(monkeypatch)
        asked = []

        class Broken(FakeEngine):
            def _generated(self, say, number, body):
                reply = super()._generated(say, number, body)
                asked.append(body)
                if len(asked) == 1:
                    reply["meta_info"]["output_top_logprobs"][0][0][0] = log
                return reply

        assert ask(Broken(Say(true=0.6, false=0.2)), model, direct()).probability == pytest.approx(
            0.75
        )
        assert len(asked) == 2

    def malformed(self, entries: list) -> list:
        """Ways to spoil SGLang's entries for two tokens."""
        (true, first, _), (false, second, _) = entries
        return [
            [*entries, entries[1]],
            [*entries, [false - 1, second, None]],
            [[true, str(first), None], [false, str(second), None]],
            [[true, float(first), None], [false, second, None]],
            [[first, true, None], [second, false, None]],
            [[true, -1, None], [false, second, None]],
            [[true, 999_999, None], [false, 999_998, None]],
            [{"logprob": true, "token_id": first}, {"logprob": false, "token_id": second}],
            [*entries, [math.log(0.5), 7, None]],
            [*entries, [math.nan, 7, None]],
            [[-9999.0, 7, None]],
        ]

    @pytest.mark.parametrize("way", range(11))
    def test_a_malformed_list_of_them_is_asked_for_again_and_then_no_reply(
        self, model, monkeypatch, way
    ):
        skip_pauses(monkeypatch)
        right = top_logprobs(math.log(0.5), math.log(0.3))
        listed = {"output_top_logprobs": [self.malformed(right)[way]]}
        engine = FakeEngine(Say(meta=listed), Say(true=0.6, false=0.2))
        assert ask(engine, model, direct()).probability == pytest.approx(0.75)
        with pytest.raises(Unavailable, match=r"4 attempts"):
            ask(FakeEngine(Say(meta=listed)), model, direct())

    def test_of_an_openai_endpoint_a_word_listed_twice_is_none(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        true, false = {"token": " true", "logprob": -0.9}, {"token": "false", "logprob": -1.5}

        def listing(*top) -> FakeEngine:
            choice = {"message": {"content": " true"}, "finish_reason": "length"}
            choice["logprobs"] = {"content": [{"token": " true", "top_logprobs": top}]}
            return FakeEngine(Say(meta={"choices": [choice]}))

        with pytest.raises(Unavailable, match="listed twice"):
            ask(listing(true, false, false), model, direct(), api="openai")
        too_much = {"token": "no", "logprob": -0.5}
        with pytest.raises(Unavailable, match="add up to"):
            ask(listing(true, false, too_much), model, direct(), api="openai")
        # The texts of two tokens may be one.
        another = false | {"logprob": -3.0}
        reply = ask(listing(true, false, another), model, direct(), api="openai")
        assert reply.mass == pytest.approx(math.exp(-0.9) + math.exp(-1.5) + math.exp(-3.0))

    @pytest.mark.parametrize("blank", [" ", "", "\u0120", "\u2581", "\n"])
    @pytest.mark.parametrize("first", [False, True])
    def test_of_an_openai_endpoint_are_read_in_todays_form_and_the_first(self, model, blank, first):
        """With a blank as it is, or as the model's vocabulary writes it."""
        logs = {f"{blank}true": math.log(0.6), f"{blank}false": math.log(0.2), "": -4.0}
        listed = [{"token": text, "logprob": log} for text, log in logs.items()]
        places = {"content": [{"token": "", "top_logprobs": listed}]}
        logprobs = {"tokens": [" true"], "top_logprobs": [logs]} if first else places
        choice = {"message": {"content": " true"}, "finish_reason": "length"}
        engine = FakeEngine(Say(meta={"choices": [choice | {"logprobs": logprobs}]}))
        reply = ask(engine, model, direct(), api="openai")
        assert reply.probability == pytest.approx(0.75)
        assert reply.mass == pytest.approx(0.8)

    def test_those_of_other_tokens_are_neither_words(self, model):
        others = {"output_top_logprobs": [[[-0.1, 1, None], [-3.0, 2, None]]]}
        reply = ask(FakeEngine(Say(meta=others)), model, direct())
        assert (reply.probability, reply.mass) == (None, 0.0)

    def test_a_word_that_is_not_among_the_likeliest_has_none(self, model):
        entries = [*top_logprobs(math.log(0.6), 0)[:1], [math.log(0.4), 1, None]]
        reply = ask(FakeEngine(Say(meta={"output_top_logprobs": [entries]})), model, direct())
        assert (reply.probability, reply.mass) == (1.0, pytest.approx(0.6))

    def test_their_order_does_not_matter(self, model):
        class Reversed(FakeEngine):
            def _generated(self, say, number, body):
                reply = super()._generated(say, number, body)
                reply["meta_info"]["output_top_logprobs"][0].reverse()
                return reply

        engine = Reversed(Say(true=0.6, false=0.2))
        assert ask(engine, model, direct()).probability == pytest.approx(0.75)

    @pytest.mark.parametrize("api", APIS)
    def test_that_add_up_to_more_than_one_are_none(self, model, monkeypatch, api):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Say(true=0.9, false=0.8), Say(true=0.6, false=0.2))
        assert ask(engine, model, direct(), api=api).probability == pytest.approx(0.75)

    def test_that_add_up_to_nothing_are_none_of_an_openai_endpoint_either(self, model, monkeypatch):
        """As vLLM answers one that shares a batch with a request for other tokens."""
        skip_pauses(monkeypatch)
        token = {"token": "<pad>", "top_logprobs": [{"token": "<pad>", "logprob": -9999.0}]}
        choice = {"message": {"content": ""}, "logprobs": {"content": [token]}}
        engine = FakeEngine(Say(meta={"choices": [choice]}), Say(true=0.6, false=0.2))
        assert ask(engine, model, direct(), api="openai").probability == pytest.approx(0.75)


class TestContent:
    def test_that_is_a_refusal_is_told_from_an_empty_one(self, model):
        content = [{"type": "refusal", "refusal": "I cannot grade this."}]
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        engine = FakeEngine(Say(meta={"choices": [choice]}))
        reply = ask(engine, model, api="openai")
        assert (reply.text, reply.defect) == ("", "refusal")

    @pytest.mark.parametrize("text, defect", [("\n", "cut"), ("{" + "\n " * 10, "blanks")])
    def test_that_is_cut_after_a_few_blanks_was_not_filled_with_them(self, model, text, defect):
        engine = FakeEngine(Say(text, reason="length"))
        assert ask(engine, model).defect == defect


class TestSize:
    def test_a_reply_that_unpacks_to_gigabytes_is_given_up(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        monkeypatch.setattr("rubric_rl.serving.client.LARGEST_REPLY", 2**20)
        bomb = gzip.compress(b" " * 2**26)
        assert len(bomb) < 2**17

        class Bomb(FakeEngine):
            async def _handle(self, request):
                headers = {"Content-Encoding": "gzip"}
                return web.Response(body=bomb, headers=headers)

        for api in APIS:
            with pytest.raises(Unavailable, match="a reply of more than 1048576 bytes"):
                ask(Bomb(), model, api=api)


class TestManners:
    """Those of the official client."""

    def test_a_field_given_as_null_is_left_out(self, model):
        engine = FakeEngine()
        nothing = {"seed": None, "temperature": None, "max_tokens": None, "top_p": None}
        ask(engine, model, api="openai", extra_body=nothing | {"max_completion_tokens": 9})
        (body,) = engine.bodies
        assert body.keys() == {"model", "messages", "response_format", "max_completion_tokens"}

    def test_a_limit_of_another_name_is_one_token_for_an_opening(self, model):
        engine = FakeEngine()
        extra = {"max_tokens": None, "max_completion_tokens": 4096}
        ask(engine, model, direct(), api="openai", extra_body=extra)
        (body,) = engine.bodies
        assert "max_tokens" not in body
        assert body["max_completion_tokens"] == 1

    @pytest.mark.parametrize("status, wanted, requests", [(500, "false", 1), (400, "true", 4)])
    def test_the_server_may_say_whether_to_try_again(
        self, model, monkeypatch, status, wanted, requests
    ):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Fail(status, headers={"x-should-retry": wanted}))
        with pytest.raises(Unavailable):
            ask(engine, model)
        assert len(engine.bodies) == requests

    def test_it_may_name_the_pause_in_milliseconds_or_in_parts_of_a_second(
        self, model, monkeypatch
    ):
        pauses = skip_pauses(monkeypatch)
        busy = [
            Fail(429, headers={"retry-after-ms": "2500"}),
            Fail(429, headers={"Retry-After": "1.5"}),
        ]
        ask(FakeEngine(*busy, Say()), model)
        assert pauses == [2.5, 1.5]

    @pytest.mark.parametrize("api", APIS)
    def test_an_error_in_place_of_a_reply_is_shown_and_its_code_decides(
        self, model, monkeypatch, api
    ):
        skip_pauses(monkeypatch)
        fatal = Fail(200, '{"error": {"message": "no such model", "code": 404}}')
        with pytest.raises(Unavailable, match=r"no such model \(404\)"):
            ask(engine := FakeEngine(fatal), model, api=api)
        assert len(engine.bodies) == 1
        passing = Fail(200, '{"error": {"message": "busy", "code": 503}}')
        assert ask(FakeEngine(passing, Say("fine")), model, api=api).text == "fine"

    def test_no_credit_is_not_waited_for(self, model):
        empty = Fail(429, '{"error": {"message": "no credit", "code": "insufficient_quota"}}')
        with pytest.raises(Unavailable, match=r"HTTP 429: no credit \(insufficient_quota\)"):
            ask(engine := FakeEngine(empty), model, api="openai")
        assert len(engine.bodies) == 1

    def test_the_world_is_asked_through_the_environments_proxy(self, monkeypatch):
        """The stub is the proxy: a plain HTTP proxy is asked for the whole URL."""
        engine = FakeEngine(Say("fine"))

        async def main():
            async with engine:
                monkeypatch.setenv("http_proxy", engine.url)
                endpoint = Endpoint(api="openai", model="m", url="http://api.example.invalid/v1")
                async with Client(endpoint) as client:
                    return await client.ask(question())

        assert asyncio.run(main()).text == "fine"
        assert engine.headers[0]["Host"] == "api.example.invalid"

    def test_a_proxy_that_answers_itself_shows_no_password(self, monkeypatch):
        class Proxy(FakeEngine):
            async def _handle(self, request):
                header = request.headers["Proxy-Authorization"]
                return web.Response(status=403, text=f"{header}: of P@ss-1234-5678, no such user")

        async def main() -> str:
            async with Proxy() as proxy:
                login = proxy.url.replace("//", "//me:P%40ss-1234-5678@")
                monkeypatch.setenv("http_proxy", login)
                endpoint = Endpoint(api="openai", model="m", url="http://api.example.invalid/v1")
                async with Client(endpoint) as client:
                    with pytest.raises(Unavailable) as failed:
                        await client.ask(question())
            return str(failed.value)

        assert asyncio.run(main()).endswith("HTTP 403: Basic ***: of ***, no such user")

    @pytest.mark.parametrize("status, requests", [(403, 1), (407, 1), (502, 2)])
    def test_a_proxy_that_refuses_the_way_is_named_without_its_password(
        self, monkeypatch, status, requests
    ):
        skip_pauses(monkeypatch)
        asked = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()

        async def main() -> str:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("https_proxy", f"http://me:P@ss@127.0.0.1:{port}")
            endpoint = Endpoint(api="openai", model="m", url="https://api.invalid", retries=1)
            async with server, Client(endpoint) as client:
                with pytest.raises(Unavailable) as failed:
                    await client.ask(question())
            return str(failed.value).replace(str(port), "PORT")

        told = f"the proxy 127.0.0.1:PORT opens no way to the endpoint (HTTP {status})"
        assert asyncio.run(main()).split(": ", 1)[1].removesuffix(" (2 attempts)") == told
        assert len(asked) == requests

    @pytest.mark.parametrize(
        "sent, words",
        [
            (b"", "Server disconnected"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "the reply broke off"),
            (
                b"no such thing\r\n\r\n",
                "the reply is no HTTP that can be read (Bad status line)",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
                "the reply is no HTTP that can be read (Duplicate Content-Length)",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
                "the reply cannot be unpacked",
            ),
        ],
    )
    def test_a_failure_is_told_without_names_of_exceptions(self, model, monkeypatch, sent, words):
        skip_pauses(monkeypatch)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}")
            writer.write(sent)
            writer.close()

        async def main() -> None:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            async with server, Client(Endpoint(url=url, tokenizer=model, retries=1)) as client:
                with pytest.raises(Unavailable) as failed:
                    await client.ask(question())
            assert str(failed.value) == f"{url}/generate: {words} (2 attempts)"

        asyncio.run(main())


class TestThoughts:
    """A template that always opens the thoughts, under thinking false: they are closed."""

    ALWAYS = TEMPLATE.replace("{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}", "")

    @pytest.mark.parametrize("opened", ["<think>\n", "<think>"])
    def test_are_closed_before_the_verdict(self, tmp_path, opened):
        model = chat_model(tmp_path, f"{self.ALWAYS}{{{{ {opened!r} }}}}")
        engine = FakeEngine()
        reply = ask(engine, model)
        assert engine.bodies[0]["text"].endswith(f"{opened}\n</think>\n\n")
        assert "json_schema" in engine.bodies[0]["sampling_params"]
        assert "<think>" not in reply.text
        ask(engine := FakeEngine(), model, direct())
        assert engine.bodies[0]["text"].endswith('</think>\n\n{"criteria_met":')

    HEADERS = (
        *("[THINK]", "<think>Okay, ", "<seed:think>\\n", "<|channel|>analysis<|message|>"),
        *("<|channel>thought\\n", "\u25c1think\u25b7", "[unused16]", "<thinking>", "<thought>\\n"),
        *("<longcat_think>", "<|begin_of_thought|>", "<|open|>think<|sep|>"),
    )

    @pytest.mark.parametrize("header", HEADERS)
    def test_that_cannot_be_closed_are_refused_by_name(self, tmp_path, header):
        model = chat_model(tmp_path, f"{self.ALWAYS}{{{{ '{header}' }}}}")
        with pytest.raises(UserError, match=r"opens the thoughts .*; set grader_thinking true"):
            Client(Endpoint(), "http://127.0.0.1:9", model)
        Client(Endpoint(thinking=True), "http://127.0.0.1:9", model)

    CLOSED = (
        *("[THINK][/THINK]", "<|channel|>analysis<|message|>\\n<|end|><|start|>assistant"),
        *(
            "<|channel>thought\\n<channel|>",
            "\u25c1think\u25b7\u25c1/think\u25b7",
            "<thought></thought>",
        ),
    )

    @pytest.mark.parametrize("header", CLOSED)
    def test_that_the_template_closes_itself_are_none(self, tmp_path, header):
        model = chat_model(tmp_path, f"{self.ALWAYS}{{{{ '{header}' }}}}")
        assert ask(FakeEngine(Say("fine")), model).text == "fine"

    MARKS = (
        ("[THINK]", "[/THINK]", ""),
        ("<think>", "</think>", ""),
        ("<seed:think>", "</seed:think>", "<seed:think>\\n"),
        ("<|channel|>analysis<|message|>", "<|end|>", ""),
    )

    @pytest.mark.parametrize("by_config", [False, True])
    @pytest.mark.parametrize("opens, closes, header", MARKS)
    def test_whose_marks_an_engine_leaves_out_are_told_from_the_reply(
        self, tmp_path, opens, closes, header, by_config
    ):
        """Special tokens: without them a verdict that was only thought of ends the reply."""
        model = chat_model(tmp_path, f"{self.ALWAYS}{{{{ '{header}' if enable_thinking }}}}")
        tokens = re.findall(r"[<\[].*?[>\]]", opens + closes)
        if by_config:
            config = json.loads((tmp_path / "tokenizer_config.json").read_text())
            config["added_tokens_decoder"] = {"9": {"content": tokens[0], "special": True}}
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        else:
            tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
            tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
            tokenizer.save(f"{model}/tokenizer.json")

        class LeavingOut(FakeEngine):
            def _generated(self, say, number, body):
                text = f"{'' if header else opens}I lean to this:\n{VERDICT % 'true'}{closes}"
                if body["sampling_params"].get("skip_special_tokens", True):
                    text = re.sub("|".join(map(re.escape, tokens)), "", text)
                return super()._generated(replace(say, text=text), number, body)

        reply = ask(LeavingOut(), model, thinking=True)
        assert read_verdict(reply.text).met is None

    @pytest.mark.parametrize("opens, closes", [("<seed:think>", "</seed:think>")])
    def test_of_another_family_are_gone_on_from_as_they_were_written(self, tmp_path, opens, closes):
        model = chat_model(tmp_path, f"{self.ALWAYS}{{{{ '{opens}' }}}}")
        engine = FakeEngine(Say(f"Hm.{closes}No idea."), Say(true=0.1, false=0.9))
        record = graded(engine, model, row=replace(ROW, rubric=ROW.rubric[:1]), thinking=True)
        assert record.mets == [False]
        assert engine.prompts[1].endswith(f'{opens}Hm.{closes}No idea.\n{{"criteria_met":')

    def test_a_template_that_refuses_an_empty_message_serves(self, tmp_path):
        strict = "{% if not messages[-1].content %}{{ raise_exception('empty') }}{% endif %}"
        model = chat_model(tmp_path, strict + TEMPLATE)
        assert ask(FakeEngine(Say("fine")), model).text == "fine"


class TestTokens:
    def test_an_engine_that_would_add_a_second_bos_gets_token_ids(self, tmp_path):
        model = chat_model(tmp_path, "<|im_start|>" + TEMPLATE)
        tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        bos = tokenizer.token_to_id("<|im_start|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
        )
        tokenizer.save(f"{model}/tokenizer.json")
        ask(engine := FakeEngine(), model)
        (body,) = engine.bodies
        assert "text" not in body
        assert body["input_ids"][:2] == [bos, bos], "the template's, and the turn's"
        assert body["input_ids"][2] != bos

    def test_a_conversation_that_the_template_refuses_is_refused_alone(self, tmp_path):
        strict = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
        model = chat_model(tmp_path, strict + TEMPLATE)
        turns = [{"role": "user", "content": "a"}] * 2
        with pytest.raises(Unavailable, match="refuses this conversation: one turn only"):
            ask(engine := FakeEngine(), model, question(messages=turns))
        assert engine.bodies == []
        assert ask(FakeEngine(Say("fine")), model).text == "fine"

    def test_nor_does_it_end_the_reading_ahead_of_others(self, tmp_path):
        strict = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
        model = chat_model(tmp_path, strict + TEMPLATE)
        turns = [{"role": "user", "content": "a"}] * 2

        async def main() -> list[bool]:
            async with engine, Client(Endpoint(), engine.url, model) as client:
                asked = (question(messages=turns), question())
                return [bool(await client.read_ahead(one)) for one in asked]

        engine = FakeEngine()
        assert asyncio.run(main()) == [False, True]


class TestWords:
    """What a server says stands in a message: with its URL, in one line, without orders."""

    PAGE = "<!DOCTYPE html>\n<title>Sign in</title>" + "x" * 5000

    @pytest.mark.parametrize(
        "content, words",
        [
            (PAGE, "a reply of unexpected form: <!DOCTYPE html> <title>Sign in</title>"),
            ("", "a reply of unexpected form: empty"),
            ('"overloaded"', "an error in place of a reply: overloaded"),
            ('{"choices": [], "detail": "no model"}', "an error in place of a reply: no model"),
            ('{"message": "Unauthorized"}', "an error in place of a reply: Unauthorized"),
            ('{"error": {"message": "no", "code": 401}}', r"an error in place of a reply: no"),
            ('{"error": {"message": "\\u001b[2Jno\\u202e", "code": 401}}', r": \[2Jno \(401\)"),
        ],
    )
    @pytest.mark.parametrize("api", APIS)
    def test_stand_in_the_message(self, model, monkeypatch, content, words, api):
        skip_pauses(monkeypatch)
        engine = FakeEngine(Fail(200, content))
        with pytest.raises(Unavailable, match=words) as error:
            ask(engine, model, api=api)
        said = str(error.value)
        assert said.startswith(engine.url) and said.count(engine.url) == 1
        assert said.isprintable() and len(said) < 500

    def test_are_cut_and_not_the_number_of_attempts(self, model, monkeypatch):
        skip_pauses(monkeypatch)
        with pytest.raises(Unavailable, match=r"xxx \(4 attempts\)$"):
            ask(FakeEngine(Fail(500, self.PAGE)), model)
