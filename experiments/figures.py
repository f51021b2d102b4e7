"""The figures of docs/experiments.md: the held-out true score of arms over a run."""

import statistics
from pathlib import Path

import numpy as np

from experiments.results import Result
from experiments.tables import Results

# File: panels by title, each the arms in it, first those without which it shows nothing.
FIGURES = {
    "experiments_graders.png": {
        "Who grades": ("self", "oracle", "frozen", "self-skill-firm"),
        "At three times the learning rate": ("self-fast", "oracle-fast", "self-skill-firm-fast"),
    },
    "experiments_fast.png": {
        "Learning rate 1e-3": (
            "self-fast",
            "oracle-fast",
            "practised-fast",
            "practised-oracle-fast",
        )
    },
    "experiments_means.png": {
        "A loss that keeps the verdicts of the start, learning rate 1e-3": (
            "self-fast",
            "oracle-fast",
            "self-skill-fast",
            "self-skill-firm-fast",
            "self-skill-strong-fast",
        )
    },
    "experiments_alarm.png": {
        "The alarm: a cross where it first rings": (
            "alarm-healthy",
            "alarm-random",
            "alarm-quoting",
            "alarm-fast",
            "alarm-firm-fast",
        )
    },
    "experiments_start.png": {
        "How well the start grades": (
            "self",
            "oracle",
            "practised",
            "practised-oracle",
            "unpractised",
            "unpractised-oracle",
        )
    },
}


def draw(results: Results, folder: Path) -> list[str]:
    """Writes each figure in whose panels the first arms were run, two at least; their names."""
    drawn = []
    for file, panels in FIGURES.items():
        present = {}
        for title, arms in panels.items():
            present[title] = [name for name in arms if results.get(name)]
        if all(present[title][:2] == list(arms[:2]) for title, arms in panels.items()):
            _draw(results, present, folder / file)
            drawn.append(file)
    return drawn


def _draw(results: Results, panels: dict[str, list[str]], path: Path) -> None:
    import matplotlib  # here: it takes half a second

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, row = pyplot.subplots(
        1, len(panels), figsize=(6.4 * len(panels), 4.0), dpi=120, sharey=True, squeeze=False
    )
    colours: dict[str, str] = {}  # an arm has that of its kin at the other learning rate
    for axes, (title, arms) in zip(row[0], panels.items(), strict=True):
        for name in arms:
            kin = name.removesuffix("-fast")
            colour = colours.setdefault(kin, f"C{len(colours)}")
            _draw_arm(axes, name, results[name], colour)
        axes.set_title(title)
        axes.set_xlabel("rollout")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    row[0][0].set_ylabel("true score, held out")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _draw_arm(axes, name: str, of_arm: dict[int, Result], colour: str) -> None:
    """The mean of its seeds, a thin line per seed, and a cross where the alarm first rings."""
    curves = []
    versions: list[int] = []
    for result in of_arm.values():
        versions = [row["weight_version"] for row in result.evaluations]
        curve = [row["true"] for row in result.evaluations]
        curves.append(curve)
        axes.plot(versions, curve, color=colour, linewidth=0.6, alpha=0.5)
        if alarm := result.first_alarm():
            height = np.interp(alarm.rollouts, versions, curve)
            axes.plot(alarm.rollouts, height, "X", color=colour, markersize=8)
    means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
    seeds = len(curves)
    label = f"{name} ({seeds} seed{'s' if seeds > 1 else ''})"
    axes.plot(versions, means, "o-", color=colour, markersize=3, label=label)
