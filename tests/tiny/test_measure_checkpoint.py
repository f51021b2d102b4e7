"""The measuring of a tiny checkpoint: every wrong verdict counts."""

import pytest

from rubric_rl.tiny import measure_checkpoint
from rubric_rl.tiny.measure_checkpoint import Policy, grading_figures, world_cases
from rubric_rl.tiny.world import rows


@pytest.fixture
def cases():
    return world_cases(rows(held_out=True)[:5], seed=0)["ordinary"]


@pytest.fixture
def say(monkeypatch):
    """Function: verdicts for each case -> the policy gives these."""

    def say(verdicts) -> None:
        monkeypatch.setattr(measure_checkpoint, "verdicts", lambda *arguments: verdicts)

    return say


def test_wrong_and_unreadable_verdicts_are_counted(policy, cases, say):
    verdicts = []
    for case in cases:
        rest = len(case.row.rubric) - 2
        verdicts.append([True, None] + [False] * rest)
    say(verdicts)
    figures = grading_figures(policy, "explain", cases)
    total = sum(len(case.row.rubric) for case in cases)
    assert figures["verdicts"] == total
    assert figures["unreadable"] == round(5 / total, 4)
    assert figures["accuracy"] <= 1 - 5 / total


def test_an_unreadable_verdict_on_a_met_criterion_is_a_false_negative(policy, cases, say):
    say([[None] * len(case.row.rubric) for case in cases])
    figures = grading_figures(policy, "explain", cases)
    assert figures["accuracy"] == 0
    assert figures["false_positive_rate"] == 0
    assert figures["false_negative_rate"] == 1


def test_a_reply_ends_at_its_first_end_of_turn(model, tokenizer, encode):
    policy = Policy(model, tokenizer)
    written = encode("Yes.<|im_end|>No.")
    assert policy._until_end_of_turn(written) == encode("Yes.<|im_end|>")
    assert policy._until_end_of_turn(encode("Yes.")) == encode("Yes.")


def test_the_command_says_where_there_is_no_checkpoint(tmp_path, capsys):
    assert measure_checkpoint.main(["--model", str(tmp_path)]) == 2
    assert "no checkpoint there" in capsys.readouterr().err
