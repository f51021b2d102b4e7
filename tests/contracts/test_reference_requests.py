"""`evaluate --reference` asks what HealthBench's own code asks, field by field.

Needs a checkout of openai/simple-evals, named by SIMPLE_EVALS_DIR, and `pip install openai`. With
HEALTHBENCH_ROWS, a file of published rows, these are compared too, with physicians' answers.
"""

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from doubles.engine import FakeEngine

from rubric_rl.data.grader_template import REFERENCE
from rubric_rl.evaluation.comparable import PUBLISHED_MODEL
from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser

pytestmark = pytest.mark.contract
# But for its placeholders, which the reference expands in an answer, and for control tokens.
ODD = "Line one.\n\n- a list\n<< {braces} \\n \u2028 caf\u00e9 \U0001f600\n"


@pytest.fixture(scope="module")
def reference():
    """The reference's modules, imported from the checkout: its folder is a package."""
    named = os.environ.get("SIMPLE_EVALS_DIR")
    if not named:
        pytest.skip("SIMPLE_EVALS_DIR does not name a checkout of openai/simple-evals")
    pytest.importorskip("openai")
    for name in ("blobfile", "pandas"):  # for the published files, and for its tables
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = ModuleType(name)
    package = ModuleType("simple_evals")
    package.__path__ = [named]
    sys.modules["simple_evals"] = package
    evaluation = importlib.import_module("simple_evals.healthbench_eval")
    sampler = importlib.import_module("simple_evals.sampler.chat_completion_sampler")
    return evaluation, sampler


def published_rows() -> list[dict]:
    path = os.environ.get("HEALTHBENCH_ROWS")
    if not path:
        return []
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def made_up_rows() -> list[dict]:
    rows = []
    for number, text in enumerate(("It hurts.", ODD, "  spaces around  ")):
        turns = [{"role": "user", "content": text}]
        if number:
            reply = {"role": "assistant", "content": ODD}
            turns = [{"role": "system", "content": "Be kind."}, turns[0], reply, turns[0]]
        rubrics = [
            {"criterion": f"Names {number}.", "points": 7, "tags": ["axis:accuracy"]},
            {"criterion": f"Invents {ODD}", "points": -3, "tags": []},
        ]
        row = {"prompt_id": f"p{number}", "prompt": turns, "rubrics": rubrics}
        rows.append(row | {"example_tags": [], "ideal_completions_data": None})
    return rows


def asked_by_the_reference(reference, rows: list[dict], answers: list[str], url: str) -> None:
    evaluation, samplers = reference
    os.environ |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-nobody"}
    sampler = samplers.ChatCompletionSampler(
        model=PUBLISHED_MODEL,
        system_message=samplers.OPENAI_SYSTEM_MESSAGE_API,
        max_tokens=REFERENCE["max_tokens"],
    )
    grader = evaluation.HealthBenchEval.__new__(evaluation.HealthBenchEval)
    grader.grader_model = sampler
    for row, answer in zip(rows, answers, strict=True):
        rubric = [evaluation.RubricItem.from_dict(item) for item in row["rubrics"]]
        grader.grade_sample(row["prompt"], answer, row["example_tags"], rubric)


@pytest.mark.parametrize("rows_of", [made_up_rows, published_rows])
def test_every_request_is_the_references(reference, tmp_path, monkeypatch, rows_of):
    rows = rows_of()
    if not rows:
        pytest.skip("HEALTHBENCH_ROWS names no file of published rows")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    answers = []
    for row in rows:
        ideal = row["ideal_completions_data"] or {}
        answers.append(ideal.get("ideal_completion") or ODD)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "answers.jsonl").open("w") as file:
        for row, answer in zip(rows, answers, strict=True):
            file.write(json.dumps({"prompt_id": row["prompt_id"], "answer": answer}) + "\n")
    source = Path(os.environ["SIMPLE_EVALS_DIR"], "healthbench_eval.py")

    async def bodies() -> tuple[list[dict], list[dict]]:
        async with FakeEngine() as theirs, FakeEngine() as ours:
            work = asyncio.to_thread(asked_by_the_reference, reference, rows, answers, theirs.url)
            await work
            words = [
                *("--rows", tmp_path / "rows.jsonl", "--answers", tmp_path / "answers.jsonl"),
                *("--out", tmp_path / "out", "--grader-url", f"{ours.url}/v1"),
                *("--reference", "--grader-template", source),
            ]
            await EvaluationPlan(_parser().parse_args([str(word) for word in words])).run()
            return theirs.bodies, ours.bodies

    theirs, ours = (
        [json.dumps(body, sort_keys=True) for body in side] for side in asyncio.run(bodies())
    )
    assert len(theirs) == sum(len(row["rubrics"]) for row in rows)
    assert sorted(ours) == sorted(theirs)
