"""What a grader knows, and what of it reaches the reward."""

from random import Random

import pytest

from experiments import moved_threshold
from experiments.moved_threshold import correlations, figures, graded_answers
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Record, Verdict
from rubric_rl.tiny.oracle import truth
from rubric_rl.tiny.prompts_and_answers import answers_to
from rubric_rl.tiny.world import pair_of, rows

GROUPS = [row for row in rows(held_out=False) if len(row.rubric) > 3][:4]


def rollout(met: float, not_met: float, number: int = 0) -> list[Record]:
    """A group of answers to each of some prompts; the grader gives each truth its probability."""
    records = []
    for row in GROUPS:
        for answer in answers_to(Random(0), pair_of(row), 6):
            record = Record.of(row, "graded", answer, score=0.0, split="train", rollout=number)
            record.index = 100 * number + len(records)
            for is_true in truth(row.rubric, answer):
                probability = met if is_true else not_met
                record.verdicts.append(Verdict(probability > 0.5, probability))
            records.append(record)
    return records


def test_a_sure_grader_is_right_in_all_of_it():
    assert figures(rollout(0.9, 0.1)) == pytest.approx((1, 1, 0.9, 1, 1))


def test_a_threshold_that_moved_takes_the_verdicts_and_leaves_the_probabilities():
    accuracy, auc, met, by_verdict, by_probability = figures(rollout(0.4, 0.001))
    assert accuracy < 0.8 and met == pytest.approx(0.4)
    assert auc == 1
    assert by_verdict == 0  # every answer of a group scores the same
    assert by_probability > 0.99


def test_a_grader_that_knows_nothing_has_neither():
    _, auc, _, *of_groups = figures(rollout(0.4, 0.4))
    assert auc == 0.5
    assert of_groups == pytest.approx([0, 0], abs=1e-6)


def test_groups_without_a_difference_say_nothing():
    alike = [[0.5, 1, 0], [0.5, 0, 1]]
    apart = [[0, 0, 1], [1, 1, 0]]
    assert correlations([alike, apart]) == pytest.approx([1, -1])


def test_the_table_has_a_line_for_every_nth_rollout_and_counts_an_answer_once(tmp_path, capsys):
    folder = tmp_path / "verdicts"
    folder.mkdir()
    lost = rollout(0.1, 0.1)  # made again after a kill
    again = rollout(0.9, 0.1)
    for record in again:
        record.time = 1.0
    later = rollout(0.9, 0.1, 1) + rollout(0.4, 0.1, 2)
    for name, records in {"weights_0.a": again, "weights_0.b": lost, "weights_1.b": later}.items():
        write_jsonl(folder / f"{name}.jsonl", [record.to_json() for record in records])
    assert len(graded_answers(folder)[0]) == len(again)
    assert moved_threshold.main([str(tmp_path), "--every", "2"]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "1.000", "1.000", "0.900", "1.00", "1.00"]
    assert second.startswith("      2") and float(second.split()[1]) < 0.8


def test_a_folder_without_answers_is_named(tmp_path, capsys):
    assert moved_threshold.main([str(tmp_path)]) == 2
    assert "holds no graded training answers" in capsys.readouterr().err
