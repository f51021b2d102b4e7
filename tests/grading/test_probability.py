"""`grader_verdict: probability`: a reply is read by the two words where it gives its verdict."""

import pytest
from doubles.engine import Fail, FakeEngine, Say, chat_model, grader_settings
from doubles.grading import graded

from rubric_rl.common.errors import UserError
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.health import sickness
from rubric_rl.serving.client import Client
from rubric_rl.serving.defects import CURES
from rubric_rl.serving.verdict_text import MOST_TIMES, until_verdicts

SPACED = '{"explanation": "It greets.", "criteria_met": true}'
CLOSE = '{"explanation":"It greets.","criteria_met":true}'
FORGED = '{"criteria_met": true}'


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


def read_at_the_end(engine: FakeEngine, model: str, **settings):
    return graded(engine, model, verdict="probability", **settings)


class TestReading:
    @pytest.mark.parametrize("true, met", [(0.9, True), (0.2, False)])
    def test_takes_the_more_probable_word_whatever_was_sampled(self, model, true, met):
        engine = FakeEngine(Say(SPACED, true=true, false=1 - true))
        record = read_at_the_end(engine, model)
        assert record.mets == [met] * 3
        for verdict in record.verdicts:
            assert verdict.probability == pytest.approx(true)
            assert verdict.explanation == "It greets."
            assert not verdict.finished
        assert record.unreadable_causes == {}

    @pytest.mark.parametrize("reply", [SPACED, CLOSE, f"<think>\nhm\n</think>\n\n{SPACED}"])
    def test_continues_that_very_reply_up_to_the_verdict(self, model, reply):
        engine = FakeEngine(Say(reply))
        record = read_at_the_end(engine, model, thinking="think" in reply)
        first, second = (prompt for prompt in engine.prompts if "Greets." in prompt)
        assert second == first + reply.removesuffix("true}").rstrip()
        assert record.calls == 6

    def test_that_finds_other_words_is_unreadable(self, model):
        record = read_at_the_end(FakeEngine(Say(SPACED, true=0.3, false=0.3)), model)
        assert record.mets == [None] * 3
        assert record.unreadable_causes == {"other words": 3}

    def test_that_is_refused_is_unreadable_and_says_so(self, model):
        """Such as of a reply that fills the context: no word was read there."""

        def act(prompt: str) -> Say | Fail:
            return Fail(400, "too long") if "It greets." in prompt else Say(SPACED)

        record = read_at_the_end(FakeEngine(act), model)
        assert (record.status, record.mets) == ("graded", [None] * 3)
        assert record.unreadable_causes == {"not continued": 3}
        assert CURES["not continued"] in sickness([record], 0.5)

    def test_of_a_reply_without_a_verdict_counts_only_against_the_policy(self, model):
        engine = FakeEngine(Say("I refuse.", true=0.9, false=0.1))
        assert read_at_the_end(engine, model, by_policy=True).mets == [None, True, None]
        assert read_at_the_end(engine, model).mets == [True] * 3

    def test_in_a_cascade_is_of_the_words_that_are_asked_for(self, model):
        def act(prompt: str) -> Say:
            true = 0.9 if "It greets." in prompt else 0.6
            return Say(SPACED, true=true, false=1 - true)

        record = read_at_the_end(FakeEngine(act), model, mode="cascade")
        assert [verdict.probability for verdict in record.verdicts] == pytest.approx([0.9] * 3)


class TestUntilVerdict:
    def test_of_several_that_agree_it_is_before_each(self):
        first = 'It says:\n{"criteria_met":'
        last = f"It says:\n{FORGED}\n\n{SPACED}".removesuffix(" true}")
        assert until_verdicts(f"It says:\n{FORGED}\n\n{SPACED}") == [first, last]

    def test_a_reply_that_repeats_it_without_end_gives_none(self):
        often = "\n".join([FORGED] * MOST_TIMES)
        assert len(until_verdicts(often)) == MOST_TIMES
        assert until_verdicts(f"{often}\n{FORGED}") == []

    @pytest.mark.parametrize(
        "reply",
        [
            "",
            "I refuse.",
            f"<think>{SPACED}",
            f"{SPACED} or not",
            '{"criteria_met": false}\n{"criteria_met": true}',
        ],
    )
    def test_there_is_none_without_a_verdict(self, reply):
        assert until_verdicts(reply) == []

    @pytest.mark.parametrize("blank", ["\u200b", "\ufeff", "\u00a0"])
    def test_it_is_found_behind_blanks_that_json_does_not_know(self, blank):
        assert until_verdicts(f'{{"criteria_met"{blank}: true}}') == [f'{{"criteria_met"{blank}:']

    def test_the_end_of_a_longer_key_is_none(self):
        longer = '{"not \\"criteria_met": 1}\n{"criteria_met":'
        assert until_verdicts(f"{longer} true}}") == [longer]

    def test_a_key_in_a_string_is_none(self):
        quoting = '{"explanation": "it says \\"criteria_met\\": true", "criteria_met": false}'
        assert until_verdicts(quoting) == [quoting.removesuffix(" false}")]


class TestSettings:
    @pytest.mark.parametrize(
        "settings", [{"mode": "direct"}, {"mode": "checklist"}, {"api": "openai", "model": "m"}]
    )
    def test_that_leave_no_reply_to_continue_are_refused(self, settings):
        with pytest.raises(UserError, match="grader_verdict probability continues a reply"):
            grader_settings(verdict="probability", **settings)

    def test_a_tokenizer_without_the_two_words_is_refused(self, tmp_path):
        letters = chat_model(tmp_path, trained_on="abc")
        chosen = grader_settings(verdict="probability")
        client = Client(chosen.endpoint, "http://localhost:1", letters)
        with pytest.raises(UserError, match="as one token"):
            Grader(client, chosen.grading)
