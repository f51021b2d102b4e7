"""Reports of one run and of two, with texts that try to break out of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles.records import made, said, write_run

from rubric_rl.data.schema import Anchored, Record
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.report.write_report import write_report

HOSTILE = (
    '</script><script>document.title="owned"</script><img src=x onerror=document.title="owned"> '
    "`` ``` \u2028 {{ view }} {% raw %} <!-- \ud83d &amp;"
)
POINTS = (5, 3, -4)
DATA = re.compile(r'<script type="application/json" id="(\w+)">(.*?)</script>', re.S)


@pytest.fixture(scope="session")
def hostile() -> str:
    """A text that would be a program in HTML, a template or Markdown."""
    return HOSTILE


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Four prompts: a hostile answer, a good one, an ungraded one, a hostile prompt_id.

    An anchor doubts the good one, and fails at the first with a hostile error.
    """
    low = made("p-low", POINTS, (False, None, True), answer=HOSTILE, explanation=HOSTILE)
    low.anchored = Anchored(HOSTILE, error=HOSTILE)
    high = made("p-high", POINTS, (True, True, False), theme="u")
    high.anchored = Anchored("judge", said(True, False, True), score=0.125)
    out = made("p-out", (5,), (), status="ungraded", answer=None, error="HTTP 500")
    named = made(HOSTILE, (5,), (True,), theme=HOSTILE)
    return [low, high, out, named]


@pytest.fixture(scope="session")
def reports(records, tmp_path_factory) -> dict[str, Path]:
    """Paths of pages and Markdown: one run, and it against a later one with two answers."""
    folder = tmp_path_factory.mktemp("report")
    later = []
    for index in range(2):
        mets = (True, True, True)
        later.append(made("p-low", POINTS, mets, index=index, answer=f"better {index}"))
    before = Run(write_run(folder / "before", records))
    after = Run(write_run(folder / "after", later))
    rule = ScoringRule()
    one_page, one_markdown = write_report([before], rule, folder / "one")
    two_page, two_markdown = write_report([before, after], rule, folder / "two")
    return {
        "one": one_page,
        "one_markdown": one_markdown,
        "two": two_page,
        "two_markdown": two_markdown,
    }


@pytest.fixture(scope="session")
def data() -> Callable[[Path], dict]:
    """Reads a page's data blocks as a browser does: up to the next end of a script."""

    def read(page: Path) -> dict:
        found = DATA.findall(page.read_text(encoding="utf-8"))
        return {name: json.loads(value) for name, value in found}

    return read


@pytest.fixture(scope="session")
def without_data() -> Callable[[str], str]:
    """Leaves a page's data blocks out of its text."""
    return lambda text: DATA.sub("", text)
