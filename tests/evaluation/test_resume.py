"""The folder of an evaluation: nothing asked twice, nothing mixed, nothing lost."""

import asyncio
import json
import math
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from doubles.asking import direct, question
from doubles.engine import VERDICT, Fail, FakeEngine, Say, chat_model, skip_pauses, top_logprobs
from doubles.records import made
from hypothesis import given, settings
from hypothesis import strategies as st

from rubric_rl.common.errors import UserError
from rubric_rl.evaluation.resume import CALLS, EvaluationFolder, StoringClient
from rubric_rl.evaluation.stored import EARLIER_URLS, SETTINGS
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Question, Reply, Unavailable

GRADER = {"temperature": 0.6, "url": "http://a", "extra_body": {}}
ASKED = {"kind": "evaluate", "grader": GRADER}
PARTIAL = json.dumps({"verdicts": [{"criteria_met": True}, {"criteria_met": None}]})
NAN = Say(meta={"output_top_logprobs": [top_logprobs(math.nan, -1.0)]})


def reply(text: str) -> Reply:
    """A verdict for this reason."""
    item = {"explanation": text, "criteria_met": True}
    return Reply(json.dumps(item, ensure_ascii=False), True, None, 10, 5, 2, "1")


def open_and_close(folder: Path, asked: dict, **more) -> None:
    with EvaluationFolder(folder, asked, **more):
        pass


class TestReplies:
    def test_come_back_once_each_in_the_order_they_came(self, tmp_path):
        first, second = reply("first"), reply("second")
        with EvaluationFolder(tmp_path, ASKED) as folder:
            folder.keep("grader", "p#0", "question", first)
            folder.keep("grader", "p#0", "question", second)
            assert folder.recall("question") is None, "this session asked itself"
        with EvaluationFolder(tmp_path, ASKED) as folder:
            recalled = [folder.recall("question") for _ in range(3)]
            assert recalled == [first, second, None]

    def test_of_finished_answers_are_not_held(self, tmp_path):
        with EvaluationFolder(tmp_path, ASKED) as folder:
            folder.keep("grader", "p#0", "a", reply("x"))
            folder.keep("grader", "q#0", "b", reply("y"))
            folder.store_result("p#0", made("p", (1,), (True,)))
            folder.store_result("q#0", made("q", (1,), (), status="ungraded"))
            assert folder.finished == {"p#0"}
        with EvaluationFolder(tmp_path, ASKED) as folder:
            assert folder.finished == {"p#0"}
            assert folder.recall("a") is None
            assert folder.recall("b") == reply("y")

    @pytest.mark.parametrize(
        "said",
        [
            Reply("", True, None, 10, 0, 0, "1"),
            Reply(VERDICT % "true", False, None, 10, 0, 9, "1"),
            Reply("I think so.", True, None, 10, 0, 3, "1"),
            Reply(" so", False, None, 10, 0, 1, "1", mass=0.01),
            Reply(" true", False, 0.9, 10, 0, 1, "1", mass=0.5),
            Reply('{"verdicts": []}', True, None, 10, 0, 4, "1"),
        ],
    )
    def test_of_a_grader_without_a_verdict_are_asked_for_again(self, tmp_path, said):
        with EvaluationFolder(tmp_path, ASKED) as folder:
            folder.keep("grader", "p#0", "graded", said)
            folder.keep("policy", "p#0", "answered", said)
        with EvaluationFolder(tmp_path, ASKED) as folder:
            assert folder.recall("graded") is None
            assert folder.recall("answered") == said, "an answer need not be a verdict"

    @pytest.mark.parametrize(
        "said",
        [
            Reply(" true", False, 0.9, 10, 0, 1, "1", mass=0.95),
            Reply(" true", False, 0.9, 10, 0, 1, "1"),
            Reply(PARTIAL, True, None, 9, 0, 9, "1"),
        ],
    )
    def test_with_a_verdict_are_kept_in_every_mode(self, tmp_path, said):
        with EvaluationFolder(tmp_path, ASKED) as folder:
            folder.keep("grader", "p#0", "graded", said)
        with EvaluationFolder(tmp_path, ASKED) as folder:
            assert folder.recall("graded") == said

    @settings(max_examples=25)
    @given(st.data())
    def test_a_kill_at_any_byte_loses_at_most_the_line_being_written(self, tmp_path_factory, data):
        out = tmp_path_factory.mktemp("out")
        with EvaluationFolder(out, ASKED) as folder:
            for number in range(4):
                folder.keep("grader", "p#0", f"q{number}", reply(f"text {number} \u2028 \ud83d"))
        path = out / CALLS
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        with EvaluationFolder(out, ASKED) as folder:
            kept = [number for number in range(4) if folder.recall(f"q{number}")]
            assert kept == list(range(whole[:cut].count(b"\n")))
            folder.keep("grader", "p#0", "new", reply("after"))
        for line in path.read_bytes().splitlines():
            json.loads(line)


class TestClient:
    def test_questions_of_one_request_are_stored_each_and_asked_once(self, tmp_path):
        model = chat_model(tmp_path, trained_on="is it true or false")
        questions = [direct(seed=seed, routing_key="p#0") for seed in range(3)]

        async def asked(count: int) -> tuple[list[Reply], int]:
            async with FakeEngine() as engine:
                endpoint = Endpoint(url=engine.url, tokenizer=model)
                async with StoringClient(endpoint) as client:
                    with EvaluationFolder(tmp_path / "out", ASKED) as client.store:
                        replies = await client.ask_together(questions[:count])
                return replies, len(engine.bodies)

        first, questions_asked = asyncio.run(asked(2))
        assert (len(first), questions_asked) == (2, 2)
        again, questions_asked = asyncio.run(asked(3))
        assert (again[:2], questions_asked) == (first, 1)
        lines = (tmp_path / "out" / CALLS).read_bytes().splitlines()
        assert len({json.loads(line)["question"] for line in lines}) == len(lines) == 3

    def test_a_cascades_token_and_its_words_are_two_questions_and_reading_is_none(self, tmp_path):
        model = chat_model(tmp_path)
        asked = question(routing_key="p#0", schema=None)
        token = direct(routing_key="p#0", thoughtless=True)

        async def texts(engine: FakeEngine, *questions: Question) -> list[str]:
            async with engine:
                endpoint = Endpoint(url=engine.url, tokenizer=model, retries=0)
                async with StoringClient(endpoint) as client:
                    with EvaluationFolder(tmp_path / "out", ASKED) as client.store:
                        assert await client.read_ahead(asked)
                        return [(await client.ask(one)).text for one in questions]

        words = VERDICT % "true"
        engine = FakeEngine(Say("token"), Say(words))
        assert asyncio.run(texts(engine, token, asked)) == ["token", words]
        assert len((tmp_path / "out" / CALLS).read_bytes().splitlines()) == 2
        nothing_new = FakeEngine(Fail())
        assert asyncio.run(texts(nothing_new, asked, token)) == [words, "token"]

    @pytest.mark.parametrize("refusal", [Fail(400), NAN])
    def test_a_list_that_fails_costs_no_reply_of_its_other_questions(
        self, tmp_path, monkeypatch, refusal
    ):
        skip_pauses(monkeypatch)
        model = chat_model(tmp_path)
        questions = []
        for text in ("one", "two", "bad"):
            asked = [{"role": "user", "content": text}]
            questions.append(direct(messages=asked, routing_key="p#0"))

        async def ask(act, count: int) -> int:
            async with FakeEngine(act, model=model) as engine:
                endpoint = Endpoint(url=engine.url, tokenizer=model, retries=1)
                async with StoringClient(endpoint) as client:
                    with (
                        EvaluationFolder(tmp_path / "out", ASKED) as client.store,
                        suppress(Unavailable),
                    ):
                        await client.ask_together(questions[:count])
                return len(engine.bodies)

        def act(prompt: str):
            return refusal if "bad" in prompt else Say()

        assert asyncio.run(ask(Say(), 1)) == 1
        asyncio.run(ask(act, 3))
        calls = tmp_path / "out" / CALLS
        stored = [json.loads(line)["question"] for line in calls.read_bytes().splitlines()]
        assert len(stored) == len(set(stored)) == 2, "each good one once"
        assert asyncio.run(ask(Say(), 3)) == 1, "the bad one alone is left"


class TestSettings:
    def test_other_ones_are_refused_by_name(self, tmp_path):
        open_and_close(tmp_path, ASKED)
        other = GRADER | {"temperature": 0.5, "mode": "direct"}
        with pytest.raises(UserError) as caught:
            EvaluationFolder(tmp_path, ASKED | {"grader": other})
        message = str(caught.value)
        assert "grader.temperature was 0.6, is 0.5" in message
        assert "grader.mode was unset, is direct" in message
        assert "url" not in message
        assert "\n" not in message
        stays = json.loads((tmp_path / SETTINGS).read_text())
        assert stays == ASKED

    def test_another_place_of_the_same_model_needs_a_word(self, tmp_path):
        open_and_close(tmp_path, ASKED)
        other = ASKED | {"grader": GRADER | {"url": "http://b"}}
        with pytest.raises(UserError, match="--moved"):
            EvaluationFolder(tmp_path, other)
        open_and_close(tmp_path, other, moved=True)  # killed before a reply came from there
        with EvaluationFolder(tmp_path, other) as folder:
            folder.keep("grader", "p#0", "question", reply("from b"))
        assert json.loads((tmp_path / SETTINGS).read_text())[EARLIER_URLS] == ["http://a"]

    def test_a_place_without_a_reply_leaves_nothing_behind(self, tmp_path):
        open_and_close(tmp_path, ASKED)
        elsewhere = ASKED | {"grader": GRADER | {"url": "http://b"}}
        open_and_close(tmp_path, elsewhere, moved=True)
        with EvaluationFolder(tmp_path, ASKED, moved=True) as folder:
            folder.keep("grader", "p#0", "question", reply("from a, as before"))
        assert json.loads((tmp_path / SETTINGS).read_text()) == ASKED

    def test_a_request_field_may_be_called_like_a_setting_of_training(self, tmp_path):
        asked = ASKED | {"grader": GRADER | {"extra_body": {"engine": "x", "teacher": "y"}}}
        open_and_close(tmp_path, asked)
        open_and_close(tmp_path, asked)
        with pytest.raises(UserError, match=r"grader.extra_body.engine was x, is unset"):
            EvaluationFolder(tmp_path, ASKED)


def test_a_folder_in_use_is_refused_until_it_is_free(tmp_path):
    with (
        EvaluationFolder(tmp_path, ASKED),
        pytest.raises(UserError, match="in use by another run"),
    ):
        EvaluationFolder(tmp_path, ASKED)
    open_and_close(tmp_path, ASKED)


def test_a_broken_line_inside_is_named(tmp_path):
    open_and_close(tmp_path, ASKED)
    call = {"answer": "p", "question": "q", "reply": asdict(reply("x"))}
    line = json.dumps(call) + "\n"
    (tmp_path / CALLS).write_text(line + "{broken\n" + line)
    with pytest.raises(UserError, match=f"{CALLS}:2"):
        EvaluationFolder(tmp_path, ASKED)


CALL = {"answer": "p", "question": "q", "reply": asdict(reply("x"))}


@pytest.mark.parametrize(
    "file, item",
    [
        (SETTINGS, [ASKED]),
        (CALLS, []),
        (CALLS, {"a": 1}),
        (CALLS, CALL | {"question": ["q"]}),
        (CALLS, CALL | {"reply": None}),
        (CALLS, CALL | {"reply": {"text": "x"}}),
        (CALLS, CALL | {"reply": CALL["reply"] | {"text": 1}}),
        (CALLS, CALL | {"reply": CALL["reply"] | {"probability": "1"}}),
        ("verdicts/verdicts.jsonl", 3),
        ("verdicts/verdicts.jsonl", {"key": "p"}),
        ("verdicts/verdicts.jsonl", {"key": ["p"], "status": "graded"}),
    ],
)
def test_a_line_that_no_evaluation_writes_is_named(tmp_path, file, item):
    open_and_close(tmp_path, ASKED)
    (tmp_path / file).write_text(json.dumps(item) + "\n")
    with pytest.raises(UserError, match=f"{file}:1: .* choose another --out"):
        EvaluationFolder(tmp_path, ASKED)


@pytest.mark.parametrize("text", ["", "{}\n{}\n"])
def test_settings_are_one_line(tmp_path, text):
    open_and_close(tmp_path, ASKED)
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(UserError, match=f"{SETTINGS}: .* choose another --out"):
        EvaluationFolder(tmp_path, ASKED)
