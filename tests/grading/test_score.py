"""The reward formula and the group's advantages, against hand-computed values and by their laws (stage 4)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import Criterion
from rubric_rl.grading.score import (
    batch_advantages,
    flat_share,
    group_advantages,
    is_flat,
    is_met,
    score,
    score_by,
)

NAN = math.nan
POINTS = st.integers(-10, 10).filter(bool)
VERDICTS = st.sampled_from([True, False, None])


def rubric(*points) -> list[Criterion]:
    return [Criterion("c", p) for p in points]


@st.composite
def graded_rubrics(draw):
    points = draw(st.lists(POINTS, max_size=12)) + [draw(st.integers(1, 10))]
    return rubric(*points), draw(st.lists(VERDICTS, min_size=len(points), max_size=len(points)))


@pytest.mark.parametrize(
    "points, verdicts, expected",
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
def test_score_by_hand(points, verdicts, expected):
    assert score(rubric(*points), verdicts) == pytest.approx(expected, abs=1e-12)


@given(graded_rubrics())
def test_score_is_healthbench_s_formula_where_every_verdict_is_readable(case):
    items, verdicts = case
    verdicts = [bool(v) for v in verdicts]
    achieved = sum(c.points * v for c, v in zip(items, verdicts))
    possible = sum(max(c.points, 0) for c in items)
    assert score(items, verdicts) == pytest.approx(achieved / possible)
    assert score(items, verdicts) <= 1


@given(graded_rubrics(), st.data())
def test_an_unreadable_verdict_never_helps(case, data):
    items, verdicts = case
    lost = data.draw(st.integers(0, len(items) - 1))
    assert score(items, verdicts[:lost] + [None] + verdicts[lost + 1 :]) <= score(items, verdicts)


def test_unreadable_counts_against_the_answer():
    assert not is_met(Criterion("good", 3), None)
    assert is_met(Criterion("bad", -3), None)


def test_no_positive_points_or_another_number_of_verdicts_is_an_error_not_a_score():
    with pytest.raises(ValueError, match="positive"):
        score(rubric(-1), [True])
    with pytest.raises(ValueError):
        score(rubric(1, 1), [True])


def test_parts_of_a_rubric_are_scored_on_their_own_items():
    items = [
        Criterion("a", 4, ("axis:x",)),
        Criterion("b", -2, ("axis:x",)),
        Criterion("c", -1, ("axis:y",)),
        Criterion("d", 2),
    ]
    assert score_by(lambda c: c.tag("axis"), items, [True, True, True, True]) == {"x": 0.5}


@pytest.mark.parametrize(
    "rewards, expected",
    [
        (
            (0.0, 1.0),
            (-0.70710578, 0.70710578),
        ),  # the unbiased std of 0, 1 is 0.70710678; 1e-6 on top
        (
            (1.0, 2.0, 3.0, 6.0),
            (-0.92582, -0.46291, 0.0, 1.38873),
        ),  # mean 3, std sqrt(14/3) = 2.160247
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
    assert group_advantages([1.0, 2.0, NAN, 6.0], normalise_std=False) == [-2.0, -1.0, 0.0, 3.0]


REWARDS = st.lists(st.floats(-3, 1).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@given(REWARDS, st.booleans())
def test_advantages_sum_to_zero_and_keep_the_order(rewards, normalise):
    advantages = group_advantages(rewards, normalise)
    assert sum(advantages) == pytest.approx(0, abs=1e-6)
    assert sorted(range(len(rewards)), key=rewards.__getitem__) == sorted(
        range(len(rewards)), key=lambda i: (advantages[i], rewards[i])
    )


@given(REWARDS, st.integers(-5, 5))
def test_a_shift_of_all_rewards_changes_nothing(rewards, shift):
    assert group_advantages([r + shift for r in rewards]) == pytest.approx(
        group_advantages(rewards), abs=1e-5
    )


@given(REWARDS, st.data())
def test_ungraded_members_have_no_influence(rewards, data):
    mixed = list(rewards)
    for _ in range(data.draw(st.integers(1, 3))):
        mixed.insert(data.draw(st.integers(0, len(mixed))), NAN)
    advantages = group_advantages(mixed)
    assert [a for a, r in zip(advantages, mixed) if not math.isnan(r)] == group_advantages(rewards)
    assert all(a == 0 for a, r in zip(advantages, mixed) if math.isnan(r))


def test_each_group_of_a_batch_is_its_own_whatever_the_order():
    rewards, groups = [0.0, 5.0, 1.0, 7.0, NAN], ["a", "b", "a", "b", "b"]
    low, high = group_advantages([0.0, 1.0])
    assert batch_advantages(rewards, groups) == pytest.approx([low, low, high, high, 0.0], abs=1e-5)


def test_a_group_is_flat_when_it_teaches_nothing():
    assert is_flat([0.5, 0.5, NAN]) and is_flat([0.5, NAN]) and is_flat([NAN])
    assert not is_flat([0.5, 0.6])
    assert flat_share([0.5, 0.5, 0.1, 0.2], [0, 0, 1, 1]) == 0.5
