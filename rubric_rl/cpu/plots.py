"""The figures and the table at the end of a run.

    python -m rubric_rl.cpu.plots RUN_DIR      draws them again from metrics.jsonl and eval.jsonl

The axis counts rollouts: a training point stands at its rollout_id, an evaluation at its weight
version, which is the rollout that these weights answer.
"""

import statistics
import sys
from pathlib import Path

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

ENDS = 5  # rollouts at each end of the run whose mean the table shows
APART = 0.05  # growth of the gap between reward and true score that the summary calls diverging

# Heading, metric of a training row, metric of an evaluation row ("" is the mean reward itself).
TABLE = [
    ("self-graded reward", "rollout/raw_reward", ""),
    ("true score", "true_score", "true_score"),
    ("grader accuracy", "grader_accuracy", "grader_accuracy"),
    ("false positive rate", "false_positive_rate", "false_positive_rate"),
    ("response length", "rollout/response_len/mean", "response_len/mean"),
    ("truncated share", "rollout/truncated_ratio", "truncated_ratio"),
]
# File: title of the axis, and of each line the label and the two metrics as above.
FIGURES = {
    "reward.png": (
        "score",
        [("self-graded", "rollout/raw_reward", ""), ("true", "true_score", "true_score")],
    ),
    "grader_accuracy.png": (
        "grader accuracy",
        [("agreement", "grader_accuracy", "grader_accuracy")],
    ),
    "response_length.png": (
        "response tokens",
        [("mean", "rollout/response_len/mean", "response_len/mean")],
    ),
}
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
    for file, (title, lines) in FIGURES.items():
        _draw_curves(directory / file, rollouts, evaluations, lines, title)
    _draw_seconds(directory / "seconds.png", rollouts)
    text = summary(rollouts, evaluations)
    write_text(directory / "summary.md", text + "\n")
    return text


def summary(rollouts: list[dict], evaluations: list[dict]) -> str:
    """First against last, where the time went, and whether reward and true score diverge."""
    total = len(rollouts)
    count = min(ENDS, max(1, total // 2))
    first = rollouts[:count]
    last = rollouts[-count:]
    train = f"train: first {count} of {total} rollouts against the last {count}"
    lines = [f"{train}; held out: first and last evaluation", ""]
    lines += _table(first, last, evaluations)
    seconds = []
    for heading, name in STAGES.items():
        mean = _mean(rollouts, name)
        if mean is not None:
            seconds.append(f"{heading} {mean:.1f}")
    lines += ["", "mean seconds per rollout: " + ", ".join(seconds)]
    memory = max(row.get("perf/memory_gb") or 0 for row in rollouts)
    if memory > 0:
        lines.append(f"memory of all processes: at most {memory:.1f} GB")
    lines += divergence(rollouts)
    return "\n".join(lines)


def _table(first: list[dict], last: list[dict], evaluations: list[dict]) -> list[str]:
    """A Markdown table: a row per metric that the run has, first and last side by side."""
    datasets = dataset_names(evaluations[0]) if evaluations else []
    headings = ["", "train first", "train last"]
    for dataset in datasets:
        headings += [f"{dataset} first", f"{dataset} last"]
    rows = [headings, ["---"] * len(headings)]
    for heading, train, held_out in TABLE:
        values = [_mean(first, train), _mean(last, train)]
        for dataset in datasets:
            values.append(_held_out(evaluations[0], dataset, held_out))
            values.append(_held_out(evaluations[-1], dataset, held_out))
        if any(value is not None for value in values):
            rows.append([heading, *map(_cell, values)])
    return _aligned(rows)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """The rows of a Markdown table, every column as wide as its widest cell."""
    columns = zip(*rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = " | ".join(cells)
        lines.append(f"| {line} |")
    return lines


def divergence(rollouts: list[dict]) -> list[str]:
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
    verb = "diverge" if gap_after - gap_before > APART else "move together"
    moved = f"the reward moved by {reward_rise:+.3f}, the true score by {score_rise:+.3f}"
    gap = f"the gap went from {gap_before:+.3f} to {gap_after:+.3f}"
    return [f"The self-graded reward and the true score {verb}: {moved}; {gap}."]


def _mean(rows: list[dict], name: str) -> float | None:
    values = [find_metric(row, name) for row in rows]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


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

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=120)
    axes.set_xlabel("rollout")
    whole_numbers = MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True)
    axes.xaxis.set_major_locator(whole_numbers)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    return pyplot, figure, axes


def _draw_curves(
    path: Path,
    rollouts: list[dict],
    evaluations: list[dict],
    lines: list[tuple[str, str, str]],
    title: str,
) -> None:
    """One line per training metric, points for the held-out evaluations of the same metric.

    No file without data.
    """
    pyplot, figure, axes = _new_figure(title)
    datasets = dataset_names(evaluations[0]) if evaluations else []
    for color, (label, train, held_out) in zip(("C0", "C1"), lines, strict=False):
        numbers = [row["rollout_id"] for row in rollouts]
        values = [find_metric(row, train) for row in rollouts]
        _plot_known(axes, numbers, values, "-", color, f"{label}, train")
        for dataset, marker in zip(datasets, "os^Dv", strict=False):
            numbers = [row["weight_version"] for row in evaluations]
            values = [_held_out(row, dataset, held_out) for row in evaluations]
            _plot_known(axes, numbers, values, marker, color, f"{label}, {dataset}")
    if axes.has_data():
        axes.legend()
        figure.tight_layout()
        figure.savefig(path)
    pyplot.close(figure)


def _plot_known(axes, numbers: list, values: list, style: str, color: str, label: str) -> None:
    """Plots the values that are not None, if there are any."""
    pairs = zip(numbers, values, strict=True)
    points = [(number, value) for number, value in pairs if value is not None]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=color, label=label)


def _draw_seconds(path: Path, rollouts: list[dict]) -> None:
    pyplot, figure, axes = _new_figure("seconds")
    numbers = [row["rollout_id"] for row in rollouts]
    seconds = []
    for name in STAGES.values():
        seconds.append([find_metric(row, name) or 0.0 for row in rollouts])
    axes.stackplot(numbers, seconds, labels=list(STAGES))
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
