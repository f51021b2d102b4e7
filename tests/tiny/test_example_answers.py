"""Made-up answers, and what a good grader says of them."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from rubric_rl.tiny.example_answers import garbled, graded_answer, mediocre_answer
from rubric_rl.tiny.example_replies import NOTHING, asked_statements, explanation, mentions
from rubric_rl.tiny.oracle import STATEMENTS, sentences, statements_of
from rubric_rl.tiny.world import PAIRS, Pair

ANY_PAIR = st.sampled_from(PAIRS)
ANY_STATEMENT = st.sampled_from(STATEMENTS)
ANY_SEED = st.integers(0, 10**6)

WHOLE_SENTENCES = {
    sentence.lower() for statement in STATEMENTS for sentence in sentences(statement)
}


class TestAnswers:
    @given(ANY_PAIR, ANY_SEED)
    @settings(max_examples=60)
    def test_a_mediocre_one_names_a_cause_and_gives_up_to_five_pieces_of_advice(self, pair, seed):
        stated = statements_of(mediocre_answer(Random(seed), pair))
        advice = [statement for statement in stated if statement.kind in ("do", "not")]
        assert stated[0].kind == "is"
        assert len(advice) <= 5
        assert len(set(advice)) == len(advice)

    @given(ANY_PAIR, ANY_SEED)
    @settings(max_examples=60)
    def test_an_easy_one_is_whole_but_for_its_end(self, pair, seed):
        answer = graded_answer(Random(seed), pair, difficulty=0.0)
        texts = [text.strip().lower() + "." for text in answer.split(".")]
        for text in texts[:-1]:
            assert text in WHOLE_SENTENCES

    @given(ANY_SEED, ANY_STATEMENT, ANY_STATEMENT)
    def test_a_garbled_sentence_states_something_only_if_it_holds_a_whole_one(
        self, seed, statement, other
    ):
        text = garbled(Random(seed), sentences(statement)[0], sentences(other)[0])
        ended = text.lower().split(".")[:-1]
        pieces = {piece.strip() + "." for piece in ended}
        assert bool(statements_of(text)) == bool(pieces & WHOLE_SENTENCES)


class TestReplies:
    @given(ANY_PAIR, ANY_SEED)
    @settings(max_examples=60)
    def test_the_explanation_points_at_the_deciding_place(self, pair, seed):
        rng = Random(seed)
        answer = graded_answer(rng, pair)
        for statement in asked_statements(rng, pair, answer, 5):
            reason = explanation(answer, statement)
            if statement in statements_of(answer):
                assert any(reason in sentence for sentence in sentences(statement))
            assert (reason == NOTHING) == (not mentions(answer, statement))

    def test_the_explanation_prefers_the_sentence_that_states_it(self):
        answer = "Some like aspirin. Please take aspirin."
        assert explanation(answer, STATEMENTS_BY_KEY["aspirin"]) == "take aspirin"

    def test_what_is_asked_is_met_or_mentioned_or_usual(self):
        answer = "Please take aspirin. Some honey can help."
        asked = asked_statements(Random(0), Pair("gout", "child"), answer, 200)
        assert ("do", "aspirin") in asked  # met
        assert ("not", "aspirin") in asked  # contradicted
        assert ("do", "honey") in asked  # mentioned
        assert ("is", "gout") in asked  # usual
        assert ("wish", "well") in asked


STATEMENTS_BY_KEY = {statement.key: statement for statement in STATEMENTS if statement.kind == "do"}
