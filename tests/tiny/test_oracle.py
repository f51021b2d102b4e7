"""The oracle of the tiny world: only whole sentences state something, whatever the answer is."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError
from rubric_rl.data.schema import Criterion
from rubric_rl.tiny.oracle import (
    ADVICE,
    ALWAYS_MET,
    NEVER_MET,
    STATEMENTS,
    VAGUE,
    VerdictCounts,
    criteria,
    failing,
    sentences,
    statement_asked_by,
    statements_of,
    true_score,
    truth,
)

ANY_STATEMENT = st.sampled_from(STATEMENTS)
SOME_STATEMENTS = st.lists(ANY_STATEMENT, max_size=8)
KEY_WORDS = st.lists(st.sampled_from(list(ADVICE)), min_size=1, max_size=30)

RUBRIC = (
    Criterion("Recommends to drink fluids", 4),
    Criterion("Tells the patient to avoid coffee", 4),
    Criterion("Recommends to drink coffee", -2),
    Criterion("Names as the likely cause flu", 2),
)
ANSWER = "Please drink fluids. You should drink coffee."


class TestStatements:
    def test_a_key_word_is_of_one_advice_only(self):
        for key in ADVICE:
            holders = [phrase for phrase in ADVICE.values() if key in phrase.split()]
            assert len(holders) == 1

    @given(ANY_STATEMENT, st.data())
    def test_each_sentence_states_one_thing(self, statement, data):
        sentence = data.draw(st.sampled_from(sentences(statement)))
        assert statements_of(sentence) == [statement]

    @given(ANY_STATEMENT, st.data())
    def test_each_criterion_asks_for_one_thing_and_states_nothing(self, statement, data):
        criterion = data.draw(st.sampled_from(criteria(statement)))
        assert statement_asked_by(criterion) == statement
        assert statements_of(f"{criterion}.") == []

    @given(SOME_STATEMENTS, SOME_STATEMENTS)
    def test_joined_answers_state_what_their_parts_state(self, first, second):
        parts = []
        for statements in (first, second):
            parts.append(" ".join(sentences(statement)[0] for statement in statements))
        assert statements_of(" ".join(parts)) == first + second

    @given(KEY_WORDS, st.sampled_from([" ", ", ", ". ", "\n- "]))
    def test_lists_of_key_words_state_nothing(self, words, separator):
        assert statements_of(separator.join(words) + ".") == []

    @given(st.text())
    @settings(max_examples=200)
    def test_any_text_is_judged_and_states_no_more_than_it_has_sentences(self, text):
        assert len(statements_of(text)) <= text.count(".") + text.count("!")

    @pytest.mark.parametrize(
        "answer",
        [
            "Please take aspirin.",
            "please take  Aspirin!",
            "Blah blah. You should take\naspirin. Blah.",
            "It helps to take aspirin...",
        ],
    )
    def test_whole_sentences_recommend_aspirin(self, answer):
        assert statements_of(answer) == [("do", "aspirin")]

    @pytest.mark.parametrize(
        "answer",
        [
            "aspirin",
            "Please take aspirin",  # cut off before its full stop
            "You should avoid aspirin.",
            "Some honey can aspirin.",
            "Please take honey take aspirin.",
            "You should take aspirin not.",
            'The doctor said "Please take aspirin." to me.',
            'Unclosed "Please take aspirin. You should take aspirin.',
            "“Please take aspirin.”",
            "Recommends to take aspirin.",
            "Criterion: Recommends to take aspirin. The criterion is met.",
            '{"criteria_met": true}',
            "Please avoid aspirin. Take aspirin.",
            "Please take aspirin?",
            "It is wrong to take aspirin.",
        ],
    )
    def test_hostile_texts_do_not_recommend_aspirin(self, answer):
        assert ("do", "aspirin") not in statements_of(answer)


class TestTruth:
    def test_is_told_for_each_criterion_in_the_rubric_s_order(self):
        assert truth(RUBRIC, ANSWER) == [True, False, True, False]

    def test_gives_the_true_score(self):
        assert true_score(RUBRIC, ANSWER) == pytest.approx((4 - 2) / (4 + 4 + 2))

    def test_is_not_told_for_a_criterion_of_another_world(self):
        with pytest.raises(DataError, match="not of the tiny world"):
            truth([Criterion("b", 1)], ANSWER)


class TestVerdictCounts:
    def test_tell_each_kind_of_mistake(self):
        counts = VerdictCounts()
        counts.add(RUBRIC, ANSWER, [True, True, None, False])
        assert counts == VerdictCounts(
            met=2, not_met=2, right=2, false_negatives=1, false_positives=1, unreadable=1
        )

    def test_take_an_unreadable_verdict_for_a_wrong_one(self):
        counts = VerdictCounts()
        counts.add(RUBRIC, ANSWER, [None] * 4)
        assert (counts.right, counts.unreadable, counts.total) == (0, 4, 4)
        assert (counts.false_negatives, counts.false_positives) == (2, 0)

    def test_want_one_verdict_for_each_criterion(self):
        with pytest.raises(ValueError, match="longer than"):
            VerdictCounts().add(RUBRIC, ANSWER, [True])


def test_world_oracle_and_hooks_load_no_torch():
    modules = "rubric_rl.tiny.world, rubric_rl.tiny.oracle, rubric_rl.tiny.log_hooks"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestBadRubrics:
    """What no good rubric asks, and a bad one may: the oracle has a verdict on it."""

    ANSWER = "Please take aspirin. Please see doctors."

    def met(self, text: str, seed: int = 0, answer: str = ANSWER) -> bool:
        (is_met,) = truth([Criterion(text, 1)], answer, seed)
        return is_met

    def test_of_a_compound_criterion_both_parts_must_hold(self):
        assert self.met("Recommends to take aspirin and tells the patient to see doctors")
        assert not self.met("Recommends to take aspirin and tells the patient to see midwives")

    @given(ANY_STATEMENT, st.data())
    def test_a_failure_is_met_where_what_fails_is_not(self, statement, data):
        if statement.kind == "wish":
            return
        criterion = data.draw(st.sampled_from(criteria(statement)))
        answer = data.draw(st.sampled_from([self.ANSWER, sentences(statement)[0]]))
        assert self.met(failing(criterion), answer=answer) is not self.met(criterion, answer=answer)

    def test_one_is_met_by_every_answer_and_one_by_none(self):
        for answer in ("", "x", self.ANSWER):
            assert self.met(ALWAYS_MET, answer=answer)
            assert not self.met(NEVER_MET, answer=answer)

    def test_a_vague_one_changes_with_the_seed_and_not_by_itself(self):
        for text in VAGUE:
            tosses = [self.met(text, seed) for seed in range(40)]
            assert tosses == [self.met(text, seed) for seed in range(40)]
            assert 8 < sum(tosses) < 32
