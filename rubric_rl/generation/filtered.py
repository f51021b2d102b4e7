"""What the filters make of a graded prompt: a rubric, or the reason why there is none."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from rubric_rl.data.schema import Row
from rubric_rl.generation.filters import Change, Filters, Log
from rubric_rl.generation.graded import GradedCriterion, GradedPrompt
from rubric_rl.generation.verdict_filters import by_verdicts


@dataclass(frozen=True)
class FilteredPrompt:
    """A graded prompt with the criteria that are kept, and every change that led there."""

    graded: GradedPrompt
    kept: list[GradedCriterion]
    changes: list[Change]  # of all filters, in their order
    left_out: str  # why it gets no rubric; "" where it gets one

    def change_of(self, graded: GradedCriterion) -> Change | None:
        """What a filter by verdicts said of a criterion; None for one that is kept."""
        for change in self.changes:
            if change.criterion is graded.criterion:
                return change
        return None

    def row(self, made_by: dict) -> Row:
        """The row to train on, with its provenance: `made_by` is the part that all rows share."""
        graded = self.graded
        answers = []
        for answer in graded.answers[: graded.candidates]:
            digest = hashlib.sha256(answer.text.encode(errors="replace")).hexdigest()
            answers.append({"by": answer.by, "seed": answer.seed, "sha256": digest})
        changed = defaultdict(list)
        for change in self.changes:
            changed[change.filter].append(change.criterion.text)
        provenance = made_by | {
            "prompt_sha256": graded.prompt_sha256,
            "reference": bool(graded.reference),
            "writer_seeds": [draft["seed"] for draft in graded.drafts],
            "answers": answers,
            "filtered": dict(changed),
        }
        rubric = tuple(each.criterion for each in self.kept)
        extra = graded.row.extra | {"provenance": provenance}
        return replace(graded.row, rubric=rubric, extra=extra)


def filtered(graded: GradedPrompt, filters: Filters) -> FilteredPrompt:
    """The prompt after all filters. Without a positive criterion it has no score, so no rubric."""
    log = Log(list(graded.changes))
    if graded.left_out:
        return FilteredPrompt(graded, [], log.changes, graded.left_out)
    kept = by_verdicts(graded.criteria, graded.candidates, filters, log)
    left_out = ""
    if not any(each.criterion.points > 0 for each in kept):
        counts = Counter(change.filter for change in log.changes)
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        left_out = f"no positive criterion is left ({found or 'none was written'})"
    return FilteredPrompt(graded, kept, log.changes, left_out)
