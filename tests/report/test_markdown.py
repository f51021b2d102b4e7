"""The Markdown form says what the page says, and no text breaks out of its place in it."""

import re

from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.report.markdown import block, plain

BLOCKS = re.compile(r"^(`{3,})text\n.*?\n\1$", re.S | re.M)


@given(st.text())
def test_no_text_ends_its_code_block(text):
    first, *middle, last = block(text).split("\n")
    fence = first.removesuffix("text")
    assert last == fence
    assert not any(line.strip().startswith(fence) for line in middle)


@given(st.text())
def test_no_text_ends_its_table_cell(text):
    cell = plain(text)
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<`]", cell)


def test_it_says_the_same_as_the_page(reports):
    text = reports["one_markdown"].read_text(encoding="utf-8")
    mean = (-4 / 8 + 1 + 1) / 3
    assert f"| {mean:.4f} |" in text
    assert "## Worst criteria" in text
    assert "## Most often unreadable" in text
    assert "## Prompt p\\-low" in text
    assert "| unreadable |" in text


def test_no_html_of_a_text_is_left(reports):
    text = reports["one_markdown"].read_text(encoding="utf-8")
    outside = BLOCKS.sub("", text)
    assert not re.search(r"(?<!\\)<", outside)


def test_every_table_has_as_many_cells_in_each_row(reports):
    for name in ("one_markdown", "two_markdown"):
        text = BLOCKS.sub("", reports[name].read_text(encoding="utf-8"))
        tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
        assert len(tables) >= 6
        for table in tables:
            cells = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
            assert len(set(cells)) == 1, table


def test_two_runs_stand_side_by_side(reports):
    text = reports["two_markdown"].read_text(encoding="utf-8")
    assert "Paired difference on 1 prompts: **+1.0000**" in text
    assert "## Worst criteria: before" in text


def test_the_anchor_stands_beside_the_verdicts(reports):
    text = reports["one_markdown"].read_text(encoding="utf-8")
    _, _, good = text.partition("## Prompt p\\-high")
    good, _, _ = good.partition("## Prompt")
    assert "score 1.0000, anchor judge 0.1250:" in good
    rows = [line.split(" | ")[2:4] for line in good.splitlines() if line.startswith("| +")]
    assert rows == [["met", "met"], ["met", "not met"]]
    assert "| points | criterion | verdict | reason |" in text, "where there is no anchor"
