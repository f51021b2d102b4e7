"""What evaluation and meta-evaluation share as commands: flags, settings, how they end."""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from rubric_rl.common.command_line import count
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import write_text
from rubric_rl.common.progress import CriteriaBar, GaveUp
from rubric_rl.data.parse import record_from_json
from rubric_rl.data.schema import Criterion, Record
from rubric_rl.evaluation.resume import EvaluationFolder
from rubric_rl.evaluation.stored import stored_lines
from rubric_rl.grading.health import sickness
from rubric_rl.grading.prompt import AnswerPrompt, label_of_prompt
from rubric_rl.grading.settings import Grading, read_settings


def add_run_flags(parser: argparse.ArgumentParser, unit: str) -> None:
    """The flags of both commands; `unit` is what they work through: answers or rows."""
    add = parser.add_argument
    add(
        "--out",
        required=True,
        type=out_folder,
        help="folder of this run; an unfinished one is resumed",
    )
    add("--limit", type=count, default=0, help="only so many rows, those that simple-evals draws")
    add("--moved", action="store_true", help="resume although an endpoint has another URL now")
    add("--against", metavar="RUN", help="also the paired difference to this earlier RUN")
    add(
        "--give-up-after",
        type=count,
        default=50,
        help=f"stop after this many {unit} in a row without readable verdicts; 0: never",
    )
    add("--grader-config", default="", help="YAML file of grader_* keys; flags win over it")


def out_folder(text: str) -> Path:
    """The type of --out."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name is no folder")
    return Path(text)


def written_settings(file: str) -> dict:
    """The settings of --grader-config.

    Raises UserError for a grader that exists only inside a training run.
    """
    written = read_settings(file)
    if engine := written.get("engine"):
        hint = "serve it, leave the key out and give --grader-url"
        raise UserError(f"grader_engine {engine} is a model inside a training run; {hint}")
    return written


def prompt_identity(grading: Grading, points: float) -> dict:
    """The grader's prompt about nothing: a run is not resumed with another one.

    The label of any other than our own stands beside it; older folders know none.
    """
    nothing = [{"role": "user", "content": ""}]
    asked = AnswerPrompt(grading, nothing, "").messages([Criterion("", points)])
    identity = {"grader_prompt": asked[-1]["content"]}
    label = label_of_prompt(grading)
    return identity | {"grader_template": label} if label else identity


class SickJudge(GaveUp):
    """The run gave up on replies that hold no verdict."""


class Results:
    """Stores results as they come, moves the bar, and takes back what a sick grader said."""

    def __init__(self, store: EvaluationFolder, bar: CriteriaBar, most_unreadable: float):
        self._store = store
        self._bar = bar
        self._most_unreadable = most_unreadable
        # Results without verdicts since the last with some; the run gives up on too many.
        self._sick_in_a_row: list[tuple[str, Record]] = []

    def add(self, key: str, record: Record) -> None:
        """One more result. Raises GaveUp after too many without a verdict in a row.

        SickJudge where the last of them has replies.
        """
        self._store.store_result(key, record)
        sick = sickness([record], self._most_unreadable)
        if sick:
            self._sick_in_a_row.append((key, record))
        elif record.status != "ungraded":
            self._sick_in_a_row.clear()
        try:
            self._bar.done(len(record.rubric), record.error or sick)
        except GaveUp as error:
            if sick:
                raise SickJudge(str(error)) from None
            raise

    def end(self, stored: Callable[[], Iterable[tuple[str, Record]]]) -> None:
        """Takes back results without verdicts, if there are too many of them, or in a row.

        `stored` reads all results of the folder.
        """
        self._bar.close()
        if not self._store.finished:
            return
        results: Iterable[tuple[str, Record]] = ()
        all_records = (record for _, record in stored())
        if sickness(all_records, self._most_unreadable):
            results = stored()
        elif self._bar.gave_up:
            results = self._sick_in_a_row
        sick = []  # all of them, before a line is added to what is read
        for key, record in results:
            reason = sickness([record], self._most_unreadable)
            if reason:
                sick.append((key, record, reason))
        for key, record, reason in sick:
            self._store.revoke(key, record, reason)


def write_result(folder: Path, result: dict) -> None:
    """Writes result.json, what the command leaves beside its records."""
    text = json.dumps(result, indent=1)
    write_text(folder / "result.json", text + "\n")


def complaint_about(results: Path, most_unreadable: float, unit: str) -> str:
    """What is wrong with the results in this file: no verdicts, or none that could be read."""
    ungraded: dict[str, str] = {}  # key -> what for
    sick: dict[str, str] = {}
    for line in stored_lines(results):
        key = line["key"]
        ungraded.pop(key, None)  # the last line counts
        sick.pop(key, None)
        if line["status"] == "ungraded":
            ungraded[key] = line["error"]
        elif not line.get("asked_again") and "rubrics" in line:
            reason = sickness([record_from_json(line)], most_unreadable)
            if reason:
                sick[key] = reason
    if ungraded:
        return _most_frequent(ungraded, f"{unit} stayed ungraded and are left out")
    if sick:
        return _most_frequent(sick, f"{unit} have no readable verdicts, which counts against them")
    return ""


def _most_frequent(reasons: dict[str, str], what: str) -> str:
    counts = Counter(reasons.values())
    ((reason, times),) = counts.most_common(1)
    return f"{len(reasons)} {what}, {times} of them for: {reason}"


class Plan(Protocol):
    """A run that was checked before its first call."""

    async def run(self) -> None:
        """Does the work."""
        ...

    def report(self) -> dict:
        """Shows and returns the result of all that is done so far."""
        ...

    def complaint(self, result: dict) -> str:
        """What is wrong with a result, "" for nothing."""
        ...


def run_and_report(plan: Plan) -> int:
    """Runs the plan, and reports also if that was cut short.

    Returns the exit status: 0, or 1 where something is wrong with the result, or the judge. Raises
    UserError when the run was cut short for another reason.
    """
    sick = stopped = ""
    try:
        asyncio.run(plan.run())
    except SickJudge as error:
        sick = str(error)
    except GaveUp as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = "interrupted; run the same command again to resume"
    try:
        result = plan.report()
    except DataError as error:  # nothing has a result yet
        raise UserError(sick or stopped or str(error)) from None
    if stopped:
        raise UserError(stopped)
    if sick:
        print(f"error: {sick}", file=sys.stderr)
        return 1
    complaint = plan.complaint(result)
    if complaint:
        print(f"error: {complaint}; the same command asks for them again", file=sys.stderr)
    return 1 if complaint else 0
