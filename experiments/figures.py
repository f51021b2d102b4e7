"""The figures of docs/experiments.md: the held-out true score of arms over a run."""

import statistics
from pathlib import Path

from experiments.tables import Results

# File and title: the arms in it, first those without which it shows nothing.
FIGURES = {
    ("experiments_graders.png", "Who grades"): ("self", "oracle", "frozen"),
    ("experiments_fast.png", "Learning rate 1e-3"): (
        "self-fast",
        "oracle-fast",
        "practised-fast",
        "practised-oracle-fast",
    ),
    ("experiments_means.png", "A loss that keeps the verdicts of the start, learning rate 1e-3"): (
        "self-fast",
        "oracle-fast",
        "self-skill-fast",
        "self-skill-firm-fast",
        "self-skill-strong-fast",
    ),
    ("experiments_alarm.png", "The alarm: a cross where it first rings"): (
        "alarm-healthy",
        "alarm-random",
        "alarm-quoting",
        "alarm-fast",
    ),
    ("experiments_start.png", "How well the start grades"): (
        "self",
        "oracle",
        "practised",
        "practised-oracle",
        "unpractised",
        "unpractised-oracle",
    ),
}


def draw(results: Results, folder: Path) -> list[str]:
    """Writes each figure whose first arms were run, two at least; returns their names."""
    drawn = []
    for (file, title), arms in FIGURES.items():
        present = [name for name in arms if results.get(name)]
        if present[:2] == list(arms[:2]):
            _draw(results, present, title, folder / file)
            drawn.append(file)
    return drawn


def _draw(results: Results, arms: list[str], title: str, path: Path) -> None:
    """A line per arm: the mean of its seeds, and a thin line per seed."""
    import matplotlib  # here: it takes half a second

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), dpi=120)
    for number, name in enumerate(arms):
        curves = []
        versions: list[int] = []
        for result in results[name].values():
            versions = [row["weight_version"] for row in result.evaluations]
            curve = [row["true"] for row in result.evaluations]
            curves.append(curve)
            axes.plot(versions, curve, color=f"C{number}", linewidth=0.6, alpha=0.5)
            if alarm := result.first_alarm():
                place = versions.index(alarm.rollouts)
                axes.plot(alarm.rollouts, curve[place], "X", color=f"C{number}", markersize=8)
        means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
        seeds = len(curves)
        label = f"{name} ({seeds} seed{'s' if seeds > 1 else ''})"
        axes.plot(versions, means, "o-", color=f"C{number}", markersize=3, label=label)
    axes.set_title(title)
    axes.set_xlabel("rollout")
    axes.set_ylabel("true score, held out")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
