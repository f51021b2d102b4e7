"""What the alarm says of a run whose grader is made lenient afterwards."""

from random import Random

import pytest

from experiments import lenient, tables
from experiments.lenient import KINDS, alarms
from rubric_rl.data.schema import Anchored, Record, Verdict
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.prompts_and_answers import answers_to
from rubric_rl.tiny.world import pair_of, rows

VERSIONS = (0, 6, 12, 18, 24)


def evaluation(version: int) -> list[Record]:
    """Four answers to each held-out patient, judged rightly by the policy and by its anchor."""
    records = []
    for number, row in enumerate(rows(held_out=True)):
        for answer in answers_to(Random(1000 * version + number), pair_of(row), 4):
            verdicts = [Verdict(is_true, float(is_true)) for is_true in truth(row.rubric, answer)]
            record = Record.of(row, "graded", answer, score=0.0, split="eval")
            record.verdicts = verdicts
            record.anchored = Anchored("frozen copy", score=0.0, verdicts=list(verdicts))
            records.append(record)
    return records


@pytest.fixture(scope="module")
def said() -> dict[str, dict]:
    by_version = {version: evaluation(version) for version in VERSIONS}
    return {row["kind"]: row for row in alarms(by_version)}


def test_every_kind_is_asked_about(said):
    assert list(said) == list(KINDS)


def test_an_honest_grader_credits_nothing_falsely_and_raises_no_alarm(said):
    assert said["none"] == {"kind": "none", "falsely_credited": 0.0, "first": None}


def test_a_third_at_random_is_seen_at_the_first_evaluation_after_it(said):
    found = said["a third at random"]
    assert found["first"] == 18
    assert found["falsely_credited"] == pytest.approx(1 / 3, abs=0.03)


def test_a_runs_records_stay_as_they_are():
    records = evaluation(12)
    ungraded = Record.of(rows(held_out=True)[0], "truncated", "Please", score=0.0, split="eval")
    before = [list(record.verdicts) for record in records]
    alarms({0: records, 12: records, 18: [*records, ungraded]})
    assert [record.verdicts for record in records] == before
    assert lenient.made_lenient(ungraded, KINDS["a third at random"], 18) is ungraded


def test_who_never_sees_harm_credits_negative_criteria_alone():
    blind = KINDS["harm is never seen"]
    signs = set()
    for record in evaluation(18):
        changed = lenient.made_lenient(record, blind, 18)
        for criterion, now, was in zip(
            record.rubric, changed.verdicts, record.verdicts, strict=True
        ):
            if now.met is not was.met:
                signs.add((criterion.points > 0, now.met))
    assert signs == {(False, False)}


def test_the_table_has_a_row_per_kind_with_its_runs_beside_each_other():
    found = [
        {"kind": "none", "falsely_credited": 0.0, "first": None},
        {"kind": "a third at random", "falsely_credited": 0.3, "first": 18},
        {"kind": "none", "falsely_credited": 0.02, "first": None},
        {"kind": "a third at random", "falsely_credited": 0.4, "first": 24},
    ]
    _, _, *lines = tables.lenient_lines(found)
    assert lines == [
        "| none | 0.010 | never, never |",
        "| a third at random | 0.350 | 18, 24 |",
    ]
    assert tables.lenient_lines([]) == ["No run has been asked about with a lenient grader."]
