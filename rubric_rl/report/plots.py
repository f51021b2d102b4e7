"""Where the bars and ticks of the page's two plots stand, in percent of the plot.

`templates/plots.html.jinja` draws them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rubric_rl.report.report_view import Mean, Part
from rubric_rl.report.run_view import Interval

# Of the histogram's bins.
EDGES = (-0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MARGIN = 0.05  # of a bin's width, left free at each side

NO_WIDTH = 1e-6  # what is narrower is an error of rounding
_SMALL = 1e-9  # keeps 0.3 / 0.1 from counting as 2.9999
_MOST_STEPS = 8  # between the ticks of an axis


@dataclass(frozen=True)
class Tick:
    """A place on an axis."""

    place: float
    label: str
    is_zero: bool = False


@dataclass(frozen=True)
class Bar:
    """A horizontal bar from zero to its mean, and its interval as a whisker."""

    mean: Mean
    left: float
    width: float
    whisker: Interval
    end: float  # what reaches furthest to the right, bar or whisker


@dataclass(frozen=True)
class BarRow:
    """The bars of one part, one per run; None leaves a place empty."""

    name: str
    bars: list[Bar | None]


@dataclass(frozen=True)
class BarPlot:
    """Bars of several parts over one axis."""

    rows: list[BarRow]
    ticks: list[Tick]


@dataclass(frozen=True)
class Column:
    """A bar of the histogram: the share of a run's values in one bin."""

    run: int
    place: str  # the bin in words
    share: float
    left: float
    width: float
    height: float


@dataclass(frozen=True)
class Histogram:
    """The columns of all runs over one axis."""

    columns: list[Column]
    ticks: list[Tick]


class _Axis:
    """A range of values between two round numbers, which holds zero."""

    def __init__(self, values: Sequence[float]):
        reach = [0.0, *values]
        low = min(reach)
        high = max(reach)
        width = high - low
        if width < NO_WIDTH:
            width = 1.0
        self.step = _round_step(width)
        # In steps from zero.
        self.first = math.floor(low / self.step + _SMALL)
        self.last = math.ceil(high / self.step - _SMALL)
        if self.last == self.first:
            self.last += 1

    def place(self, value: float) -> float:
        """How far to the right a value stands, in percent."""
        steps = value / self.step - self.first
        all_steps = self.last - self.first
        return 100 * steps / all_steps

    def ticks(self) -> list[Tick]:
        """A tick at every step, with the digits that the step needs."""
        magnitude = math.log10(self.step)
        digits = math.ceil(-magnitude - _SMALL)
        digits = max(0, digits)
        ticks = []
        for number in range(self.first, self.last + 1):
            value = number * self.step
            label = f"{value:.{digits}f}"
            place = self.place(value)
            is_zero = number == 0
            ticks.append(Tick(place, label, is_zero))
        return ticks


def _round_step(width: float) -> float:
    """A round distance between ticks: the smallest of which at most eight fill the width."""
    magnitude = math.floor(math.log10(width))
    power = 10**magnitude
    for factor in (0.2, 0.5, 1):
        step = power * factor
        if width / step <= _MOST_STEPS:
            return step
    return 2 * power


def bar_plot(parts: Sequence[Part]) -> BarPlot:
    """The bars of parts, of which at least one has a mean."""
    ends: list[float] = []
    for part in parts:
        for mean in part.means:
            if mean:
                ends.append(mean.value)
                interval = mean.interval or ()
                ends += interval
    axis = _Axis(ends)
    rows = []
    for part in parts:
        name = part.name.replace("_", " ")
        bars = [_bar(mean, axis) for mean in part.means]
        row = BarRow(name, bars)
        rows.append(row)
    ticks = axis.ticks()
    return BarPlot(rows, ticks)


def _bar(mean: Mean | None, axis: _Axis) -> Bar | None:
    if mean is None:
        return None
    zero = axis.place(0.0)
    place = axis.place(mean.value)
    left = min(zero, place)
    right = max(zero, place)
    width = right - left
    if mean.interval is None:
        return Bar(mean, left, width, whisker=None, end=right)
    low, high = mean.interval
    whisker_left = axis.place(low)
    whisker_right = axis.place(high)
    whisker = whisker_left, whisker_right
    end = max(right, whisker_right)
    return Bar(mean, left, width, whisker, end)


def histogram(runs: Sequence[Sequence[float]], edges: Sequence[float] = EDGES) -> Histogram:
    """Shares of each run's values between the edges; the end bins also hold what lies outside."""
    shares = [_shares(values, edges) for values in runs]
    peaks = [max(run_shares) for run_shares in shares]
    highest = max(peaks) or 1.0
    bins = len(edges) - 1
    bin_width = 100 / bins
    margin = MARGIN * bin_width
    free = bin_width - 2 * margin
    width = free / len(runs)
    columns = []
    for run, run_shares in enumerate(shares):
        first_left = margin + run * width
        for number, share in enumerate(run_shares):
            column = Column(
                run=run,
                place=_in_words(number, edges),
                share=share,
                left=first_left + number * bin_width,
                width=width,
                height=100 * share / highest,
            )
            columns.append(column)
    ticks = []
    for number, edge in enumerate(edges):
        place = number * bin_width
        label = f"{edge:.1f}"
        ticks.append(Tick(place, label))
    return Histogram(columns, ticks)


def _shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    inner = edges[1:-1]
    bins = len(inner) + 1
    counts = [0] * bins
    for value in values:
        number = sum(value >= edge for edge in inner)
        counts[number] += 1
    total = max(len(values), 1)
    return [count / total for count in counts]


def _in_words(number: int, edges: Sequence[float]) -> str:
    low = edges[number]
    high = edges[number + 1]
    if number == 0:
        return f"below {high:.1f}"
    if high == edges[-1]:
        return f"{low:.1f} and more"
    return f"{low:.1f} to {high:.1f}"
