"""The hooks that see a whole rollout: advantages, what ends a run, metrics."""

import math
import sys
import types
from argparse import Namespace
from types import SimpleNamespace

import pytest
from doubles.engine import FakeEngine, chat_model
from doubles.hooked import NAN, by_answer, hook_args, reward, sample

import self_reward_rm as hooks
from rubric_rl.common.errors import UserError
from rubric_rl.cpu.samples import Sample
from rubric_rl.data.schema import AT_ZERO, Record


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def args(model, tmp_path) -> Namespace:
    return hook_args(model, grader_records=str(tmp_path / "verdicts"))


def rewarded(*rewards, groups=None) -> list[Sample]:
    """One sample per reward, all of one group unless `groups` says otherwise."""
    groups = groups or [0] * len(rewards)
    pairs = zip(rewards, groups, strict=True)
    return [sample(number, group, reward=value) for number, (value, group) in enumerate(pairs)]


class TestPostProcess:
    def test_normalises_each_group_over_its_graded_members(self, args):
        samples = rewarded(0.0, 1.0, NAN, 0.2, 0.2, NAN, groups=[0, 0, 0, 1, 1, 1])
        raw, advantages = hooks.post_process(args, samples)
        assert advantages == pytest.approx([-0.70710578, 0.70710578, 0, 0, 0, 0], abs=1e-6)
        removed = [one.remove_sample for one in samples]
        assert removed == [False, False, True, False, False, True]
        logged = "the logged mean is that of the graded"
        assert raw == pytest.approx([0.0, 1.0, 0.35, 0.2, 0.2, 0.35]), logged

    def test_reads_the_reward_key_and_the_std_switch(self, args):
        args.reward_key, args.grpo_std_normalization = "score", False
        _, advantages = hooks.post_process(args, rewarded({"score": 0.0}, {"score": 1.0}))
        assert advantages == [-0.5, 0.5]

    def test_keeps_what_another_filter_removed(self, args):
        samples = rewarded(0.0, 1.0)
        samples[0].remove_sample = True
        hooks.post_process(args, samples)
        assert [one.remove_sample for one in samples] == [True, False]

    def test_with_nothing_graded_there_is_one_clear_error(self, args):
        samples = rewarded(NAN, None)
        complaint = "no answer of this rollout could be graded: "
        with pytest.raises(UserError, match=complaint + "rows carry no rubrics"):
            hooks.post_process(args, samples)
        failed = Record("p0", (), "ungraded", "Hello.", error="http://h: HTTP 404")
        samples[1].metadata["grading"] = failed.to_json()
        with pytest.raises(UserError, match=complaint + "http://h: HTTP 404"):
            hooks.post_process(args, samples)

    def test_a_cut_or_missing_answer_gains_nothing_on_poor_ones(self, args):
        """Three poor answers and one that rambles to the limit got -0.5 -0.5 -0.5 +1.5."""
        samples = rewarded(-0.46, -0.46, -0.46, 0.0)
        for status in AT_ZERO:
            cut = Record("p0", (), status, "Hello and", score=0.0)
            samples[3].metadata = samples[3].metadata | {"grading": cut.to_json()}
            raw, advantages = hooks.post_process(args, samples)
            assert advantages == [0.0] * 4
            assert raw == [-0.46, -0.46, -0.46, 0.0]
            assert not hooks.keep_informative(args, samples)

    @pytest.mark.parametrize("most, ends", [(0.5, True), (0.75, False)])
    def test_too_many_ungraded_answers_end_the_run(self, args, most, ends):
        """An ungraded answer is out of the loss: that must not shield the bad ones."""
        samples = rewarded(0.0, NAN, NAN, NAN)
        graded = Record("p0", (), "graded", "Hello.", score=0.0)
        samples[0].metadata = samples[0].metadata | {"grading": graded.to_json()}
        failed = Record("p0", (), "ungraded", "Hello.", error="the filter withholds the reply")
        for one in samples[1:]:
            one.metadata = one.metadata | {"grading": failed.to_json()}
        args.grader_most_ungraded = most
        if not ends:
            hooks.post_process(args, samples)
            return
        with pytest.raises(UserError, match=r"3 of 4 answers .* ungraded, .* filter withholds"):
            hooks.post_process(args, samples)

    def test_a_score_without_a_call_is_no_sign_of_a_grader(self, args):
        samples = rewarded(0.0, NAN)
        cut = Record("p0", (), "truncated", "Hello and", score=0.0)
        failed = Record("p0", (), "ungraded", "Hello.", error="http://h: HTTP 404")
        samples[0].metadata["grading"] = cut.to_json()
        samples[1].metadata["grading"] = failed.to_json()
        with pytest.raises(UserError, match="could be graded: http://h: HTTP 404"):
            hooks.post_process(args, samples)
        samples[1].metadata["grading"] = cut.to_json()
        samples[1].reward = 0.0
        assert hooks.post_process(args, samples) == ([0.0, 0.0], [0.0, 0.0])


@pytest.mark.parametrize(
    "rewards, kept",
    [
        ((0.0, 1.0), True),
        ((0.5, 0.5), False),
        ((0.5, NAN), False),
        ((0.5, NAN, 0.6), True),
        ((NAN, NAN), True),  # or a grader that is gone would be asked without end
    ],
)
def test_only_groups_that_teach_something_are_kept(args, rewards, kept):
    group = rewarded(*rewards)
    assert hooks.keep_informative(args, group) is kept
    fanned_out = [[one, one] for one in group]
    assert hooks.keep_informative(args, fanned_out) is kept


class TestLogs:
    @pytest.fixture
    def samples(self, args) -> list[Sample]:
        """Two groups of two; the first has an impolite answer."""
        impolite = sample(1, response="Go away.")
        samples = [sample(0), impolite, sample(2, group=1), sample(3, group=1)]
        values = reward(FakeEngine(by_answer), args, samples)
        for one, value in zip(samples, values, strict=True):
            one.reward = value
        return samples

    def test_a_rollout_shows_the_rewards_parts_and_the_cost(self, args, samples):
        metrics = {"rollout/other": 1}
        assert hooks.log_rollout(0, args, samples, metrics, 1.0) is False
        assert metrics["grading/zero_variance_groups"] == 0.5
        assert metrics["grading/theme/t"] == pytest.approx(4.5 / 8)
        names = {name.removeprefix("grading/") for name in metrics}
        assert names >= {
            "axis/accuracy",
            "negative_hit",
            "unreadable",
            "ungraded",
            "no_answer",
            "truncated",
            "tokens_prefilled",
            "tokens_cached",
            "tokens_decoded",
            "cached_share_after_first",
            "seconds_per_answer",
        }
        assert all(isinstance(value, (int, float)) for value in metrics.values())
        assert all(math.isfinite(value) for value in metrics.values())

    @pytest.mark.parametrize("replayed, logged", [(None, 1), ("rollout_{rollout_id}.pt", 0)])
    def test_where_slime_has_no_place_for_them_its_own_loggers_get_them(
        self, args, samples, monkeypatch, replayed, logged
    ):
        """Its fully asynchronous rollout hands over no metrics; what is replayed is not logged."""
        told = []
        module = types.ModuleType("slime.observability.rollout_metrics")
        module.compute_rollout_step = lambda args, rollout_id: 100 + rollout_id
        log = SimpleNamespace(log=lambda args, metrics, step_key: told.append((metrics, step_key)))
        module.logging_utils = log
        monkeypatch.setitem(sys.modules, module.__name__, module)
        args.load_debug_rollout_data = replayed
        assert hooks.log_rollout(7, args, samples, None, 1.0) is False
        assert len(told) == logged
        for metrics, step_key in told:
            assert metrics[step_key] == 107
            assert metrics["grading/theme/t"] == pytest.approx(4.5 / 8)

    @pytest.mark.parametrize("extra_metrics", [None, {}])
    def test_an_evaluation_leaves_ungraded_answers_out_of_its_mean(
        self, args, samples, extra_metrics
    ):
        result = {"rewards": [0.75, NAN, 0.0], "truncated": [False] * 3, "samples": samples[:2]}
        data = {"hard": result}
        assert hooks.log_eval(0, args, data, extra_metrics) is False
        assert data["hard"]["rewards"] == [0.75, 0.0]
        if extra_metrics is None:  # slime logs the mean of each set
            assert data["hard/grading/unreadable"]["rewards"] == [0.0]
        else:
            assert list(data) == ["hard"]
            assert extra_metrics["eval/hard/grading/unreadable"] == 0.0

    def test_an_evaluation_without_any_grade_has_a_mean_that_is_nan(self, args):
        data = {"hard": {"rewards": [NAN, NAN]}}
        hooks.log_eval(0, args, data, None)
        rewards = data["hard"]["rewards"]
        assert math.isnan(sum(rewards) / len(rewards))

    def test_an_answer_that_slime_has_aborted_has_no_reward_and_counts_as_ungraded(self, args):
        """Its generate_and_rm asks for none, in an evaluation too."""
        aborted = Sample(metadata=None, reward=None, status=Sample.Status.ABORTED)
        data = {"hard": {"rewards": [1.0, None], "samples": [aborted]}}
        assert hooks.log_eval(0, args, data, {}) is False
        assert data["hard"]["rewards"] == [1.0]

    @pytest.mark.parametrize("samples", [[], [Sample(metadata=None, reward=NAN)]])
    def test_a_rollout_without_rubrics_is_logged_all_the_same(self, args, samples):
        assert hooks.log_rollout(0, args, samples, {}, 1.0) is False
