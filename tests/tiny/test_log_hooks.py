"""The log hooks of the tiny run: the oracle's figures, by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.schema import Criterion, Record, Row, Verdict
from rubric_rl.tiny import log_hooks
from rubric_rl.tiny.log_hooks import log_eval, log_rollout, oracle_metrics
from rubric_rl.tiny.world import rows

ROW = row_from_metadata(
    {
        "prompt_id": "a",
        "messages": [{"role": "user", "content": "b"}],
        "rubrics": [
            {"criterion": "Recommends to drink fluids", "points": 4},
            {"criterion": "Tells the patient to avoid coffee", "points": 4},
            {"criterion": "Recommends to drink coffee", "points": -2},
            {"criterion": "Names as the likely cause flu", "points": 2},
        ],
    }
)


def sample(row: Row, response: str, status: str, score: float, *mets: bool | None):
    """An answer as slime's hooks see it, with its record."""
    record = Record.of(row, status, response, score=score)
    record.verdicts = [Verdict(met) for met in mets]
    metadata = row.to_json()["metadata"] | {"grading": record.to_json()}
    return SimpleNamespace(prompt="", response=response, metadata=metadata)


class TestOracleMetrics:
    def test_against_a_case_by_hand(self):
        says_so = "Please drink fluids. You should drink coffee.<|im_end|>"
        samples = [
            sample(ROW, says_so, "graded", 0.8, True, True, False, None),
            sample(ROW, "Please drink", "truncated", 0.0),
            sample(ROW, "Please drink fluids.", "ungraded", float("nan")),
        ]
        assert oracle_metrics(samples) == {
            "true_score": pytest.approx((0.2 + 0.0) / 2),
            "self_score": pytest.approx((0.8 + 0.0) / 2),
            "grader_accuracy": 0.25,  # fluids alone: the unreadable verdict is wrong too
            "false_positive_rate": 0.5,
            "false_negative_rate": 0.5,
        }

    def test_without_a_case_there_is_no_figure(self):
        assert oracle_metrics([]) == {}
        cut_off = sample(ROW, "Please drink", "truncated", 0.0)
        assert oracle_metrics([cut_off]) == {"true_score": 0.0, "self_score": 0.0}

    def test_an_answer_that_a_vague_criterion_judges_has_no_truth(self):
        vague = replace(ROW, rubric=(*ROW.rubric, Criterion("RECOMMENDS what is good.", 3)))
        mets = (True, True, True, False)
        judged_by_chance = sample(
            vague, "Please drink fluids.<|im_end|>", "graded", 0.8, *mets, True
        )
        assert oracle_metrics([judged_by_chance]) == {}
        told = sample(ROW, "Please drink fluids.<|im_end|>", "graded", 0.8, *mets)
        assert oracle_metrics([told, judged_by_chance]) == oracle_metrics([told])

    def test_a_sample_without_a_record_is_ungraded(self):
        never_graded = SimpleNamespace(prompt="", response="a", metadata={})
        assert oracle_metrics([never_graded]) == {}


class TestHooks:
    @pytest.fixture
    def calls(self, monkeypatch) -> list[str]:
        """The hooks of self_reward_rm that were called; they keep slime's default log."""
        called: list[str] = []
        for name in ("log_rollout", "log_eval"):

            def hook(*arguments, name=name) -> bool:
                called.append(name)
                return False

            monkeypatch.setattr(log_hooks.self_reward_rm, name, hook)
        return called

    @pytest.fixture
    def unmet(self):
        """A sample of the world that rightly scores 0."""
        row = rows(held_out=True)[0]
        return sample(row, "Nothing.<|im_end|>", "graded", 0.0, *[False] * len(row.rubric))

    def test_add_their_figures_to_a_rollout_s(self, calls, unmet):
        metrics: dict = {}
        assert log_rollout(1, None, [unmet], metrics, 2.0) is False
        assert metrics["tiny/grader_accuracy"] == 1.0
        assert metrics["tiny/true_score"] == 0.0
        assert calls == ["log_rollout"]

    def test_add_nothing_where_slime_replays_a_rollout(self, calls, unmet):
        assert log_rollout(1, None, [unmet], None, 2.0) is False
        assert calls == ["log_rollout"]

    def test_add_their_figures_to_each_evaluation_set_s(self, calls, unmet):
        data = {"held_out": {"rewards": [0.0], "samples": [unmet]}}
        metrics: dict = {}
        assert log_eval(1, None, data, metrics) is False
        assert metrics["eval/held_out/tiny/grader_accuracy"] == 1.0
        assert calls == ["log_eval"]

    def test_add_them_as_sets_where_slime_passes_no_metrics(self, calls, unmet):
        data = {"held_out": {"rewards": [0.0], "samples": [unmet]}}
        assert log_eval(1, None, data, None) is False
        assert data["held_out/tiny/true_score"] == {"rewards": [0.0]}
        assert calls == ["log_eval"]
