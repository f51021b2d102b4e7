"""Prompts come as rows or alone, with whatever is known of good answers."""

import json

import pytest

from rubric_rl.common.errors import DataError
from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.readers import plain
from rubric_rl.data.readers.pieces import hashed
from rubric_rl.generation.prompts import PromptFile, read_prompt

MESSAGES = [{"role": "user", "content": "Is it gout?"}]
RUBRIC = [{"criterion": "Asks for the toe", "points": 3, "tags": []}]


def test_a_prompt_may_be_a_text_alone_and_is_named_by_its_hash():
    prompt = read_prompt({"prompt": "Is it gout?"}, "here")
    assert list(prompt.row.messages) == MESSAGES
    assert prompt.prompt_id == hashed(MESSAGES)
    assert prompt.row.rubric == ()


def test_a_conversation_and_an_id_are_read_as_elsewhere():
    parts = [{"type": "text", "text": "Is it"}, {"type": "text", "text": "gout?"}]
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "human", "content": parts}]
    prompt = read_prompt({"id": 7, "prompt": messages}, "here")
    assert [message["role"] for message in prompt.row.messages] == ["system", "user"]
    assert prompt.row.messages[1]["content"] == "Is it\ngout?"
    assert prompt.prompt_id == "7"


@pytest.mark.parametrize(
    "item, words",
    [
        ({"prompt": "Is it gout?", "system": "Be kind."}, ["Be kind.", "Is it gout?"]),
        ({"messages": MESSAGES, "system": "Be kind."}, ["Be kind.", "Is it gout?"]),
        ({"instruction": "Is it gout?", "input": "It is red."}, ["Is it gout?\n\nIt is red."]),
    ],
)
def test_what_stands_beside_a_prompt_is_in_it_as_in_training(item, words):
    messages = list(read_prompt(item, "here").row.messages)
    assert [message["content"] for message in messages] == words
    assert messages == plain.read(item | {"rubrics": RUBRIC})["prompt"]


def test_a_row_of_training_keeps_its_name_theme_and_canary_and_its_rubric_is_the_expert_s():
    metadata = {"prompt_id": "p", "messages": MESSAGES, "rubrics": RUBRIC, "theme": "t"}
    row = row_from_metadata(metadata | {"canary": "c"})
    prompt = read_prompt(row.to_json(), "here")
    assert prompt.row == row


@pytest.mark.parametrize(
    "rubric",
    [
        {"rubrics": [{"description": "Asks for the toe", "weight": "3"}]},
        {"rubric": {"Asks for the toe": 3}},
        {"rubrics": ["Asks for the toe"], "weights": [3]},
        {"rubrics": json.dumps(RUBRIC)},
    ],
)
def test_an_expert_s_rubric_is_read_in_the_forms_of_plain(rubric):
    (criterion,) = read_prompt({"prompt": "x"} | rubric, "here").row.rubric
    assert (criterion.text, criterion.points) == ("Asks for the toe", 3)


def test_a_raw_row_of_healthbench_has_its_theme_as_a_tag_and_its_reference_in_an_object():
    item = {"prompt_id": "p", "prompt": MESSAGES, "example_tags": ["theme:hedging"]}
    item["ideal_completions_data"] = {"ideal_completion": "See a doctor."}
    prompt = read_prompt(item, "here")
    assert (prompt.row.theme, prompt.reference) == ("hedging", "See a doctor.")


def test_of_a_prepared_row_its_own_messages_count():
    item = {"prompt": "<|im_start|>user", "metadata": {"messages": MESSAGES}}
    assert list(read_prompt(item, "here").row.messages) == MESSAGES


def test_what_stands_beside_a_prepared_row_counts_too():
    row = row_from_metadata({"prompt_id": "p", "messages": MESSAGES, "rubrics": RUBRIC})
    beside = {"reference": "See a doctor.", "chosen": "good", "rejected": "bad"}
    prompt = read_prompt(row.to_json() | beside, "here")
    assert (prompt.reference, prompt.pairs) == ("See a doctor.", (("good", "bad"),))


@pytest.mark.parametrize(
    "fields",
    [
        {"pairs": [{"better": "good", "worse": "bad"}]},
        {"chosen": "good", "rejected": "bad"},
    ],
)
def test_pairs_of_answers_are_read(fields):
    assert read_prompt({"prompt": "x"} | fields, "here").pairs == (("good", "bad"),)


@pytest.mark.parametrize(
    "item, complaint",
    [
        ([], "here: not a JSON object"),
        ({}, "here: no prompt; each line needs `prompt`, a text or messages$"),
        ({"prompt": ""}, "here: no prompt; each line needs `prompt`, a text or messages$"),
        (
            {"prompt": "x", "rubrics": RUBRIC, "negative_criteria": ["y"]},
            "here: negative_criteria stands beside the criteria",
        ),
        ({"prompt": [{"role": "assistant", "content": "Hi"}]}, "last message is from the assist"),
        ({"prompt": 5}, "here: prompt is no conversation"),
        ({"prompt": "x", "pairs": [{"better": "y"}]}, "prompt_id .*: a pair of answers needs two"),
        ({"prompt": "x", "pairs": 3}, "pairs is no list"),
        ({"prompt": "x", "chosen": ["y"], "rejected": "z"}, "a pair of answers needs two"),
        ({"prompt": "x", "pairs": [{"better": "", "worse": "z"}]}, "pair of answers needs two"),
        ({"prompt": "x", "chosen": "good"}, "a pair of answers needs two"),
        ({"prompt": "x", "reference": ["good"]}, r"prompt_id .*: reference is \['good'\], no text"),
        ({"prompt": "x", "rubrics": [{"criterion": "y", "points": "many"}]}, "'many'; mend the"),
        (
            {"prompt": "x", "rubrics": [{"criterion": " ", "points": 1}]},
            "empty or missing; mend",
        ),
        ({"prompt": "x", "rubrics": [{"criterion": "y", "points": 0}]}, "no criterion with points"),
        ({"prompt": "x", "rubrics": 3}, "here: rubric is no list of criteria"),
        ({"prompt": "\ud800"}, "lone surrogate"),
    ],
)
def test_what_is_no_prompt_is_refused_with_its_place(item, complaint):
    with pytest.raises(DataError, match=complaint):
        read_prompt(item, "here")


def test_a_file_is_checked_as_a_whole(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "x"}) + "\n" + json.dumps({"prompt": "x"}) + "\n")
    with pytest.raises(DataError, match=r"prompts.jsonl:2, prompt_id \w+: duplicate"):
        PromptFile(path)
    assert len(PromptFile(path, limit=1).prompt_ids) == 1
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no prompts"):
        PromptFile(path)
