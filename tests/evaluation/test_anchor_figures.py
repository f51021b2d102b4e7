"""The policy's verdicts held against an anchor's."""

import math

import pytest
from doubles.records import made, said
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import Anchored, Record, TokenCounts
from rubric_rl.evaluation.anchor_figures import anchor_figures, kendall_tau
from rubric_rl.evaluation.rollout_metrics import grading_metrics
from rubric_rl.grading.score import score

POINTS = (5, 3, -4)


def judged(own, anchors, prompt_id: str = "p", split: str = "train") -> Record:
    record = made(prompt_id, POINTS, own, split=split)
    verdicts = said(*anchors)
    value = score(record.rubric, verdicts)
    record.anchored = Anchored("judge", verdicts, value, TokenCounts(9, 4, 2), delay=1.5)
    return record


def test_by_hand():
    records = [
        judged((True, True, False), (True, False, True)),
        judged((True, False, True), (True, False, True)),
    ]
    figures = anchor_figures(records)
    own = [(5 + 3) / 8, (5 - 4) / 8]
    anchors = [(5 - 4) / 8, (5 - 4) / 8]
    assert figures["score"] == pytest.approx(sum(anchors) / 2)
    assert figures["gap"] == pytest.approx(sum(own) / 2 - sum(anchors) / 2)
    assert figures["agreement"] == 4 / 6
    assert figures["false_positive_credit"] == 1 / 3, "three positive ones credited, one alone"
    assert figures["false_negative_credit"] == 1, "the one that was called not met"
    assert figures["false_credit"] == 2 / 4
    assert (figures["answers"], figures["failed"], figures["delay"]) == (2, 0, 1.5)
    assert figures["tokens_prefilled"] == 10
    assert figures["tokens_decoded"] == 4
    assert "rank_agreement" not in figures, "the anchor ranks nothing here"
    assert figures["sign_agreement"] == 0


def test_order_within_groups_is_that_of_one_prompt():
    better, worse = (True, True, False), (True, False, False)
    records = [
        judged(better, worse, "p"),
        judged(worse, better, "p"),
        judged(better, better, "q"),
        judged(worse, worse, "q"),
    ]
    figures = anchor_figures(records)
    assert figures["rank_agreement"] == 0.0, "one group agrees, one is turned round"
    assert figures["sign_agreement"] == 0.5
    twice = [judged(better, worse, "p"), judged(worse, better, "p")]
    twice[0].group, twice[1].group = 1, 2
    assert "rank_agreement" not in anchor_figures(twice), "one prompt, drawn for two groups"
    of_evaluation = [judged(better, worse, split="eval")]
    assert "rank_agreement" not in anchor_figures(of_evaluation)


def test_an_anchor_that_failed_counts_as_such_alone():
    failed = made("p", POINTS, (True, True, True))
    failed.anchored = Anchored("judge", error="HTTP 500")
    figures = anchor_figures([failed, judged((True,) * 3, (True,) * 3)])
    assert (figures["failed"], figures["answers"], figures["gap"]) == (0.5, 1, 0)
    assert anchor_figures([failed])["failed"] == 1
    assert anchor_figures([made("p", POINTS, (True,) * 3)]) == {}


def test_unreadable_verdicts_count_against_the_answer_for_both():
    figures = anchor_figures([judged((None,) * 3, (False, False, True))])
    assert (figures["agreement"], figures["gap"]) == (1, 0)


def test_stand_in_the_metrics_of_a_rollout():
    metrics = grading_metrics([judged((True,) * 3, (True,) * 3)])
    assert metrics["anchor/score"] == pytest.approx(0.5)
    assert not any(
        name.startswith("anchor/") for name in grading_metrics([made("p", (1,), (True,))])
    )


VERDICTS = st.tuples(*[st.sampled_from([True, False, None])] * 3)


@given(st.lists(VERDICTS, min_size=1, max_size=6))
def test_an_anchor_of_the_same_mind_finds_nothing(minds):
    figures = anchor_figures([judged(mind, mind) for mind in minds])
    assert figures["gap"] == pytest.approx(0)
    assert figures["agreement"] == 1
    assert figures.get("false_credit", 0) == 0
    assert figures.get("rank_agreement", 1) == pytest.approx(1)
    assert figures["sign_agreement"] == 1


RANKS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9)


@given(RANKS)
def test_tau_is_symmetric_and_turns_round_with_a_ranking(pairs):
    first, second = [one for one, _ in pairs], [two for _, two in pairs]
    tau = kendall_tau(first, second)
    if math.isnan(tau):
        assert len(set(first)) == 1 or len(set(second)) == 1
        return
    assert -1 - 1e-9 <= tau <= 1 + 1e-9
    assert kendall_tau(second, first) == pytest.approx(tau)
    assert kendall_tau(first, [-value for value in second]) == pytest.approx(-tau)
    if len(set(first)) > 1:
        assert kendall_tau(first, first) == pytest.approx(1)
