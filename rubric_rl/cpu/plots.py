"""The figures and the table at the end of a run.

    python -m rubric_rl.cpu.plots RUN_DIR      draws them again from metrics.jsonl and eval.jsonl

The axis counts rollouts: a training point stands at its rollout_id, an evaluation at its weight
version, which is the rollout that these weights answer.
"""

import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_text
from rubric_rl.cpu.metric_rows import (
    dataset_names,
    find_eval_metric,
    find_metric,
    read_evaluations,
    read_metrics,
)

Rows = list[dict]

ENDS = 5  # rollouts at each end of the run whose mean the table shows
ABSENT = "-"  # a value of the table
APART = 0.05  # growth of the gap between reward and true score that the summary calls diverging


class Curve(NamedTuple):
    """A figure over the rollouts of a run, by its metrics in the two kinds of rows."""

    label: str
    train: str  # in a rollout's row
    held_out: str  # in an evaluation's row; "" is the mean reward itself


TABLE = [
    Curve("self-graded reward", "rollout/raw_reward", ""),
    Curve("true score", "true_score", "true_score"),
    Curve("grader accuracy", "grader_accuracy", "grader_accuracy"),
    Curve("false positive rate", "false_positive_rate", "false_positive_rate"),
    Curve("response length", "rollout/response_len/mean", "response_len/mean"),
    Curve("truncated share", "rollout/truncated_ratio", "truncated_ratio"),
]
REWARD = [
    Curve("self-graded", "rollout/raw_reward", ""),
    Curve("true", "true_score", "true_score"),
]
ACCURACY = [Curve("agreement", "grader_accuracy", "grader_accuracy")]
LENGTH = [Curve("mean", "rollout/response_len/mean", "response_len/mean")]
# File: title of the axis and curves.
FIGURES = {
    "reward.png": ("score", REWARD),
    "grader_accuracy.png": ("grader accuracy", ACCURACY),
    "response_length.png": ("response tokens", LENGTH),
}
COLORS = ("C0", "C1")  # of the curves
MARKERS = "os^Dv"  # of the data sets
STAGES = {
    "rollout, grading meanwhile": "perf/generation_time",
    "grading after it": "perf/grading_tail_time",
    "update": "perf/update_time",
    "weight sync": "perf/sync_time",
    "saving": "perf/save_time",
}


def draw(directory: Path) -> str:
    """Writes the PNG figures and summary.md into a run directory; returns the summary.

    Raises:
        UserError: when the directory holds no finished rollout.
    """
    rollouts = read_metrics(directory)
    evaluations = read_evaluations(directory)
    if not rollouts:
        hint = "name the SAVE_PATH of a run without a GPU"
        raise UserError(f"{directory}: no finished rollout in metrics.jsonl; {hint}")
    for file, (title, curves) in FIGURES.items():
        path = directory / file
        _draw_curves(path, rollouts, evaluations, curves, title)
    path = directory / "seconds.png"
    _draw_seconds(path, rollouts)
    text = summary(rollouts, evaluations)
    path = directory / "summary.md"
    write_text(path, text + "\n")
    return text


def summary(rollouts: Rows, evaluations: Rows) -> str:
    """First against last, where the time went, and whether reward and true score diverge."""
    total = len(rollouts)
    half = max(1, total // 2)
    count = min(ENDS, half)
    first = rollouts[:count]
    last = rollouts[-count:]
    train = f"train: first {count} of {total} rollouts against the last {count}"
    lines = [
        f"{train}; held out: first and last evaluation",
        "",
        *_table(first, last, evaluations),
        "",
        _seconds_line(rollouts),
    ]
    memory = _most_memory(rollouts)
    if memory > 0:
        lines.append(f"memory of all processes: at most {memory:.1f} GB")
    lines += divergence(rollouts)
    return "\n".join(lines)


def _seconds_line(rollouts: Rows) -> str:
    parts = []
    for stage, name in STAGES.items():
        mean = _mean(rollouts, name)
        if mean is not None:
            parts.append(f"{stage} {mean:.1f}")
    seconds = ", ".join(parts)
    return f"mean seconds per rollout: {seconds}"


def _most_memory(rollouts: Rows) -> float:
    most = 0
    for row in rollouts:
        memory = row.get("perf/memory_gb")
        if memory is not None:
            most = max(most, memory)
    return most


def _table(first: Rows, last: Rows, evaluations: Rows) -> list[str]:
    """A Markdown table: a row per metric that the run has, first and last side by side."""
    datasets = _datasets(evaluations)
    headings = ["", "train first", "train last"]
    for dataset in datasets:
        headings.append(f"{dataset} first")
        headings.append(f"{dataset} last")
    rule = ["---" for _ in headings]
    rows = [headings, rule]
    for label, train, held_out in TABLE:
        values = [_mean(rollouts, train) for rollouts in (first, last)]
        for dataset in datasets:
            for index in (0, -1):
                values.append(_held_out(evaluations[index], dataset, held_out))
        cells = [_cell(value) for value in values]
        if set(cells) != {ABSENT}:
            rows.append([label, *cells])
    return _aligned(rows)


def _datasets(evaluations: Rows) -> list[str]:
    if not evaluations:
        return []
    return dataset_names(evaluations[0])


def _cell(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.3f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """The rows of a Markdown table, every column as wide as its widest cell."""
    widths = []
    for column in zip(*rows, strict=True):
        sizes = [len(cell) for cell in column]
        widths.append(max(sizes))
    lines = []
    for row in rows:
        cells = []
        for cell, width in zip(row, widths, strict=True):
            cells.append(cell.ljust(width))
        line = " | ".join(cells)
        lines.append(f"| {line} |")
    return lines


def divergence(rollouts: Rows) -> list[str]:
    """A sentence on the gap between self-graded reward and true score.

    no line for a short run or without a true score.
    """
    if len(rollouts) < 2 * ENDS:
        return []
    first = rollouts[:ENDS]
    last = rollouts[-ENDS:]
    first_reward = _mean(first, "rollout/raw_reward")
    last_reward = _mean(last, "rollout/raw_reward")
    if first_reward is None or last_reward is None:
        return []
    first_score = _mean(first, "true_score")
    last_score = _mean(last, "true_score")
    if first_score is None or last_score is None:
        return []
    reward_rise = last_reward - first_reward
    score_rise = last_score - first_score
    gap_before = first_reward - first_score
    gap_after = last_reward - last_score
    growth = gap_after - gap_before
    verb = "diverge" if growth > APART else "move together"
    reward = f"the reward moved by {reward_rise:+.3f}"
    score = f"the true score by {score_rise:+.3f}"
    gap = f"the gap went from {gap_before:+.3f} to {gap_after:+.3f}"
    sentence = f"The self-graded reward and the true score {verb}"
    return [f"{sentence}: {reward}, {score}; {gap}."]


def _mean(rows: Rows, name: str) -> float | None:
    known = []
    for row in rows:
        value = find_metric(row, name)
        if value is not None:
            known.append(value)
    if not known:
        return None
    return statistics.fmean(known)


def _held_out(row: dict, dataset: str, name: str) -> float | None:
    if not name:
        return row.get(f"eval/{dataset}")
    return find_eval_metric(row, dataset, name)


def _new_figure(title: str):
    """pyplot, a figure and its axes."""
    import matplotlib  # here: it takes half a second, which the start of a run does not need

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    inches = (6.4, 4.0)
    figure, axes = pyplot.subplots(figsize=inches, dpi=120)
    axes.set_xlabel("rollout")
    steps = [1, 2, 2.5, 5, 10]
    whole_numbers = MaxNLocator("auto", steps=steps, integer=True)
    axes.xaxis.set_major_locator(whole_numbers)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    return pyplot, figure, axes


class _Points:
    """The known values of a metric and the rollouts where they stand."""

    def __init__(self):
        self.numbers: list[int] = []
        self.values: list[float] = []

    def add(self, number: int, value: float | None) -> None:
        if value is not None:
            self.numbers.append(number)
            self.values.append(value)

    def plot(self, axes, style: str, color: str, label: str) -> None:
        if self.values:
            axes.plot(self.numbers, self.values, style, color=color, label=label)


def _draw_curves(
    path: Path,
    rollouts: Rows,
    evaluations: Rows,
    curves: list[Curve],
    title: str,
) -> None:
    """One line per training metric, points for the held-out evaluations of the same metric.

    No file without data.
    """
    pyplot, figure, axes = _new_figure(title)
    datasets = _datasets(evaluations)
    for color, curve in zip(COLORS, curves, strict=False):
        points = _Points()
        for row in rollouts:
            value = find_metric(row, curve.train)
            points.add(row["rollout_id"], value)
        label = f"{curve.label}, train"
        points.plot(axes, "-", color, label)
        for marker, dataset in zip(MARKERS, datasets, strict=False):
            points = _Points()
            for row in evaluations:
                value = _held_out(row, dataset, curve.held_out)
                points.add(row["weight_version"], value)
            label = f"{curve.label}, {dataset}"
            points.plot(axes, marker, color, label)
    if axes.has_data():
        axes.legend()
        figure.tight_layout()
        figure.savefig(path)
    pyplot.close(figure)


def _draw_seconds(path: Path, rollouts: Rows) -> None:
    pyplot, figure, axes = _new_figure("seconds")
    numbers = [row["rollout_id"] for row in rollouts]
    seconds = []
    for name in STAGES.values():
        of_stage = []
        for row in rollouts:
            value = find_metric(row, name)
            of_stage.append(value or 0.0)
        seconds.append(of_stage)
    axes.stackplot(numbers, seconds, labels=STAGES.keys())
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize="small", frameon=False
    )
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Draws a run directory again."""
    parser = CommandParser("python -m rubric_rl.cpu.plots", __doc__)
    parser.add_argument("run", type=Path, help="the run's folder, SAVE_PATH of its training")
    return exit_status(lambda: _print_drawn(parser.parse_args(argv).run))


def _print_drawn(directory: Path) -> int:
    print(draw(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
