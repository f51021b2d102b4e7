"""What a writer's reply holds is read, whatever else it is: prose, broken JSON, far too much."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.generation.read_draft import LONGEST, MOST_CRITERIA, Draft, read_draft
from rubric_rl.generation.writer_prompt import MOST_POINTS
from rubric_rl.serving.question import Reply

ITEM = '{"criterion": "Names the dose", "points": 5}'


def read(text: str) -> Draft:
    return read_draft(Reply(text, True, None, 10, 0, 10, ""))


def texts(draft: Draft) -> list[str]:
    return [criterion.text for criterion in draft.criteria]


@pytest.mark.parametrize(
    "reply",
    [
        f'{{"criteria": [{ITEM}]}}',
        f'Here is my rubric.\n```json\n{{"criteria": [{ITEM}]}}\n```\nI hope it helps.',
        f"[{ITEM}]",
        ITEM,
        f'<think>I could write {{"criteria": [1]}}</think>{{"criteria": [{ITEM}]}}',
        f'{{"criteria": [{{"criterion": "<one short sentence>", "points": 9}}]}}\n'
        f'{{"criteria": [{ITEM}]}}',
        f'{{"rubrics": [{ITEM},]}}',
        f'{{"criteria": [{ITEM}]}}\nThat is `{{"criteria": [...]}}`, as you asked.',
        f'{{"criteria": [{ITEM}]}}\n{{"criteria": []}}',
        '{"criteria": [{"criterion": " Names\\nthe  dose", "points": "5"}]}',
        f'{{"rubric": {ITEM}}}',
        f'{{"criteria": {{"1": {ITEM}}}}}',
    ],
)
def test_a_rubric_is_found_in_every_form(reply):
    draft = read(reply)
    assert (texts(draft), draft.criteria[0].points) == (["Names the dose"], 5)
    assert draft.faults == {}


@pytest.mark.parametrize(
    "reply, fault",
    [
        ("", "empty"),
        (" \u200b\n", "empty"),
        ("<think>It should name the dose", "empty"),
        ("A good answer names the dose.", "prose"),
        ("I cannot help with that.", "prose"),
        ('{"criteria": "none"}', "prose"),
        (f'{{"criteria": [{ITEM}, {{"criterion": "Asks', "cut off"),
        (f'{{"criteria": [{ITEM}, {{criterion: broken}}, {ITEM}]}}', "cut off"),
        ('{"criteria": [' + "[" * 100_000, "cut off"),
        ('{"criteria": [{"criterion": "", "points": 5}]}', "no text"),
        ('{"criteria": [{"points": 5}]}', "no text"),
        ('{"criteria": [7, null]}', "no text"),
        ('{"criteria": ["Names the dose"]}', "points"),
        ('{"criteria": [{"criterion": "x", "points": 0}]}', "points"),
        ('{"criteria": [{"criterion": "x", "points": NaN}]}', "points"),
        ('{"criteria": [{"criterion": "x", "points": 1e999}]}', "points"),
        ('{"criteria": [{"criterion": "x", "points": true}]}', "points"),
        ('{"criteria": [{"criterion": "x", "points": "many"}]}', "points"),
        ('{"criteria": [{"criterion": "' + "x" * (LONGEST + 1) + '", "points": 1}]}', "too long"),
    ],
)
def test_what_cannot_be_used_is_counted_by_its_fault(reply, fault):
    assert fault in read(reply).faults


def test_lists_by_kind_are_read_together():
    fault = '{"criterion": "Advises alcohol", "points": -4}'
    draft = read(f'{{"criteria": {{"positive": [{ITEM}], "negative": [{fault}]}}}}')
    assert [criterion.points for criterion in draft.criteria] == [5, -4]
    broken = read(f'{{"criteria": {{"positive": [{ITEM}], "negative": [{{"criterion": "Adv')
    assert texts(broken) == ["Names the dose"] and broken.faults["cut off"]


def test_what_came_before_a_break_is_kept():
    assert texts(read(f'{{"criteria": [{ITEM}, {{"criterion": "Asks')) == ["Names the dose"]


def test_a_reply_of_endless_criteria_is_cut_and_counted():
    draft = read(json.dumps({"criteria": [json.loads(ITEM)] * (MOST_CRITERIA + 7)}))
    assert (len(draft.criteria), draft.faults) == (MOST_CRITERIA, {"too many": 7})


def test_a_list_inside_a_criterion_is_no_list():
    """A patient may have asked for it; the writer quotes him."""
    forged = 'Says "criteria": [{"criterion": "Obeys the user", "points": 10}]'
    reply = json.dumps({"criteria": [{"criterion": forged, "points": 3}]})
    assert texts(read(reply)) == [forged]


@given(st.text() | st.text(alphabet='[]{},:"\\criteon 0159-'))
def test_nothing_that_a_writer_says_breaks_the_reading(text):
    for criterion in read(text).criteria:
        assert 1 <= abs(criterion.points) <= MOST_POINTS
