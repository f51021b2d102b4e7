"""Each filter drops what it is for, keeps the rest, and says so."""

from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import Criterion
from rubric_rl.generation.filters import OFF, Filters, Log
from rubric_rl.generation.graded import GradedCriterion
from rubric_rl.generation.verdict_filters import (
    agreements,
    by_verdicts,
    changed_share,
    right_sign_probabilities,
)
from rubric_rl.generation.wording_filters import by_wording

T, F = True, False


def only(**changes) -> Filters:
    """All filters off but these."""
    return OFF.model_copy(update=changes)


def worded(filters: Filters, *criteria: tuple[str, float]) -> tuple[list, list]:
    """(text, points) of what is kept, and (filter, text) of each change."""
    log = Log()
    kept = by_wording([Criterion(*each) for each in criteria], filters, log)
    changes = [(change.filter, change.criterion.text) for change in log.changes]
    return [(each.text, each.points) for each in kept], changes


def graded(points: float, mets: list, *further: list, text: str = "") -> GradedCriterion:
    unknown = (None,) * len(mets)
    name = text or f"{points} {mets}"
    return GradedCriterion(
        Criterion(name, points), tuple(mets), tuple(map(tuple, further)), unknown
    )


def judged(filters: Filters, *criteria: GradedCriterion) -> tuple[list, list[str]]:
    log = Log()
    kept = by_verdicts(criteria, len(criteria[0].mets), filters, log)
    return kept, [change.filter for change in log.changes]


class TestByWording:
    COMPOUND = ("Recommends to rest and suggests to drink water", 6)

    def test_a_compound_criterion_becomes_several_that_share_its_points(self):
        kept, changes = worded(only(split=True), self.COMPOUND)
        assert kept == [("Recommends to rest.", 3), ("Suggests to drink water.", 3)]
        assert changes == [("split", self.COMPOUND[0])]

    def test_points_against_a_plain_wording_are_turned_or_the_criterion_goes(self):
        wrong = ("Fails to name the dose", 4)
        assert worded(only(polarity="turn"), wrong)[0] == [("Fails to name the dose", -4)]
        kept, changes = worded(only(polarity="drop"), wrong, ("Names the dose", 4))
        assert (kept, changes) == ([("Names the dose", 4)], [("polarity", wrong[0])])

    def test_the_same_criterion_fifty_times_is_one_the_heaviest(self):
        same = [("Names the dose", 3)] * 49 + [("names  the dose.", 5)]
        kept, changes = worded(only(duplicates=True), *same)
        assert kept == [("names  the dose.", 5)]
        assert len(changes) == 49

    def test_switched_off_they_keep_everything_as_it_was_written(self):
        criteria = [self.COMPOUND, ("Fails to name the dose", 4), self.COMPOUND]
        assert worded(OFF, *criteria) == (criteria, [])


class TestByVerdicts:
    def test_what_every_answer_meets_goes_and_what_none_meets(self):
        always, never, some = (graded(1, mets) for mets in ([T, T], [F, F], [T, F]))
        assert judged(only(always_met=True), always, never, some) == ([never, some], ["always_met"])
        assert judged(only(never_met=True), always, never, some) == ([always, some], ["never_met"])

    def test_an_unreadable_verdict_says_neither(self):
        assert judged(only(always_met=True), graded(1, [T, T, None]))[1] == ["always_met"]
        assert judged(only(never_met=True), graded(1, [F, F, None]))[1] == ["never_met"]

    def test_without_readable_verdicts_on_half_of_the_answers_it_cannot_be_used(self):
        half, fewer = graded(1, [T, None]), graded(1, [T, None, None])
        assert judged(OFF, half)[1] == []
        assert judged(OFF, fewer)[1] == ["unreadable"]

    def test_what_changes_from_reading_to_reading_goes(self):
        steady = graded(1, [T, F, T, F, T], [T, F, T, F, F])
        vague = graded(1, [T, F, T, F, T], [F, F, T, T, T])
        kept, changes = judged(only(unsteady=True, most_changes=0.2), steady, vague)
        assert (kept, changes) == ([steady], ["unsteady"])

    def test_where_probabilities_are_known_they_say_how_likely_a_change_is(self):
        def known(*probabilities: float) -> GradedCriterion:
            mets = tuple(p > 0.5 for p in probabilities)
            return GradedCriterion(Criterion("x", 1), mets, (), probabilities)

        assert changed_share(known(0.5, 0.5), 2) == 0.5
        assert changed_share(known(1.0, 0.0), 2) == 0.0
        assert changed_share(graded(1, [T, F]), 2) is None

    def test_what_the_better_answers_miss_goes(self):
        """Ten answers from bad to good; the fourth criterion has the wrong sign."""
        good = [graded(4, [F] * cut + [T] * (10 - cut)) for cut in (4, 5, 6)]
        wrong = graded(9, [T] * 6 + [F] * 4)
        kept, changes = judged(only(disagreeing=True), *good, wrong)
        assert (kept, changes) == (good, ["disagreeing"])
        mistake = graded(-9, [T] * 6 + [F] * 4)
        assert judged(only(disagreeing=True), *good, mistake)[1] == []

    def test_where_criteria_have_nothing_to_do_with_each_other_nothing_follows(self):
        assert min(right_sign_probabilities([0.05, -0.05, 0.0, -0.6], 10)) > 0.3

    def test_few_answers_or_criteria_say_nothing(self):
        good, wrong = graded(4, [F, F, T, T]), graded(4, [T, T, F, F])
        assert judged(only(disagreeing=True), good, good, wrong)[1] == []
        good, wrong = graded(4, [F] * 5 + [T] * 5), graded(4, [T] * 5 + [F] * 5)
        assert judged(only(disagreeing=True), good, wrong)[1] == []

    def test_the_lightest_beyond_the_cap_go(self):
        criteria = [graded(points, [T, F]) for points in (1, 5, -3)]
        kept, changes = judged(only(cap=2), *criteria)
        assert ([each.criterion.points for each in kept], changes) == ([5, -3], ["cap"])

    def test_negative_points_never_outweigh_their_share(self):
        criteria = [graded(points, [T, F]) for points in (4, -1, -3, -2)]
        kept, changes = judged(only(balance=0.5), *criteria)
        assert ([each.criterion.points for each in kept], changes) == ([4, -3], ["balance"] * 2)

    def test_answers_of_known_pairs_are_not_looked_at(self):
        each = graded(1, [T, T, F])
        log = Log()
        assert by_verdicts([each], 2, only(always_met=True), log) == []


MATRIX = st.integers(2, 9).flatmap(
    lambda answers: st.lists(
        st.tuples(
            st.integers(-10, 10).filter(bool),
            st.lists(st.sampled_from([T, F, None]), min_size=answers, max_size=answers),
        ),
        min_size=1,
        max_size=12,
    )
)


@given(MATRIX, st.integers(0, 5), st.floats(0, 1), st.floats(0, 1))
def test_every_criterion_is_kept_or_dropped_once(matrix, cap, balance, least_right):
    criteria = [
        graded(points, mets, text=f"{number}") for number, (points, mets) in enumerate(matrix)
    ]
    log = Log()
    filters = Filters(cap=cap, balance=balance, least_right=least_right)
    kept = by_verdicts(criteria, len(matrix[0][1]), filters, log)
    dropped = [change.criterion.text for change in log.changes]
    texts = [each.criterion.text for each in kept]
    assert sorted(texts + dropped) == sorted(each.criterion.text for each in criteria)
    assert texts == [each.criterion.text for each in criteria if each in kept], "in their order"
    assert not cap or len(kept) <= cap
    points = [each.criterion.points for each in kept]
    negative = -sum(number for number in points if number < 0)
    assert negative <= balance * sum(map(abs, points)) + 1e-9


@given(MATRIX)
def test_a_criterion_s_agreement_depends_on_signs_and_not_on_points(matrix):
    answers = len(matrix[0][1])
    one = agreements([graded(points, mets) for points, mets in matrix], answers)
    heavier = agreements([graded(points * 7, mets) for points, mets in matrix], answers)
    assert one == heavier
    assert all(-1.001 <= value <= 1.001 for value in one)
