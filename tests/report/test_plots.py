"""The plots: bars as long as their values, round ticks, columns that count everything."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.report.plots import bar_plot, histogram
from rubric_rl.report.report_view import Mean, Part

VALUES = st.floats(-5, 1)


def test_bars_grow_with_their_values():
    half, quarter, whole = Mean(0.5, (0.4, 0.6), 3), Mean(-0.25, None, 3), Mean(1.0, None, 3)
    plot = bar_plot([Part("one", [half, None]), Part("the_other", [quarter, whole])])
    first, second = plot.rows
    assert second.name == "the other"
    assert first.bars[1] is None
    lengths = [first.bars[0].width, second.bars[0].width, second.bars[1].width]
    assert lengths == pytest.approx([0.5 * lengths[2], 0.25 * lengths[2], lengths[2]])
    assert first.bars[0].left == pytest.approx(second.bars[0].left + second.bars[0].width)
    assert first.bars[0].end == first.bars[0].whisker[1]


@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=5))
def test_ticks_are_few_and_hold_every_value(values):
    plot = bar_plot([Part("one", [Mean(value, None, 1) for value in values])])
    places = [tick.place for tick in plot.ticks]
    assert 2 <= len(places) <= 10
    assert (places[0], places[-1]) == pytest.approx((0, 100))
    zeros = [float(tick.label) for tick in plot.ticks if tick.is_zero]
    assert zeros == [0.0]
    labels = [float(tick.label) for tick in plot.ticks]
    steps = {round(after - before, 9) for before, after in pairwise(labels)}
    assert len(steps) == 1
    assert min(steps) > 0
    for bar in plot.rows[0].bars:
        assert bar.left >= -1e-6
        assert bar.left + bar.width <= 100 + 1e-6


@given(st.lists(st.lists(VALUES, max_size=9), min_size=1, max_size=2))
def test_a_histogram_counts_everything(runs):
    columns = histogram(runs, [-0.2, 0.0, 0.5, 1.0]).columns
    for number, values in enumerate(runs):
        shares = [column.share for column in columns if column.run == number]
        assert sum(shares) == pytest.approx(1 if values else 0)


def test_a_histogram_says_what_its_end_columns_hold():
    columns = histogram([[-3.0, 0.1, 0.6, 2.0]], [-0.2, 0.0, 0.5, 1.0]).columns
    found = [(column.place, column.share) for column in columns]
    assert found == [("below 0.0", 0.25), ("0.0 to 0.5", 0.25), ("0.5 and more", 0.5)]
