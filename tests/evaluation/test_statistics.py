"""The arithmetic of evaluation, on numbers worked out by hand."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.evaluation import statistics as stats
from rubric_rl.evaluation.statistics import (
    PENALTIES,
    balanced_f1,
    bootstrap_std,
    clipped_mean,
    f1,
    interval,
    kappa,
    length_adjusted,
    ratio,
    t_quantile,
    worst_at_k,
    worst_of,
)

SCORES = st.lists(st.floats(-3, 1, allow_nan=False), min_size=1, max_size=9)


@pytest.mark.parametrize(
    "values, mean", [([0.2, 0.6], 0.4), ([-1.0, 0.5], 0.0), ([-0.5, 1.0], 0.25), ([1.0], 1.0)]
)
def test_the_mean_is_clipped_not_its_parts(values, mean):
    assert clipped_mean(values) == pytest.approx(mean, abs=1e-12)


def test_the_bootstrap_is_the_reference_s_draw_for_draw():
    values = [-0.7, -0.1, 0.0, 0.3, 0.9, 0.2, -0.4]
    np.random.seed(0)
    means = []
    for _ in range(1000):
        drawn = np.random.choice(values, len(values))
        means.append(np.clip(np.mean(drawn), 0, 1))
    assert bootstrap_std(values) == pytest.approx(np.std(means), abs=1e-12)


def test_the_bootstrap_in_pieces_is_the_same(monkeypatch):
    values = list(np.linspace(-1, 1, 37))
    whole = bootstrap_std(values)
    monkeypatch.setattr(stats, "_AT_ONCE", 100)
    assert bootstrap_std(values) == pytest.approx(whole, abs=1e-14)


class TestWorstAtK:
    def test_by_hand(self):
        # of 0.1, 0.5, 0.9 the pairs have minima 0.1, 0.1, 0.5
        assert worst_of([0.9, 0.1, 0.5], 2) == pytest.approx(0.7 / 3, abs=1e-12)

    @given(SCORES, st.data())
    def test_is_the_mean_over_all_subsets(self, values, data):
        k = data.draw(st.integers(1, len(values)))
        subsets = [min(subset) for subset in itertools.combinations(values, k)]
        assert worst_of(values, k) == pytest.approx(statistics.fmean(subsets), abs=1e-9)

    def test_averages_prompts_that_have_enough_answers_then_clips(self):
        groups = [[0.2, 0.8], [1.0], [-0.1, 0.4]]
        assert worst_at_k(groups, 2) == pytest.approx(0.05, abs=1e-12)
        assert worst_at_k([[-0.5, 0.5]], 2) == 0
        assert worst_at_k([[0.5]], 2) is None


@pytest.mark.parametrize(
    "characters, expected", [(2000, 0.5), (2500, 0.4608), (0, 0.6568), (5400, 0.23344)]
)
def test_length_adjustment(characters, expected):
    adjusted = length_adjusted(0.5, characters, PENALTIES["hard"])
    assert adjusted == pytest.approx(expected, abs=1e-12)


class TestInterval:
    def test_holds_the_mean_and_shrinks_with_more_prompts(self):
        parts = np.array([[value, 1.0] for value in np.linspace(0, 1, 20)])
        low, high = interval(parts, ratio)
        assert low < 0.5 < high
        more_low, more_high = interval(np.tile(parts, (25, 1)), ratio)
        assert more_high - more_low < (high - low) / 3

    def test_repeats_of_one_prompt_are_no_new_prompts(self):
        once = np.array([[value, 1.0] for value in (0.1, 0.4, 0.9)])
        repeated = interval(once * 8, ratio)
        assert repeated == pytest.approx(interval(once, ratio))

    def test_has_none_for_one_prompt_or_without_a_value(self):
        assert interval(np.array([[1.0, 1.0]]), ratio) is None
        assert interval(np.zeros((3, 2)), ratio) is None


class TestAgreement:
    def test_by_hand(self):
        # both met, only the grader, only the label, neither
        counts = np.array([6.0, 2.0, 1.0, 11.0])
        assert f1(counts) == pytest.approx(12 / 15, abs=1e-12)
        assert balanced_f1(counts) == pytest.approx((12 / 15 + 22 / 25) / 2, abs=1e-12)
        agreed, by_chance = 17 / 20, (8 * 7 + 12 * 13) / 400
        assert kappa(counts) == pytest.approx((agreed - by_chance) / (1 - by_chance), abs=1e-12)

    @pytest.mark.parametrize(
        "counts, value", [((0, 3, 2, 1), 0.0), ((0, 0, 2, 1), math.nan), ((0, 2, 0, 1), math.nan)]
    )
    def test_f1_is_0_without_a_hit_and_missing_without_a_case(self, counts, value):
        assert f1(np.array(counts, float)) == pytest.approx(value, nan_ok=True)

    def test_kappa_is_missing_when_both_only_ever_say_one_thing(self):
        assert math.isnan(kappa(np.array([5.0, 0, 0, 0])))

    @given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
    def test_swapping_met_and_not_met_changes_neither(self, counts):
        row, swapped = np.array(counts, float), np.array(counts[::-1], float)
        for statistic in (balanced_f1, kappa):
            value = float(statistic(swapped))
            assert statistic(row) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    "chance, freedom, table",
    [
        (0.001, 1, 318.31),
        (0.001, 2, 22.327),
        (0.025, 10, 2.2281),
        (0.001, 20, 3.5518),
        (0.001, 80, 3.1953),
    ],
)
def test_the_quantile_is_students(chance, freedom, table):
    assert t_quantile(1 - chance, freedom) == pytest.approx(table, rel=1e-4)


def test_the_quantile_of_a_level_of_one_is_beyond_everything():
    assert t_quantile(1.0, 1) > 1e6 and t_quantile(1.0, 79) > 1e3
