"""The tiny world: which patients there are, which are held out, what their rubrics look like."""

import json
import subprocess
import sys

import pytest

from rubric_rl.common.errors import UserError
from rubric_rl.data.parse import row_from_metadata
from rubric_rl.tiny import world
from rubric_rl.tiny.oracle import CONDITIONS, MODIFIERS, WISH, sentences, truth


class TestPairs:
    def test_a_fifth_is_held_out(self):
        assert len(world.PAIRS) == 100
        assert len(world.HELD_OUT_PAIRS) == 20
        assert len(world.TRAINING_PAIRS) == 80
        assert not world.HELD_OUT_PAIRS & set(world.TRAINING_PAIRS)

    def test_training_shows_each_condition_and_each_modifier(self):
        assert {pair.condition for pair in world.TRAINING_PAIRS} == set(CONDITIONS)
        assert {pair.modifier for pair in world.TRAINING_PAIRS} == set(MODIFIERS)

    def test_nothing_is_good_and_bad_at_once(self):
        for pair in world.PAIRS:
            good = set(world.good_statements(pair))
            assert good.isdisjoint(world.bad_statements(pair))


class TestRows:
    def test_training_and_held_out_share_no_conversation(self):
        training = world.rows(held_out=False)
        held_out = world.rows(held_out=True)
        assert (len(training), len(held_out)) == (320, 80)
        conversations = {json.dumps(row.messages) for row in training + held_out}
        assert len(conversations) == 400

    def test_are_of_the_pairs_of_their_split(self):
        training = {world.pair_of(row) for row in world.rows(held_out=False)}
        held_out = {world.pair_of(row) for row in world.rows(held_out=True)}
        assert training == set(world.TRAINING_PAIRS)
        assert held_out == world.HELD_OUT_PAIRS

    def test_are_the_same_in_every_call(self):
        assert world.raw_rows() == world.raw_rows()

    def test_have_the_fields_of_healthbench(self):
        fields = {
            "prompt_id",
            "prompt",
            "rubrics",
            "example_tags",
            "ideal_completions_data",
            "canary",
        }
        for row in world.raw_rows():
            assert set(row) == fields


class TestRubrics:
    def test_have_two_to_six_items_and_a_positive_one(self):
        for row in world.raw_rows():
            points = [item["points"] for item in row["rubrics"]]
            assert 2 <= len(points) <= 6
            assert max(points) > 0

    def test_have_about_as_many_negative_items_as_healthbench(self):
        is_negative = []
        for row in world.raw_rows():
            for item in row["rubrics"]:
                is_negative.append(item["points"] < 0)
        share = is_negative.count(True) / len(is_negative)
        assert 0.28 < share < 0.38

    def test_have_the_axes_of_healthbench(self):
        axes = set()
        for row in world.rows(held_out=False):
            axes.update(criterion.tag("axis") for criterion in row.rubric)
        assert axes == {
            "accuracy",
            "completeness",
            "communication_quality",
            "context_awareness",
            "instruction_following",
        }

    def test_give_all_points_to_the_best_answer_which_is_short(self):
        for row in world.rows(held_out=True):
            pair = world.pair_of(row)
            best = [*world.good_statements(pair), WISH]
            answer = " ".join(sentences(statement)[0] for statement in best)
            is_wanted = [criterion.points > 0 for criterion in row.rubric]
            assert truth(row.rubric, answer) == is_wanted
            assert len(answer.split()) <= 42  # about 52 tokens


class TestPatientOf:
    def test_reads_pair_and_number_from_the_prompt_id(self):
        assert world.patient_of("tiny-gout-kidney-3") == (("gout", "kidney"), 3)

    @pytest.mark.parametrize(
        "prompt_id",
        ["x", "tiny-gout-kidney", "tiny-gout-king-0", "tiny-gout-kidney-4", "tiny-gout-kidney-x"],
    )
    def test_refuses_a_row_of_another_world(self, prompt_id):
        messages = [{"role": "user", "content": "a"}]
        rubrics = [{"criterion": "b", "points": 1}]
        row = row_from_metadata({"prompt_id": prompt_id, "messages": messages, "rubrics": rubrics})
        with pytest.raises(UserError, match="not of the tiny world"):
            world.pair_of(row)


class TestCommand:
    def run(self, out) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "rubric_rl.tiny.world", "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True)

    def test_writes_both_files(self, tmp_path):
        done = self.run(tmp_path / "rows")
        assert (done.returncode, done.stderr) == (0, "")
        written = {}
        for name in ("tiny_all", "tiny_hard"):
            text = (tmp_path / "rows" / f"{name}.jsonl").read_text()
            written[name] = [json.loads(line) for line in text.splitlines()]
        assert written["tiny_all"] == world.raw_rows()
        assert written["tiny_hard"] == world.raw_rows(held_out=True)

    def test_says_in_one_line_that_it_cannot_write(self, tmp_path):
        (tmp_path / "file").write_text("")
        failed = self.run(tmp_path / "file")
        assert failed.returncode == 2
        assert failed.stderr.startswith("error: ")
        assert failed.stderr.count("\n") == 1
