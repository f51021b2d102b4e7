"""Stored verdicts under other rules: each changes what `score` gets (stage 4)."""

import argparse
import json
import math
import subprocess
import sys

import pytest
from doubles.records import made, write_run
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl import ROOT
from rubric_rl.errors import UserError
from rubric_rl.evaluation import rescore
from rubric_rl.evaluation.scoring_rule import Rule, add_rule_flags, rule_from, tag_scores
from rubric_rl.grading.record import rubric_of
from rubric_rl.grading.score import score

RECORD = made(
    "p", (5, 3, -4, 2), (True, None, None, False)
)  # axes: accuracy 5 and -4, completeness 3 and 2


@pytest.mark.parametrize(
    "rule, value",
    [
        (Rule(), (5 - 4) / 10),
        (Rule(unreadable="not_met"), 5 / 10),
        (Rule(unreadable="met"), (5 + 3 - 4) / 10),
        (Rule(unreadable="left_out"), 5 / 7),
        (Rule(uniform=True), (1 - 1) / 3),
        (Rule(weights=(("axis:accuracy", 2.0),)), (10 - 8) / 15),
        (Rule(only=("axis:accuracy",)), (5 - 4) / 5),
        (Rule(drop=("axis:accuracy",)), 0 / 5),
        (Rule(only=("axis:none",)), math.nan),
        (Rule(penalty=0.1), 0.1),  # 2,000 characters are free
    ],
)
def test_a_rule_by_hand(rule, value):
    assert rule.score(RECORD) == pytest.approx(value, abs=1e-12, nan_ok=True)


def test_clipping_is_by_answer_and_after_the_length_adjustment():
    bad = made("p", (5, -9), (False, True))
    assert (Rule().score(bad), Rule(clip=True).score(bad)) == (-9 / 5, 0.0)
    long = made("p", (5,), (True,), answer="a" * 2500)
    assert Rule(clip=True, penalty=0.1).score(long) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "status, value", [("ungraded", math.nan), ("no_answer", 0.0), ("truncated", 0.0)]
)
@pytest.mark.parametrize(
    "rule", [Rule(), Rule(uniform=True), Rule(unreadable="met"), Rule(penalty=0.1)]
)
def test_what_was_never_asked_stays_0_or_without_a_score(status, value, rule):
    assert rule.score(made("p", (5, -9), (), status=status)) == pytest.approx(value, nan_ok=True)


@given(
    st.lists(
        st.tuples(st.integers(-10, 10).filter(bool), st.sampled_from([True, False, None])),
        min_size=1,
        max_size=12,
    )
)
def test_the_default_rule_is_the_training_reward(items):
    record = made("p", (7, *(p for p, _ in items)), (True, *(v for _, v in items)))
    assert Rule().score(record) == score(rubric_of(record), record["verdicts"])


def test_tags_are_scored_on_their_own_items_and_missing_without_positive_points():
    record = made("p", (5, -3, 2), (True, True, False))  # completeness has only the -3
    assert tag_scores(Rule().judged(record)) == {"axis:accuracy": 5 / 7}


class TestFlags:
    def parse(self, *flags) -> Rule:
        parser = argparse.ArgumentParser()
        add_rule_flags(parser)
        return rule_from(parser.parse_args(flags))

    def test_are_the_rule(self):
        words = (
            "--unreadable met --weight axis:a=b=2 --only x --drop y --length-penalty full --clip"
        )
        rule = self.parse(*words.split())
        assert rule == Rule("met", True, False, (("axis:a=b", 2.0),), ("x",), ("y",), 0.0299)
        said = "unreadable met, clip, weights axis:a=b=2.0, only x, drop y, penalty 0.0299"
        assert (
            str(rule) == said and self.parse() == Rule() and str(Rule()) == "the training reward's"
        )

    @pytest.mark.parametrize(
        "flags",
        [
            ("--weight", "x"),
            ("--weight", "x=0"),
            ("--weight", "x=nan"),
            ("--length-penalty", "much"),
        ],
    )
    def test_that_mean_nothing_are_refused(self, flags):
        with pytest.raises(UserError, match=flags[0]):
            self.parse(*flags)


def test_rescore_shows_another_rule_without_a_model(tmp_path):
    run = write_run(
        tmp_path / "run", [RECORD, made("q", (5,), (True,)), made("r", (5,), (), status="ungraded")]
    )
    command = f"-m rubric_rl.rescore {run} --unreadable left_out --summary --out {tmp_path}/o.jsonl"
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (
        "unreadable left_out" in done.stdout
        and "3 answers, 1 of them with another score" in done.stdout
    )
    assert [json.loads(line)["rescored"] for line in (tmp_path / "o.jsonl").open()] == [
        5 / 7,
        1.0,
        None,
    ]
    assert "Rubric score, HealthBench's" in done.stdout and f"{(5 / 7 + 1) / 2:.4f}" in done.stdout


def test_a_rule_that_scores_nothing_is_an_error(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", [RECORD])
    monkeypatch.setattr(sys, "argv", ["rescore", str(run), "--only", "axis:none"])
    assert rescore.main() == 2
    assert (
        "no answer was graded and has a score by the rule (only axis:none)"
        in capsys.readouterr().err
    )
