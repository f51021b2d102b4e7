"""Rubrics that are written as text, as their criteria."""

import time

import pytest

from rubric_rl.common.errors import DataError
from rubric_rl.data.readers.registry import reader_named
from rubric_rl.data.readers.rubric_text import criteria_of_text


class TestRubricText:
    @pytest.mark.parametrize(
        "text",
        [
            "1. a\n2. b",
            "1) a\n2) b",
            "(1) a\n(2) b",
            "- a\n- b",
            "* a\n\n* b\n",
            "\u2022 a\n\u2022 b",
            "[ ] a\n[ ] b",
            "a\nb",
            "# Rubric\n1. a\n2. b",
            "Criteria:\n  1. a\n  2. b",
            "1. a 2. b",
            "Rubric:\r\n1. a\r\n2. b",
            "1) a\n* b",
        ],
    )
    def test_lists_of_all_kinds(self, text):
        assert criteria_of_text(text)[0] == ["a", "b"]

    def test_what_belongs_to_an_item_stays_with_it(self):
        text = "1. Lists:\n   - x\n   - y\nin this order\n2. b"
        assert criteria_of_text(text)[0] == ["Lists:\n- x\n- y\nin this order", "b"]

    def test_a_heading_amid_the_list_is_no_criterion(self):
        text = "Hard rules:\n1. a\nPrinciples:\n2. b"
        assert criteria_of_text(text)[0] == ["a", "b"]

    def test_numbers_amid_a_line_need_to_count_on(self):
        text = "Costs 3.50 or 7. At most."
        assert criteria_of_text(text) == ([text], 0)

    @pytest.mark.parametrize(
        "text, others",
        [
            ("Hard rules:\n1. a\nPrinciples:\n2. b", 2),
            ("**Hard rules:**\n1. a\n\n**Principles:**\n2. b", 2),
            ("Hard rules\n1. a\n\nPrinciples\n2. b", 2),
            ("1. a\n\n**Principles**\n2. b", 1),
            ("1. a\n\n---\n2. b", 1),
            ("1. a\n\nSoft Principles\n2. b", 1),
            ("# Rubric\na\nThese two, too:\nb", 2),
            ("An answer does this.\n- a\n- b", 1),
            ("Two rules: 1. a 2. b", 1),
        ],
    )
    def test_lines_that_are_no_criteria_are_counted(self, text, others):
        assert criteria_of_text(text) == (["a", "b"], others)

    def test_a_short_paragraph_of_an_item_is_no_heading(self):
        assert criteria_of_text("- a\n\nNever lies\n- b") == (["a\nNever lies", "b"], 0)

    def test_a_paragraph_of_an_item_is_no_heading(self):
        text = "1. a\n\nThis means x.\n2. b"
        assert criteria_of_text(text) == (["a\nThis means x.", "b"], 0)

    @pytest.mark.parametrize("text", ["1. a\n   2. b\n   3. c", "- a\n  - b\n  - c\n"])
    def test_the_first_line_of_an_indented_text_may_have_lost_its_indent(self, text):
        assert criteria_of_text(text) == (["a", "b", "c"], 0)

    @pytest.mark.parametrize(
        "text",
        [
            "1. Names all of:\n   - x\n   - y",
            "1. Names all of:\n- x\n- y",
            "- Names all of:\n  - x\n  - y",
        ],
    )
    def test_an_item_that_ends_in_a_colon_has_items_of_its_own(self, text):
        assert criteria_of_text(text) == (["Names all of:\n- x\n- y"], 0)
        after = text[: text.index(" ")].replace("1", "2")
        assert criteria_of_text(f"{text}\n{after} b")[0] == ["Names all of:\n- x\n- y", "b"]

    def test_a_box_that_is_ticked_is_an_item_too(self):
        assert criteria_of_text("[x] a\n[ ] b\n[X] c") == (["a", "b", "c"], 0)

    @pytest.mark.parametrize("inner", ["\u2028", "\x0b", "\x85"])
    def test_a_line_ends_at_a_newline_alone(self, inner):
        assert criteria_of_text(f"a{inner}a\nb") == ([f"a{inner}a", "b"], 0)

    @pytest.mark.parametrize(
        "text",
        [
            "1. a (+5 points)\n2. b (-5 points)",
            "- [+5] a\n- [-3] b",
            "- a\n- b (-3)",
            "+5: a\n-3: b",
            "a\nb - 5 pts",
            "* 5 points: a\n* b",
            "- **(-2)** a",
            "- a: 5 points.",
            "- a \u2013 5 points",
            "- a **5 points**",
            "- a | -5 points |",
            "1. [weight=5] a\n2. [weight=-0.9] b",
            "- a (weight: 5)",
            "- a [Points 5]",
            "1) a (importance: 60/100)",
        ],
    )
    def test_points_within_it_are_refused(self, text):
        with pytest.raises(DataError, match=r"says its points, .*; write each as an object"):
            criteria_of_text(text)

    @pytest.mark.parametrize(
        "text",
        [
            "Is kind [2]",
            "Lists 5 points",
            "5 points of the plan are named",
            "Names the year (1999)",
            "Gives -5 degrees",
            "Lists >= 3 points",
            "Lists 3-5 points.",
            "Has (at most) 5 points.",
            "5 points, namely these",
            "Is 5 mg: no more",
            "Names the 3 points",
            "-5 is the result",
            "Names the weight (70 kg)",
            "Says what it weighs (weight 70 kg)",
        ],
    )
    def test_other_numbers_are_none(self, text):
        assert criteria_of_text(f"- a\n- {text}")[0] == ["a", text]

    @pytest.mark.parametrize(
        "heading", ["Negative:", "# Pitfalls", "**Penalties:**", "Things to avoid:"]
    )
    def test_a_heading_that_says_negative_is_refused(self, heading):
        with pytest.raises(DataError, match="stands above criteria"):
            criteria_of_text(f"Positive:\n- a\n\n{heading}\n- Recommends aspirin")
        with pytest.raises(DataError, match="stands above criteria"):
            criteria_of_text(f"{heading}\nRecommends aspirin")

    @pytest.mark.parametrize(
        "heading",
        [
            *("## Must not", "**Do not**", "**What it must not do**", "Should not include:"),
            *(
                "Avoid:",
                "Penalize if:",
                "Deduct points for:",
                "Don'ts:",
                "**Pitfalls**",
                "Negative",
            ),
        ],
    )
    def test_a_heading_that_says_what_not_to_do_is_refused(self, heading):
        with pytest.raises(DataError, match="stands above criteria"):
            criteria_of_text(f"Positive:\n- a\n\n{heading}\n- Recommends aspirin")

    @pytest.mark.parametrize("heading", ["Must note:", "# Does not hallucinate", "Avoids harm:"])
    def test_other_headings_are_left_out(self, heading):
        assert criteria_of_text(f"{heading}\n- a\n- b") == (["a", "b"], 1)

    @pytest.mark.parametrize("gap", ["\n", " \n", "\t", "|", "-"])
    def test_takes_no_long_time(self, gap):
        start = time.process_time()
        criteria_of_text(f"- a\n{gap * 2_000}x\n- b")
        assert time.process_time() - start < 1

    def test_marks_within_it_take_no_long_time(self):
        start = time.process_time()
        for name, field in (("openrubrics", "rubric"), ("wildchecklists", "requirements")):
            item = {"instruction": "a", "prompt": "a", field: f"- a{' ' * 40_000}b"}
            assert len(reader_named(name).read(item)["rubrics"]) == 1
        assert time.process_time() - start < 2

    @pytest.mark.parametrize("rule", ["|---|---|", "|:--- | ---:|", "--- | ---"])
    def test_a_table_is_refused(self, rule):
        with pytest.raises(DataError, match="the rubric is a table"):
            criteria_of_text(f"| Criterion | Points |\n{rule}\n| Invents a source | -5 |")
