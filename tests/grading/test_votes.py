"""Several votes on a criterion: the verdict of most, with the mean of their probabilities."""

from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import UNREADABLE, Criterion, Verdict
from rubric_rl.data.training_settings import RewardRule
from rubric_rl.grading.score import met_share
from rubric_rl.grading.verdict import majority, read_token

PROBABILITIES = st.builds(read_token, st.floats(0, 1), st.floats(0.1, 1))
FINISHED = st.builds(lambda verdict: replace(verdict, finished=True), PROBABILITIES)
SOFT = RewardRule(reward="probability")


def test_votes_keep_probabilities_beside_a_vote_that_cannot_be_read():
    """It gives all of its probability to other words."""
    seen = majority([Verdict(True, 0.9, mass=1.0), Verdict(True, 0.7, mass=1.0), UNREADABLE])
    assert (seen.met, seen.probability) == (True, pytest.approx(0.8))
    assert seen.mass == pytest.approx(2 / 3)


def test_votes_keep_probabilities_without_a_majority():
    seen = majority([Verdict(True, 0.8, mass=1.0), Verdict(False, 0.4, mass=1.0)])
    assert (seen.met, seen.probability, seen.mass) == (None, pytest.approx(0.6), 1.0)


def test_votes_lose_probabilities_where_a_reply_that_can_be_read_brings_none():
    seen = majority([Verdict(True), Verdict(True, 0.9), UNREADABLE])
    assert (seen.met, seen.probability, seen.mass) == (True, None, None)


@given(PROBABILITIES | FINISHED | st.just(UNREADABLE))
def test_a_single_vote_is_the_verdict(vote):
    assert majority([vote]) == vote


@given(
    st.lists(PROBABILITIES | FINISHED | st.just(UNREADABLE), min_size=1, max_size=5),
    st.sampled_from([Criterion("x", 5), Criterion("x", -5)]),
)
def test_votes_are_worth_at_most_the_mean_of_what_each_is_worth(votes, criterion):
    def worth(vote: Verdict) -> float:
        share = met_share(criterion, vote, SOFT)
        return share if criterion.points > 0 else 1 - share

    mean = fmean(map(worth, votes))
    assert worth(majority(votes)) <= mean + 1e-9
    if not any(vote.finished for vote in votes):
        assert worth(majority(votes)) == pytest.approx(mean)
