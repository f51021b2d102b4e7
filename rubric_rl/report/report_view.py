"""What a report shows of one run, or of two side by side: all that both of its forms are made of.

Figures stay numbers here; each template writes them in its own way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rubric_rl.evaluation.judge import judge_lines
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.evaluation.summary import OVERALL, paired
from rubric_rl.evaluation.tables import published_lines
from rubric_rl.report.run_view import Interval, RunView, example

CRITERIA = 15  # rows in the tables of criteria


@dataclass(frozen=True)
class Mean:
    """A mean over answers, unclipped, with its 95% interval by prompt."""

    value: float
    interval: Interval
    answers: int


@dataclass(frozen=True)
class Part:
    """A theme's answers, or the criteria of an axis: a mean per run, None where it has none."""

    name: str
    means: list[Mean | None]


@dataclass(frozen=True)
class AccountRow:
    """One line of what became of the answers and criteria: a count per run."""

    label: str
    counts: list[int]
    is_share: bool  # of the last row that is none


class ReportView:
    """One run, or two (before, after), scored by the same rule."""

    def __init__(self, runs: Sequence[Run], rule: ScoringRule, title: str = ""):
        views = [RunView(run, rule) for run in runs]
        self.rule = rule
        self.runs = views
        self.names = [view.name for view in views]
        judges = [view.judge for view in views]
        self.judges = judge_lines(judges)
        for view in views:
            for line in published_lines(view.published):
                self.judges.append(f"{view.name}: {line}" if len(views) > 1 else line)
        names = " → ".join(self.names)
        self.title = title or f"HealthBench report: {names}"
        self.paired = None
        if len(views) == 2:
            before, after = views
            self.paired = paired(before.summary, after.summary)
        self.places: dict[str, int] = {}  # prompt_id -> its place in the list of prompts
        for view in views:
            for prompt_id in view.prompts:
                next_place = len(self.places)
                self.places.setdefault(prompt_id, next_place)

    def parts(self, kind: str) -> list[Part]:
        """The means by theme or by axis."""
        tags: set[str] = set()
        for run in self.runs:
            tags.update(run.summary.tags(kind))
        parts = []
        for tag in sorted(tags):
            name = tag.removeprefix(f"{kind}:")
            means = [_mean(run, tag) for run in self.runs]
            parts.append(Part(name, means))
        return parts

    def scores(self) -> list[Sequence[float]]:
        """Each run's scores of single answers."""
        metrics = [run.summary.metric(OVERALL) for run in self.runs]
        return [metric.values for metric in metrics]

    def account(self) -> list[AccountRow]:
        """What became of every answer and every criterion; the tokens of the grader."""
        rows = []
        first = self.runs[0].result
        for group in ("answers", "criteria"):
            for name in first[group]:
                label = group
                is_share = name != "all"
                if is_share:
                    label = name.replace("_", " ")
                counts = self._counts(group, name)
                row = AccountRow(label, counts, is_share)
                rows.append(row)
        for kind in ("prompt", "cached", "completion"):
            label = f"grader tokens, {kind}"
            name = f"grader_{kind}"
            counts = self._counts("tokens", name)
            row = AccountRow(label, counts, is_share=False)
            rows.append(row)
        return rows

    def _counts(self, group: str, name: str) -> list[int]:
        return [run.result[group][name] for run in self.runs]

    def lowest(self, count: int) -> list[str]:
        """The prompts to which the last run has the lowest mean scores."""
        last = self.runs[-1]
        scored = []
        for prompt_id in self.places:
            value = last.score(prompt_id)
            if value is not None:
                scored.append((value, prompt_id))
        scored.sort()
        lowest = scored[:count]
        return [prompt_id for _, prompt_id in lowest]

    def index(self) -> Iterator[tuple]:
        """Per prompt: its id, theme, question, and its mean score in each run."""
        for prompt_id in self.places:
            theme = question = ""
            scores = []
            for run in self.runs:
                tally = run.prompts.get(prompt_id)
                if tally:
                    theme = theme or tally.theme
                    question = question or tally.question
                scores.append(run.score(prompt_id))
            yield prompt_id, theme, question, scores

    def examples(self, prompt_ids: Iterable[str]) -> Iterator[dict]:
        """Everything about these prompts, as `run_view.example`, one in memory at a time."""
        for prompt_id in prompt_ids:
            yield example(prompt_id, self.runs)


def _mean(run: RunView, tag: str) -> Mean | None:
    if tag not in run.summary.metrics:
        return None
    summary = run.summary
    value, interval = summary.mean(tag)
    values = summary.metric(tag).values
    return Mean(value, interval, answers=len(values))
