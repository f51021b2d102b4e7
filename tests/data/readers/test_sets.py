"""Each published set from a row of its shape: what is asked, what earns points, what is refused.

All rows are made up.
"""

import json
from pathlib import Path

import pytest

import data_preprocess
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.readers import registry
from rubric_rl.data.readers.registry import READERS, reader_named, reader_of
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Row

ASK = [{"role": "user", "content": "Why is the sky blue?"}]
HEALTHBENCH = {
    "prompt_id": "h1",
    "prompt": ASK,
    "rubrics": [
        {"criterion": "Names scattering", "points": 5, "tags": ["axis:accuracy"]},
        {"criterion": "Blames the sea", "points": -4, "tags": []},
    ],
    "example_tags": ["theme:physics"],
    "canary": "made up",
}
PROFESSIONAL = {
    "id": "hp-7",
    "conversation": {"messages": ASK},
    "rubric_items": [
        {"criterion_text": "Names scattering", "points": 7},
        {"criterion_text": "Invents a law", "points": -9},
    ],
    "use_case": "consult",
    "type": "good_faith",
    "difficulty": "typical",
    "specialty": "optics",
    "physician_response": "secret",
    "canary_string": "canary 123",
}
RAR_MEDICINE = {
    "question": "Which vein?",
    "reference_answer": "secret",
    "question_source": "exam",
    "rubric": [
        {
            "title": "Vein",
            "description": "Essential Criteria: Names the vein.",
            "weight": 5,
        },
        {
            "title": "Artery",
            "description": "Pitfall Criteria: Recommends an artery.",
            "weight": -2,
        },
    ],
    "rubric_list": ["..."],
    "rubric_count": 2,
}
RAR_SCIENCE = RAR_MEDICINE | {
    "rubric": [
        {"title": "Law", "description": "Important Criteria: Names the law.", "weight": 4},
        {"title": "Units", "description": "Pitfall Criteria: Avoids mixed units.", "weight": -1},
    ]
}
RUBRICHUB = {
    "data_source": "medical",
    "ability": "medical_chat",
    "prompt": ASK,
    "reward_model": {
        "style": "rubric",
        "ground_truth": "secret",
        "rubrics": [
            {
                "criterion": "Is short",
                "points": 3,
                "tags": {"function": "max_words", "parameters": {"n": 9}, "verifier": "rule"},
            },
            {
                "criterion": "Says why",
                "points": 8,
                "tags": {"function": None, "parameters": None, "verifier": "llm"},
            },
        ],
    },
}
SYNTHESIS = {
    "question": "Why is the sky blue?",
    "id": 17,
    "rubrics": [{"criterion": "Says why", "points": 7}, {"criterion": "Greets", "points": 0}],
}
RESEARCH = {
    "sample_id": "r-3",
    "prompt": "Compare two pumps.",
    "domain": "Consumer",
    "conceptual_breadth": "Simple",
    "logical_nesting": "Shallow",
    "exploration": "Low",
    "rubrics": [
        {"criterion": "Names both prices", "weight": 5.0, "axis": "Explicit Criteria"},
        {"criterion": "Cites no source", "weight": -3.0, "axis": "References"},
    ],
}


def _prbench_criterion(title: str, weight_class: str, weight: int) -> dict:
    weights = dict.fromkeys(
        ["critically_important_weight", "detrimental_weight", "slightly_important_weight"]
    )
    weights[weight_class.replace(" ", "_") + "_weight"] = weight
    annotations = {
        "criteria_description": "longer",
        "criteria_category": "Accuracy",
        "weight_class": weight_class,
        **weights,
    }
    return {"id": "c", "title": title, "annotations": annotations}


PRBENCH = {
    "task": "pr-1",
    "turns": 2,
    "field": "Finance",
    "topic": "Tax",
    "expert": "e",
    "prompt_0": "Which form?",
    "response_0": "Form A.",
    "reference_texts_0": ["The law."],
    "prompt_1": "And later?",
    "response_1": None,
    "reference_texts_1": None,
    "rubric": [
        _prbench_criterion("Names form B", "critically important", 9),
        _prbench_criterion("Advises fraud", "detrimental", -7),
    ],
}
OPENRUBRICS = {
    "instruction": "Suggest two tools.",
    "response_a": "a",
    "response_b": "b",
    "winner": "a",
    "rubric": "Rubric:\n1. Names exactly two tools. [Hard Rule]\n2. Is clear\nto read. [Principle]",
}
WILDCHECKLISTS = {
    "prompt": "Write a haiku.",
    "chosen": [],
    "rejected": [],
    "requirements": "1) Is it a haiku? (importance: 100/100)\n2) Is it cold? (importance: 60/100)",
}
ADVANCEDIF = {
    "conversation_history": json.dumps([{"role": "system", "content": "Rhyme."}, *ASK]),
    "benchmark_name": "system_steerability_v2",
    "prompt_metadata": json.dumps({"rubrics": json.dumps(["Does it rhyme?", "Is it blue?"])}),
}
PLAN = {
    "Goal": "Plan a study of naps.",
    "Rubric": ["Has a control group", "Says for whom"],
    "Reference solution": "secret",
    "article_id": "a",
    "q_id": "77ab",
    "Subdomain": "",
    "Category": "Memory",
}
DR_TULU = {
    "messages": ASK,
    "dataset": "rl_rag",
    "ground_truth": json.dumps(
        {
            "query": "Why is the sky blue?",
            "rubrics": [
                {"title": "Why", "description": "Says why", "weight": 1.0},
                {"title": "Myth", "description": "Repeats a myth", "weight": -1.0},
            ],
        }
    ),
}
JUNKAIZ = {
    "prompt": "Two pills?",
    "rubrics": [
        {"criterion": "Asks which", "weight": 3},
        {"criterion": "Is short", "weight": 1},
    ],
    "number_of_criteria": 2,
    "total_weight": 4,
}
TINKER = {
    "convo": ASK,
    "rubric_items": [
        {
            "rubric_str": "Does it say why?",
            "extraction_regex": "<score>(.*)</score>",
            "grader_output_format_instruction": "Please ...",
        }
    ],
}
AUTORUBRIC = {
    "prompt": "Why is the sky blue?",
    "rubric": [
        {"name": "Why", "weight": 10.0, "requirement": "Says why"},
        {"name": "Sea", "weight": -15.0, "requirement": "Blames the sea"},
    ],
}
PLAIN = {"prompt": "Why is the sky blue?", "rubric": ["Says why", "Is short"]}

# set, a row, (criterion, points: below 0 where 'met' is bad, tags)
SETS = [
    (
        "healthbench",
        HEALTHBENCH,
        [("Names scattering", 5, ["axis:accuracy"]), ("Blames the sea", -4, [])],
    ),
    (
        "healthbench_professional",
        PROFESSIONAL,
        [("Names scattering", 7, []), ("Invents a law", -9, [])],
    ),
    (
        "rar",
        RAR_MEDICINE,
        [
            ("Essential Criteria: Names the vein.", 5, ["class:essential"]),
            ("Pitfall Criteria: Recommends an artery.", -2, ["class:pitfall"]),
        ],
    ),
    (
        "rar",
        RAR_SCIENCE,
        [
            ("Important Criteria: Names the law.", 4, ["class:important"]),
            ("Pitfall Criteria: Avoids mixed units.", -1, ["class:pitfall"]),
        ],
    ),
    (
        "rubrichub",
        RUBRICHUB,
        [
            ("Is short", 3, ["function:max_words", 'parameters:{"n": 9}', "verifier:rule"]),
            ("Says why", 8, ["verifier:llm"]),
        ],
    ),
    ("rubrichub_synthesis", SYNTHESIS, [("Says why", 7, [])]),
    (
        "research_rubrics",
        RESEARCH,
        [
            ("Names both prices", 5.0, ["axis:Explicit Criteria"]),
            ("Cites no source", -3.0, ["axis:References"]),
        ],
    ),
    (
        "prbench",
        PRBENCH,
        [
            ("Names form B", 9, ["axis:Accuracy", "weight_class:critically important"]),
            ("Advises fraud", -7, ["axis:Accuracy", "weight_class:detrimental"]),
        ],
    ),
    (
        "openrubrics",
        OPENRUBRICS,
        [
            ("Names exactly two tools.", 1, ["kind:hard_rule"]),
            ("Is clear\nto read.", 1, ["kind:principle"]),
        ],
    ),
    ("wildchecklists", WILDCHECKLISTS, [("Is it a haiku?", 100, []), ("Is it cold?", 60, [])]),
    ("advancedif", ADVANCEDIF, [("Does it rhyme?", 1, []), ("Is it blue?", 1, [])]),
    ("research_plan_gen", PLAN, [("Has a control group", 1, []), ("Says for whom", 1, [])]),
    ("dr_tulu", DR_TULU, [("Says why", 1.0, []), ("Repeats a myth", -1.0, [])]),
    ("junkaiz", JUNKAIZ, [("Asks which", 3, []), ("Is short", 1, [])]),
    ("tinker", TINKER, [("Does it say why?", 1, [])]),
    ("autorubric", AUTORUBRIC, [("Says why", 10.0, []), ("Blames the sea", -15.0, [])]),
    ("plain", PLAIN, [("Says why", 1, []), ("Is short", 1, [])]),
]
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
    if path.stem not in ("__init__", "reader", "pieces", "rubric_text", "registry"):
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
    if name in ("openrubrics", "wildchecklists") and damage == "rubric is broken JSON":
        pytest.skip("any text is a rubric there")
    good = [item | _asked(item, f"Question {number}?") for number in range(3)]
    lines = [json.dumps(row) + "\n" for row in (*good, DAMAGES[damage](item))]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines))
    words = [f"--source={path}", f"--format={name}", "--hold-out=1", "--allow-subset"]
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

    def test_prbench_without_the_weight_of_its_class_is_refused(self):
        criterion = _prbench_criterion("x", "detrimental", 0)
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

    def test_rubrichub_counts_the_criteria_of_no_points(self):
        raw = reader_named("rubrichub_synthesis").read(SYNTHESIS)
        assert raw.notes == {"criteria of 0 points left out": 1}

    def test_rubric_as_json_text_is_recognised_too(self):
        item = RAR_MEDICINE | {"rubric": json.dumps(RAR_MEDICINE["rubric"])}
        reader = reader_of(item)
        assert reader is not None and reader.name == "rar"
        assert read("rar", item).rubric == read("rar", RAR_MEDICINE).rubric


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(UserError, match=r"--format nope: is not known; take one of .*rar.*plain"):
        reader_named("nope")
