"""The reward formula and the group's advantages, by hand and by their laws."""

import math

import pytest
from doubles.records import said
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import UNREADABLE, Criterion
from rubric_rl.grading.score import (
    batch_advantages,
    group_advantages,
    is_met,
    possible_points,
    score,
)

NAN = math.nan
POINTS = st.integers(-10, 10).filter(bool)
METS = st.sampled_from([True, False, None])


def rubric(*points) -> list[Criterion]:
    return [Criterion("c", value) for value in points]


@st.composite
def judged_rubrics(draw):
    """A rubric with some positive points, and a verdict on each of its criteria."""
    points = [*draw(st.lists(POINTS, max_size=12)), draw(st.integers(1, 10))]
    mets = draw(st.lists(METS, min_size=len(points), max_size=len(points)))
    return rubric(*points), said(*mets)


@pytest.mark.parametrize(
    "points, mets, expected",
    [
        ((5, 5), (True, True), 1.0),
        ((5, 5), (False, False), 0.0),
        ((7, 3, -4), (True, False, False), 0.7),
        ((7, 3, -4), (True, True, True), 0.6),
        ((2, -8), (False, True), -4.0),  # not clipped
        ((1, -1), (None, None), -1.0),  # unreadable: the good not done, the bad done
        ((0.1, 0.2, 0.3), (True, True, True), 1.0),
    ],
)
def test_score_by_hand(points, mets, expected):
    assert score(rubric(*points), said(*mets)) == pytest.approx(expected, abs=1e-12)


@given(judged_rubrics())
def test_score_is_healthbench_s_formula_where_every_verdict_is_readable(case):
    criteria, verdicts = case
    mets = [bool(verdict.met) for verdict in verdicts]
    pairs = zip(criteria, mets, strict=True)
    achieved = sum(criterion.points * met for criterion, met in pairs)
    possible = sum(max(criterion.points, 0) for criterion in criteria)
    value = score(criteria, said(*mets))
    assert value == pytest.approx(achieved / possible)
    assert value <= 1


@given(judged_rubrics(), st.data())
def test_an_unreadable_verdict_never_helps(case, data):
    criteria, verdicts = case
    lost = data.draw(st.integers(0, len(criteria) - 1))
    rest = list(verdicts)
    rest[lost] = UNREADABLE
    assert score(criteria, rest) <= score(criteria, verdicts)


def test_unreadable_counts_against_the_answer():
    assert not is_met(Criterion("good", 3), UNREADABLE)
    assert is_met(Criterion("bad", -3), UNREADABLE)


def test_the_best_answer_gets_the_positive_points():
    assert possible_points(rubric(5, -3, 2.5)) == 7.5
    assert possible_points(rubric(-3)) == 0


def test_no_positive_points_or_another_number_of_verdicts_is_an_error_not_a_score():
    with pytest.raises(ValueError, match="positive"):
        score(rubric(-1), said(True))
    with pytest.raises(ValueError):
        score(rubric(1, 1), said(True))


@pytest.mark.parametrize(
    "rewards, expected",
    [
        # the unbiased std of 0, 1 is 0.70710678; 1e-6 on top
        ((0.0, 1.0), (-0.70710578, 0.70710578)),
        # mean 3, std sqrt(14/3) = 2.160247
        ((1.0, 2.0, 3.0, 6.0), (-0.92582, -0.46291, 0.0, 1.38873)),
        ((0.4, 0.4, 0.4), (0.0, 0.0, 0.0)),
        ((1.0, NAN, 3.0), (-0.7071063, 0.0, 0.7071063)),
        ((NAN, 0.7), (0.0, 0.0)),
        ((NAN, NAN), (0.0, 0.0)),
        ((0.7,), (0.0,)),
        ((), ()),
    ],
)
def test_advantages_by_hand(rewards, expected):
    assert group_advantages(rewards) == pytest.approx(expected, abs=2e-6)


def test_without_std_only_the_mean_is_taken_off():
    advantages = group_advantages([1.0, 2.0, NAN, 6.0], normalise_std=False)
    assert advantages == [-2.0, -1.0, 0.0, 3.0]


REWARDS = st.lists(st.floats(-3, 1).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(REWARDS, st.booleans())
def test_advantages_sum_to_zero_and_keep_the_order(rewards, normalise):
    advantages = group_advantages(rewards, normalise)
    assert sum(advantages) == pytest.approx(0, abs=1e-6)
    places = range(len(rewards))
    by_reward = sorted(places, key=lambda i: rewards[i])
    by_advantage = sorted(places, key=lambda i: (advantages[i], rewards[i]))
    assert by_reward == by_advantage


@given(REWARDS, st.integers(-5, 5))
def test_a_shift_of_all_rewards_changes_nothing(rewards, shift):
    shifted = [reward + shift for reward in rewards]
    assert group_advantages(shifted) == pytest.approx(group_advantages(rewards), abs=1e-5)


@given(REWARDS, st.data())
def test_ungraded_members_have_no_influence(rewards, data):
    mixed = list(rewards)
    for _ in range(data.draw(st.integers(1, 3))):
        mixed.insert(data.draw(st.integers(0, len(mixed))), NAN)
    known, others = [], []
    for advantage, reward in zip(group_advantages(mixed), mixed, strict=True):
        (others if math.isnan(reward) else known).append(advantage)
    assert known == group_advantages(rewards)
    assert not any(others)


def test_each_group_of_a_batch_is_its_own_whatever_the_order():
    rewards, groups = [0.0, 5.0, 1.0, 7.0, NAN], ["a", "b", "a", "b", "b"]
    low, high = group_advantages([0.0, 1.0])
    advantages = batch_advantages(rewards, groups)
    assert advantages == pytest.approx([low, low, high, high, 0.0], abs=1e-5)
