"""Writes the report of one run, or of two side by side, in both of its forms."""

from collections.abc import Sequence
from pathlib import Path

from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_text
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.report.html_page import html_page, training_page
from rubric_rl.report.markdown import markdown
from rubric_rl.report.report_view import ReportView
from rubric_rl.report.training_view import TrainingView


def write_training_report(save: Path, rule: ScoringRule, out: Path, title: str = "") -> Path:
    """Writes OUT.html, the page of the training run in `save`; returns its path.

    Raises UserError for an `out` that is no name of a file.
    """
    page_path = _beside(out, ".html")
    write_text(page_path, training_page(TrainingView(save, rule, title)))
    return page_path


def write_report(
    runs: Sequence[Run],
    rule: ScoringRule,
    out: Path,
    title: str = "",
    shown: Sequence[str] = (),
    examples: int = 5,
) -> list[Path]:
    """Writes OUT.html and OUT.md for one run, or for two (before, after); returns the two paths.

    The Markdown shows the answers to the prompts `shown`, by default to the `examples` prompts
    with the lowest score. Raises UserError for a prompt_id that no run has, and for an `out` that
    is no name of a file.
    """
    page_path = _beside(out, ".html")
    markdown_path = _beside(out, ".md")
    view = ReportView(runs, rule, title)
    for prompt_id in shown:
        if prompt_id not in view.places:
            first = next(iter(view.places))
            raise UserError(f"no answer to prompt_id {prompt_id}; the first one is {first}")
    write_text(page_path, html_page(view))
    write_text(markdown_path, markdown(view, shown or view.lowest(examples)))
    return [page_path, markdown_path]


def _beside(out: Path, ending: str) -> Path:
    """The file OUT with this ending."""
    if not out.name:
        raise UserError(f"--out {out}: names no file; end it in a name, as in {out / 'report'}")
    return out.with_name(out.name + ending)
