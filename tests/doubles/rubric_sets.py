"""A made-up row of each published rubric set, in its shape, and what is to come of it."""

import json

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


def prbench_criterion(title: str, weight_class: str, weight: int) -> dict:
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
        prbench_criterion("Names form B", "critically important", 9),
        prbench_criterion("Advises fraud", "detrimental", -7),
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
