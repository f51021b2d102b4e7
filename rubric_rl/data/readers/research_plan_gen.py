"""facebook/research-plan-gen (arXiv 2512.23707); its configurations are ml, arxiv and pubmed.

    {"Goal": "Find whether naps help recall.", "Rubric": ["Has a control group", "Says for whom"],
     "Reference solution": "...", "article_id": "a9", "q_id": "77ab", "Subdomain": "",
     "Category": "Memory", "Identifier": "..."}

Signs: no points are published, each criterion counts 1 and 'met' is always good.
"""

from rubric_rl.data.readers import pieces
from rubric_rl.data.readers.reader import POSITIVE, Reader

_ID_FIELD = "q_id"


def _fits(item: dict) -> bool:
    return "Goal" in item and "Rubric" in item


def read(item: dict) -> dict:
    """The raw row of an item. Raises DataError for one of another form."""
    messages = pieces.question(pieces.text(item, "Goal"))
    rubric = []
    for words in pieces.texts(item.get("Rubric"), "Rubric"):
        rubric.append(pieces.criterion(words, 1))
    return pieces.row(
        item,
        messages,
        rubric,
        _ID_FIELD,
        theme=pieces.label(item.get("Category")),
        example_tags=pieces.named(subdomain=item.get("Subdomain")),
    )


RESEARCH_PLAN_GEN = Reader(
    "research_plan_gen",
    "Goal, Rubric",
    _fits,
    read,
    POSITIVE,
    "CC-BY-NC; Llama's terms",
    id_field=_ID_FIELD,
)
