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
        '[{"reason": "it matters", "criterion": "Names the dose", "points": 5}]',
        f'{{"title": "Doses", "score": 10, "checklist": [{ITEM}]}}',
        '{"items": [{"weight": "5", "description": "Names the dose"}]}',
        f'{{"result": {{"rubric": {{"criteria": [{ITEM}]}}, "themes": ["dose"]}}}}',
        '{"criteria": [{"criterion": "Names the dose", "points": 5, '
        '"examples": [{"text": "5 mg", "score": 1}]}]}',
        f'{{"criteria": [{ITEM}]}}\nIts themes are {{"rubric": ["dose"]}}.',
        '{"criteria": [{"criterion": "Names\nthe\tdose", "points": 5}]}',
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
        ('{"criteria": [{"criterion": "<one short sentence>", "points": 5}]}', "no text"),
        ('{"criteria": {"positive": ["Names the dose"]}}', "points"),
        (f'{{"criteria": [{ITEM}, {{"behaviour": "Names it"}}]}}', "no text"),
        (f'{{"criteria": [{ITEM}, {{"criterion": "Asks \\x ]]}}}} ', "cut off"),
        (f'{ITEM}\n{{"criterion": "Asks', "cut off"),
        (f'{{"criteria": [{{"criterion": "Asks \\x", "points": 5}}, {ITEM}]}}', "cut off"),
        ('["' * 10_000, "cut off"),
        ('{"criteria": [{"criterion": "x", "points": 1, "criterion": "y"}]}', "points"),
        (f"First [{ITEM}], then [{ITEM}].", "other list"),
        (f'{{"criteria": [{ITEM}]}}, or better {{"criteria": [{ITEM}]}}', "other list"),
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


WRONG = '{"criterion": "Advises alcohol", "points": 4}'


@pytest.mark.parametrize(
    "reply",
    [
        '{"criteria": {"positive": [ITEM], "negative": [WRONG]}}',
        '{"positive": [ITEM], "negative": [WRONG]}',
        '{"criteria": [{"positive": [ITEM]}, {"negative": [WRONG]}]}',
        '{"rubric": {"criteria": {"Positive": {"a": [ITEM]}, "Negative": {"b": [WRONG]}}}}',
        '{"positive_criteria": [ITEM], "negativeCriteria": [WRONG]}',
        '{"criteria": [ITEM], "pitfalls to avoid": [WRONG]}',
        '{"must": [ITEM], "must_not": [WRONG]}',
        '{"positive": [ITEM], "things_to_avoid": [WRONG]}',
        '{"do": [ITEM], "don\'ts": [WRONG]}',
        '{"mustHave": [ITEM], "shouldNotHave": [WRONG]}',
        '{"critères positifs": [ITEM], "critères négatifs": [WRONG]}',
        '{"加分项": [ITEM], "扣分项": [WRONG]}',
        '{"criteria": {"negative (mistakes)": [WRONG], "positive": [ITEM, {"criterion": "As',
        '{"rubric": [{"criteria": [ITEM]}, {"category": "Pitfalls", "criteria": [WRONG]}]}',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "is_negative": true}]',
        '{"criteria": {"negative": [], "positive": [ITEM], "negative": [WRONG]}}',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "type": "negative"}]',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "is_negative": "true"}]',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "negative": 1}]',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "positive": false}]',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "sign": "-"}]',
        '[ITEM, {"criterion": "Advises alcohol", "points": 4, "polarity": -1}]',
        '{"criteria": {"positive": [ITEM], "negative": [{"criterion": "Advises alcohol", '
        '"points": -4}]}}',
    ],
)
def test_points_under_a_name_for_mistakes_are_negative_whatever_their_sign(reply):
    draft = read(reply.replace("ITEM", ITEM).replace("WRONG", WRONG))
    criteria = {criterion.text: criterion.points for criterion in draft.criteria}
    assert criteria == {"Names the dose": 5, "Advises alcohol": -4}


@given(st.lists(st.sampled_from(["criteria", "positive", "safety", "negative", "Pitfalls"])))
def test_a_name_for_mistakes_counts_at_any_depth(names):
    held: object = [json.loads(ITEM)]
    for name in names:
        held = [{"title": "a part", name: held}]
    (criterion,) = read(json.dumps(held)).criteria
    negative = not {"negative", "Pitfalls"}.isdisjoint(names)
    assert criterion.points == (-5 if negative else 5)


@pytest.mark.parametrize(
    "name",
    ["common_mistakes", "red_flags", "medication errors", "pertinent negatives", "avoiding errors"],
)
def test_under_a_name_that_may_be_a_topic_only_negative_points_are_sure(name):
    draft = read(f'{{"criteria": {{"{name}": [{ITEM}]}}}}')
    assert (draft.criteria, draft.faults) == ((), {"sign": 1})
    draft = read(f'[{{"title": "{name}", "criteria": [{ITEM}]}}]')
    assert (draft.criteria, draft.faults) == ((), {"sign": 1})
    (criterion,) = read(f'{{"criteria": {{"{name}": [{ITEM.replace("5", "-5")}]}}}}').criteria
    assert criterion.points == -5


@pytest.mark.parametrize("field", ["category", "label", "title"])
@pytest.mark.parametrize("kind", ["Pitfall", "negative"])
def test_the_label_of_a_criterion_leaves_its_sign_untold(field, kind):
    item = json.loads(ITEM) | {field: kind}
    assert read(json.dumps([item])).faults == {"sign": 1}


def test_what_a_writer_says_of_a_criterion_is_no_kind():
    beside = {"reason": "It must not be wrong, and avoids errors", "is_negative": False}
    (criterion,) = read(json.dumps([json.loads(ITEM) | beside])).criteria
    assert criterion.points == 5


def test_a_description_is_no_less_of_a_criterion_than_its_name():
    told = "Names 5 mg, without errors"
    for other, says in (
        ({"description": told}, f"Accuracy: {told}"),
        ({"text": f"Accuracy: {told}"}, f"Accuracy: {told}"),
        ({"requirement": ""}, "Accuracy"),
        ({"description": None, "title": "Dose"}, "Accuracy"),
    ):
        one = [{"criterion": "Accuracy", "points": 5} | other]
        assert texts(read(json.dumps(one))) == [says]
    named = [{"criterion": "Pitfall", "description": "Recommends wine", "points": 5}]
    assert read(json.dumps(named)).faults == {"sign": 1}


@pytest.mark.parametrize("theme", ["harm_reduction", "error handling", "notes", "important"])
def test_a_theme_is_no_kind(theme):
    (criterion,) = read(f'{{"criteria": {{"{theme}": [{ITEM}]}}}}').criteria
    assert criterion.points == 5


@pytest.mark.parametrize("field", ["category", "axis", "title"])
@pytest.mark.parametrize("topic", ["Errors", "mistakes", "harmful"])
def test_the_topic_of_a_criterion_is_no_kind(field, topic):
    item = json.loads(ITEM) | {field: topic}
    (criterion,) = read(json.dumps([item])).criteria
    assert criterion.points == 5


LEVELS = '[{"score": 1, "description": "Is rambling"}, {"score": 5, "description": "Is clear"}]'


@pytest.mark.parametrize(
    "scale",
    [
        f'{{"name": "Clarity", "weight": 5, "levels": {LEVELS}}}',
        f'{{"name": "Clarity", "score_levels": {LEVELS}}}',
        f'{{"clarity": {{"levels": {LEVELS}}}}}',
        '{"criterion": "Clarity", "points": 5, "scale": {"1": "Is rambling", "5": "Is clear"}}',
    ],
)
def test_a_scale_is_no_criterion_and_its_levels_are_none(scale):
    draft = read(f'{{"criteria": [{ITEM}, {scale}]}}')
    assert (texts(draft), draft.faults) == (["Names the dose"], {"scale": 1})


def test_a_scale_that_is_empty_is_none():
    item = ITEM.rstrip("}") + ', "options": [], "scale": {}}'
    draft = read(f'{{"criteria": [{item}]}}')
    assert (texts(draft), draft.faults) == (["Names the dose"], {})


def test_a_scale_beside_the_criteria_is_no_part_of_them():
    scale = '"scale": [{"score": 10, "description": "Is best"}]'
    draft = read(f'{{"title": "Doses", {scale}, "criteria": [{ITEM}]}}')
    assert (texts(draft), draft.faults) == (["Names the dose"], {})


def test_objects_in_prose_are_one_list():
    assert len(read(f"1. {ITEM}\n2. {ITEM}\n\nand\n{ITEM}").criteria) == 3


def test_a_missing_comma_loses_nothing():
    assert len(read(f'{{"criteria": [{ITEM} {ITEM}{ITEM}]}}').criteria) == 3


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


@pytest.mark.parametrize("piece", ['\\"', '"', "\\", '{"kind": "', "negati", "do", "},{", "[,"])
def test_a_long_reply_of_one_piece_is_read_in_no_time(piece):
    for opening in ("", '"', '{"criteria": [{"kind": "negati'):
        assert not read(opening + piece * 30_000).criteria


@given(st.text() | st.text(alphabet='[]{},:"\\criteon 0159-'))
def test_nothing_that_a_writer_says_breaks_the_reading(text):
    for criterion in read(text).criteria:
        assert 1 <= abs(criterion.points) <= MOST_POINTS
