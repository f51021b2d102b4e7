"""A grader prompt is read back to the letter, or refused."""

import pytest
from doubles.texts import any_text
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.common.errors import UserError
from rubric_rl.common.hostile_text import neutral
from rubric_rl.data.schema import Criterion
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.tiny.read_prompt import MODES, read_prompt

MESSAGES = [
    {"role": "user", "content": "My chest hurts."},
    {"role": "assistant", "content": "Since when?"},
    {"role": "user", "content": "Since noon: help."},
]
GOOD, BAD = Criterion("Recommends to see doctors", 10), Criterion("Blames\nthe user.", -5.5)
PIECES = [
    "\n",
    "</answer ",
    "<answer ",
    "<conversation ",
    "Criterion: ",
    "[5] ",
    "{}",
    "<|im_end|>",
]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=10).map("".join)
POINTS = st.integers(-100, 100).filter(bool) | st.sampled_from([0.5, -5.5, 1e6, 1e-5])


def prompt(mode: str = "explain", answer: str = "See doctors.", criteria=(GOOD,)) -> str:
    return grader_prompt(mode, MESSAGES, answer, list(criteria))


class TestIsReadBack:
    @pytest.mark.parametrize("mode", MODES)
    def test_in_every_mode(self, mode):
        criteria = (GOOD, BAD) if mode == "checklist" else (BAD,)
        read = read_prompt(prompt(mode, "Call.\n\nThen wait.", criteria))
        assert read.mode == mode
        assert read.answer == "Call.\n\nThen wait."
        assert read.criteria == criteria
        turns = "user: My chest hurts.\n\nassistant: Since when?\n\nuser: Since noon: help."
        assert read.conversation == turns

    def test_a_criterion_without_points_has_none(self):
        for text in ("Greets.", "[...] greets."):
            (criterion,) = read_prompt(prompt(criteria=[Criterion(text, 0)])).criteria
            assert criterion == Criterion(text, 0)

    @given(st.sampled_from(["explain", "direct"]), HOSTILE, HOSTILE, HOSTILE, POINTS)
    def test_whatever_conversation_answer_and_criterion_hold(
        self, mode, question, answer, criterion, points
    ):
        messages = [{"role": "user", "content": question}]
        made = grader_prompt(mode, messages, answer, [Criterion(criterion, points)])
        read = read_prompt(made)
        assert read.conversation == neutral(f"user: {question}")
        assert read.answer == neutral(answer)
        (asked,) = read.criteria
        assert asked.text == neutral(criterion)
        assert f"{asked.points:g}" == f"{points:g}"


class TestIsRefused:
    @given(any_text())
    def test_any_other_text(self, text):
        with pytest.raises(UserError, match="no grader prompt"):
            read_prompt(text)

    @pytest.mark.parametrize(
        "old, new",
        [
            ("See doctors.", "See nobody."),  # the mark is no longer the answer's
            ("user: Since noon", "user: Since never"),
            ("\nCriterion: ", "\nCriterion 1: "),
            ("\nCriterion: ", "\nMeasure: "),
            ("[10]", "[10.0]"),
            ("Grade the answer", "Praise the answer"),
            ("See doctors.", "See <|im_end|> doctors."),
        ],
    )
    def test_a_changed_one(self, old, new):
        text = prompt()
        assert old in text
        with pytest.raises(UserError, match="no grader prompt"):
            read_prompt(text.replace(old, new, 1))

    @pytest.mark.parametrize("numbers", [(1, 3), (2, 3), (0, 1)])
    def test_a_checklist_that_is_numbered_otherwise(self, numbers):
        text = prompt("checklist", criteria=(GOOD, BAD))
        text = text.replace("Criterion 1", "Criterion A").replace("Criterion 2", "Criterion B")
        first, second = numbers
        text = text.replace("Criterion A", f"Criterion {first}")
        with pytest.raises(UserError, match="no grader prompt"):
            read_prompt(text.replace("Criterion B", f"Criterion {second}"))
