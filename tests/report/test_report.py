"""The report: hostile text stays text, in a real browser too; two runs side by side; the same as Markdown (stage 6)."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.records import made, write_run
from hypothesis import given
from hypothesis import strategies as st

from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import Rule
from rubric_rl.report import __main__ as report
from rubric_rl.report.__main__ import write_report
from rubric_rl.report.html_page import _json
from rubric_rl.report.markdown import block, plain
from rubric_rl.report.run_view import Side
from rubric_rl.report.svg import Bar, bars, histogram

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOSTILE = (
    '</script><script>document.title="owned"</script><img src=x onerror=document.title="owned"> '
    "`` ``` \u2028 {{body}} <!-- \ud83d &amp;"
)
RECORDS = [
    made("p-low", (5, 3, -4), (False, None, True), answer=HOSTILE, explanation=HOSTILE),
    made("p-high", (5, 3, -4), (True, True, False), theme="u"),
    made("p-out", (5,), (), status="ungraded", answer=None, error="HTTP 500"),
    made(HOSTILE, (5,), (True,), theme=HOSTILE),
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    before = write_run(folder / "before", RECORDS)
    after = write_run(
        folder / "after",
        [
            made("p-low", (5, 3, -4), (True, True, True), index=i, answer=f"better {i}")
            for i in range(2)
        ],
    )
    one = write_report([Run(before)], Rule(), folder / "one")
    two = write_report([Run(before), Run(after)], Rule(), folder / "two")
    return {"one": one[0], "two": two[0], "md": one[1], "two_md": two[1]}


def data(page: Path) -> dict:
    """The data blocks of the page, found as a browser finds them: up to the next end of a script."""
    text = page.read_text(encoding="utf-8")
    return {
        name: json.loads(value)
        for name, value in re.findall(
            r'<script type="application/json" id="(\w+)">(.*?)</script>', text, re.S
        )
    }


def test_the_page_needs_nothing_from_outside(reports):
    text = reports["one"].read_text(encoding="utf-8")
    assert (
        not re.search(r"<(?:link|img|iframe|script)[^>]*(?:src|href)=", text)
        and "default-src 'none'" in text
    )
    assert "http:" not in text and "https:" not in text


def test_hostile_text_is_data_and_nothing_else(reports):
    text = reports["one"].read_text(encoding="utf-8")
    assert (
        text.count("<script") == text.count("</script>") == 1 + 2 + 4
    )  # the program, names and index, four prompts
    assert "onerror" not in re.sub(
        r'<script type="application/json".*?</script>|&lt;img.*?&gt;', "", text, flags=re.S
    )
    assert data(reports["one"])["e0"]["runs"][0][0]["answer"] == HOSTILE.replace("\ud83d", "?")


@given(st.text())
def test_no_text_ends_its_data_block(text):
    block_ = _json("x", {"text": text})
    inside = block_.removeprefix('<script type="application/json" id="x">').removesuffix(
        "</script>\n"
    )
    assert not re.search("[<>&\u2028\u2029]", inside) and json.loads(inside)["text"] == text


@given(st.text())
def test_no_text_ends_its_code_block_or_table_cell(text):
    first, *middle, last = block(text).split("\n")
    fence = first.removesuffix("text")
    assert last == fence and not any(line.strip().startswith(fence) for line in middle)
    cell = plain(text)
    assert "\n" not in cell and not re.search(r"(?<!\\)(?:\\\\)*[|<`]", cell)


def test_two_runs_stand_side_by_side(reports):
    found = data(reports["two"])
    assert [len(entry[3]) for entry in found["index"]] == [2] * 4
    low = found["e0"]
    assert [len(answers) for answers in low["runs"]] == [1, 2]
    assert [said["verdict"] for said in low["runs"][1][1]["verdicts"]] == [True, True, True]
    assert "paired difference on 1 prompts: 1 better" in reports["two"].read_text(encoding="utf-8")
    assert "Paired difference on 1 prompts: **+1.0000**" in reports["two_md"].read_text(
        encoding="utf-8"
    )


def test_markdown_says_the_same(reports):
    text = reports["md"].read_text(encoding="utf-8", errors="surrogatepass")
    mean = (-4 / 8 + 1 + 1) / 3
    assert (
        f"| {mean:.4f} |" in text
        and "## Worst criteria" in text
        and "## Most often unreadable" in text
    )
    assert "## Prompt p\\-low" in text and "| unreadable |" in text
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<", outside)


def test_the_worst_criteria_are_those_that_cost_most(reports):
    text = reports["one"].read_text(encoding="utf-8")
    table = text[text.index("Worst criteria") : text.index("Most often unreadable")]
    costs = [float(value) for value in re.findall(r'class="n">(\d\.\d{4})</td>', table)]
    assert costs == sorted(costs, reverse=True) and costs == [
        pytest.approx(points / 8 / 3, abs=1e-4) for points in (5, 4, 3)
    ]


def test_the_cost_of_a_criterion_is_weighed_as_the_rule_weighs_it(tmp_path):
    run = Run(write_run(tmp_path / "run", [made("p", (10, 2), (True, False))]))
    side = Side(run, Rule(uniform=True), 0.0)
    assert [tally.lost for _, tally in side.worst(5)] == [0.5]


class TestCommand:
    def call(self, monkeypatch, *args) -> int:
        monkeypatch.setattr(sys, "argv", ["report", *map(str, args)])
        return report.main()

    def test_writes_beside_the_run_and_shows_the_prompts_asked_for(
        self, tmp_path, monkeypatch, capsys
    ):
        run = write_run(tmp_path / "run", RECORDS)
        assert self.call(monkeypatch, run, "--prompt-id", "p-high") == 0
        text = (run / "report.md").read_text(encoding="utf-8")
        assert (
            "## Prompt p\\-high" in text
            and "## Prompt p\\-low" not in text
            and (run / "report.html").exists()
        )
        assert self.call(monkeypatch, run, "--prompt-id", "nobody") == 2
        assert self.call(monkeypatch, tmp_path / "nothing") == 2
        assert capsys.readouterr().err.count("error: ") == 2

    def test_of_a_training_run_shows_the_last_weights(self, tmp_path, monkeypatch):
        records = [made("p", (1,), (version > 9,), weights=str(version)) for version in (2, 10, 9)]
        write_run(tmp_path / "run", records)
        assert self.call(monkeypatch, tmp_path / "run" / "verdicts", "--out", tmp_path / "r") == 0
        assert data(tmp_path / "r.html")["index"] == [["p", "t", "question of p", [1.0]]]

    def test_nothing_graded_is_still_a_page(self, tmp_path, monkeypatch):
        write_run(tmp_path / "run", RECORDS[2:3])
        assert self.call(monkeypatch, tmp_path / "run") == 0
        assert "no answer was graded" in (tmp_path / "run" / "report.html").read_text(
            encoding="utf-8"
        )


class TestPlots:
    def test_bars_grow_with_their_values_and_labels_are_text(self):
        svg = bars(
            [
                ("<a>", [Bar(0.5, (0.4, 0.6), "x"), None]),
                ("b", [Bar(-0.25, None, "<y>"), Bar(1.0, None, "z")]),
            ]
        )
        widths = [float(w) for w in re.findall(r'<rect class="run\d" [^>]* width="([\d.]+)"', svg)]
        assert widths[0] == pytest.approx(2 * widths[1], abs=0.2) and widths[2] == pytest.approx(
            2 * widths[0], abs=0.2
        )
        assert "&lt;a&gt;" in svg and "<a>" not in svg and svg.count("whisker") == 1

    @given(st.lists(st.lists(st.floats(-5, 1), max_size=9), min_size=1, max_size=2))
    def test_a_histogram_counts_everything(self, runs):
        shares = [
            float(x) for x in re.findall(r"([\d.]+)%<", histogram(runs, [-0.2, 0.0, 0.5, 1.0]))
        ]
        assert sum(shares) == pytest.approx(100 * sum(bool(run) for run in runs), abs=0.5)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on this machine")
class TestInABrowser:
    def dom(self, page: Path, fragment: str = "") -> str:
        command = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--virtual-time-budget=3000",
            "--dump-dom",
        ]
        done = subprocess.run(
            [*command, page.as_uri() + fragment],
            capture_output=True,
            text=True,
            timeout=60,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr[-500:]
        return done.stdout

    def test_the_page_lists_the_prompts_and_hostile_answers_are_shown_not_run(self, reports):
        dom = self.dom(reports["one"])
        assert "4 of 4 prompts" in dom and "owned" not in re.search(r"<title>(.*?)</title>", dom)[1]
        shown = html.unescape(dom[dom.index('id="detail"') : dom.index("</main>")])
        assert "</script><script>document.title=" in shown and 'chip odd">unreadable' in shown
        assert re.search(r'chip bad">met', shown)  # a negative criterion that is met

    def test_a_prompt_is_chosen_by_its_id_and_both_runs_are_shown(self, reports):
        dom = self.dom(reports["two"], "#p-low")
        shown = dom[dom.index('id="detail"') : dom.index("</main>")]
        assert "better 0" in shown and "better 1" in shown and shown.count('class="turn run1"') == 2
