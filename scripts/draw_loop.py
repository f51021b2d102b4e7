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

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "asset/loop.png"
WIDTH = 10.4  # inches, and the unit of every position below
HEIGHT = 5.0
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

    @property
    def left_end(self) -> Point:
        return (self.x, self.middle)

    @property
    def right_end(self) -> Point:
        return (self.right, self.middle)

    @property
    def bottom_end(self) -> Point:
        return (self.center, self.y)

    @property
    def top_end(self) -> Point:
        return (self.center, self.top)


PROMPT = Box(1, "prompt", "a conversation\nand its rubric", 0.2, 2.95, 1.9, 1.1)
ROLLOUT = Box(2, "rollout", "the policy answers,\nseveral times", 3.15, 2.75, 2.3, 1.4, MODEL_EDGE)
GRADING = Box(3, "rubric grading", "is each criterion met?\n", 7.05, 2.75, 2.85, 1.4, MODEL_EDGE)
REWARD = Box(4, "reward", "", 7.05, 0.2, 2.85, 1.4)
UPDATE = Box(5, "GRPO update", "advantages within\nthe group, no KL", 3.15, 0.2, 2.3, 1.4)
EVALUATION = Box(6, "evaluation", "held-out prompts,\nsame grade, same score", 0.2, 0.2, 2.2, 1.4)
REWARD_LINE = REWARD.y + 0.58  # the height of its fraction lines
# The panel around rollout and grading.
SERVED_LEFT = 2.85
SERVED_BOTTOM = 2.4
SERVED_WIDTH = 7.35
SERVED_HEIGHT = 2.4


def write(axes: Axes, x: float, y: float, text: str, size: float = 10.5, **options) -> None:
    """Text centred at (x, y) unless `options` say otherwise."""
    style = {
        "color": INK,
        "ha": "center",
        "va": "center",
        "linespacing": 1.35,
        "fontsize": size,
    }
    style |= options
    axes.text(x, y, text, **style)


def draw_panel(axes: Axes) -> None:
    """The served model, in which both the policy and the grader live."""
    corner = (SERVED_LEFT, SERVED_BOTTOM)
    shape = FancyBboxPatch(
        corner,
        SERVED_WIDTH,
        SERVED_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.2",
        facecolor=MODEL_FILL,
        edgecolor=MODEL_EDGE,
        linewidth=1.4,
    )
    axes.add_patch(shape)
    title = "one served model: the policy is its own grader"
    center = SERVED_LEFT + SERVED_WIDTH / 2
    title_line = SERVED_BOTTOM + SERVED_HEIGHT - 0.33
    write(axes, center, title_line, title, size=12, color=MODEL_EDGE, weight="bold")


def draw_box(axes: Axes, box: Box) -> None:
    """The frame of a stage, its number in a disc on the upper left corner, title and text."""
    lower_left = (box.x, box.y)
    shape = FancyBboxPatch(
        lower_left,
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=PAPER,
        edgecolor=box.edge,
        linewidth=1.3,
    )
    axes.add_patch(shape)
    x = box.x + 0.06
    y = box.top - 0.06
    disc = Circle((x, y), 0.19, facecolor=box.edge, edgecolor=PAPER, linewidth=1.5)
    axes.add_patch(disc)
    number = str(box.number)
    write(axes, x, y, number, color=PAPER, weight="bold", va="center_baseline")
    title_line = box.top - 0.34
    write(axes, box.center, title_line, box.title, size=12.5, weight="bold", va="baseline")
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
    style |= options
    arrow = FancyArrowPatch(start, end, **style)
    axes.add_patch(arrow)


def draw_example(axes: Axes) -> None:
    """Three verdicts, and the reward that follows from them."""
    verdicts = [
        ("+5  ✓", MET),
        ("+3  ✗", QUIET),
        ("\N{MINUS SIGN}4  ✗", QUIET),
    ]
    line = GRADING.y + 0.32
    for place, (verdict, color) in enumerate(verdicts):
        from_middle = place - 1
        x = GRADING.center + 0.85 * from_middle
        write(axes, x, line, verdict, size=11, color=color, weight="bold")

    left = REWARD.x
    write_fraction(axes, left + 0.92, "points met", "points possible", half_width=0.68)
    write(axes, left + 1.8, REWARD_LINE, "=")
    write_fraction(axes, left + 2.3, "5", "5 + 3", half_width=0.3)


def write_fraction(axes: Axes, x: float, above: str, below: str, half_width: float) -> None:
    write(axes, x, REWARD_LINE + 0.2, above)
    write(axes, x, REWARD_LINE - 0.22, below)
    ends = [x - half_width, x + half_width]
    heights = [REWARD_LINE, REWARD_LINE]
    axes.plot(ends, heights, color=INK, linewidth=1.2)


def connect_boxes(axes: Axes) -> None:
    """The way of a prompt, and the arrow that closes the loop."""
    prompt_end = (PROMPT.right, ROLLOUT.middle)
    draw_arrow(axes, prompt_end, ROLLOUT.left_end)
    draw_arrow(axes, ROLLOUT.right_end, GRADING.left_end)
    between = (ROLLOUT.right + GRADING.x) / 2
    height = GRADING.middle
    write(axes, between, height + 0.2, "answers")
    write(axes, between, height - 0.22, "and the rubric")

    draw_arrow(axes, GRADING.bottom_end, REWARD.top_end)
    beside_arrow = GRADING.center + 0.15
    write(axes, beside_arrow, 2.0, "verdicts", ha="left")

    draw_arrow(axes, REWARD.left_end, UPDATE.right_end)
    height = REWARD.middle
    write(axes, between, height + 0.2, "one reward")
    write(axes, between, height - 0.22, "per answer")

    served = (UPDATE.center, SERVED_BOTTOM)
    draw_arrow(axes, UPDATE.top_end, served, color=LOOP, linewidth=3)
    closing = "new weights: the next policy\nis the next grader"
    beside_arrow = UPDATE.center + 0.2
    write(axes, beside_arrow, 2.0, closing, size=11, color=LOOP, weight="bold", ha="left")

    connect_evaluation(axes)


def connect_evaluation(axes: Axes) -> None:
    """A dashed line with a solid head: it goes left from the served model, then down."""
    x = EVALUATION.center
    height = 2.62
    bottom = EVALUATION.top + 0.15
    axes.plot(
        [SERVED_LEFT, x, x],
        [height, height, bottom],
        color=QUIET,
        linewidth=1.5,
        linestyle=(0, (4, 3)),
    )
    head = (x, EVALUATION.top + 0.2)
    draw_arrow(axes, head, EVALUATION.top_end, color=QUIET)


def draw() -> Figure:
    size = (WIDTH, HEIGHT)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    whole_figure = (0, 0, 1, 1)
    axes = figure.add_axes(whole_figure)
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
    args = parser.parse_args()
    figure = draw()
    # without the name of the program and its version, the bytes depend on the drawing alone
    figure.savefig(args.out, metadata={"Software": None})


if __name__ == "__main__":
    main()
