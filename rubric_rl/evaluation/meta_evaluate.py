"""Compares a grader's verdicts with physicians' on HealthBench's meta-evaluation rows (stage 6, evaluation).

    python -m rubric_rl.meta_eval --rows META.jsonl --out runs/meta --grader-config configs/grader.yaml \\
        --grader-url http://127.0.0.1:30000 --grader-tokenizer MODEL [--against runs/meta_before]

If it is interrupted, run the same command again: it resumes, and asks nothing twice.
"""

import argparse
import asyncio
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.data.download import digest
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.errors import DataError, UserError
from rubric_rl.evaluation.agreement import Agreement, change
from rubric_rl.evaluation.endpoint_flags import RETRIES, add_endpoint_flags, endpoint_settings
from rubric_rl.evaluation.meta_table import agreement_lines, change_lines
from rubric_rl.evaluation.resume import Store, StoringClient, settings_of
from rubric_rl.grading.endpoints import Unavailable
from rubric_rl.grading.grade import Grading, ask_verdicts
from rubric_rl.grading.prompt import graded_text, grader_prompt
from rubric_rl.grading.settings import written_settings
from rubric_rl.jsonl import read_jsonl, read_jsonl_offsets
from rubric_rl.progress import GaveUp, Progress, work_through

RESULTS = "meta/rows.jsonl"


@dataclass(frozen=True)
class MetaRow:
    """One answer with one criterion and the physicians' labels; `prompt` identifies the prompt."""

    key: str
    prompt: str
    row: Row
    completion: str
    category: str
    labels: list[bool]
    physicians: list[str]

    def record(
        self, grading: Grading, verdict: bool | None, probability: float | None, explanation: str
    ) -> dict:
        """The result as JSON, with everything that the figures need."""
        return {
            "prompt": self.prompt,
            "category": self.category,
            "labels": self.labels,
            "physicians": self.physicians,
            "verdict": verdict,
            "probability": probability,
            "explanation": explanation,
            "status": grading.status,
            "error": grading.error,
            "tokens": vars(grading.first_tokens),  # of the first call
            "retry_tokens": vars(grading.rest_tokens),
            "calls": grading.calls,
        }


class MetaFile:
    """Meta-evaluation rows, read one by one: prompt, completion, rubric (the criterion), category, binary_labels.

    A row may have `points`, which the grader then sees as in training; HealthBench's rows have none.
    """

    def __init__(self, path: str, limit: int = 0):
        """Rows without labels are counted in `unlabelled` and left out.

        Raises DataError for a row that cannot be asked.
        """
        self.path, numbers, self.unlabelled = path, [], 0
        for number, item in read_jsonl(path):
            if isinstance(item, dict) and not item.get("binary_labels"):
                self.unlabelled += 1
            else:
                _meta_row(item, path, number)
                numbers.append(number)
        if not numbers:
            raise DataError(
                f"{path}: no row has binary_labels; give --rows HealthBench's meta-evaluation file"
            )
        self.chosen = set(
            random.Random(0).sample(numbers, limit) if 0 < limit < len(numbers) else numbers
        )

    def __iter__(self) -> Iterator[MetaRow]:
        return (
            _meta_row(item, self.path, number)
            for number, item in read_jsonl(self.path)
            if number in self.chosen
        )


def _meta_row(item, path: str, number: int) -> MetaRow:
    where = f"{path}:{number}"
    names = ("completion", "rubric", "category")
    texts = isinstance(item, dict) and all(isinstance(item.get(name), str) for name in names)
    messages = item.get("prompt") if texts else None
    if (
        not isinstance(messages, list)
        or not messages
        or not all(_is_message(message) for message in messages)
    ):
        wanted = "prompt, completion, rubric and category"
        raise DataError(f"{where}: not a meta-evaluation row with {wanted}; check the file")
    points = item.get("points") or 0.0
    if (
        isinstance(points, bool)
        or not isinstance(points, (int, float))
        or not math.isfinite(points)
    ):
        raise DataError(f"{where}: points must be a finite number, not {points!r:.40}")
    labels, physicians = item["binary_labels"], item.get("anonymized_physician_ids") or []
    if not isinstance(labels, list) or not all(isinstance(label, bool) for label in labels):
        raise DataError(f"{where}: binary_labels must be a list of true and false")
    if physicians and (not isinstance(physicians, list) or len(physicians) != len(labels)):
        raise DataError(
            f"{where}: {len(labels)} labels, but another number of anonymized_physician_ids"
        )
    digest = hashlib.blake2b(json.dumps(messages).encode(), digest_size=8).hexdigest()
    prompt = str(item.get("prompt_id") or digest)
    row = Row(prompt, tuple(messages), (Criterion(item["rubric"], points),))
    return MetaRow(
        str(number),
        prompt,
        row,
        item["completion"],
        item["category"],
        labels,
        [str(p) for p in physicians],
    )


def _is_message(message) -> bool:
    return isinstance(message, dict) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


async def judge(rows: MetaFile, grader: StoringClient, store: Store, give_up_after: int) -> None:
    """Asks for the verdict on every row that has none yet."""
    progress = Progress(len(rows.chosen), give_up_after)

    def jobs() -> Iterator[MetaRow]:
        for row in rows:
            if row.key in store.finished:
                progress.skip(1)
            else:
                yield row

    async def one(row: MetaRow) -> None:
        grading = Grading(row.row, "graded", graded_text(row.completion) or "")
        verdict = probability = None
        explanation = ""
        try:
            (reading,) = await ask_verdicts(grader, grading, row.key)
            verdict, probability, explanation = (
                reading.met,
                reading.probability,
                reading.explanation,
            )
        except Unavailable as error:
            grading.status, grading.error = "ungraded", str(error)
        store.finish(row.key, row.record(grading, verdict, probability, explanation))
        progress.done(1, grading.error)

    try:
        await work_through(jobs(), one, grader.settings.concurrency)
    finally:
        progress.bar.close()


def read_results(folder: str | Path) -> Agreement:
    """The agreement of a finished or unfinished run; raises DataError when the folder holds none."""
    path = Path(folder) / RESULTS
    if not path.exists():
        raise DataError(f"{folder}: holds no meta-evaluation; name the --out of one")
    latest = {
        record["key"]: offset for _, offset, record in read_jsonl_offsets(path, skip_partial=True)
    }
    if not latest:
        raise DataError(
            f"{folder}: no row was judged yet; run python -m rubric_rl.meta_eval to its end"
        )
    return Agreement(
        record
        for _, offset, record in read_jsonl_offsets(path, skip_partial=True)
        if latest[record["key"]] == offset
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rubric_rl.meta_eval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--rows",
        required=True,
        help="HealthBench's meta-evaluation rows, or those of python -m rubric_rl.tiny.labelled_rows",
    )
    add("--out", required=True, type=Path, help="folder of this run; an unfinished one is resumed")
    add(
        "--limit",
        type=int,
        default=0,
        help="only this many rows, the same ones that simple-evals draws",
    )
    add("--moved", action="store_true", help="resume although the endpoint has another URL now")
    add("--against", metavar="RUN", help="also print the change from this earlier run to this one")
    add(
        "--give-up-after",
        type=int,
        default=50,
        help="stop after this many ungraded rows in a row; 0: never",
    )
    add("--grader-config", default="", help="YAML file of grader_* keys; flags win over it")
    add_endpoint_flags(parser, "grader", "grader", ("truncated",))
    return parser


async def _run(args: argparse.Namespace, rows: MetaFile, settings) -> None:
    sample = grader_prompt(
        settings.mode, [{"role": "user", "content": ""}], "", [Criterion("", 0.0)]
    )
    identity = {
        "kind": "meta_eval",
        "rows": {"sha256": digest(args.rows), "limit": args.limit},
        "grader": settings_of(settings, ("truncated",)),
        "grader_prompt": sample,
    }
    async with AsyncExitStack() as stack:
        grader = await stack.enter_async_context(StoringClient(settings))
        grader.store = stack.enter_context(Store(args.out, identity, RESULTS, args.moved))
        await judge(rows, grader, grader.store, args.give_up_after)


def _report(args: argparse.Namespace, rows: MetaFile) -> dict:
    agreement = read_results(args.out)
    result = agreement.result()
    result["rows"] |= {
        "not_asked": len(rows.chosen) - result["rows"]["all"],
        "unlabelled": rows.unlabelled,
    }
    (args.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(agreement_lines(result)))
    if args.against:
        print("\n".join(change_lines(change(read_results(args.against), agreement))))
    return result


def main() -> int:
    """Exit status: 0 all graded, 1 some rows stayed ungraded, 2 something to fix."""
    args, stopped = _parser().parse_args(), ""
    try:
        settings = endpoint_settings(
            args, "grader", {"retries": RETRIES} | written_settings(args.grader_config)
        )
        if settings.mode == "checklist":
            raise UserError(
                "--grader-mode checklist: each row has one criterion; use explain or direct"
            )
        rows = MetaFile(args.rows, args.limit)
        try:
            asyncio.run(_run(args, rows, settings))
        except GaveUp as error:
            stopped = str(error)
        except KeyboardInterrupt:
            stopped = "interrupted; run the same command again to resume"
        result = _report(args, rows)
    except (UserError, OSError) as error:
        stopped = stopped or str(error)
    if stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return 2
    if ungraded := result["rows"]["ungraded"]:
        what = f"{ungraded} rows stayed ungraded and are left out"
        print(f"error: {what}; the same command asks for them again", file=sys.stderr)
    return 1 if ungraded else 0


if __name__ == "__main__":
    sys.exit(main())
