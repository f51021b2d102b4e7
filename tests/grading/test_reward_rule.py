"""The rules of the training reward against answers that fool the grader, by hand and by their laws.

What no rule may do: pay for a verdict that is unreadable or lacks its probability.
"""

from dataclasses import replace

import pytest
from doubles.engine import FakeEngine, Say, chat_model, grader_settings
from doubles.hooked import hook_args, record_of, reward, sample
from doubles.records import made
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import UserError
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import UNREADABLE, Criterion, Record, Verdict
from rubric_rl.data.training_settings import RewardRule
from rubric_rl.evaluation.rollout_metrics import grading_metrics
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.grading.graders import Graders
from rubric_rl.grading.score import (
    apply_rule,
    compared_rewards,
    dropped,
    length_cost,
    met_share,
    score,
)
from rubric_rl.grading.verdict import read_token

GOOD, BAD = Criterion("Greets.", 1), Criterion("Insults.", -1)
SOFT = RewardRule(reward="probability")
PROBABILITIES = st.floats(0, 1)
THRESHOLDS = st.floats(0.5, 0.999)
CRITERIA = st.sampled_from([GOOD, BAD])
NEEDING = st.one_of(st.just(SOFT), THRESHOLDS.map(lambda t: RewardRule(threshold=t)))


def credit(criterion: Criterion, verdict: Verdict, rule: RewardRule) -> float:
    """What the verdict is worth to the answer, from 0 to 1."""
    share = met_share(criterion, verdict, rule)
    return share if criterion.points > 0 else 1 - share


def training(points: tuple, verdicts: list[Verdict] | None = None, **more) -> Record:
    """A graded training answer."""
    record = made("p", points, (True,) * len(points), **{"split": "train"} | more)
    if verdicts is not None:
        record.verdicts = verdicts
    return record


class TestThreshold:
    @pytest.mark.parametrize(
        "criterion, probability, mass, expected",
        [
            (GOOD, 0.8, 1.0, True),  # from the threshold on
            (GOOD, 0.79, 1.0, False),
            (GOOD, 0.9, 0.8, False),  # 0.72 of all words
            (BAD, 0.19, 1.0, False),
            (BAD, 0.25, 1.0, True),  # met from one minus the threshold on
            (BAD, 0.1, 0.8, True),  # "not met" has 0.72 of all words
        ],
    )
    def test_by_hand(self, criterion, probability, mass, expected):
        verdict = read_token(probability, mass)
        assert met_share(criterion, verdict, RewardRule(threshold=0.8)) == expected

    @given(PROBABILITIES, PROBABILITIES, CRITERIA)
    def test_of_one_half_is_the_verdict(self, probability, mass, criterion):
        verdict = read_token(probability, mass)
        rule = RewardRule(threshold=0.5)
        assert met_share(criterion, verdict, rule) == met_share(criterion, verdict)

    @given(PROBABILITIES, PROBABILITIES, CRITERIA, THRESHOLDS, THRESHOLDS)
    def test_a_higher_one_never_pays_more(self, probability, mass, criterion, one, other):
        verdict = read_token(probability, mass)
        low, high = (RewardRule(threshold=value) for value in sorted((one, other)))
        assert credit(criterion, verdict, high) <= credit(criterion, verdict, low)


class TestSoftReward:
    @pytest.mark.parametrize(
        "criterion, probability, mass, expected",
        [(GOOD, 0.8, 0.5, 0.4), (BAD, 0.8, 0.5, 0.9), (GOOD, 0.3, 1.0, 0.3), (BAD, 0.0, 1.0, 0.0)],
    )
    def test_by_hand(self, criterion, probability, mass, expected):
        share = met_share(criterion, read_token(probability, mass), SOFT)
        assert share == pytest.approx(expected)

    @given(PROBABILITIES, PROBABILITIES, CRITERIA)
    def test_pays_at_most_the_belief_and_loses_by_other_words(self, probability, mass, criterion):
        belief = probability if criterion.points > 0 else 1 - probability
        paid = credit(criterion, read_token(probability, mass), SOFT)
        # 1 - (1 - x) rounds
        assert -1e-12 <= paid <= belief + 1e-12
        assert paid == pytest.approx(belief * mass)

    @given(st.lists(st.tuples(st.integers(-9, 9).filter(bool), PROBABILITIES), min_size=1))
    def test_stays_within_the_bounds_of_the_plain_score(self, items):
        rubric = [Criterion("c", 5), *(Criterion("c", points) for points, _ in items)]
        verdicts = [read_token(0.5), *(read_token(value) for _, value in items)]
        worst = [Verdict(criterion.points < 0) for criterion in rubric]
        best = [Verdict(criterion.points > 0) for criterion in rubric]
        value = score(rubric, verdicts, SOFT)
        assert score(rubric, worst) - 1e-9 <= value <= score(rubric, best) + 1e-9

    def test_a_reply_that_had_to_be_finished_earns_no_part_of_what_it_does_not_say(self):
        """Else refusing, and being read at 0.45 afterwards, would pay 0.45."""
        not_met = replace(read_token(0.45), finished=True)
        assert credit(GOOD, not_met, SOFT) == 0
        assert credit(GOOD, replace(not_met, finished=False), SOFT) == 0.45


@given(CRITERIA, NEEDING, st.sampled_from([True, False, None]))
def test_a_verdict_without_a_probability_never_pays(criterion, rule, met):
    assert credit(criterion, Verdict(met), rule) == 0


@given(CRITERIA, NEEDING, PROBABILITIES, PROBABILITIES)
def test_no_rule_pays_more_for_a_less_certain_verdict(criterion, rule, one, other):
    low, high = sorted((one, other))
    less, more = (low, high) if criterion.points > 0 else (high, low)
    paid_less = credit(criterion, read_token(less), rule)
    assert paid_less <= credit(criterion, read_token(more), rule) + 1e-12


class TestDropout:
    RULE = RewardRule(dropout=0.5)

    def test_is_the_same_in_a_group_and_another_in_the_next(self):
        points = (1,) * 12
        answers = [training(points, group=7, index=index, answer="a" * index) for index in range(8)]
        (mask,) = {tuple(dropped(answer, self.RULE)) for answer in answers}
        others = {tuple(dropped(training(points, group=g), self.RULE)) for g in range(20)}
        assert mask and len(others) > 10

    def test_has_a_seed(self):
        record = training((1,) * 12, group=7)
        masks = [dropped(record, RewardRule(dropout=0.5, dropout_seed=seed)) for seed in (0, 0, 1)]
        assert masks[0] == masks[1] != masks[2]

    def test_leaves_out_each_positive_criterion_equally_often(self):
        counts = [0] * 10
        for group in range(2000):
            for place in dropped(training((1,) * 10, group=group), RewardRule(dropout=0.3)):
                counts[place] += 1
        assert all(0.26 < count / 2000 < 0.34 for count in counts), counts

    @given(st.lists(st.integers(-9, 9).filter(bool), min_size=1), st.integers(0, 99))
    def test_keeps_three_positive_criteria_and_every_negative_one(self, points, group):
        record = training((*points, 1), group=group)
        out = dropped(record, RewardRule(dropout=0.99))
        positive = [place for place, c in enumerate(record.rubric) if c.points > 0]
        assert set(out) <= set(positive)
        assert len(positive) - len(out) >= min(3, len(positive))

    def test_never_touches_an_evaluation(self):
        assert dropped(made("p", (1,) * 12, (True,) * 12, group=7), self.RULE) == []

    def test_the_reward_is_the_score_of_what_stays(self):
        record = training((1,) * 8 + (-2,), group=3)
        apply_rule(record, self.RULE)
        kept = 8 - len(record.rule["dropped"])
        assert record.score == (kept - 2) / kept


class TestLength:
    RULE = RewardRule(length_limit=1000, length_cost=0.1)

    @pytest.mark.parametrize("characters, cost", [(0, 0), (1000, 0), (1250, 0.05), (2000, 0.2)])
    def test_costs_by_the_characters_beyond_the_limit(self, characters, cost):
        record = training((1,), answer="a" * characters)
        assert length_cost(record, self.RULE) == pytest.approx(cost)

    @given(st.integers(0, 9000), st.integers(0, 9000))
    def test_never_pays_and_never_less_for_more(self, one, other):
        short, long = (training((1, -3), answer="a" * size) for size in sorted((one, other)))
        assert 0 <= length_cost(short, self.RULE) <= length_cost(long, self.RULE)

    @given(st.lists(st.integers(0, 9000), min_size=1, max_size=6))
    def test_a_cut_answer_stays_at_most_the_worst_of_its_group(self, sizes):
        rewards = []
        for size in sizes:
            record = training((1,), answer="a" * size)
            apply_rule(record, self.RULE)
            rewards.append(record.score)
        answered = [True] * len(sizes) + [False]
        compared = compared_rewards([*rewards, 0.0], answered, [0] * len(answered))
        assert compared[-1] <= min(rewards)


RULES = st.builds(
    RewardRule,
    threshold=st.sampled_from([0.0, 0.5, 0.8]),
    dropout=st.sampled_from([0.0, 0.5]),
    length_limit=st.just(1000),
    length_cost=st.sampled_from([0.0, 0.1]),
)


@given(st.one_of(RULES, st.just(SOFT)), st.lists(PROBABILITIES, min_size=1), st.integers(0, 9))
def test_rescore_gives_the_very_reward_of_the_run(rule, probabilities, group):
    """By the same rule, and by the one that the record names; by the plain one the plain score."""
    points = [3, *((-1) ** place * (place + 1) for place in range(len(probabilities)))]
    verdicts = [read_token(0.7), *map(read_token, probabilities)]
    record = training(tuple(points), verdicts, group=group)
    plain = score(record.rubric, record.verdicts)
    apply_rule(record, rule)
    stored = record_from_json(record.to_json())
    assert stored == record
    assert ScoringRule(reward=rule).score(stored) == record.score
    assert ScoringRule(recorded=True).score(stored) == record.score
    assert ScoringRule().score(stored) == plain


def test_a_record_says_itself_what_was_left_out():
    record = training((1, 2, 4, 8, 16), [Verdict(True)] * 5, rule={"dropout": 0.5, "dropped": [4]})
    record.verdicts[0] = Verdict(False)
    assert ScoringRule(recorded=True).score(record) == 14 / 15


@given(st.one_of(RULES, st.just(SOFT)), st.lists(st.sampled_from([True, False]), min_size=4))
def test_losing_a_verdict_never_pays_by_any_rule(rule, mets):
    points = (2, *((-1) ** place for place in range(len(mets))))
    verdicts = [read_token(0.9), *(read_token(0.9 if met else 0.1) for met in mets)]
    honest, lost = training(points, verdicts), training(points, [UNREADABLE] * len(points))
    for record in (honest, lost):
        apply_rule(record, rule)
    assert lost.score <= honest.score


class TestSettings:
    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"mode": "explain", "threshold": 0.8}, "grader_mode explain reads none"),
            ({"mode": "checklist", "reward": "probability"}, "grader_mode checklist reads none"),
            ({"mode": "cascade", "threshold": 0.8}, "grader_mode cascade reads none"),
            ({"mode": "direct", "threshold": 0.3}, "threshold 0.3 must be 0 or at least 0.5"),
            ({"mode": "direct", "threshold": 0.8, "reward": "probability"}, "choose one"),
            ({"length_limit": 500}, "costs nothing without grader_length_cost"),
        ],
    )
    def test_that_cannot_work_are_refused(self, settings, message):
        with pytest.raises(UserError, match=message):
            grader_settings(**settings)

    @pytest.mark.parametrize("mode", ["explain", "cascade"])
    def test_words_with_a_probability_give_what_a_rule_needs(self, mode):
        chosen = grader_settings(mode=mode, verdict="probability", threshold=0.8)
        assert chosen.rule.threshold == 0.8

    def test_a_teacher_must_give_what_the_rule_needs_and_has_none_of_its_own(self, tmp_path):
        teacher = tmp_path / "teacher.yaml"
        more = {"grader_teacher": str(teacher), "grader_teacher_share": 0.5}
        rule = {"grader_mode": "direct", "grader_threshold": 0.8}
        model = chat_model(tmp_path)
        args = hook_args(model, sglang_config=None, **more, **rule)
        teacher.write_text("grader_url: http://h\ngrader_api: openai\ngrader_model: m\n")
        with pytest.raises(UserError, match=r"teacher.yaml: .*grader_mode explain reads none"):
            Graders(args, lambda: False)
        teacher.write_text("grader_url: http://h\ngrader_dropout: 0.5\n")
        with pytest.raises(UserError, match="the rule of the reward is the run's"):
            Graders(args, lambda: False)


class TestHook:
    def test_rewards_training_by_the_rule_and_evaluation_by_the_plain_score(self, tmp_path):
        model = chat_model(tmp_path)
        args = hook_args(model, grader_mode="direct", grader_threshold=0.9)
        engine = FakeEngine(Say(true=0.8, false=0.2))
        trained, evaluated = sample(0, group=4), sample(1, group=None)
        rewards = reward(engine, args, [trained, evaluated])
        # 6, -4 and 2 points, all said to be met at 0.8
        assert rewards == [-4 / 8, 4 / 8]
        record = record_of(trained)
        assert (record.rule, record.group) == ({"threshold": 0.9}, 4)
        assert record_of(evaluated).rule == {}
        metrics = grading_metrics([record])
        assert metrics["plain_score"] == metrics["theme/t"] == 4 / 8


def test_an_older_record_has_no_rule():
    item = training((1,)).to_json()
    del item["rule"], item["group"]
    record = record_from_json(item)
    assert (record.rule, record.group) == ({}, None)
    assert ScoringRule(recorded=True).score(record) == 1.0


def test_a_rule_that_is_not_known_is_refused():
    record = training((1,), rule={"charm": 1})
    with pytest.raises(UserError, match="charm"):
        ScoringRule(recorded=True).score(record)
