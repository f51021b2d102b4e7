"""The limits of a cascade, tried on judged rows without the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import Criterion, Record, Row, TokenCounts, Verdict
from rubric_rl.evaluation.cascade_limits import limits_curve
from rubric_rl.evaluation.tables import cascade_lines
from rubric_rl.grading.settings import Grading

WIDE = Grading(mode="cascade", cascade_low=0.0, cascade_high=1.0)


def judged(probability: float, words: bool | None, label: bool, prompt: str = "p") -> Record:
    """A row that was asked with a token, and then in ten tokens of words."""
    row = Row(prompt, ({"role": "user", "content": "hi"},), (Criterion("x", 1),))
    record = Record.of(row, "graded", "answer")
    record.labels = [label]
    record.verdicts = [Verdict(words, probability, mass=1.0)]
    record.first_tokens, record.rest_tokens = TokenCounts(9, 0, 1), TokenCounts(9, 8, 10)
    return record


def points(records: list[Record], asked: Grading = WIDE) -> dict[float, dict]:
    found = limits_curve(records, asked)
    assert found
    return {point["low"]: point for point in found["curve"]}


def test_what_lies_between_the_limits_has_the_words_verdict_and_their_tokens():
    records = [judged(0.45, words=True, label=True), judged(0.05, words=True, label=False)]
    curve = points(records)
    assert curve[0.5]["accuracy"] == 0.5, "by their tokens neither is met"
    assert curve[0.4]["accuracy"] == 1.0, "the first by its words, the second by its token"
    assert curve[0.0]["accuracy"] == 0.5, "both by their words"
    assert [curve[low]["asked_again"] for low in (0.5, 0.4, 0.0)] == [0.0, 0.5, 1.0]
    assert [curve[low]["decoded"] for low in (0.5, 0.4, 0.0)] == [1.0, 6.0, 11.0]


def test_the_narrowest_limits_as_right_as_the_widest_are_proposed():
    sure = [judged(0.95, words=True, label=True) for _ in range(8)]
    unsure = [judged(0.35, words=True, label=True), judged(0.65, words=False, label=False)]
    found = limits_curve(sure + unsure, WIDE)
    assert found
    assert (found["proposed"]["low"], found["proposed"]["high"]) == (0.3, 0.7)
    assert "grader_cascade_low: 0.3, grader_cascade_high: 0.7" in cascade_lines(found)[-1]


def test_limits_wider_than_those_asked_with_are_not_tried():
    asked = Grading(mode="cascade", cascade_low=0.2, cascade_high=0.7)
    assert list(points([judged(0.5, True, True)], asked)) == [0.5, 0.4, 0.3]


def test_without_the_tokens_probability_nothing_is_tried():
    """Beside words that bring one of their own it is not kept."""
    asked = WIDE.model_copy(update={"verdict": "probability"})
    assert limits_curve([judged(0.5, True, True)], asked) is None
    assert cascade_lines(None) == []


def test_an_unreadable_verdict_is_wrong():
    assert points([judged(0.5, None, False)])[0.0]["accuracy"] == 0.0


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.booleans(), st.booleans(), st.sampled_from("pq")), min_size=1
    )
)
def test_wider_limits_never_decode_less(rows):
    decoded = [point["decoded"] for point in points([judged(*row) for row in rows]).values()]
    assert decoded == pytest.approx(sorted(decoded))
