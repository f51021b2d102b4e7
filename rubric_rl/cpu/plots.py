"""The figures and the table at the end of a run (stage 6, evaluation).

python -m rubric_rl.cpu.plots RUN_DIR      draws them again from metrics.jsonl and eval.jsonl
"""

import statistics
import sys
from pathlib import Path

from rubric_rl.cpu.recorder import eval_sets, eval_value, pick, read_metrics
from rubric_rl.errors import UserError
from rubric_rl.jsonl import write_text

ENDS = 5  # steps at each end of the run whose mean the table shows
APART = 0.05  # growth of the gap between self-graded reward and true score that the summary calls diverging

# heading, metric of a training row, metric of an evaluation row ("" is the mean reward itself)
TABLE = [
    ("self-graded reward", "rollout/raw_reward", ""),
    ("true score", "true_score", "true_score"),
    ("grader accuracy", "grader_accuracy", "grader_accuracy"),
    ("false positive rate", "false_positive_rate", "false_positive_rate"),
    ("response length", "rollout/response_len/mean", "response_len/mean"),
    ("truncated share", "rollout/truncated_ratio", "truncated_ratio"),
]
# file: title of the axis, (label, metric of a training row, metric of an evaluation row) of each line
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
STAGES = [
    ("rollout, grading meanwhile", "perf/generation_time"),
    ("grading after it", "perf/grading_tail_time"),
    ("update", "perf/update_time"),
    ("weight sync", "perf/sync_time"),
    ("saving", "perf/save_time"),
]


def draw(directory: Path) -> str:
    """Writes the PNG figures and summary.md into a run directory; returns the summary.

    Raises:
        UserError: when the directory holds no finished step.
    """
    steps, evaluations = read_metrics(directory)
    if not steps:
        raise UserError(
            f"{directory}: no finished step in metrics.jsonl; name the SAVE_PATH of a run without a GPU"
        )
    for file, (title, lines) in FIGURES.items():
        _curves(directory / file, steps, evaluations, lines, title)
    _seconds(directory / "seconds.png", steps)
    text = summary(steps, evaluations)
    write_text(directory / "summary.md", text + "\n")
    return text


def summary(steps: list[dict], evaluations: list[dict]) -> str:
    """The table of first against last, where the time went, and whether reward and true score diverge."""
    count = min(ENDS, max(1, len(steps) // 2))
    heading = f"train: first {count} of {len(steps)} steps against the last {count}"
    lines = [f"{heading}; held out: first and last evaluation", ""]
    names = eval_sets(evaluations[0]) if evaluations else []
    headings = ["", "train first", "train last"] + [
        f"{name} {end}" for name in names for end in ("first", "last")
    ]
    rows = [headings, ["---"] * len(headings)]
    for heading, train, held_out in TABLE:
        cells = [_mean(steps[:count], train), _mean(steps[-count:], train)]
        for name in names:
            cells += [
                _held_out(evaluations[0], name, held_out),
                _held_out(evaluations[-1], name, held_out),
            ]
        if any(cell is not None for cell in cells):
            rows.append([heading] + ["-" if cell is None else f"{cell:.3f}" for cell in cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        lines.append(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            + " |"
        )
    means = [(heading, _mean(steps, name)) for heading, name in STAGES]
    lines += [
        "",
        "mean seconds per step: " + ", ".join(f"{h} {v:.1f}" for h, v in means if v is not None),
    ]
    memory = [row["perf/memory_gb"] for row in steps if row.get("perf/memory_gb")]
    lines += [f"memory of all processes: at most {max(memory):.1f} GB"] if memory else []
    return "\n".join(lines + divergence(steps))


def divergence(steps: list[dict]) -> list[str]:
    """A sentence on the gap between self-graded reward and true score; none for a short run or without a true score."""
    first, last = steps[:ENDS], steps[-ENDS:]
    rewards = [_mean(part, "rollout/raw_reward") for part in (first, last)]
    scores = [_mean(part, "true_score") for part in (first, last)]
    if len(steps) < 2 * ENDS or None in rewards + scores:
        return []
    before, after = (reward - score for reward, score in zip(rewards, scores, strict=True))
    moved = f"the reward moved by {rewards[1] - rewards[0]:+.3f}, the true score by {scores[1] - scores[0]:+.3f}"
    verb = "diverge" if after - before > APART else "move together"
    gap = f"the gap went from {before:+.3f} to {after:+.3f}"
    return [f"The self-graded reward and the true score {verb}: {moved}; {gap}."]


def _mean(rows: list[dict], name: str) -> float | None:
    values = [value for value in (pick(row, name) for row in rows) if value is not None]
    return statistics.fmean(values) if values else None


def _held_out(row: dict, dataset: str, name: str) -> float | None:
    return eval_value(row, dataset, name) if name else row.get(f"eval/{dataset}")


def _axes(title: str):
    import matplotlib  # here: importing it takes half a second, which the start of a run does not need

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=120)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    return pyplot, figure, axes


def _curves(
    path: Path, steps: list[dict], evaluations: list[dict], lines: list[tuple], title: str
) -> None:
    """One line per training metric, points for the held-out evaluations of the same metric; no file without data."""
    pyplot, figure, axes = _axes(title)
    for color, (label, train, held_out) in zip(("C0", "C1"), lines, strict=False):
        points = [(row["step"], value) for row in steps if (value := pick(row, train)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=f"{label}, train")
        for name, marker in zip(
            eval_sets(evaluations[0]) if evaluations else [], "os^Dv", strict=False
        ):
            values = [(row["step"], _held_out(row, name, held_out)) for row in evaluations]
            if points := [(step, value) for step, value in values if value is not None]:
                axes.plot(*zip(*points, strict=True), marker, color=color, label=f"{label}, {name}")
    if axes.has_data():
        axes.legend()
        figure.tight_layout()
        figure.savefig(path)
    pyplot.close(figure)


def _seconds(path: Path, steps: list[dict]) -> None:
    pyplot, figure, axes = _axes("seconds")
    numbers = [row["step"] for row in steps]
    stages = [[pick(row, name) or 0.0 for row in steps] for _, name in STAGES]
    axes.stackplot(numbers, stages, labels=[heading for heading, _ in STAGES])
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize="small", frameon=False
    )
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Draws a run directory again."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m rubric_rl.cpu.plots RUN_DIR", file=sys.stderr)
        return 2
    try:
        print(draw(Path(arguments[0])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
