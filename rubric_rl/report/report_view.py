"""What a report shows of one run, or of two side by side: all that both of its forms are made of.

Figures stay numbers here; each template writes them in its own way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rubric_rl.evaluation.judge import judge_lines
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.evaluation.summary import OVERALL, paired
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
        self.rule = rule
        self.runs = [RunView(run, rule) for run in runs]
        self.names = [run.name for run in self.runs]
        self.judges = judge_lines([run.judge for run in self.runs])
        self.title = title or "HealthBench report: " + " → ".join(self.names)
        self.paired = None
        if len(self.runs) == 2:
            before, after = self.runs
            self.paired = paired(before.summary, after.summary)
        self.places: dict[str, int] = {}  # prompt_id -> its place in the list of prompts
        for run in self.runs:
            for prompt_id in run.prompts:
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
        return [run.summary.metric(OVERALL).values for run in self.runs]

    def account(self) -> list[AccountRow]:
        """What became of every answer and every criterion; the tokens of the grader."""
        rows = []
        for group in ("answers", "criteria"):
            for name in self.runs[0].result[group]:
                is_share = name != "all"
                label = name.replace("_", " ") if is_share else group
                rows.append(AccountRow(label, self._counts(group, name), is_share))
        for kind in ("prompt", "cached", "completion"):
            counts = self._counts("tokens", f"grader_{kind}")
            rows.append(AccountRow(f"grader tokens, {kind}", counts, is_share=False))
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
        return [prompt_id for _, prompt_id in scored[:count]]

    def index(self) -> Iterator[tuple]:
        """Per prompt: its id, theme, question, and its mean score in each run."""
        for prompt_id in self.places:
            theme, question = "", ""
            for run in self.runs:
                tally = run.prompts.get(prompt_id)
                if tally:
                    theme = theme or tally.theme
                    question = question or tally.question
            scores = [run.score(prompt_id) for run in self.runs]
            yield prompt_id, theme, question, scores

    def examples(self, prompt_ids: Iterable[str]) -> Iterator[dict]:
        """Everything about these prompts, as `run_view.example`, one in memory at a time."""
        for prompt_id in prompt_ids:
            yield example(prompt_id, self.runs)


def _mean(run: RunView, tag: str) -> Mean | None:
    if tag not in run.summary.metrics:
        return None
    value, interval = run.summary.mean(tag)
    answers = len(run.summary.metric(tag).values)
    return Mean(value, interval, answers)
