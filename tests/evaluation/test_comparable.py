"""--reference, and what a result says of published scores: comparable, or why not."""

from pathlib import Path

import pytest
from doubles.records import made, raw_rows

from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data import grader_template
from rubric_rl.data.download import Published, digest
from rubric_rl.data.grader_template import HEALTHBENCH, Template, load_template
from rubric_rl.evaluation import comparable
from rubric_rl.evaluation.evaluate import EvaluationPlan, _parser
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.resume import RESULTS, EvaluationFolder
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import published_lines
from rubric_rl.serving.question import Reply

TEXT = "Conversation:\n<<conversation>>\n\nItem: <<rubric_item>>\nReply in JSON."


@pytest.fixture
def words(tmp_path, monkeypatch) -> list:
    """An evaluation of all three rows of a "published" file, by a made-up published template."""
    load_template.cache_clear()
    rows = raw_rows(tmp_path / "rows.jsonl")
    published = Published("rows.jsonl", rows.stat().st_size, digest(rows))
    monkeypatch.setattr(comparable, "EVALUATION_SETS", (("Small", published, 3),))
    template = Template("t", TEXT)
    for module in (grader_template, comparable):
        monkeypatch.setattr(module, "TEMPLATE_SHA256", template.sha256)
    monkeypatch.setattr(comparable, "_LABEL", f"{HEALTHBENCH} {template.sha256[:8]}")
    (tmp_path / "template.txt").write_text(TEXT)
    answers = tmp_path / "answers.jsonl"
    write_jsonl(answers, [{"prompt_id": f"p{number}", "answer": "x"} for number in range(3)])
    reference = ["--reference", "--grader-template", tmp_path / "template.txt"]
    return ["--rows", rows, "--answers", answers, "--out", tmp_path / "out", *reference]


def plan_of(words: list) -> EvaluationPlan:
    return EvaluationPlan(_parser().parse_args([str(word) for word in words]))


def published(plan: EvaluationPlan, *records, moved_from: str = "", **how) -> dict:
    """What is said of a folder with the plan's settings and these records."""
    out = Path(plan.args.out)
    if moved_from:
        earlier = plan.identity()
        earlier["grader"]["url"] = moved_from
        with EvaluationFolder(out, earlier):
            pass
    with EvaluationFolder(out, plan.identity(), moved=bool(moved_from)) as store:
        if moved_from:
            store.keep("grader", "p0#0", "q", Reply("", True, None, 1, 0, 1, ""))
        write_jsonl(out / RESULTS, [record.to_json() for record in records])
    run = Run(out)
    return comparable.comparison_with_published(run, Summary(run, **how))


def graded(count: int = 3, grader: str = "gpt-4.1-2025-04-14", met: bool | None = True) -> list:
    label = f"{HEALTHBENCH} {Template('t', TEXT).sha256[:8]}"
    names = [f"p{number}" for number in range(count)]
    return [made(name, (5,), (met,), grader=grader, template=label, run="r") for name in names]


def test_reference_sends_no_field_of_its_own_beside_one_of_the_users(words):
    flags = ["--grader-extra-body", '{"service_tier": "flex"}']
    sent = plan_of([*words, *flags]).grader_endpoint.extra_body
    assert sent == {"seed": None, "top_p": None, "service_tier": "flex"}


def test_reference_sets_all_that_a_published_score_needs(words):
    plan = plan_of(words)
    endpoint, grading = plan.grader_endpoint, plan.grading
    assert (endpoint.url, endpoint.api_key_env) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert (endpoint.model, endpoint.temperature) == ("gpt-4.1-2025-04-14", 0.5)
    assert (endpoint.max_tokens, endpoint.extra_body) == (2048, {"seed": None, "top_p": None})
    assert (grading.mode, grading.json_schema, plan.scoring.truncated) == (
        "explain",
        False,
        "grade",
    )
    assert published(plan, *graded()) == {
        "set": "Small",
        "comparable": True,
        "reasons": [],
        "notes": [],
    }


def test_the_key_of_openai_goes_to_no_other_url(words):
    endpoint = plan_of([*words, "--grader-url", "http://other"]).grader_endpoint
    assert (endpoint.url, endpoint.api_key_env) == ("http://other", "")


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--grader-model", "other"], "grader other in place of gpt-4.1-2025-04-14"),
        (["--grader-mode", "direct"], "mode 'direct' in place of 'explain'"),
        (["--grader-temperature", "1"], "temperature 1.0 in place of 0.5"),
        (["--grader-max-tokens", "99"], "max_tokens 99 in place of 2048"),
        (["--grader-json-schema", "true"], "json_schema True in place of False"),
        (["--grader-system", "x"], "system 'x' in place of 'You are a helpful assistant.'"),
        (["--grader-top-p", "0.9"], "top_p 0.9 in place of 1.0"),
        (["--grader-extra-body", '{"x": 1}'], "further request fields (x)"),
        (["--grader-extra-body", '{"seed": 3, "top_p": null}'], "further request fields (seed)"),
        (["--grader-seed", "5"], "further request fields (seed)"),
        (["--grader-top-p", "1.0"], "further request fields (top_p)"),
        (["--grader-template", ""], "prompt our own in place of healthbench"),
        (["--limit", "2"], "2 of 3 prompts have a score"),
    ],
)
def test_whatever_a_flag_changes_is_a_reason(words, flags, reason):
    count = 2 if "--limit" in flags else 3
    found = published(plan_of([*words, *flags]), *graded(count))
    assert not found["comparable"]
    assert any(each.startswith(reason) for each in found["reasons"]), found["reasons"]


def test_an_ungraded_answer_is_a_reason_though_its_prompt_has_a_score(words):
    ungraded = made("p0", (5,), (), status="ungraded", grader="gpt-4.1-2025-04-14", index=1)
    assert published(plan_of(words), *graded(), ungraded) == {
        "set": "Small",
        "comparable": False,
        "reasons": ["1 of 4 answers are ungraded"],
        "notes": [],
    }


def test_repeats_that_are_not_there_yet_are_a_reason(words):
    policy = ["--policy-url", "http://policy", "--policy-model", "m", "--repeats", "2"]
    at = words.index("--answers")
    plan = plan_of([*words[:at], *policy, *words[at + 2 :]])
    (reason,) = published(plan, *graded())["reasons"]
    assert reason == "3 of 6 answers are there so far"


def test_several_answers_to_a_prompt_are_a_note_also_beside_ungraded_ones(words):
    more = [made("p0", (5,), (True,), index=1), made("p0", (5,), (), status="ungraded", index=2)]
    (note,) = published(plan_of(words), *graded(), *more)["notes"]
    assert note == "4 answers to 3 prompts; published: one each"


def test_the_published_model_at_another_url_is_a_note(words):
    found = published(plan_of([*words, "--grader-url", "http://n:key@other:1/v1"]), *graded())
    assert found["comparable"] and found["notes"] == ["asked at other, not at api.openai.com"]


def test_other_rows_are_no_published_set(words, monkeypatch):
    monkeypatch.setattr(comparable, "EVALUATION_SETS", ())
    (reason,) = published(plan_of(words), *graded())["reasons"]
    assert reason.startswith("the rows are not a published file")


def test_a_policy_that_grades_itself_is_a_reason(words):
    reasons = published(plan_of(words), *graded(grader="policy"))["reasons"]
    assert reasons == ["the policy grades itself"]


def test_an_answer_of_another_grader_among_them_is_a_reason(words):
    records = [*graded(2), *graded(grader="other")[2:]]
    (reason,) = published(plan_of(words), *records)["reasons"]
    assert reason == "several graders, prompts or endpoints took part"


def test_a_run_that_went_on_at_another_url_says_so(words):
    (reason,) = published(plan_of(words), *graded(), moved_from="http://a")["reasons"]
    assert reason == "several graders, prompts or endpoints took part"


def test_unreadable_verdicts_are_a_reason_only_where_they_are_many(words, monkeypatch):
    assert published(plan_of(words), *graded(met=None))["reasons"] == [
        "3 of 3 verdicts are unreadable"
    ]
    monkeypatch.setattr(comparable, "MOST_DIFFERING", 1)
    run = Run(plan_of(words).args.out)
    found = comparable.comparison_with_published(run, Summary(run))
    assert (found["comparable"], found["notes"]) == (True, ["3 of 3 verdicts are unreadable"])
    assert published_lines(found) == [
        "Comparable with published scores of Small",
        "  but 3 of 3 verdicts are unreadable",
    ]


def test_another_scoring_rule_is_a_reason(words):
    (reason,) = published(plan_of(words), *graded(), rule=ScoringRule(clip=True))["reasons"]
    assert reason.startswith("another scoring rule")


def test_training_records_say_nothing_of_it(tmp_path):
    write_jsonl(tmp_path / "weights_1.jsonl", [record.to_json() for record in graded()])
    run = Run(tmp_path)
    assert comparable.comparison_with_published(run, Summary(run)) is None
