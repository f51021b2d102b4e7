"""The report as Markdown.

Whatever the template prints is escaped by `plain`, unless it is a code block or a figure.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from rubric_rl.common.plain_text import one_line
from rubric_rl.evaluation.tables import bounds
from rubric_rl.report.jinja_environment import MISSING, jinja_environment, number
from rubric_rl.report.report_view import CRITERIA, Mean, ReportView
from rubric_rl.report.run_view import Interval, RunView

VERDICTS = {True: "met", False: "not met", None: "unreadable"}
BAR_LENGTH = 20  # blocks of a bar that stands for 1
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@:-])")
_LINE_ENDS = re.compile(r"[\r\x0b\x0c\x85\u2028\u2029]")


def markdown(view: ReportView, shown: Sequence[str]) -> Iterator[str]:
    """The report in pieces; it includes the answers to the prompts `shown`."""
    environment = jinja_environment(finalize=_escaped)
    environment.globals |= {"row": _row, "header": _header}
    environment.filters |= {
        "block": block,
        "bounds": _bounds,
        "headline_cells": _headline_cells,
        "mean_headings": _mean_headings,
        "mean_cells": _mean_cells,
    }
    template = environment.get_template("report.md.jinja")
    return template.generate(
        view=view,
        shown=view.examples(shown),
        criteria=CRITERIA,
        verdicts=VERDICTS,
    )


def plain(text: str) -> str:
    """Text for a table cell or a line: on one line, every mark of Markdown and HTML escaped."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def block(text: str) -> Markup:
    """A code block that the text cannot end.

    Its fence is longer than any run of backticks inside.
    """
    length = 3
    for run in re.findall("`+", text):
        length = max(length, len(run) + 1)
    fence = "`" * length
    lines = _LINE_ENDS.sub("\n", text)
    return Markup(f"{fence}text\n{lines}\n{fence}")


def _escaped(value: Any) -> Markup:
    if isinstance(value, Markup):
        return value
    text = str(value)
    return Markup(plain(text))


def _row(*cells: Any) -> Markup:
    """A line of a table."""
    escaped = [_escaped(cell) for cell in cells]
    inner = " | ".join(escaped)
    return Markup(f"| {inner} |")


def _header(*headings: str) -> Markup:
    """The first two lines of a table."""
    names = _row(*headings)
    line = "---|" * len(headings)
    return Markup(f"{names}\n|{line}")


def _bounds(interval: Interval) -> Markup:
    return Markup(bounds(interval))


def _headline_cells(run: RunView) -> list[Markup]:
    """The figures of a run, and how many of its answers and verdicts are missing from them."""
    headline = run.headline
    answers = run.result["answers"]
    figures = [MISSING] * 5
    if headline:
        figures = [
            number(headline.score, ".4f"),
            number(headline.bootstrap_std, ".4f"),
            number(headline.mean, ".4f"),
            _bounds(headline.interval),
            number(headline.adjusted, ".4f"),
        ]
    unreadable = run.result["criteria"]["unreadable"]
    counts = [answers["all"], answers["ungraded"], unreadable]
    return figures + [number(count, "d") for count in counts]


def _mean_headings(names: Sequence[str]) -> list[str]:
    headings = []
    for name in names:
        headings += [name, "95% by prompt"]
    return headings


def _mean_cells(means: Sequence[Mean | None]) -> list[Markup]:
    """A mean with a bar of blocks, and its interval, per run."""
    cells = []
    for mean in means:
        if mean is None:
            cells += [MISSING, Markup()]
            continue
        value = mean.value
        clipped = min(max(value, 0.0), 1.0)
        blocks = round(clipped * BAR_LENGTH)
        bar = "█" * blocks
        cells.append(Markup(f"{value:.4f} {bar}"))
        cells.append(_bounds(mean.interval))
    return cells
