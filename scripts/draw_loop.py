"""Draws the loop of self-rewarding rubric RL: `python scripts/draw_loop.py [--out asset/loop.png]`.

The numbers are the stages of the README. The same command with the pinned packages gives the same
bytes.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

PICTURE = Path(__file__).resolve().parents[1] / "asset" / "loop.png"
WIDTH, HEIGHT = 10.4, 5.0  # inches, and the unit of every position below
DOTS_PER_INCH = 170  # about twice a README's width, for sharp screens

PAPER = "#ffffff"  # opaque, so that it can be read in dark mode too
INK = "#1f2430"
QUIET = "#5b6472"
EDGE = "#8a94a6"
MODEL_EDGE = "#3565c4"  # blue: whatever the one served model does
MODEL_FILL = "#e8effc"
LOOP = "#c2410c"  # orange: what closes the loop
MET = "#15803d"

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A stage with its number, title and text; (x, y) is its lower left corner."""

    number: int
    title: str
    text: str
    x: float
    y: float
    width: float
    height: float
    edge: str = EDGE

    @property
    def center(self) -> float:
        return self.x + self.width / 2

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def top(self) -> float:
        return self.y + self.height


PROMPT = Box(1, "prompt", "a conversation\nand its rubric", 0.2, 2.95, 1.9, 1.1)
ROLLOUT = Box(2, "rollout", "the policy answers,\nseveral times", 3.15, 2.75, 2.3, 1.4, MODEL_EDGE)
GRADING = Box(3, "rubric grading", "is each criterion met?\n", 7.05, 2.75, 2.85, 1.4, MODEL_EDGE)
REWARD = Box(4, "reward", "", 7.05, 0.2, 2.85, 1.4)
UPDATE = Box(5, "GRPO update", "advantages within\nthe group, no KL", 3.15, 0.2, 2.3, 1.4)
EVALUATION = Box(6, "evaluation", "held-out prompts,\nsame grade, same score", 0.2, 0.2, 2.2, 1.4)
REWARD_LINE = REWARD.y + 0.58  # the height of its fraction lines
# the panel around rollout and grading: left, bottom, width, height
SERVED = (2.85, 2.4, 7.35, 2.4)


def write(axes: Axes, x: float, y: float, text: str, size: float = 10.5, **options) -> None:
    """Text centred at (x, y) unless `options` say otherwise."""
    style = {"color": INK, "ha": "center", "va": "center", "linespacing": 1.35}
    axes.text(x, y, text, fontsize=size, **(style | options))


def draw_panel(axes: Axes) -> None:
    """The served model, in which both the policy and the grader live."""
    left, bottom, width, height = SERVED
    shape = FancyBboxPatch(
        (left, bottom),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.2",
        facecolor=MODEL_FILL,
        edgecolor=MODEL_EDGE,
        linewidth=1.4,
    )
    axes.add_patch(shape)
    title = "one served model: the policy is its own grader"
    write(
        axes, left + width / 2, bottom + height - 0.33, title, 12, color=MODEL_EDGE, weight="bold"
    )


def draw_box(axes: Axes, box: Box) -> None:
    """The frame of a stage, its number in a disc on the upper left corner, title and text."""
    shape = FancyBboxPatch(
        (box.x, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=PAPER,
        edgecolor=box.edge,
        linewidth=1.3,
    )
    axes.add_patch(shape)
    corner = (box.x + 0.06, box.top - 0.06)
    axes.add_patch(Circle(corner, 0.19, facecolor=box.edge, edgecolor=PAPER, linewidth=1.5))
    write(axes, *corner, str(box.number), 10.5, color=PAPER, weight="bold", va="center_baseline")
    title_line = box.top - 0.34
    write(axes, box.center, title_line, box.title, 12.5, weight="bold", va="baseline")
    below_title = (box.y + title_line) / 2
    write(axes, box.center, below_title, box.text)


def draw_arrow(axes: Axes, start: Point, end: Point, **options) -> None:
    style = {
        "arrowstyle": "-|>,head_length=7,head_width=3.5",
        "mutation_scale": 1,
        "shrinkA": 0,
        "shrinkB": 0,
        "color": INK,
        "linewidth": 1.5,
        "joinstyle": "miter",
    }
    axes.add_patch(FancyArrowPatch(start, end, **(style | options)))


def draw_example(axes: Axes) -> None:
    """Three verdicts, and the reward that follows from them."""
    verdicts = (("+5  ✓", MET), ("+3  ✗", QUIET), ("\N{MINUS SIGN}4  ✗", QUIET))
    for place, (verdict, color) in enumerate(verdicts):
        x = GRADING.center + 0.85 * (place - 1)
        write(axes, x, GRADING.y + 0.32, verdict, 11, color=color, weight="bold")

    write_fraction(axes, REWARD.x + 0.92, "points met", "points possible", 0.68)
    write(axes, REWARD.x + 1.8, REWARD_LINE, "=")
    write_fraction(axes, REWARD.x + 2.3, "5", "5 + 3", 0.3)


def write_fraction(axes: Axes, x: float, above: str, below: str, half_width: float) -> None:
    write(axes, x, REWARD_LINE + 0.2, above)
    write(axes, x, REWARD_LINE - 0.22, below)
    axes.plot(
        [x - half_width, x + half_width], [REWARD_LINE, REWARD_LINE], color=INK, linewidth=1.2
    )


def connect_boxes(axes: Axes) -> None:
    """The way of a prompt, and the arrow that closes the loop."""
    draw_arrow(axes, (PROMPT.right, ROLLOUT.middle), (ROLLOUT.x, ROLLOUT.middle))
    draw_arrow(axes, (ROLLOUT.right, GRADING.middle), (GRADING.x, GRADING.middle))
    between = (ROLLOUT.right + GRADING.x) / 2
    write(axes, between, GRADING.middle + 0.2, "answers")
    write(axes, between, GRADING.middle - 0.22, "and the rubric")

    draw_arrow(axes, (GRADING.center, GRADING.y), (GRADING.center, REWARD.top))
    write(axes, GRADING.center + 0.15, 2.0, "verdicts", ha="left")

    draw_arrow(axes, (REWARD.x, REWARD.middle), (UPDATE.right, UPDATE.middle))
    write(axes, between, REWARD.middle + 0.2, "one reward")
    write(axes, between, REWARD.middle - 0.22, "per answer")

    served_bottom = SERVED[1]
    draw_arrow(
        axes, (UPDATE.center, UPDATE.top), (UPDATE.center, served_bottom), color=LOOP, linewidth=3
    )
    closing = "new weights: the next policy\nis the next grader"
    write(axes, UPDATE.center + 0.2, 2.0, closing, 11, color=LOOP, weight="bold", ha="left")

    # a dashed line with a solid head
    turn = (EVALUATION.center, 2.62)
    axes.plot(
        [SERVED[0], turn[0], turn[0]],
        [turn[1], turn[1], EVALUATION.top + 0.15],
        color=QUIET,
        linewidth=1.5,
        linestyle=(0, (4, 3)),
    )
    head = (EVALUATION.center, EVALUATION.top + 0.2)
    draw_arrow(axes, head, (EVALUATION.center, EVALUATION.top), color=QUIET)


def draw() -> Figure:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.axis("off")
    draw_panel(axes)
    for box in (PROMPT, ROLLOUT, GRADING, REWARD, UPDATE, EVALUATION):
        draw_box(axes, box)
    draw_example(axes)
    connect_boxes(axes)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the loop of self-rewarding rubric RL.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="default: asset/loop.png")
    out = parser.parse_args().out
    # without the name of the program and its version, the bytes depend on the drawing alone
    draw().savefig(out, metadata={"Software": None})


if __name__ == "__main__":
    main()
