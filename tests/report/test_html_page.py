"""The page: it needs nothing from outside, and hostile text stays text."""

import json
import re

from doubles.records import write_run
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.report.html_page import html_page, json_block
from rubric_rl.report.report_view import ReportView


def test_the_page_needs_nothing_from_outside(reports):
    text = reports["one"].read_text(encoding="utf-8")
    assert not re.search(r"<(?:link|img|iframe|script)[^>]*(?:src|href)=", text)
    assert not re.search("https?:", text)


def test_no_program_and_no_style_but_its_own_may_run(reports):
    text = reports["one"].read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', text)
    assert policy
    parts = dict(part.split(maxsplit=1) for part in policy[1].split(";"))
    assert parts.keys() == {"default-src", "style-src", "script-src"}
    assert parts["default-src"] == "'none'"
    for name in ("style-src", "script-src"):
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", parts[name])
    assert "style=" not in text and "onclick=" not in text


def test_hostile_text_is_data_and_nothing_else(reports, hostile, data, without_data):
    text = reports["one"].read_text(encoding="utf-8")
    prompts = 4
    scripts = 1 + len(("names", "index")) + prompts
    assert text.count("<script") == scripts
    assert text.count("</script>") == scripts
    outside = without_data(text)
    assert "onerror" not in re.sub("&lt;img.*?&gt;", "", outside)
    answer = data(reports["one"])["prompt0"]["runs"][0][0]["answer"]
    assert answer == hostile.replace("\ud83d", "?")


@given(st.text(st.characters(codec=None) | st.sampled_from("</script>&\u2028\u2029\ud800")))
def test_no_text_ends_its_data_block(text):
    block = json_block({"text": text})
    assert not re.search("[<>&\u2028\u2029]", block)
    encodable = text.encode(errors="replace").decode()
    assert json.loads(block)["text"] == encodable


def test_two_runs_stand_side_by_side(reports, data):
    blocks = data(reports["two"])
    scores = [entry[3] for entry in blocks["index"]]
    assert [len(of_prompt) for of_prompt in scores] == [2] * 4
    before, after = blocks["prompt0"]["runs"]
    assert (len(before), len(after)) == (1, 2)
    assert [verdict["met"] for verdict in after[1]["verdicts"]] == [True] * 3
    text = reports["two"].read_text(encoding="utf-8")
    assert "paired difference on 1 prompts: 1 better" in text


def test_the_worst_criteria_are_those_that_cost_most(reports):
    text = reports["one"].read_text(encoding="utf-8")
    table = text[text.index("Worst criteria") : text.index("Most often unreadable")]
    costs = re.findall(r'class="n">(\d\.\d{4})</td>', table)
    expected = [points / 8 / 3 for points in (5, 4, 3)]
    assert costs == [f"{cost:.4f}" for cost in expected]


def test_the_page_comes_in_pieces_and_no_example_is_read_ahead(records, tmp_path, monkeypatch):
    """The examples of a large run never stand in memory together."""
    view = ReportView([Run(write_run(tmp_path / "run", records))], ScoringRule())
    read_now, pieces = [], html_page(view)
    examples = view.examples

    def watched(prompt_ids):
        for item in examples(prompt_ids):
            read_now.append(item["id"])
            yield item

    monkeypatch.setattr(view, "examples", watched)
    counts = [len(read_now) for piece in pieces if piece.startswith('{"id":')]
    assert counts == [1, 2, 3, 4]
