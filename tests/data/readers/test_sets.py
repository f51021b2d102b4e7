"""Each published set from a row of its shape: what is asked, what earns points, what is refused.

All rows are made up.
"""

import json
from pathlib import Path

import pytest
from doubles.rubric_sets import (
    ADVANCEDIF,
    AUTORUBRIC,
    DR_TULU,
    HEALTHBENCH,
    OPENRUBRICS,
    PRBENCH,
    PROFESSIONAL,
    RAR_MEDICINE,
    RAR_SCIENCE,
    RUBRICHUB,
    SETS,
    SYNTHESIS,
    WILDCHECKLISTS,
    prbench_criterion,
)

import data_preprocess
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.readers import registry
from rubric_rl.data.readers.registry import READERS, reader_named, reader_of
from rubric_rl.data.readers.rubric_text import LINES_LEFT_OUT
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Row

EACH_SET = pytest.mark.parametrize(
    "name, item, rubric", SETS, ids=[f"{number}-{each[0]}" for number, each in enumerate(SETS)]
)
# Where each set keeps its conversation and its rubric.
QUESTION = ("question", "prompt", "prompt_0", "instruction", "Goal", "messages", "convo")
QUESTION = (*QUESTION, "conversation", "conversation_history")
RUBRIC = ("rubrics", "rubric", "rubric_items", "requirements", "Rubric", "reward_model")
RUBRIC = (*RUBRIC, "ground_truth", "prompt_metadata")


def read(name: str, item: dict) -> Row:
    return to_row(reader_named(name).read(item), "f:1")


def field(item: dict, names: tuple[str, ...]) -> str:
    return next(name for name in names if name in item)


@EACH_SET
def test_a_row_is_recognised_by_its_fields(name, item, rubric):
    reader = reader_of(item)
    assert reader is not None and reader.name == name


@EACH_SET
def test_criteria_keep_their_texts_and_published_signs(name, item, rubric):
    found = [(each.text, each.points, list(each.tags)) for each in read(name, item).rubric]
    assert found == rubric


@EACH_SET
def test_no_answer_of_the_publisher_comes_along(name, item, rubric):
    assert "secret" not in json.dumps(read(name, item).to_json())


@EACH_SET
def test_a_signed_set_says_what_its_signs_mean(name, item, rubric):
    reader = reader_named(name)
    has_faults = any(points < 0 for _, points, _ in rubric)
    assert ("negative" in reader.signs) == has_faults or name == "plain"
    assert reader.mixed_signs == (name == "rar")


def by_field(objects: list[dict]) -> dict:
    return {key: [each[key] for each in objects] for key in objects[0]}


STORED = {
    "by field": by_field,
    "as JSON text": json.dumps,
    "as JSON text of JSON text": lambda objects: json.dumps(json.dumps(objects)),
    "by field as JSON text": lambda objects: json.dumps(by_field(objects)),
    "each as JSON text": lambda objects: [json.dumps(each) for each in objects],
}
OF_OBJECTS = ("healthbench_professional", "rar", "rubrichub_synthesis", "research_rubrics")
OF_OBJECTS = (*OF_OBJECTS, "prbench", "junkaiz", "tinker", "autorubric")


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name, item", [each[:2] for each in SETS if each[0] in OF_OBJECTS])
def test_a_set_is_recognised_however_its_rubric_is_stored(name, item, stored):
    rubric = field(item, RUBRIC)
    other = item | {rubric: STORED[stored](item[rubric])}
    reader = reader_of(other)
    assert reader is not None and reader.name == name
    assert read(name, other).rubric == read(name, item).rubric


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "name, item, where",
    [("rubrichub", RUBRICHUB, "reward_model"), ("dr_tulu", DR_TULU, "ground_truth")],
)
def test_a_set_is_recognised_by_an_object_in_json_text(name, item, where, times):
    value = item[where] if isinstance(item[where], dict) else json.loads(item[where])
    for _ in range(times):
        value = json.dumps(value)
    other = item | {where: value}
    reader = reader_of(other)
    assert reader is not None and reader.name == name
    assert read(name, other).rubric == read(name, item).rubric


def test_mixed_signs_are_asked_about_also_where_a_rubric_is_stored_by_field(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    rows = [RAR_SCIENCE | {"question": f"Why {number}?"} for number in range(3)]
    rows = [row | {"rubric": by_field(row["rubric"])} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [f"--source={path}", f"--out={tmp_path}", "--name=x", "--hold-out=1"]
    assert data_preprocess.main(flags) != 0
    assert "--keep-polarity" in capsys.readouterr().err


def test_a_conversation_may_be_stored_by_field():
    item = PROFESSIONAL | {"conversation": {"messages": {"role": ["user"], "content": ["Why?"]}}}
    assert read("healthbench_professional", item).messages[0]["content"] == "Why?"


ITEM = {"criterion": "Names scattering", "points": 5}


@pytest.mark.parametrize(
    "fields",
    [
        {"rubrics": [ITEM]},
        {"rubrics": [ITEM | {"tags": {"axis": "accuracy"}}]},
        {"rubrics": [ITEM | {"tags": [], "axis": "accuracy"}]},
        {"rubrics": ["Names scattering"]},
        {"rubrics": by_field(HEALTHBENCH["rubrics"])},
        {"rubrics": json.dumps(HEALTHBENCH["rubrics"])},
        {"rubrics": [json.dumps(each) for each in HEALTHBENCH["rubrics"]]},
        {"prompt": "Why is the sky blue?"},
        {"prompt": json.dumps(HEALTHBENCH["prompt"])},
        {"prompt_id": 7},
    ],
)
def test_a_row_that_is_only_like_healthbench_s_is_read_as_a_plain_one(fields):
    item = HEALTHBENCH | fields
    reader = reader_of(item)
    assert reader is not None and reader.name == "plain"
    row = to_row(reader.read(item), "f:1")
    assert row.rubric[0].text == "Names scattering"
    assert row.messages == tuple(HEALTHBENCH["prompt"])
    assert (row.theme, row.extra["canary"]) == ("physics", "made up")


def test_every_set_has_a_row_here():
    assert {reader.name for reader in READERS} - {name for name, _, _ in SETS} == {"prepared"}


@pytest.mark.parametrize("path", sorted(Path(registry.__file__).parent.glob("*.py")), ids=str)
def test_the_example_rows_of_a_reader_are_read(path):
    documented = path.read_text().split('"""')[1]
    documented = documented.encode().decode("unicode_escape")
    blocks = [block for block in documented.split("\n\n") if block.startswith("    {")]
    for block in blocks:
        item = json.loads(block, strict=False)
        reader = reader_of(item)
        assert reader is not None and path.stem in reader.name
        assert to_row(reader.read(item), "f:1").rubric
    if path.stem not in ("__init__", "reader", "pieces", "rubric_text", "registry", "signs"):
        assert blocks


DAMAGES = {
    "no rubric": lambda item: _without(item, field(item, RUBRIC)),
    "no question": lambda item: _without(item, field(item, QUESTION)),
    "rubric is null": lambda item: item | {field(item, RUBRIC): None},
    "rubric is a number": lambda item: item | {field(item, RUBRIC): 7},
    "rubric is empty": lambda item: item | {field(item, RUBRIC): []},
    "rubric is a list of numbers": lambda item: item | {field(item, RUBRIC): [1, 2]},
    "rubric is broken JSON": lambda item: item | {field(item, RUBRIC): '[{"criterion": '},
    "question is a number": lambda item: item | {field(item, QUESTION): 7},
    "question is blank": lambda item: item | {field(item, QUESTION): "\u200b \n"},
    "question is empty": lambda item: item | {field(item, QUESTION): []},
}


def _without(item: dict, name: str) -> dict:
    return {key: value for key, value in item.items() if key != name}


@EACH_SET
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_one_line_with_its_place(name, item, rubric, damage, tmp_path, capsys):
    good = [item | _asked(item, f"Question {number}?") for number in range(3)]
    lines = [json.dumps(row) + "\n" for row in (*good, DAMAGES[damage](item))]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines))
    words = [f"--source={path}", f"--format={name}", "--hold-out=1", "--allow-subset"]
    words.append("--keep-polarity")  # what is damaged is another matter
    assert data_preprocess.main([*words, f"--out={tmp_path / 'out'}"]) == 0
    (said,) = capsys.readouterr().err.splitlines()
    prompt_id = next(
        (item[key] for key in ("prompt_id", "id", "sample_id", "task", "q_id") if key in item), None
    )
    place = f"{path}:4" if prompt_id is None else f"{path}:4, prompt_id {prompt_id}"
    assert said.startswith((f"refused: {place}: ", f"refused: {place}, "))
    assert len(read_rows(tmp_path / "out" / "healthbench_easy.jsonl")) == 2


def _asked(item: dict, words: str) -> dict:
    """The fields that make an item another prompt."""
    fields = {
        key: f"{item[key]} {words}"
        for key in ("prompt_id", "id", "sample_id", "task")
        if key in item
    }
    if "q_id" in item:
        fields["q_id"] = words
    name = field(item, QUESTION)
    if name == "conversation":
        return fields | {name: {"messages": [{"role": "user", "content": words}]}}
    if isinstance(item[name], str) and not item[name].startswith("["):
        return fields | {name: words}
    return fields | {name: [{"role": "user", "content": words}]}


TEXT_SETS = [("openrubrics", OPENRUBRICS), ("wildchecklists", WILDCHECKLISTS)]


@pytest.mark.parametrize("name, item", TEXT_SETS)
class TestRubricsThatAreTexts:
    def test_as_json_they_are_of_no_such_set(self, name, item):
        item = item | {field(item, RUBRIC): '["Names a tool", {"text": "Is clear", "points": 2}]'}
        reader = reader_of(item)
        assert reader is not None and reader.name == "plain"
        assert [each.text for each in read("plain", item).rubric] == ["Names a tool", "Is clear"]

    def test_as_json_they_are_read_where_the_set_is_named(self, name, item):
        item = item | {field(item, RUBRIC): '["Names a tool", "Is clear"]'}
        assert [each.text for each in read(name, item).rubric] == ["Names a tool", "Is clear"]

    def test_headings_are_counted(self, name, item):
        item = item | {
            field(item, RUBRIC): "Hard rules:\n1. Names a tool\n\nPrinciples\n2. Is clear"
        }
        raw = reader_named(name).read(item)
        assert [each["criterion"] for each in raw["rubrics"]] == ["Names a tool", "Is clear"]
        assert raw.notes == {LINES_LEFT_OUT: 2}

    def test_boxes_to_tick_are_no_json(self, name, item):
        item = item | {field(item, RUBRIC): "[ ] Names a tool\n[ ] Is clear"}
        reader = reader_of(item)
        assert reader is not None and reader.name == name
        assert [each.text for each in read(name, item).rubric] == ["Names a tool", "Is clear"]


class TestOfOneSet:
    def test_professional_keeps_canary_and_labels(self):
        row = read("healthbench_professional", PROFESSIONAL)
        assert (row.prompt_id, row.theme) == ("hp-7", "consult")
        assert row.extra == {"canary": "canary 123"}
        assert "specialty:optics" in row.example_tags

    def test_prbench_puts_references_before_their_prompt(self):
        messages = read("prbench", PRBENCH).messages
        assert [each["role"] for each in messages] == ["user", "assistant", "user"]
        assert messages[0]["content"] == "Reference Text 0:\nThe law.\n\nWhich form?"
        assert messages[2]["content"] == "And later?"

    def test_prbench_keeps_the_indent_of_a_prompt(self):
        messages = read("prbench", PRBENCH | {"prompt_0": "  def f():"}).messages
        assert messages[0]["content"].endswith("\n\n  def f():")

    @pytest.mark.parametrize(
        "weight_class, weight",
        [("detrimental", 5), ("slightly detrimental", 5), ("important", -5)],
    )
    def test_prbench_refuses_a_weight_that_contradicts_its_class(self, weight_class, weight):
        rubric = [prbench_criterion("x", weight_class, weight)]
        with pytest.raises(DataError, match=f"is {weight_class} and its weight {weight}, of anot"):
            read("prbench", PRBENCH | {"rubric": rubric})

    def test_prbench_without_the_weight_of_its_class_is_refused(self):
        criterion = prbench_criterion("x", "detrimental", 0)
        criterion["annotations"]["detrimental_weight"] = None
        with pytest.raises(DataError, match="criterion 1: points must be a number"):
            read("prbench", PRBENCH | {"rubric": [criterion]})

    @pytest.mark.parametrize(
        "rubrics",
        [["Does it rhyme?"], json.dumps(["Does it rhyme?"])],
        ids=["once encoded", "twice encoded"],
    )
    def test_advancedif_in_either_encoding(self, rubrics):
        metadata = json.dumps({"rubrics": rubrics})
        row = read("advancedif", ADVANCEDIF | {"prompt_metadata": metadata})
        assert [each.text for each in row.rubric] == ["Does it rhyme?"]
        assert row.messages[0]["role"] == "system"

    def test_dr_tulu_as_open_instruct_wraps_it(self):
        row = read("dr_tulu", DR_TULU | {"ground_truth": [DR_TULU["ground_truth"]]})
        assert len(row.rubric) == 2

    def test_autorubric_refuses_multiple_choice(self):
        options = [{"label": "good", "value": 1.0}]
        rubric = [{"name": "x", "weight": 1, "requirement": "How good?", "options": options}]
        with pytest.raises(DataError, match="criterion 1 of rubric is multiple choice"):
            read("autorubric", AUTORUBRIC | {"rubric": rubric})

    def test_autorubric_with_guidelines(self):
        given = {"guidelines": "Be strict.", "criteria": AUTORUBRIC["rubric"]}
        assert len(read("autorubric", AUTORUBRIC | {"rubric": given}).rubric) == 2

    def test_autorubric_from_parquet_has_nulls_for_what_is_missing(self):
        rubric = [{"name": "x", "requirement": "Names it", "weight": None, "options": None}]
        assert read("autorubric", AUTORUBRIC | {"rubric": rubric}).rubric[0].points == 1

    @pytest.mark.parametrize(
        "given", ["The law.", '["The law."]', [None, "The law."]], ids=["text", "json", "null"]
    )
    def test_prbench_references_in_other_forms(self, given):
        messages = read("prbench", PRBENCH | {"reference_texts_0": given}).messages
        assert messages[0]["content"] == "Reference Text 0:\nThe law.\n\nWhich form?"

    def test_prbench_refuses_a_reference_that_is_no_text(self):
        with pytest.raises(DataError, match="a reference text is no text"):
            read("prbench", PRBENCH | {"reference_texts_0": [{"text": "The law."}]})

    @pytest.mark.parametrize(
        "written",
        [
            "(importance: 8/10)",
            "(importance: 80%)",
            "[importance: 80/100]",
            "(Importance = 80/100)",
            "(importance: -20/100)",
            "(importance: **40/100**)",
            "(importance: 1000)",
            "(Importance 60/100)",
            "(Importance score: 40/100)",
            "(70/100)",
            "(weight: 30/100)",
            "[importance 40]",
            "Importance 60/100",
            "60/100",
            "(importance: 20/100) (importance: 60/100)",
        ],
    )
    def test_wildchecklists_refuses_an_importance_that_it_would_misread(self, written):
        checklist = f"1) Is it a haiku? (importance: 90/100)\n2) Is it cold? {written}"
        with pytest.raises(DataError, match="criterion 2 of requirements has no"):
            read("wildchecklists", WILDCHECKLISTS | {"requirements": checklist})

    def test_wildchecklists_may_ask_about_importance(self):
        checklist = "1) Does it state the importance of sleep? (importance: 90/100)"
        (only,) = read("wildchecklists", WILDCHECKLISTS | {"requirements": checklist}).rubric
        assert (only.text, only.points) == ("Does it state the importance of sleep?", 90)

    def test_tinker_refuses_a_weight_that_it_would_lose(self):
        items = [{"rubric_str": "Is it rude?", "weight": -2}]
        with pytest.raises(DataError, match="criterion 1 of rubric_items has a weight"):
            read("tinker", {"convo": [{"role": "user", "content": "Hi"}], "rubric_items": items})

    def test_junkaiz_refuses_fields_that_it_would_lose(self):
        rubrics = [{"criterion": "a", "weight": 3}, {"criterion": "b", "weight": 1, "tags": ["x"]}]
        with pytest.raises(DataError, match=r"criterion 2 .* --format plain"):
            read("junkaiz", {"prompt": "Why?", "rubrics": rubrics})

    def test_rubrichub_counts_the_criteria_of_no_points(self):
        raw = reader_named("rubrichub_synthesis").read(SYNTHESIS)
        assert raw.notes == {"criteria of 0 points left out": 1}

    def test_rubric_as_json_text_is_recognised_too(self):
        item = RAR_MEDICINE | {"rubric": json.dumps(RAR_MEDICINE["rubric"])}
        reader = reader_of(item)
        assert reader is not None and reader.name == "rar"
        assert read("rar", item).rubric == read("rar", RAR_MEDICINE).rubric


def test_the_report_says_where_a_set_of_positive_points_has_negative_ones(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    lines = []
    for number in range(3):
        rubrics = [{"criterion": "a", "weight": 3}, {"criterion": "b", "weight": -1}]
        lines.append(json.dumps({"prompt": f"Why {number}?", "rubrics": rubrics}))
    path.write_text("\n".join(lines))
    flags = [f"--source={path}", f"--out={tmp_path}", "--name=x", "--hold-out=1"]
    assert data_preprocess.main(flags) == 0
    shown = capsys.readouterr().out
    assert "training: 2 prompts, 4 criteria, 50.0% negative (2, in a set whose points are" in shown


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(UserError, match=r"--format nope: is not known; take one of .*rar.*plain"):
        reader_named("nope")


# Rows of one's own that are nearly of a set's shape: what that set lacks is kept, or refused.
OWN_CRITERIA = {
    "rubrichub_synthesis": {"criterion": "Says why", "points": 5},
    "junkaiz": {"criterion": "Says why", "weight": 5},
    "research_rubrics": {"criterion": "Says why", "weight": 5, "axis": "a"},
}
OWN_ROWS = {
    "rubrichub_synthesis": {"question": "Why?", "rubrics": [{"criterion": "a", "points": 5}]},
    "rar": {"question": "Why?", "rubric": [{"description": "a", "weight": 5}]},
    "junkaiz": {"prompt": "Why?", "rubrics": [{"criterion": "a", "weight": 5}]},
    "openrubrics": {"instruction": "Why?", "rubric": "- a"},
    "wildchecklists": {"prompt": "Why?", "requirements": "- a"},
}


class TestRowsThatAreNearlyOfASet:
    @pytest.mark.parametrize("name", OWN_ROWS)
    def test_keep_a_system_text_and_the_fields_of_any_row(self, name):
        more = {"theme": "T", "canary": "C", "example_tags": ["x:y"]}
        item = OWN_ROWS[name] | more | {"system": "Be brief."}
        reader = reader_of(item)
        assert reader is not None and reader.name == name
        row = read(name, item)
        assert [each["content"] for each in row.messages] == ["Be brief.", "Why?"]
        assert (row.theme, row.extra["canary"], row.example_tags) == ("T", "C", ("x:y",))

    def test_keep_what_the_set_says_where_such_a_field_is_empty(self):
        for empty in ("", None):
            row = read("rubrichub", RUBRICHUB | {"theme": empty, "example_tags": empty})
            assert (row.theme, row.example_tags) == ("medical", ("ability:medical_chat",))

    def test_are_other_prompts_with_another_system_text(self):
        rows = [OWN_ROWS["rar"] | {"system": words} for words in ("Be brief.", "Be kind.")]
        assert read("rar", rows[0]).prompt_id != read("rar", rows[1]).prompt_id

    def test_keep_the_input_of_an_instruction(self):
        item = OWN_ROWS["openrubrics"] | {"input": "The sky is blue."}
        reader = reader_of(item)
        assert reader is not None and reader.name == "plain"
        assert read("plain", item).messages[0]["content"] == "Why?\n\nThe sky is blue."

    @pytest.mark.parametrize("name", ["openrubrics", "wildchecklists"])
    def test_keep_points_beside_a_text(self, name):
        item = OWN_ROWS[name] | {"points": [5, -2]}
        item[field(item, RUBRIC)] = "- Says water\n- Insults the user"
        reader = reader_of(item)
        assert reader is not None and reader.name == "plain"
        assert [each.points for each in read("plain", item).rubric] == [5, -2]

    @pytest.mark.parametrize("more", [{"kind": "x"}, {"category": "c"}, {"id": 7}])
    @pytest.mark.parametrize("name", OWN_CRITERIA)
    def test_are_plain_ones_where_a_criterion_says_more(self, name, more):
        given = OWN_CRITERIA[name]
        item = OWN_ROWS.get(name, OWN_ROWS["junkaiz"]) | {"rubrics": [given | more]}
        reader = reader_of(item)
        assert reader is not None and reader.name == "plain"
        item = item | {"rubrics": [given, given | more]}
        with pytest.raises(DataError, match=r"criterion 2 of rubrics has .* --format plain"):
            read(name, item)

    def test_rar_refuses_a_criterion_that_says_more(self):
        """As a plain row nobody would ask about its signs."""
        item = RAR_SCIENCE | {"rubric": [RAR_SCIENCE["rubric"][0] | {"axis": "a"}]}
        reader = reader_of(item)
        assert reader is not None and reader.name == "rar"
        with pytest.raises(DataError, match=r"criterion 1 of rubric has axis, .* --format plain"):
            read("rar", item)

    def test_are_not_healthbench_with_a_system_text(self):
        for key in ("system", "system_prompt"):
            reader = reader_of(HEALTHBENCH | {key: "Be brief."})
            assert reader is not None and reader.name == "plain"

    @pytest.mark.parametrize("item", [RAR_SCIENCE, SYNTHESIS, OPENRUBRICS])
    @pytest.mark.parametrize("more", [{"context": ["The sky is blue."]}, {"history": "User: Hi"}])
    def test_are_not_of_a_set_that_would_lose_a_part_of_the_prompt(self, item, more):
        reader = reader_of(item | more)
        assert reader is not None and reader.name == "plain"
        with pytest.raises(DataError, match="stands beside"):
            reader.read(item | more)

    @pytest.mark.parametrize("more", [{"input": "The text."}, {"points": [5]}])
    def test_are_refused_amid_rows_of_the_set(self, more, tmp_path, capsys):
        rows = [OPENRUBRICS | {"instruction": f"Suggest {number} tools."} for number in range(4)]
        rows[3] |= more
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert data_preprocess.main([f"--source={path}", f"--out={tmp_path}", "--hold-out=1"]) == 0
        said = "has an input, a context, a history or a list of points, which this set has not"
        assert f"{path}:4: {said}" in capsys.readouterr().err
