"""The resumable store: nothing asked twice, nothing mixed, nothing lost (stage 6)."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rubric_rl.grading.endpoints import Reply

from rubric_rl.errors import UserError
from rubric_rl.evaluation.resume import CALLS, SETTINGS, Store, settings_of
from rubric_rl.grading.settings import GraderSettings

SETTINGS_A = {
    "kind": "evaluate",
    "grader": {"temperature": 0.6, "url": "http://a", "extra_body": {}},
}


def reply(text: str) -> Reply:
    return Reply(text, True, None, 10, 5, 2, "1")


def test_a_reply_comes_back_once_each_in_the_order_it_came(tmp_path):
    with Store(tmp_path, SETTINGS_A) as store:
        store.keep("p#0", "question", reply("first"))
        store.keep("p#0", "question", reply("second"))
        assert store.recall("question") is None  # this session made the calls itself
    with Store(tmp_path, SETTINGS_A) as store:
        assert [store.recall("question") for _ in range(3)] == [
            reply("first"),
            reply("second"),
            None,
        ]


def test_replies_of_finished_answers_are_not_held(tmp_path):
    with Store(tmp_path, SETTINGS_A) as store:
        store.keep("p#0", "a", reply("x"))
        store.keep("q#0", "b", reply("y"))
        store.finish("p#0", {"status": "graded"})
        store.finish("q#0", {"status": "ungraded"})
    with Store(tmp_path, SETTINGS_A) as store:
        assert store.finished == {"p#0"}
        assert store.recall("a") is None and store.recall("b") == reply("y")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_kill_at_any_byte_loses_at_most_the_line_being_written(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    with Store(folder, SETTINGS_A) as store:
        for i in range(4):
            store.keep("p#0", f"q{i}", reply(f"text {i} \u2028 \ud83d"))
    path = folder / CALLS
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with Store(folder, SETTINGS_A) as store:
        kept = [i for i in range(4) if store.recall(f"q{i}")]
        assert kept == list(range(whole[:cut].count(b"\n")))
        store.keep("p#0", "new", reply("after"))
    assert all(json.loads(line) for line in path.read_bytes().split(b"\n") if line)


class TestSettings:
    def test_other_settings_are_refused_by_name(self, tmp_path):
        Store(tmp_path, SETTINGS_A).__exit__()
        other = {
            "kind": "evaluate",
            "grader": {"temperature": 0.5, "url": "http://a", "extra_body": {}, "mode": "direct"},
        }
        with pytest.raises(UserError) as caught:
            Store(tmp_path, other)
        message = str(caught.value)
        assert (
            "grader.temperature was 0.6, is 0.5" in message
            and "grader.mode was unset, is direct" in message
        )
        assert "url" not in message and "\n" not in message
        assert json.loads((tmp_path / SETTINGS).read_text()) == SETTINGS_A  # and stay untouched

    def test_another_place_of_the_same_model_needs_a_word(self, tmp_path):
        Store(tmp_path, SETTINGS_A).__exit__()
        other = {"kind": "evaluate", "grader": SETTINGS_A["grader"] | {"url": "http://b"}}
        with pytest.raises(UserError, match="--moved"):
            Store(tmp_path, other)
        Store(tmp_path, other, moved=True).__exit__()
        Store(tmp_path, other).__exit__()

    def test_how_fast_or_with_which_key_is_asked_may_change(self):
        one = settings_of(GraderSettings())
        other = settings_of(
            GraderSettings(
                retries=9, timeout=1, concurrency=3, api_key_env="KEY", warm_prefix=False
            )
        )
        assert one == other and settings_of(GraderSettings(seed=1)) != one

    def test_a_folder_in_use_is_refused(self, tmp_path):
        with Store(tmp_path, SETTINGS_A), pytest.raises(UserError, match="in use"):
            Store(tmp_path, SETTINGS_A)

    def test_a_broken_line_inside_is_named(self, tmp_path):
        Store(tmp_path, SETTINGS_A).__exit__()
        line = json.dumps({"answer": "p", "question": "q", "reply": asdict(reply("x"))}) + "\n"
        (tmp_path / CALLS).write_text(line + "{broken\n" + line)
        with pytest.raises(UserError, match=f"{CALLS}:2"):
            Store(tmp_path, SETTINGS_A)
