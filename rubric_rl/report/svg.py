"""Plots as inline SVG; colours come from the page's style sheet (stage 6, evaluation)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LABEL, PLOT, RIGHT = 160, 330, 50  # widths: label, plot, the value at the right
BAR, GAP = 13, 9


@dataclass(frozen=True)
class Bar:
    """One bar: its value, its interval (or None) and what the pointer sees."""

    value: float
    bounds: tuple[float, float] | None
    hint: str


def bars(rows: Sequence[tuple[str, Sequence[Bar | None]]]) -> str:
    """Horizontal bars, one group of runs per row, with their intervals as whiskers; None leaves a place empty."""
    present = [bar for _, row in rows for bar in row if bar]
    ends = [x for bar in present for x in (bar.value, *(bar.bounds or ()))]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    step = _step(high - low or 1.0)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step or step

    def x(value: float) -> float:
        return LABEL + (value - low) / (high - low) * PLOT

    parts, top = [], 4.0
    for label, row in rows:
        height = len(row) * (BAR + 2)
        parts.append(
            f'<text class="label" x="{LABEL - 10}" y="{top + height / 2 + 3:.1f}" text-anchor="end">'
            f"{escape(label)}</text>"
        )
        for number, bar in enumerate(row):
            if bar:
                parts.append(_bar(bar, number, top + number * (BAR + 2), x))
        top += height + GAP
    ticks = [low + step * i for i in range(round((high - low) / step) + 1)]
    return _frame(top + 18, _axis(ticks, x, top, step) + "".join(parts))


def _bar(bar: Bar, number: int, top: float, x) -> str:
    left, right = sorted((x(0.0), x(bar.value)))
    middle, end = top + BAR / 2, right
    whisker = ""
    if bar.bounds:
        a, b = x(bar.bounds[0]), x(bar.bounds[1])
        end = max(right, b)
        whisker = (
            f'<path class="whisker" d="M{a:.1f} {middle:.1f}H{b:.1f}'
            f'M{a:.1f} {middle - 3:.1f}v6M{b:.1f} {middle - 3:.1f}v6"/>'
        )
    return (
        f'<g><title>{escape(bar.hint)}</title><rect class="run{number}" x="{left:.1f}" y="{top:.1f}" '
        f'width="{max(right - left, 1):.1f}" height="{BAR}" rx="2"/>{whisker}'
        f'<text class="value" x="{end + 6:.1f}" y="{middle + 4:.1f}">{bar.value:.3f}</text></g>'
    )


def histogram(runs: Sequence[Sequence[float]], edges: Sequence[float]) -> str:
    """Shares of each run's values between the edges; what lies outside is counted in the end bins."""
    shares = [_shares(values, edges) for values in runs]
    top, height, width = max(max(s) for s in shares) or 1.0, 150, PLOT + LABEL
    slot = width / (len(edges) - 1)
    parts = []
    for number, share in enumerate(shares):
        thick = (slot - 4) / len(shares)
        for i, value in enumerate(share):
            tall = value / top * height
            hint = f"{edges[i]:.1f} to {edges[i + 1]:.1f}: {value:.1%}"
            parts.append(
                f'<g><title>{hint}</title><rect class="run{number}" x="{10 + i * slot + 2 + number * thick:.1f}" '
                f'y="{10 + height - tall:.1f}" width="{thick:.1f}" height="{tall:.1f}" rx="2"/></g>'
            )
    for i, edge in enumerate(edges):
        parts.append(
            f'<text class="tick" x="{10 + i * slot:.1f}" y="{height + 26}" text-anchor="middle">{edge:.1f}</text>'
        )
    parts.append(f'<path class="axis" d="M10 {height + 10}H{10 + width}"/>')
    return _frame(height + 34, "".join(parts))


def _shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        place = sum(value >= edge for edge in edges[1:-1])
        counts[place] += 1
    return [count / max(len(values), 1) for count in counts]


def _axis(ticks: Sequence[float], x, bottom: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    parts = []
    for tick in ticks:
        kind = "axis" if abs(tick) < step / 1e3 else "grid"
        parts.append(f'<path class="{kind}" d="M{x(tick):.1f} 0V{bottom:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 14:.1f}" text-anchor="middle">'
            f"{tick + 0:.{digits}f}</text>"
        )
    return "".join(parts)


def _step(width: float) -> float:
    """A round distance between ticks, four to eight of them."""
    power = 10 ** math.floor(math.log10(width))
    return next(
        power * factor for factor in (0.1, 0.2, 0.25, 0.5, 1, 2) if width / (power * factor) <= 8
    )


def _frame(height: float, inner: str) -> str:
    width = LABEL + PLOT + RIGHT
    return f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img">{inner}</svg>'
