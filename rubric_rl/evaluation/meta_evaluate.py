"""Compares a grader's verdicts with physicians' on HealthBench's meta-evaluation rows.

    python -m rubric_rl.meta_eval --rows META.jsonl --out runs/meta \\
        --grader-config configs/grader.yaml --grader-url http://127.0.0.1:30000 \\
        --grader-tokenizer MODEL [--against runs/meta_before]

With --grader-mode cascade it shows accuracy and decoded tokens over the limits, and proposes some;
--grader-cascade-low 0 --grader-cascade-high 1 asks in both ways, so that all can be tried. Not with
--grader-verdict probability, which keeps the words' probability in place of the token's.

If it is interrupted, run the same command again: it resumes, and asks again only what was in
flight.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl, read_jsonl_offsets
from rubric_rl.common.progress import CriteriaBar, work_through
from rubric_rl.data.download import digest
from rubric_rl.data.grader_template import with_reference
from rubric_rl.data.parse import MOST_POINTS, record_from_json
from rubric_rl.data.schema import Criterion, Record, Row
from rubric_rl.evaluation.agreement import Agreement, change
from rubric_rl.evaluation.cascade_limits import limits_curve
from rubric_rl.evaluation.endpoint_flags import RETRIES, add_flags, given
from rubric_rl.evaluation.judge import judge_lines, judge_of_folder
from rubric_rl.evaluation.resume import EvaluationFolder, StoringClient
from rubric_rl.evaluation.run_command import (
    Results,
    add_run_flags,
    complaint_about,
    prompt_identity,
    run_and_report,
    write_result,
    written_settings,
)
from rubric_rl.evaluation.tables import agreement_lines, cascade_lines, change_lines
from rubric_rl.grading.grade import Grader, ask_verdicts
from rubric_rl.grading.prompt import graded_text
from rubric_rl.grading.settings import Grading, check_together
from rubric_rl.serving.endpoint import Endpoint

META_RESULTS = "meta/rows.jsonl"


@dataclass(frozen=True)
class LabelledAnswer:
    """One answer with one criterion and the physicians' labels."""

    key: str  # the number of its line
    row: Row
    completion: str
    category: str
    labels: list[bool]
    physicians: list[str]

    def record(self) -> Record:
        """The record that the grader's verdict will complete."""
        text = graded_text(self.completion) or ""
        record = Record.of(self.row, "graded", text)
        record.split = "meta"
        record.index = int(self.key)
        record.category = self.category
        record.labels = self.labels
        record.physicians = self.physicians
        return record


class LabelledFile:
    """Meta-evaluation rows, read one by one.

    Each has prompt, completion, rubric (the criterion), category and binary_labels. A row may have
    `points`, which the grader then sees as in training; HealthBench's rows have none.
    """

    def __init__(self, path: str, limit: int = 0):
        """Rows without labels are counted in `unlabelled` and left out.

        Raises DataError for a row that cannot be asked.
        """
        self.path = path
        self.unlabelled = 0
        numbers = []
        for number, item in read_jsonl(path):
            if isinstance(item, dict) and not item.get("binary_labels"):
                self.unlabelled += 1
            else:
                _labelled_answer(item, path, number)
                numbers.append(number)
        if not numbers:
            hint = "give --rows HealthBench's meta-evaluation file"
            raise DataError(f"{path}: no row has binary_labels; {hint}")
        if 0 < limit < len(numbers):
            draw = random.Random(0)
            numbers = draw.sample(numbers, limit)
        self.chosen = set(numbers)

    def __iter__(self) -> Iterator[LabelledAnswer]:
        for number, item in read_jsonl(self.path):
            if number in self.chosen:
                yield _labelled_answer(item, self.path, number)


def _labelled_answer(item: object, path: str, number: int) -> LabelledAnswer:
    where = f"{path}:{number}"
    if not _has_texts(item, "completion", "rubric", "category"):
        raise _not_a_row(where)
    messages = item.get("prompt")
    if not isinstance(messages, list) or not messages:
        raise _not_a_row(where)
    for message in messages:
        if not _has_texts(message, "role", "content"):
            raise _not_a_row(where)
    criterion = Criterion(item["rubric"], _points(item, where))
    labels = item["binary_labels"]
    if not isinstance(labels, list) or not _all_are(bool, labels):
        raise DataError(f"{where}: binary_labels must be a list of true and false")
    physicians = item.get("anonymized_physician_ids") or []
    has_one_each = isinstance(physicians, list) and len(physicians) == len(labels)
    if physicians and not has_one_each:
        what = f"{len(labels)} labels, but another number of anonymized_physician_ids"
        raise DataError(f"{where}: {what}; check the file")
    text = json.dumps(messages)
    digest_of_prompt = hashlib.blake2b(text.encode(), digest_size=8)
    prompt_id = item.get("prompt_id") or digest_of_prompt.hexdigest()
    return LabelledAnswer(
        key=str(number),
        row=Row(str(prompt_id), tuple(messages), (criterion,)),
        completion=item["completion"],
        category=item["category"],
        labels=labels,
        physicians=[str(physician) for physician in physicians],
    )


def _points(item: dict, where: str) -> float:
    points = item.get("points") or 0.0
    is_number = type(points) in (int, float)  # true is none
    if not is_number or not abs(points) <= MOST_POINTS:  # NaN neither
        what = f"a number of size up to {MOST_POINTS:g}, not {points!r:.40}"
        raise DataError(f"{where}: points must be {what}")
    return points


def _not_a_row(where: str) -> DataError:
    wanted = "prompt, completion, rubric and category"
    return DataError(f"{where}: not a meta-evaluation row with {wanted}; check the file")


def _has_texts(item: object, *names: str) -> TypeGuard[dict]:
    """Whether it is an object with a text of each name."""
    if not isinstance(item, dict):
        return False
    values = [item.get(name) for name in names]
    return _all_are(str, values)


def _all_are(kind: type, values: Iterable) -> bool:
    return all(isinstance(value, kind) for value in values)


async def judge(
    rows: LabelledFile, grader: Grader, store: EvaluationFolder, give_up_after: int
) -> None:
    """Asks for the verdict on every row that has none yet."""
    count = len(rows.chosen)
    bar = CriteriaBar(count, give_up_after)
    results = Results(store, bar, grader.grading.most_unreadable)

    def jobs() -> Iterator[LabelledAnswer]:
        for answer in rows:
            if answer.key in store.finished:
                bar.skip(1)
            else:
                yield answer

    async def one(answer: LabelledAnswer) -> None:
        record = answer.record()
        record.grader = grader.name
        await ask_verdicts(grader, record, answer.key)
        results.add(answer.key, record)

    try:
        keys = {str(number) for number in rows.chosen}
        store.refuse_others(keys)
        if len(store.finished) < count:
            await store.check(grader)
        workers = grader.client.endpoint.concurrency
        await work_through(jobs(), one, workers)
    finally:
        results.end(lambda: _stored_results(store.folder))


def read_results(folder: str | Path) -> Agreement:
    """The agreement of a finished or unfinished run. Raises DataError when there is none."""
    agreement = Agreement()
    for _, record in _stored_results(folder):
        agreement.add(record)
    return agreement


def _stored_results(folder: str | Path) -> Iterator[tuple[str, Record]]:
    """The latest result of each row, by its key. Raises DataError when there is none."""
    path = Path(folder) / META_RESULTS
    if not path.exists():
        raise DataError(f"{folder}: holds no meta-evaluation; name the --out of one")
    latest = {}
    for number, offset, item in read_jsonl_offsets(path, skip_partial=True):
        if not _has_texts(item, "key"):
            raise _not_a_result(f"{path}:{number}")
        key = item["key"]
        latest[key] = offset
    if not latest:
        hint = "run python -m rubric_rl.meta_eval to its end"
        raise DataError(f"{folder}: no row was judged yet; {hint}")
    for number, offset, item in read_jsonl_offsets(path, skip_partial=True):
        key = item["key"]
        if latest[key] == offset:
            where = f"{path}:{number}"
            yield key, _read_record(item, where)


def _read_record(item: dict, where: str) -> Record:
    """A result, with the verdict on one criterion."""
    try:
        if "verdict" in item:
            item = _in_present_form(item)
        record = record_from_json(item)
    except (LookupError, TypeError, ValueError):
        raise _not_a_result(where) from None
    labels = len(record.labels)
    if not labels or len(record.rubric) != 1:
        raise _not_a_result(where)
    if len(record.physicians) not in (0, labels):
        raise _not_a_result(where)
    return record


def _in_present_form(item: dict) -> dict:
    """A result of the first form: a single verdict, and no answer or criterion."""
    verdict = {
        "met": item["verdict"],
        "probability": item["probability"],
        "explanation": item["explanation"],
    }
    criterion = {"criterion": "", "points": 0.0, "tags": []}
    is_graded = item["status"] == "graded"
    return {
        "prompt_id": item["prompt"],
        "split": "meta",
        "index": int(item["key"]),
        "weight_version": "",
        "status": item["status"],
        "score": None,
        "rubrics": [criterion],
        "verdicts": [verdict] if is_graded else [],
        "first_tokens": item["tokens"],
        "rest_tokens": item["retry_tokens"],
        "category": item["category"],
        "labels": item["labels"],
        "physicians": item["physicians"],
        "calls": item["calls"],
        "error": item["error"],
    }


def _not_a_result(where: str) -> DataError:
    hint = "restore the file, or judge again in another --out"
    return DataError(f"{where}: not a result of a meta-evaluation; {hint}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("python -m rubric_rl.meta_eval", __doc__)
    add_run_flags(parser, "rows")
    parser.add_argument(
        "--rows",
        required=True,
        help="HealthBench's meta-evaluation rows, or those of rubric_rl.tiny.labelled_rows",
    )
    add_flags(parser, "grader", "grader", Endpoint, Grading)
    return parser


class MetaEvaluationPlan:
    """The meta-evaluation that the flags describe, checked before the first call."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        written = written_settings(args.grader_config)
        told = written | given(args, "grader", Endpoint, Grading)
        defaults = {"retries": RETRIES} | with_reference(told)
        self.endpoint = Endpoint.of(defaults, "grader_")
        self.grading = Grading.of(defaults, "grader_")
        check_together(self.endpoint, self.grading)
        if self.grading.mode == "checklist":
            hint = "each row has one criterion; use explain, direct or cascade"
            raise UserError(f"--grader-mode checklist: {hint}")
        self.rows = LabelledFile(args.rows, args.limit)
        self.before = None
        if args.against:
            self.before = read_results(args.against)

    def identity(self) -> dict:
        """Everything that a result depends on."""
        rows = {
            "sha256": digest(self.args.rows),
            "limit": self.args.limit,
        }
        return {
            "kind": "meta_eval",
            "rows": rows,
            "grader": self.endpoint.identity() | self.grading.identity(),
            **prompt_identity(self.grading, 0.0),
        }

    async def run(self) -> None:
        """Asks for every verdict, and leaves one record per row in the folder --out."""
        args = self.args
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(StoringClient(self.endpoint))
            # Before the folder: one that says how it will be judged must not stay behind an error.
            grader = Grader(client, self.grading, name=self.endpoint.shown_name)
            most_unreadable = self.grading.most_unreadable
            asked = self.identity()
            store = EvaluationFolder(args.out, asked, META_RESULTS, args.moved, most_unreadable)
            client.store = stack.enter_context(store)
            await judge(self.rows, grader, store, args.give_up_after)

    def report(self) -> dict:
        """Writes result.json, prints it and returns it; it accounts for every row."""
        agreement = read_results(self.args.out)
        result = agreement.result()
        rows = result["rows"]
        rows["not_asked"] = len(self.rows.chosen) - rows["all"]
        rows["unlabelled"] = self.rows.unlabelled
        if self.grading.mode == "cascade":
            records = (record for _, record in _stored_results(self.args.out))
            result["cascade"] = limits_curve(records, self.grading)
        write_result(self.args.out, result)
        print(*agreement_lines(result), *cascade_lines(result.get("cascade")), sep="\n")
        if self.before:
            folder = Path(self.args.against)
            before = judge_of_folder(folder, self.before.graders)
            after = judge_of_folder(self.args.out, agreement.graders)
            print(*judge_lines([before, after]), sep="\n")
            changed = change(self.before, agreement)
            print(*change_lines(changed), sep="\n")
        return result

    def complaint(self, result: dict) -> str:
        """What is wrong with the result: rows without a verdict."""
        rows = result["rows"]
        if not rows["ungraded"] and not rows["unreadable"]:
            return ""
        results = self.args.out / META_RESULTS
        return complaint_about(results, self.grading.most_unreadable, "rows")


def main() -> int:
    """Exit status: 0 all graded, 1 some rows have no readable verdict, 2 something to fix."""

    def run() -> int:
        args = _parser().parse_args()
        return run_and_report(MetaEvaluationPlan(args))

    return exit_status(run)
