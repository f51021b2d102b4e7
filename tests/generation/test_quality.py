"""Pair accuracy and agreement with an expert, against values worked out by hand."""

from rubric_rl.data.schema import Criterion, Row
from rubric_rl.generation.graded import GradedCriterion, GradedPrompt, UsedAnswer
from rubric_rl.generation.quality import EXPERT_AGREEMENT, PAIR_ACCURACY, Quality


def criterion(points: float, *mets: bool) -> GradedCriterion:
    return GradedCriterion(Criterion("x", points), mets, (), (None,) * len(mets))


def prompt(**more) -> GradedPrompt:
    row = Row("p", ({"role": "user", "content": "x"},), ())
    return GradedPrompt(row, "", answers=[UsedAnswer("a", "m")] * 5, **more)


def test_a_pair_is_right_when_the_better_answer_gets_more_and_a_tie_is_half():
    pairs = [(2, 3), (4, 3)]
    good, bad = criterion(3, False, True, True, False, False), criterion(-2, True, *[False] * 4)
    quality = Quality()
    quality.add(prompt(candidates=2, pairs=pairs, criteria=[good, bad]), [good])
    figures = quality.result()[PAIR_ACCURACY]
    assert (figures["kept"]["value"], figures["kept"]["pairs"]) == (0.75, 2)
    assert "expert" not in figures


def test_agreement_is_counted_over_the_answers_that_the_expert_tells_apart():
    """The expert ranks answer 1 over 0 and 2, which are equal; the rubric agrees about one."""
    expert = criterion(5, False, True, False)
    rubric = criterion(2, True, True, False)
    quality = Quality()
    quality.add(prompt(candidates=3, criteria=[rubric], expert=[expert]), [rubric])
    figure = quality.result()[EXPERT_AGREEMENT]["kept"]
    assert (figure["value"], figure["pairs"]) == (0.75, 2)


def test_without_known_truth_there_is_no_figure():
    quality = Quality()
    rubric = criterion(2, True, True, False)
    quality.add(prompt(candidates=3, criteria=[rubric]), [rubric])
    assert quality.result() == {}
