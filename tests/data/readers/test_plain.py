"""Rows that anyone may write."""

import json
from decimal import Decimal

import pytest

from rubric_rl.common.errors import DataError
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.readers.plain import PLAIN
from rubric_rl.data.readers.registry import reader_of
from rubric_rl.data.schema import Row


def read(**fields) -> Row:
    item = {"prompt": "Why?", "rubric": ["Says why"]} | fields
    assert reader_of(item) is PLAIN
    return to_row(PLAIN.read(item), "f:1")


def criteria(rubric: object) -> list[tuple]:
    return [(each.text, each.points, each.tags) for each in read(rubric=rubric).rubric]


@pytest.mark.parametrize(
    "rubric, found",
    [
        (["a", "b"], [("a", 1, ()), ("b", 1, ())]),
        ([{"text": "a"}], [("a", 1, ())]),
        ([{"text": "a", "points": "3"}], [("a", 3, ())]),
        (
            [{"text": "a", "weight": "2.5"}, {"title": "b", "score": "-1e0"}],
            [("a", 2.5, ()), ("b", -1, ())],
        ),
        (json.dumps([{"description": "a", "points": 2}]), [("a", 2, ())]),
        ({"a": 4, "b": "-2"}, [("a", 4, ()), ("b", -2, ())]),
        (
            [{"text": "a", "tags": {"axis": "x", "n": 3, "none": None}}],
            [("a", 1, ("axis:x", "n:3"))],
        ),
        ([{"text": "a", "tags": "axis:x"}], [("a", 1, ("axis:x",))]),
        ([{"text": "a", "axis": "x", "tags": ["t"]}], [("a", 1, ("t", "axis:x"))]),
        ("- a\n- b", [("a", 1, ()), ("b", 1, ())]),
        ([("a", 3.0), ("b", Decimal("-2.0"))], [("a", 3, ()), ("b", -2, ())]),  # a map of Parquet
        ({"a": 3, "of another row": None}, [("a", 3, ())]),  # a struct of Parquet
        # lists of objects as `datasets` stores them
        ({"criterion": ["a", "b"], "points": [3, -2]}, [("a", 3, ()), ("b", -2, ())]),
        ({"criteria": ["a", "b"], "points": (3, -2)}, [("a", 3, ()), ("b", -2, ())]),
        ({"text": ["a"], "points": [3], "tags": [["x:y"]]}, [("a", 3, ("x:y",))]),
        (json.dumps({"title": ["a"], "weight": ["2"]}), [("a", 2, ())]),
        ({"criteria": [{"text": "a", "points": 2}], "notes": []}, [("a", 2, ())]),
        ({"text": ["a"], "points": [3], "tags": [{"x": "y"}]}, [("a", 3, ("x:y",))]),
        # more than one JSON text
        (json.dumps(json.dumps([{"text": "a", "points": 2}])), [("a", 2, ())]),
        (json.dumps(json.dumps(["a"], indent=1)), [("a", 1, ())]),
        (
            [json.dumps({"text": "a", "points": 2}), json.dumps(["b", -3])],
            [("a", 2, ()), ("b", -3, ())],
        ),
        ({"criteria": [json.dumps({"text": "a", "points": 2})], "notes": "n"}, [("a", 2, ())]),
        ([{"text": "a", "tags": '["axis:x", "t"]'}], [("a", 1, ("axis:x", "t"))]),
        ([{"text": "a", "tags": '{"axis": "x"}'}], [("a", 1, ("axis:x",))]),
        # points beside the criteria, within the rubric
        ({"criteria": ["a", "b"], "weights": [5, -3]}, [("a", 5, ()), ("b", -3, ())]),
        ({"criteria": ["a", "b"], "scores": [5, -3]}, [("a", 5, ()), ("b", -3, ())]),
        ({"criteria": ["a", "b"], "weights": "[5, -3]"}, [("a", 5, ()), ("b", -3, ())]),
        ({"criteria": ["a"], "weights": [5], "notes": "n"}, [("a", 5, ())]),
        ([{"text": "a", "id": 7}], [("a", 1, ())]),
        (['"Yes" is said', "[1] is cited"], [('"Yes" is said', 1, ()), ("[1] is cited", 1, ())]),
    ],
)
def test_a_rubric_in_any_usual_form(rubric, found):
    assert criteria(rubric) == found


def test_lists_by_field_must_be_of_one_length():
    with pytest.raises(DataError, match="lists of several lengths, 2 criterion, 1 points; leave"):
        read(rubric={"criterion": ["a", "b"], "points": [3]})


@pytest.mark.parametrize(
    "rubric",
    [
        "['Names water', 'Advises a doctor']",
        "['Names water' 'Advises a doctor']",
        "{'Names water': 5, 'Advises alcohol': -3}",
        "[{'text': 'Names water', 'points': 5}]",
        "('Names water', 'Advises a doctor')",
        "array(['Names water', 'Advises a doctor'], dtype=object)",
        ["{'text': 'Names water', 'points': 5}"],
    ],
)
def test_what_python_shows_of_a_rubric_is_refused(rubric):
    with pytest.raises(DataError, match="rubric is no JSON, "):
        read(rubric=rubric)


@pytest.mark.parametrize(
    "fields",
    [
        {"rubric": {"criteria": ["a", "b"], "points": {"0": 5, "1": -3}}},
        {"rubric": ["a", "b"], "points": {"a": 5, "b": -3}},
        {"rubric": [{"text": "a"}, {"text": "b"}], "points": [5, -3]},
    ],
)
def test_points_beside_the_criteria_in_another_form_are_refused(fields):
    with pytest.raises(DataError, match="points beside the criteria is no list of numbers"):
        read(**fields)


@pytest.mark.parametrize("value", [5, -5.0, "5"])
def test_a_number_under_another_name_is_not_taken_for_1(value):
    with pytest.raises(DataError, match="a criterion has a number under value and no points"):
        read(rubric=[{"text": "a", "value": value}])


@pytest.mark.parametrize("tags", [{"theme": "x"}, "theme:x", ["theme:x"], '["theme:x"]'])
def test_tags_of_the_example_in_any_usual_form(tags):
    assert read(example_tags=tags).theme == "x"


@pytest.mark.parametrize("points", ["", "three", "nan", "inf", "1_000", "0x3", "1,5", True, [], {}])
def test_points_that_are_no_number_are_refused(points):
    with pytest.raises(DataError, match="criterion 1: points must be a number"):
        read(rubric=[{"text": "a", "points": points}])


@pytest.mark.parametrize(
    "rubric", [[None], [3], [[]], [{}], [""], ["\u200b"], [{"points": 3}], [{"content": "a"}]]
)
def test_a_criterion_without_text_is_refused(rubric):
    with pytest.raises(DataError, match="criterion 1: its text is empty or missing"):
        read(rubric=rubric)


@pytest.mark.parametrize(
    "messages, roles",
    [
        (
            [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}],
            ["system", "user"],
        ),
        (
            [
                {"from": "human", "value": "x"},
                {"from": "gpt", "value": "y"},
                {"from": "human", "value": "z"},
            ],
            ["user", "assistant", "user"],
        ),
        ([{"role": "User", "content": "x"}], ["user"]),
        (json.dumps([{"role": "user", "content": "x"}]), ["user"]),
        (json.dumps({"role": "user", "content": "x"}), ["user"]),
        (json.dumps([{"name": {"a": 1}, "role": "user", "content": "x"}]), ["user"]),
        (json.dumps(json.dumps([{"role": "user", "content": "x"}], indent=1)), ["user"]),
        (json.dumps({"messages": [{"role": "user", "content": "x"}]}, indent=1), ["user"]),
        ({"messages": [{"role": "user", "content": "x"}]}, ["user"]),
        ({"role": ["system", "user"], "content": ["x", "y"]}, ["system", "user"]),
    ],
)
def test_roles_of_today_and_of_older_data(messages, roles):
    assert [each["role"] for each in read(prompt=messages).messages] == roles


@pytest.mark.parametrize("prompt", ["{'role': 'user', 'content': 'x'}", '{"role": "user", "con'])
def test_a_message_in_broken_json_is_no_question(prompt):
    with pytest.raises(DataError, match="prompt is no JSON"):
        read(prompt=prompt)


OBJECTS = [
    '{"a": 1} is what?',
    '"[x]{y}" is what?',
    "[1] is what?",
    '[{"a": 1}]',
    "[{x for x in y}]",
]


@pytest.mark.parametrize("prompt", OBJECTS)
def test_other_braces_are_a_question(prompt):
    assert read(prompt=prompt).messages[0]["content"] == prompt


def test_content_in_parts_is_joined_and_pictures_are_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (message,) = read(prompt=[{"role": "user", "content": parts}]).messages
    assert message["content"] == "a\nb"
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(DataError, match="a message that is not only text"):
        read(prompt=[{"role": "user", "content": picture}])


@pytest.mark.parametrize("role", ["tool", "", None, 3])
def test_other_roles_are_refused_by_name(role):
    with pytest.raises(DataError, match="each message needs a role of system, user, assistant"):
        read(prompt=[{"role": role, "content": "x"}, {"role": "user", "content": "y"}])


def test_a_text_that_begins_like_a_list_is_a_question():
    (message,) = read(prompt="[1] What does this footnote mean?").messages
    assert message["content"] == "[1] What does this footnote mean?"
    (message,) = read(prompt="[ ] Tick this box?").messages
    assert message["content"] == "[ ] Tick this box?"


def test_a_prompt_of_one_text_is_not_healthbench_though_its_rubric_is():
    rubrics = [{"criterion": "Says why", "points": 2}]
    item = {"prompt_id": "p", "prompt": "Why?", "rubrics": rubrics}
    assert reader_of(item) is PLAIN
    assert to_row(PLAIN.read(item), "f:1").prompt_id == "p"


def test_equal_prompts_have_equal_ids_and_given_ids_stay():
    assert read().prompt_id == read(rubric=["other"]).prompt_id != read(prompt="Who?").prompt_id
    assert read(prompt_id="mine").prompt_id == "mine"
    assert read(id=0).prompt_id == "0"


@pytest.mark.parametrize("field", ["task", "sample_id", "q_id"])
def test_the_id_of_another_set_is_none_here(field):
    same = {field: "qa"}
    assert read(**same).prompt_id != read(prompt="Who?", **same).prompt_id


@pytest.mark.parametrize("key", ["points", "weights", "weight", "importance"])
def test_points_may_stand_in_a_list_of_their_own(key):
    row = read(rubric=["Names water", "Advises alcohol"], **{key: [3, -2]})
    assert [each.points for each in row.rubric] == [3, -2]
    with pytest.raises(DataError, match="2 criteria have 1 points beside them"):
        read(rubric=["Names water", "Advises alcohol"], **{key: [3]})
    row = read(rubric=["Names water", "Advises alcohol"], **{key: "[3, -2]"})
    assert [each.points for each in row.rubric] == [3, -2]


@pytest.mark.parametrize("name", ["score", "scores"])
def test_as_many_scores_as_criteria_may_be_points_or_not(name):
    with pytest.raises(DataError, match=f"as many {name} as criteria.*; name them points"):
        read(**{"rubric": ["a", "b"], name: [3, -2]})


@pytest.mark.parametrize("text", ["['a', 'b'] is printed", '{"n": 1} is returned', "('a', 1) is"])
def test_a_criterion_may_begin_as_json_does(text):
    assert criteria([text, "b"]) == [(text, 1, ()), ("b", 1, ())]


def test_an_empty_rubric_beside_a_full_one_is_none():
    assert read(rubric=[], criteria=["a"]).rubric[0].text == "a"
    with pytest.raises(DataError, match="rubric is missing"):
        PLAIN.read({"prompt": "Why?", "rubric": []})


def test_the_input_of_an_instruction_and_a_system_text_belong_to_the_prompt():
    item = {"instruction": "Translate.", "input": "Guten Tag", "system": "Be brief."}
    messages = to_row(PLAIN.read(item | {"rubric": ["a"]}), "f:1").messages
    assert [each["role"] for each in messages] == ["system", "user"]
    assert messages[1]["content"] == "Translate.\n\nGuten Tag"
    with pytest.raises(DataError):  # a message without a text stays one
        read(prompt=[{"role": "user", "content": None}], input="Guten Tag")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": "u", "text": "a cat"}]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]},
    ],
)
def test_what_is_no_text_is_refused(message):
    with pytest.raises(DataError, match="prompt holds a message that"):
        read(prompt=[message, {"role": "user", "content": "Why?"}])


def test_tags_that_are_none_are_refused_also_beside_an_axis():
    with pytest.raises(DataError, match="tags"):
        read(rubric=[{"text": "a", "tags": 5, "axis": "x"}])


def test_a_whole_number_that_pandas_made_a_float_is_an_id():
    assert read(id=7.0).prompt_id == "7"


@pytest.mark.parametrize("field", ["prompt", "question"])
def test_an_input_beside_another_prompt_is_refused(field):
    item = {field: "Summarize this.", "input": "The sky is blue.", "rubric": ["a"]}
    with pytest.raises(DataError, match="input stands beside a prompt that is no instruction"):
        PLAIN.read(item)
    item[field] += " The sky is blue."
    assert PLAIN.read(item)["prompt"][0]["content"] == "Summarize this. The sky is blue."


NAMED = {"name": "Accuracy", "weight": 5}


@pytest.mark.parametrize("title", ["name", "title"])
@pytest.mark.parametrize("other", ["question", "content", "detail", "rubric", "guidance"])
def test_a_title_is_no_criterion_where_another_field_may_be_its_text(title, other):
    given = {title: "Accuracy", "weight": 5, other: "States that the dose is 5 mg"}
    with pytest.raises(DataError, match=f"its text may be its {other}; call that criterion"):
        read(rubric=[given])


@pytest.mark.parametrize("other", ["description", "text", "criterion_text"])
def test_of_two_texts_of_a_criterion_neither_is_lost(other):
    named = {"criterion": "Accuracy", "points": 5}
    with pytest.raises(DataError, match=f"has criterion and {other}, of which one would be lost"):
        read(rubric=[named | {other: "States that the dose is 5 mg"}])
    for same in ("Accuracy", "", None):
        assert criteria([named | {other: same}]) == [("Accuracy", 5, ())]


def test_a_list_of_one_text_that_is_a_list_is_that_list():
    """As the training rows of Rubric-ARM hold a rubric of OpenRubrics."""
    rubric = ["1. Names water. [Hard Rule]\n2. Is clear. [Principle]"]
    assert criteria(rubric) == criteria(rubric[0])
    assert [text for text, _, _ in criteria(rubric)] == [
        "Names water. [Hard Rule]",
        "Is clear. [Principle]",
    ]
    for one in ("1) is the answer", "Names:\n- water\n- juice", "Names water\nor juice"):
        assert criteria([one]) == [(one, 1, ())]


def test_a_system_text_is_never_lost():
    for key in ("system", "system_prompt"):
        assert read(**{key: "Be kind."}).messages[0] == {"role": "system", "content": "Be kind."}
        assert len(read(**{key: ""}).messages) == 1
        with pytest.raises(DataError, match="the system message is no text; "):
            read(**{key: ["Be kind."]})
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    assert len(read(prompt=turns, system="Be kind.").messages) == 2
    for several in ({"prompt": turns, "system": "Rhyme."}, {"system": "a", "system_prompt": "b"}):
        with pytest.raises(DataError, match="there are several system messages; "):
            read(**several)


def test_what_else_a_prompt_may_be_about_is_refused():
    for more, said in (
        ({"context": "The sky is blue."}, "context stands beside the prompt"),
        ({"context": ["The sky is blue."]}, "context stands beside the prompt"),
        ({"context": {"title": ["Sky"]}}, "context stands beside the prompt"),
        ({"history": [["Hi", "Hello"]]}, "history stands beside a prompt of one turn"),
        ({"history": "User: Hi"}, "history stands beside a prompt of one turn"),
    ):
        with pytest.raises(DataError, match=said):
            read(**more)
        for nothing in (None, " ", [], [""], {}):
            assert len(read(**dict.fromkeys(more, nothing)).messages) == 1
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    asked = [*turns, {"role": "user", "content": "Is this right? The sky is blue."}]
    assert len(read(prompt=asked, history=turns, context="The sky is blue.").messages) == 3


def test_a_title_is_a_criterion_where_it_stands_alone():
    beside = {"id": "c1", "type": "positive", "category": "c", "level": 2, "tags": ["t"]}
    remarks = {"rationale": "It matters.", "source": "WHO", "is_positive": "yes"}
    for more in (beside, beside | remarks):
        assert criteria([NAMED | more]) == [("Accuracy", 5, ("t", "category:c"))]
    for own in ("criteria", "description"):
        assert criteria([NAMED | {own: "States it", "note": "n"}]) == [("States it", 5, ())]
    with pytest.raises(DataError, match="its text may be its name"):
        read(rubric=[NAMED | {"title": "Right"}])


@pytest.mark.parametrize("scale", ["levels", "scale", "options"])
def test_a_criterion_with_a_scale_is_refused(scale):
    levels = [{"score": 1, "description": "Is rambling"}, {"score": 5, "description": "Is clear"}]
    with pytest.raises(DataError, match=f"has {scale}, and here it is met or not"):
        read(rubric=[NAMED | {scale: levels}])
    assert criteria([NAMED | {scale: []}]) == [("Accuracy", 5, ())]


@pytest.mark.parametrize(
    "mark",
    [
        {"type": "negative"},
        {"kind": "Pitfall"},
        {"polarity": "negative criterion"},
        {"category": "penalties"},
        {"sign": "-"},
        {"sign": -1},
        {"sign": "minus"},
        {"polarity": "neg"},
        {"polarity": "Bad"},
        {"is_negative": True},
        {"negative": "true"},
        {"is_negative": 1},
        {"positive": False},
    ],
)
def test_a_mark_that_contradicts_the_points_is_refused(mark):
    good = {"criterion": "Names the dose", "points": 5}
    bad = {"criterion": "Recommends aspirin"} | mark
    for worth in ({"points": 5}, {"points": "5"}, {}):
        with pytest.raises(
            DataError,
            match=f"{next(iter(mark))} of a criterion says that it is n|"
            "a criterion has a number under",
        ):
            read(rubric=[good, bad | worth])
    assert [each[1] for each in criteria([good, bad | {"points": -5}])] == [5, -5]
    not_so = {"is_negative": False, "negative": None, "type": "positive", "positive": True}
    as_stored = {"is_negative": 0.0, "penalty": 0.0, "negative": "none", "is_positive": "yes"}
    for marks in (not_so, as_stored):
        assert criteria([good | marks])[0][1] == 5


NEGATIVE_LISTS = ["negative_criteria", "pitfalls", "Penalties", "things_to_avoid", "bad_criteria"]
NEGATIVE_LISTS += ["must_avoid", "should_not", "deductions"]


@pytest.mark.parametrize("name", NEGATIVE_LISTS)
def test_criteria_in_a_list_of_negative_ones_are_refused(name):
    said = f"{name} stands beside the criteria; write its criteria among them"
    for fields in (
        {name: ["Recommends aspirin"]},
        {"rubric": {"criteria": [{"text": "a"}, {"text": "b"}], name: ["Recommends aspirin"]}},
    ):
        with pytest.raises(DataError, match=said):
            read(**fields)
    assert len(read(**{name: []}).rubric) == 1
    assert len(read(negative_response=["Take aspirin."]).rubric) == 1


def test_a_text_in_a_list_that_says_its_points_is_refused():
    for rubric in (["a", "b (-5 points)"], json.dumps(["[+5] a", "b"]), [{"text": "a (+1)"}]):
        with pytest.raises(DataError, match="says its points"):
            read(rubric=rubric)
    assert criteria([{"text": "a (+1)", "points": 2}]) == [("a (+1)", 2, ())]
