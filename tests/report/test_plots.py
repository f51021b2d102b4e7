"""The plots: bars as long as their values, round ticks, columns that count everything."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.report.plots import bar_plot, histogram
from rubric_rl.report.report_view import Mean, Part

EDGES = [-0.2, 0.0, 0.5, 1.0]
MEANS = st.lists(
    st.floats(-1000, 1000),
    min_size=1,
    max_size=5,
)
RUNS = st.lists(
    st.lists(st.floats(-5, 1), max_size=9),
    min_size=1,
    max_size=2,
)


def mean(value: float, interval=None) -> Mean:
    return Mean(value, interval, answers=3)


def test_bars_grow_with_their_values():
    one = Part("one", [mean(0.5, (0.4, 0.6)), None])
    other = Part("the_other", [mean(-0.25), mean(1.0)])
    plot = bar_plot([one, other])
    first, second = plot.rows
    half, nothing = first.bars
    negative, whole = second.bars
    assert nothing is None
    assert half.width == pytest.approx(0.5 * whole.width)
    assert negative.width == pytest.approx(0.25 * whole.width)
    assert half.left == pytest.approx(whole.left)
    assert negative.left + negative.width == pytest.approx(whole.left)


def test_a_bar_ends_where_its_whisker_does_and_its_name_is_written_in_words():
    part = Part("health_data_tasks", [mean(0.5, (0.4, 0.6))])
    (row,) = bar_plot([part]).rows
    (bar,) = row.bars
    low, high = bar.whisker
    assert low < bar.left + bar.width < high
    assert bar.end == high
    assert row.name == "health data tasks"


@given(MEANS)
def test_ticks_are_few_and_hold_every_value(values):
    means = [mean(value) for value in values]
    plot = bar_plot([Part("one", means)])
    places = [tick.place for tick in plot.ticks]
    assert 2 <= len(places) <= 10
    assert places[0] == pytest.approx(0, abs=1e-9)
    assert places[-1] == pytest.approx(100)
    (row,) = plot.rows
    for bar in row.bars:
        assert bar.left >= -1e-6
        assert bar.left + bar.width <= 100 + 1e-6


@given(MEANS)
def test_ticks_say_where_they_stand(values):
    means = [mean(value) for value in values]
    ticks = bar_plot([Part("one", means)]).ticks
    labels = [float(tick.label) for tick in ticks]
    step = labels[1] - labels[0]
    assert step > 0
    for before, after in pairwise(labels):
        assert after - before == pytest.approx(step)
    zeros = [float(tick.label) for tick in ticks if tick.is_zero]
    assert zeros == [0.0]


@given(RUNS)
def test_a_histogram_counts_everything(runs):
    columns = histogram(runs, EDGES).columns
    for number, values in enumerate(runs):
        shares = [column.share for column in columns if column.run == number]
        whole = 1 if values else 0
        assert sum(shares) == pytest.approx(whole)


def test_a_histogram_says_what_its_end_columns_hold():
    columns = histogram([[-3.0, 0.1, 0.6, 2.0]], EDGES).columns
    shares = {column.place: column.share for column in columns}
    assert shares == {
        "below 0.0": 0.25,
        "0.0 to 0.5": 0.25,
        "0.5 and more": 0.5,
    }
