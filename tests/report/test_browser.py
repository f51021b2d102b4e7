"""The page in a real Chromium: what a person reads, types, presses and follows."""

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest
from doubles.records import made, write_run
from doubles.training_run import write_training_run

from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.scoring_rule import ScoringRule
from rubric_rl.report.write_report import write_report, write_training_report

PROGRAMS = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
PROGRAM = next(filter(None, PROGRAMS), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]
PATIENCE = 60  # seconds, on a busy machine
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium or chrome on this machine")


class Browser:
    """A headless Chromium with one tab, steered through its DevTools protocol."""

    def __init__(self, folder: Path):
        command = [PROGRAM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.complaints = []  # what the browser refused to do, and errors of the program
        self._runner = asyncio.Runner()
        self._number = 0
        try:
            self._runner.run(self._connect(folder / "DevToolsActivePort"))
        except BaseException:
            self.process.kill()
            raise

    async def _connect(self, port_file: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while not port_file.exists() or not port_file.read_text().strip():
            assert time.monotonic() < deadline, "the browser did not start"
            await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            tabs = [tab for tab in await reply.json() if tab["type"] == "page"]
        address = tabs[0]["webSocketDebuggerUrl"]
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        for domain in ("Page", "Runtime", "Log"):
            await self._ask(f"{domain}.enable")

    async def _ask(self, method: str, **params) -> dict:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads(await self._socket.receive_str(timeout=PATIENCE))
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(message["params"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def ask(self, method: str, **params) -> dict:
        """One call of the protocol."""
        return self._runner.run(self._ask(method, **params))

    def value(self, expression: str):
        """What a JavaScript expression comes to on the page."""
        reply = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def open(self, page: Path, fragment: str = "") -> None:
        """Loads a page anew."""
        self.complaints.clear()
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=page.as_uri() + fragment)
        self.wait_for("location.protocol === 'file:' && document.readyState === 'complete'")

    def wait_for(self, expression: str) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < deadline, f"not true: {expression}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text of the first element that a CSS selector names."""
        return self.value(f"document.querySelector({json.dumps(selector)}).textContent")

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a CSS selector names."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        return self.value(f"{found}.map(element => element.textContent)")

    def set(self, selector: str, value: str) -> None:
        """Types into a field, or chooses in a menu."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{field}.focus(), {field}.value = {json.dumps(value)}")
        self.value(f"{field}.dispatchEvent(new Event('input', {{ bubbles: true }}))")

    def press(self, key: str) -> None:
        """Presses a key where the focus is."""
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def close(self) -> None:
        """Ends the browser."""
        self._runner.run(self._session.close())
        self._runner.close()
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A page of five prompts of two themes, with scores from low to high."""
    records = []
    for number in range(5):
        mets = [place < number for place in range(4)]
        theme = "colds" if number < 3 else "burns"
        records.append(made(f"p{number}", (1, 1, 1, 1), mets, theme=theme))
    folder = tmp_path_factory.mktemp("many")
    run = Run(write_run(folder / "run", reversed(records)))
    page, _ = write_report([run], ScoringRule(), folder / "many")
    return page


def listed(browser) -> list[str]:
    """The prompts of the list, by what stands after the dot in `theme · id`."""
    return [text.split(" · ")[1] for text in browser.texts("#list small")]


def shown(browser) -> str:
    """The prompt_id that is shown."""
    return browser.text("#detail h3").split(" · ")[1]


def test_hostile_texts_are_shown_and_not_run(browser, reports):
    browser.open(reports["one"], "#p-low")
    assert browser.text("#count") == "4 of 4 prompts"
    assert browser.value("document.title") == "HealthBench report: before (w)"
    detail = browser.text("#detail")
    assert '</script><script>document.title="owned"' in detail
    assert "{{ view }} {% raw %} <!-- ? &amp;" in detail
    assert browser.value("document.querySelectorAll('img').length") == 0
    chips = browser.texts("#detail .chip")
    assert chips == ["not met", "unreadable", "met"]
    kinds = browser.value("[...document.querySelectorAll('.chip')].map(chip => chip.className)")
    assert kinds == ["chip bad", "chip odd", "chip bad"]  # the last criterion is negative


def test_the_policy_lets_its_own_style_and_program_run_and_complains_of_nothing(browser, reports):
    for name in ("one", "two"):
        browser.open(reports[name])
        card = "getComputedStyle(document.querySelector('.card')).borderTopLeftRadius"
        assert browser.value(card) == "12px"
        assert browser.complaints == []


def test_a_link_chooses_a_prompt_and_both_runs_are_shown(browser, reports):
    browser.open(reports["two"], "#p-low")
    assert shown(browser) == "p-low"
    after = browser.texts("#detail .turn.run1")
    assert [text.endswith(f"better {number}") for number, text in enumerate(after)] == [True] * 2
    assert len(browser.texts("#detail .turn.run0")) == 1
    assert browser.texts("#detail th")[2:] == [
        "before (w)",
        "before (w), anchor",
        "after (w) 1",
        "after (w) 2",
    ]
    browser.value("location.hash = 'p-high'")
    browser.wait_for("document.querySelector('#detail h3').textContent.endsWith('p-high')")


def test_an_address_that_names_no_prompt_shows_the_first(browser, many):
    for fragment in ("#nobody", "#%"):
        browser.open(many, fragment)
        assert shown(browser) == "p0"
        assert browser.complaints == []


def test_the_list_is_searched_filtered_and_ordered(browser, many):
    browser.open(many)
    assert listed(browser) == ["p0", "p1", "p2", "p3", "p4"]
    browser.set("#order", "high")
    assert listed(browser) == ["p4", "p3", "p2", "p1", "p0"]
    browser.set("#order", "file")
    assert listed(browser) == ["p4", "p3", "p2", "p1", "p0"]
    browser.set("#order", "low")
    browser.set("#theme", "burns")
    assert listed(browser) == ["p3", "p4"]
    browser.set("#search", "QUESTION p4")
    assert listed(browser) == ["p4"]
    assert browser.text("#count") == "1 of 5 prompts"
    browser.set("#theme", "colds")
    assert listed(browser) == []


def test_two_runs_are_ordered_by_what_was_gained(browser, reports):
    browser.open(reports["two"])
    assert listed(browser)[0] == "p-low"
    assert browser.text("#list .score") == "-0.500 → 0.500"


def test_the_arrow_keys_go_through_the_list(browser, many):
    browser.open(many)
    browser.value("document.querySelector('#search').focus()")
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    assert shown(browser) == "p2"
    assert browser.texts("#list .on small") == ["colds · p2"]
    browser.press("ArrowUp")
    assert shown(browser) == "p1"
    for _ in range(9):
        browser.press("ArrowDown")
    assert shown(browser) == "p4"


def test_a_criterion_leads_to_its_prompt_and_unfolds(browser, reports):
    browser.open(reports["one"], "#p-high")
    browser.value("document.querySelector('.jump').click()")
    assert shown(browser) == "p-low"
    browser.value("document.querySelector('.clamp').click()")
    assert browser.value("document.querySelectorAll('.clamp.open').length") == 1


def test_curves_are_drawn_and_a_click_on_one_shows_answers(browser, tmp_path):
    """The page of a training run."""
    run = write_training_run(tmp_path / "run")
    page = write_training_report(run, ScoringRule(), tmp_path / "page")
    browser.open(page)
    assert "Score" in browser.texts("#charts h3")
    assert "evaluation after 3 rollouts" in browser.text("#detail"), "the last point, at first"
    dot = "document.querySelector('#charts circle.dot')"
    browser.value(f"{dot}.dispatchEvent(new MouseEvent('click'))")
    assert "rollout 0: 4 of 12 answers" in browser.text("#detail")
    assert browser.value("document.querySelectorAll('#charts polyline').length") > 5
