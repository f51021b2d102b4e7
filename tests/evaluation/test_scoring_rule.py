"""Stored verdicts under other rules: each changes what `score` gets."""

import argparse
import math
import subprocess
import sys

import pytest
from doubles.records import made, write_run
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import read_jsonl
from rubric_rl.data.schema import Criterion
from rubric_rl.evaluation import rescore
from rubric_rl.evaluation.scoring_rule import (
    PLAIN_RULE,
    ScoringRule,
    add_rule_flags,
    rule_from,
    tag_scores,
)
from rubric_rl.grading.score import score

# axes: accuracy 5 and -4, completeness 3 and 2
RECORD = made("p", (5, 3, -4, 2), (True, None, None, False))


@pytest.mark.parametrize(
    "rule, value",
    [
        (PLAIN_RULE, (5 - 4) / 10),
        (ScoringRule(unreadable="not_met"), 5 / 10),
        (ScoringRule(unreadable="met"), (5 + 3 - 4) / 10),
        (ScoringRule(unreadable="left_out"), 5 / 7),
        (ScoringRule(uniform=True), (1 - 1) / 3),
        (ScoringRule(weights=(("axis:accuracy", 2.0),)), (10 - 8) / 15),
        (ScoringRule(weights=(("axis:accuracy", 2.0), ("axis:accuracy", 3.0))), (30 - 24) / 35),
        (ScoringRule(only=("axis:accuracy",)), (5 - 4) / 5),
        (ScoringRule(drop=("axis:accuracy",)), 0 / 5),
        (ScoringRule(only=("axis:none",)), math.nan),
        (ScoringRule(penalty=0.1), 0.1),  # 2,000 characters are free
    ],
    ids=str,
)
def test_a_rule_by_hand(rule, value):
    assert rule.score(RECORD) == pytest.approx(value, abs=1e-12, nan_ok=True)


def test_a_rule_leaves_the_record_as_it_is():
    ScoringRule(unreadable="met", uniform=True).score(RECORD)
    assert RECORD.mets == [True, None, None, False]
    assert [criterion.points for criterion in RECORD.rubric] == [5, 3, -4, 2]


def test_clipping_is_by_answer_and_after_the_length_adjustment():
    bad = made("p", (5, -9), (False, True))
    assert PLAIN_RULE.score(bad) == -9 / 5
    assert ScoringRule(clip=True).score(bad) == 0.0
    long = made("p", (5,), (True,), answer="a" * 2500)
    assert ScoringRule(clip=True, penalty=0.1).score(long) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "status, value",
    [("ungraded", math.nan), ("no_answer", 0.0), ("truncated", 0.0), ("too_long", 0.0)],
)
@pytest.mark.parametrize(
    "rule",
    [
        PLAIN_RULE,
        ScoringRule(uniform=True),
        ScoringRule(unreadable="met"),
        ScoringRule(penalty=0.1),
    ],
    ids=str,
)
def test_what_was_never_asked_stays_0_or_without_a_score(status, value, rule):
    record = made("p", (5, -9), (), status=status)
    assert rule.score(record) == pytest.approx(value, nan_ok=True)


POINTS = st.integers(-10, 10).filter(bool)
METS = st.sampled_from([True, False, None])


@given(st.lists(st.tuples(POINTS, METS), min_size=1, max_size=12))
def test_the_default_rule_is_the_plain_score(items):
    points, mets = zip(*items, strict=True)
    record = made("p", (7, *points), (True, *mets))
    assert PLAIN_RULE.score(record) == score(record.rubric, record.verdicts)


def test_tags_are_scored_on_their_own_items_and_missing_without_positive_points():
    record = made("p", (5, -3, 2), (True, True, False))  # completeness has only the -3
    assert tag_scores(PLAIN_RULE.judged(record)) == {"axis:accuracy": 5 / 7}


class TestFlags:
    def parse(self, *flags) -> ScoringRule:
        parser = argparse.ArgumentParser()
        add_rule_flags(parser)
        return rule_from(parser.parse_args(flags))

    def test_are_the_rule(self):
        words = "--unreadable met --weight axis:a=b=2 --only x --drop y --length-penalty full"
        rule = self.parse(*words.split(), "--clip")
        assert rule == ScoringRule(
            unreadable="met",
            clip=True,
            weights=(("axis:a=b", 2.0),),
            only=("x",),
            drop=("y",),
            penalty=0.0299,
        )
        said = "unreadable met, clip, weights axis:a=b=2.0, only x, drop y, penalty 0.0299"
        assert str(rule) == said

    def test_without_any_it_is_the_plain_score(self):
        assert self.parse() == PLAIN_RULE
        assert str(PLAIN_RULE) == "the plain score"

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
    other = made("q", (5,), (True,))
    ungraded = made("r", (5,), (), status="ungraded")
    run = write_run(tmp_path / "run", [RECORD, other, ungraded])
    out = tmp_path / "o.jsonl"
    words = [run, "--unreadable", "left_out", "--summary", "--out", out]
    command = [sys.executable, "-m", "rubric_rl.rescore", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "unreadable left_out" in done.stdout
    assert "3 answers, 1 of them with another score" in done.stdout
    rescored = [row["rescored"] for _, row in read_jsonl(out)]
    assert rescored == [5 / 7, 1.0, None]
    assert "Rubric score, HealthBench's" in done.stdout
    mean = (5 / 7 + 1) / 2
    assert f"{mean:.4f}" in done.stdout


def test_rescore_says_how_many_verdicts_lack_what_the_rule_asks_for(tmp_path, monkeypatch, capsys):
    """As those of the recipe's explain mode: a score of 0 says nothing of the rule then."""
    rubric = Criterion("a", 5), Criterion("b", -4, ("axis:b",))
    run = write_run(tmp_path / "run", [made("q", rubric, (True, False))])
    asked = ["--grader-threshold", "0.8"]
    for more, lacking in ((asked, 2), ([*asked, "--drop=axis:b"], 1), ([], 0), (["--recorded"], 0)):
        monkeypatch.setattr(sys, "argv", ["rescore", str(run), *more])
        assert rescore.main() == 0
        note = f"note: {lacking} verdicts have no probability" if lacking else ""
        said = capsys.readouterr().err
        assert said.startswith(note) and ("no probability" in said) == bool(lacking)


def test_rescored_answers_never_take_the_place_of_the_records(tmp_path, monkeypatch, capsys):
    records = write_run(tmp_path / "run", [RECORD]) / "verdicts" / "verdicts.jsonl"
    before = records.read_bytes()
    for source in (tmp_path / "run", records):
        monkeypatch.setattr(sys, "argv", ["rescore", str(source), "--out", str(records)])
        assert rescore.main() == 2
        assert "holds the records themselves; name another file" in capsys.readouterr().err
    assert records.read_bytes() == before


def test_a_rule_that_scores_nothing_is_an_error(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", [RECORD])
    monkeypatch.setattr(sys, "argv", ["rescore", str(run), "--only", "axis:none"])
    assert rescore.main() == 2
    complaint = "no answer was graded and has a score by the rule (only axis:none)"
    assert complaint in capsys.readouterr().err
