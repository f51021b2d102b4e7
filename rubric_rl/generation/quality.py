"""How good rubrics are, held against known truth: pairs of answers, and experts' rubrics."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from rubric_rl.data.schema import Verdict
from rubric_rl.evaluation.statistics import interval, ratio
from rubric_rl.generation.graded import GradedCriterion, GradedPrompt
from rubric_rl.grading.score import is_met

PAIR_ACCURACY = "pair_accuracy"
EXPERT_AGREEMENT = "expert_agreement"
# What is measured, by its key in result.json.
FIGURES = {
    PAIR_ACCURACY: "known pairs in which the better answer gets more (a tie counts half)",
    EXPERT_AGREEMENT: "pairs of answers that the expert's rubric tells apart, in the same order",
}
# Which rubric, by its key in result.json.
RUBRICS = {
    "before": "all criteria that were tested",
    "kept": "those that the filters kept",
    "expert": "the expert's",
}
_SAME = 1e-9


def earned_points(rubric: Iterable[GradedCriterion], answer: int) -> float:
    """The points that answer number `answer` gets: a score's numerator, which orders alike."""
    earned = []
    for each in rubric:
        if is_met(each.criterion, Verdict(each.mets[answer])):
            earned.append(each.criterion.points)
    return math.fsum(earned)


def _order(rubric: Sequence[GradedCriterion], first: int, second: int) -> float:
    """1 where the first answer gets more points, 0 where the second does, 0.5 for a tie."""
    difference = earned_points(rubric, first) - earned_points(rubric, second)
    if abs(difference) <= _SAME:
        return 0.5
    return 1.0 if difference > 0 else 0.0


class Quality:
    """Adds up prompt by prompt how rubrics order answers; only prompts that got a rubric count."""

    def __init__(self):
        # (figure, rubric) -> (right, pairs) of each prompt
        self._parts: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)

    def add(self, prompt: GradedPrompt, kept: Sequence[GradedCriterion]) -> None:
        """One more prompt and the criteria that it keeps."""
        rubrics: dict[str, Sequence[GradedCriterion]] = {"before": prompt.criteria, "kept": kept}
        told_apart = []
        if prompt.expert:
            for first, second in combinations(range(prompt.candidates), 2):
                order = _order(prompt.expert, first, second)
                if order != 0.5:
                    told_apart.append((first, second) if order == 1 else (second, first))
        for name, rubric in rubrics.items():
            self._add(EXPERT_AGREEMENT, name, rubric, told_apart)
        if prompt.expert:
            rubrics["expert"] = prompt.expert
        for name, rubric in rubrics.items():
            self._add(PAIR_ACCURACY, name, rubric, prompt.pairs)

    def _add(
        self,
        figure: str,
        name: str,
        rubric: Sequence[GradedCriterion],
        pairs: Sequence[tuple[int, int]],
    ) -> None:
        if pairs:
            right = math.fsum(_order(rubric, better, worse) for better, worse in pairs)
            self._parts[figure, name].append((right, len(pairs)))

    def result(self) -> dict:
        """Figure -> rubric -> value with its 95% interval by prompt, pairs, prompts; if any."""
        figures: dict = {}
        for (figure, name), parts in self._parts.items():
            right = math.fsum(part[0] for part in parts)
            pairs = sum(part[1] for part in parts)
            figures.setdefault(figure, {})[name] = {
                "value": right / pairs,
                "interval": interval(np.array(parts), ratio),
                "pairs": pairs,
                "prompts": len(parts),
            }
        return figures
