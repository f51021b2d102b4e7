"""A generation as one HTML page: each rubric beside the answers that it separates.

As in the report of a run, every text of a model or a file is escaped by the template.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from rubric_rl.generation.filtered import FilteredPrompt
from rubric_rl.generation.filters import FILTERS
from rubric_rl.generation.graded import GradedCriterion
from rubric_rl.generation.quality import FIGURES, RUBRICS, earned_points
from rubric_rl.generation.read_draft import FAULTS
from rubric_rl.grading.score import possible_points
from rubric_rl.report.html_page import digest_of, own_text
from rubric_rl.report.jinja_environment import jinja_environment

_MARKS = {
    True: ("met", "✓"),
    False: ("unmet", "·"),
    None: ("odd", "?"),
}


def generation_page(
    result: dict, prompts: Iterable[FilteredPrompt], most: int, title: str
) -> Iterator[str]:
    """The page in pieces: the result, and the first `most` prompts, one in memory at a time."""
    style = own_text("page.css") + own_text("generation.css")
    template = jinja_environment().get_template("generation.html.jinja")
    return template.generate(
        title=title,
        result=result,
        prompts=map(prompt_view, islice(prompts, most)),
        most=most,
        filters=FILTERS,
        faults=FAULTS,
        figures=FIGURES,
        rubrics=RUBRICS,
        style=style,
        style_digest=digest_of(style),
    )


def prompt_view(prompt: FilteredPrompt) -> dict[str, Any]:
    """What the page shows of a prompt: its answers from best to worst, by the kept criteria."""
    graded = prompt.graded
    kept = prompt.kept
    places = sorted(
        range(graded.candidates), key=lambda place: earned_points(kept, place), reverse=True
    )
    possible = possible_points(each.criterion for each in kept)
    answers = []
    for number, place in enumerate(places, 1):
        score = earned_points(kept, place) / possible if possible > 0 else None
        answer = graded.answers[place]
        answers.append({"number": number, "by": answer.by, "text": answer.text, "score": score})
    by_points = sorted(kept, key=lambda each: each.criterion.points, reverse=True)
    dropped = [each for each in graded.criteria if prompt.change_of(each)]
    return {
        "prompt_id": graded.prompt_id,
        "messages": graded.row.messages,
        "reference": graded.reference,
        "left_out": prompt.left_out,
        "answers": answers,
        "kept": [_criterion(each, places) for each in by_points],
        "dropped": [
            _criterion(each, places) | {"change": prompt.change_of(each)} for each in dropped
        ],
        "changes": graded.changes,  # by wording
    }


def _criterion(each: GradedCriterion, places: list[int]) -> dict[str, Any]:
    marks = [_MARKS[each.mets[place]] for place in places]
    return {"text": each.criterion.text, "points": each.criterion.points, "marks": marks}
