"""What records add up to: the reference's numbers by hand, and what stands beside them."""

import pytest
from doubles.records import made
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.data.schema import TokenCounts
from rubric_rl.evaluation.summary import ADJUSTED, OVERALL, Summary, paired
from rubric_rl.evaluation.tables import comparison_lines, summary_lines

RECORDS = [
    # (5 - 4) / 8; accuracy (5 - 4) / 5, completeness 0 / 3
    made("p", (5, 3, -4), (True, False, True), index=0),
    # (3 - 4) / 8, below 0; accuracy -4 / 5, completeness 1
    made("p", (5, 3, -4), (False, True, True), index=1),
    # 4 / 6; accuracy 1; completeness has no positive points: missing
    made("q", (6, -2), (True, True), theme="u"),
    # 2 / 4; unreadable counts as not met
    made("r", (2, 2), (None, True), theme="u", answer="a" * 4000),
    made("s", (2, 2), (), status="ungraded"),
    made("t", (1,), (), status="no_answer", answer=None),
]
OVERALL_BY_HAND = [1 / 8, -1 / 8, 4 / 6, 1 / 2, 0.0]


@pytest.fixture(scope="module")
def result():
    return Summary(RECORDS).result({"grader": (2, 0.5, 8)})


@pytest.mark.parametrize(
    "name, values",
    [
        (OVERALL, OVERALL_BY_HAND),
        ("theme:t", [1 / 8, -1 / 8, 0.0]),
        ("theme:u", [4 / 6, 1 / 2]),
        ("axis:accuracy", [1 / 5, -4 / 5, 1.0, 0.0, 0.0]),
        ("axis:completeness", [0.0, 1.0, 1.0]),
    ],
)
def test_the_reference_figures_by_hand(result, name, values):
    mean = max(sum(values) / len(values), 0)
    assert result["reference"][name] == pytest.approx(mean, abs=1e-12)
    assert result["reference"][f"{name}:n_samples"] == len(values)


def test_a_mean_below_0_is_clipped_and_kept_beside():
    low = Summary([made("p", (1, -3), (True, True))]).result()
    assert low["reference"][OVERALL] == 0
    assert low["beside"]["mean_unclipped"] == -2


def test_nothing_of_ours_is_mixed_into_the_reference(result):
    figures = result["reference"]
    assert not any("length" in name or "interval" in name for name in figures)
    endings = (":n_samples", ":bootstrap_std")
    names = {name.removesuffix(endings[0]).removesuffix(endings[1]) for name in figures}
    assert names == {OVERALL, "theme:t", "theme:u", "axis:accuracy", "axis:completeness"}


def test_worst_at_k_by_hand(result):
    per_prompt = [0.0, 4 / 6, 1 / 2, 0.0]
    assert result["worst_at_k"]["1"] == pytest.approx(sum(per_prompt) / 4, abs=1e-12)
    # only p has two answers: min(1/8, -1/8), clipped
    assert result["worst_at_k"]["2"] == 0.0


def test_length_adjustment_stands_beside(result):
    longer = 1 / 2 - 0.0392 * 2000 / 500
    mean = (1 / 8 - 1 / 8 + 4 / 6 + longer + 0) / 5
    assert result["beside"]["length_adjusted"]["mean_unclipped"] == pytest.approx(mean, abs=1e-12)


def test_an_answer_that_was_never_given_earns_nothing_by_being_short():
    summary = Summary([made("t", (1,), (), status="no_answer", answer=None)])
    assert list(summary.metrics[ADJUSTED].values) == [0.0]


def test_every_answer_and_criterion_is_accounted_for(result):
    assert result["answers"] == {
        "all": 6,
        "graded": 4,
        "no_answer": 1,
        "truncated": 0,
        "too_long": 0,
        "ungraded": 1,
        "without_score": 0,
    }
    criteria = dict(result["criteria"])
    assert criteria.pop("all") == sum(criteria.values()) == 13
    assert criteria == {
        "met": 7,
        "not_met": 2,
        "unreadable": 1,
        "no_answer": 1,
        "truncated": 0,
        "too_long": 0,
        "ungraded": 2,
    }


def test_tokens_and_their_cost_are_added_up(result):
    assert result["tokens"]["grader_prompt"] == 6 * 300
    assert result["tokens"]["policy_prompt"] == 0
    cost = 6 * (120 * 2 + 180 * 0.5 + 21 * 8) / 1e6
    assert result["cost"] == {"grader": round(cost, 4)}
    answered = made("p", (1,), (True,), policy_tokens=TokenCounts(30, 20, 10))
    tokens = Summary([answered, answered]).result()["tokens"]
    kinds = ("policy_prompt", "policy_cached", "policy_completion")
    assert [tokens[kind] for kind in kinds] == [60, 40, 20]


def test_asking_for_a_metric_does_not_make_one():
    summary = Summary()
    assert not summary.metric("theme:none").values
    assert summary.metrics == {}


def test_nothing_graded_is_no_crash():
    empty = Summary([made("s", (2,), (), status="ungraded")]).result()
    assert empty["reference"] == {}
    assert empty["answers"]["ungraded"] == 1
    assert "none: no answer was graded" in "\n".join(summary_lines(empty))


class TestPairedDifference:
    BEFORE = Summary(
        [
            made("p", (4,), (False,)),
            made("q", (4, 4), (True, False)),
            made("x", (1,), (True,)),
        ]
    )
    AFTER = Summary(
        [
            made("p", (4,), (True,), index=0),
            made("p", (4,), (False,), index=1),
            made("q", (4, 4), (True, False)),
        ]
    )

    def test_by_hand(self):
        pair = paired(self.BEFORE, self.AFTER)
        assert pair["prompts"] == 2
        assert (pair["before"], pair["after"], pair["difference"]) == (0.25, 0.5, 0.25)
        assert (pair["better"], pair["equal"], pair["worse"]) == (1, 1, 0)
        assert pair["interval_by_prompt"] == (0.0, 0.5)

    def test_names_what_stands_in_one_run_only(self):
        lines = comparison_lines(self.BEFORE, self.AFTER)
        assert "1 prompts are in one run only" in "\n".join(lines)

    def test_without_common_prompts_there_is_none(self):
        assert paired(Summary(), self.AFTER) is None
        lines = comparison_lines(Summary(RECORDS[4:5]), self.AFTER)
        assert "share no prompt" in "\n".join(lines)

    @given(st.lists(st.booleans(), min_size=1, max_size=6))
    def test_of_a_run_to_itself_is_0(self, mets):
        records = [made(f"p{number}", (2, 1), (met, True)) for number, met in enumerate(mets)]
        summary = Summary(records)
        pair = paired(summary, summary)
        assert pair["difference"] == 0
        assert pair["equal"] == len(mets)
