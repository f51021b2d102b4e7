"""Grades answers to a rubric file with any grader and prints the HealthBench score (stage 6, evaluation).

    python -m rubric_rl.evaluate --rows data/healthbench_hard.jsonl --out runs/eval \\
        --policy-url http://127.0.0.1:30000 --policy-tokenizer MODEL   (the model answers and grades itself)
    python -m rubric_rl.evaluate --rows ROWS.jsonl --out runs/eval --answers ANSWERS.jsonl \\
        --grader-config configs/grader.yaml --grader-api openai --grader-url URL --grader-model NAME \\
        --grader-api-key-env VARIABLE

If it is interrupted, run the same command again: it resumes, and asks nothing twice.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rubric_rl.data.download import digest
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.errors import DataError, UserError
from rubric_rl.evaluation.answers import AnswerFile, Policy, RowFile
from rubric_rl.evaluation.endpoint_flags import (
    RETRIES,
    add_endpoint_flags,
    endpoint_settings,
    prices,
)
from rubric_rl.evaluation.read_run import Run
from rubric_rl.evaluation.resume import Store, StoringClient, settings_of
from rubric_rl.evaluation.scoring_rule import penalty_from
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import comparison_lines, summary_lines
from rubric_rl.grading.endpoints import Unavailable
from rubric_rl.grading.grade import Grading, grade
from rubric_rl.grading.prompt import grader_prompt
from rubric_rl.grading.settings import GraderSettings, written_settings
from rubric_rl.progress import GaveUp, Progress, work_through

GRADER_ONLY = (
    "mode",
    "votes",
    "truncated",
    "rereads",
    "warm_prefix",
)  # settings that mean nothing for the policy


@dataclass
class Evaluation:
    """What is graded, by whom and how often."""

    rows: RowFile
    answers: AnswerFile | Policy
    grader: StoringClient
    store: Store
    name: str
    repeats: dict[str, int]  # prompt_id -> number of its answers
    progress: Progress

    async def run(self) -> None:
        """Grades every answer that has no result yet."""
        try:
            await work_through(self._jobs(), self._grade, self.grader.settings.concurrency)
        finally:
            self.progress.bar.close()

    def _jobs(self) -> Iterator[tuple[Row, int, str]]:
        for row in self.rows:
            for repeat in range(self.repeats[row.prompt_id]):
                key = f"{row.prompt_id}#{repeat}"
                if key in self.store.finished:
                    self.progress.skip(len(row.rubric))
                else:
                    yield row, repeat, key

    async def _grade(self, job: tuple[Row, int, str]) -> None:
        row, repeat, key = job
        try:
            answer = await self.answers.get(row, repeat, key)
        except Unavailable as error:
            grading, tokens = Grading(row, "ungraded", None, error=f"policy: {error}"), None
        else:
            grading = await grade(
                self.grader, row, answer.response, truncated=answer.truncated, routing_key=key
            )
            tokens = answer.tokens
        origin = {
            "split": "eval",
            "index": repeat,
            "weight_version": self.name,
            "messages": list(row.messages),
        }
        self.store.finish(key, grading.record() | origin | {"policy_tokens": tokens})
        self.progress.done(len(row.rubric), grading.error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rubric_rl.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--rows",
        required=True,
        help="rubric file: raw HealthBench rows, or those of data_preprocess.py",
    )
    add("--out", required=True, type=Path, help="folder of this run; an unfinished one is resumed")
    add(
        "--answers",
        help="JSONL of prompt_id and answer (or verdict records); without it the policy answers",
    )
    add(
        "--allow-missing",
        action="store_true",
        help="leave out the prompts that the answers file lacks",
    )
    add(
        "--repeats",
        type=int,
        default=0,
        help="answers per prompt (default: 1, or all that the file has)",
    )
    add(
        "--limit",
        type=int,
        default=0,
        help="only this many prompts, the same ones that simple-evals draws",
    )
    add(
        "--name",
        default="",
        help="name of the run in tables (default: the policy's model or the answers file)",
    )
    add("--moved", action="store_true", help="resume although an endpoint has another URL now")
    add(
        "--against",
        metavar="RUN",
        help="also print the paired difference, this run minus this earlier RUN",
    )
    add(
        "--length-penalty",
        default="hard",
        help="for the length-adjusted score: full, hard, consensus or a number",
    )
    add(
        "--give-up-after",
        type=int,
        default=50,
        help="stop after this many ungraded answers in a row; 0: never",
    )
    add(
        "--grader-config",
        default="",
        help="YAML file of grader_* keys, e.g. configs/grader.yaml; flags win over it",
    )
    add("--grader-price", help="price per million tokens: prompt,cached,completion")
    add("--policy-price", help="the same for the policy")
    add_endpoint_flags(parser, "grader", "grader (url empty: the policy grades itself)")
    add_endpoint_flags(parser, "policy", "policy", GRADER_ONLY)
    return parser


def _settings(args: argparse.Namespace) -> tuple[GraderSettings | None, GraderSettings]:
    """The policy's settings (None with an answers file) and the grader's."""
    policy = None
    if not args.answers:
        policy = endpoint_settings(args, "policy", {"retries": RETRIES, "max_tokens": 6144})
        if not policy.url:
            raise UserError(
                "nothing to grade: give --answers FILE, or --policy-url for a model that answers"
            )
    written = written_settings(args.grader_config)
    own = {"retries": RETRIES}
    if policy and not args.grader_url and not written.get("url"):  # the policy grades itself
        own |= {
            name: getattr(policy, name)
            for name in ("url", "api", "model", "tokenizer", "api_key_env")
        }
    return policy, endpoint_settings(args, "grader", own | written)


def _repeats(args: argparse.Namespace, rows: RowFile, answers: AnswerFile | None) -> dict[str, int]:
    """How many answers to each prompt are graded. Drops the rows without an answer, if --allow-missing permits."""
    if answers is None:
        return dict.fromkeys(rows.criteria, max(args.repeats, 1))
    counts, total = answers.counts, len(rows.criteria)
    missing = [prompt_id for prompt_id in rows.criteria if not counts[prompt_id]]
    if len(missing) == total or (missing and not args.allow_missing):
        found = f"no answer to {len(missing)} of {total} prompts, e.g. {missing[0]}"
        raise DataError(f"{args.answers}: {found}; add --allow-missing to leave them out")
    rows.keep(counts)
    return {
        prompt_id: min(counts[prompt_id], args.repeats or counts[prompt_id])
        for prompt_id in rows.criteria
    }


class Plan:
    """The evaluation that the flags describe, checked before the first call."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.policy, self.grader = _settings(args)
        self.rows, self.answers = (
            RowFile(args.rows, args.limit),
            AnswerFile(args.answers) if args.answers else None,
        )
        self.repeats = _repeats(args, self.rows, self.answers)
        self.criteria = sum(
            self.repeats[prompt_id] * count for prompt_id, count in self.rows.criteria.items()
        )
        self.prices = {who: prices(getattr(args, f"{who}_price")) for who in ("grader", "policy")}
        self.penalty = penalty_from(args.length_penalty)
        self.before = Summary(Run(args.against), penalty=self.penalty) if args.against else None
        model = Path(args.policy_model or args.policy_tokenizer or "policy").name
        self.name = args.name or (Path(args.answers).stem if args.answers else model)

    def identity(self) -> dict:
        """Everything that a result depends on."""
        if self.answers:
            answers = {"sha256": digest(self.args.answers)}
        else:
            answers = {"policy": settings_of(self.policy, GRADER_ONLY)}
        empty = [{"role": "user", "content": ""}]
        return {
            "kind": "evaluate",
            "name": self.name,
            "rows": {"sha256": digest(self.args.rows), "limit": self.args.limit},
            "answers": answers,
            "repeats": self.args.repeats,
            "grader": settings_of(self.grader),
            "grader_prompt": grader_prompt(self.grader.mode, empty, "", [Criterion("", 1.0)]),
        }

    async def run(self) -> None:
        """Asks and grades, and leaves one record per answer in the folder --out."""
        async with AsyncExitStack() as stack:
            answers = self.answers or await stack.enter_async_context(Policy(self.policy))
            grader = await stack.enter_async_context(StoringClient(self.grader))
            store = stack.enter_context(
                Store(self.args.out, self.identity(), moved=self.args.moved)
            )
            grader.store = store
            if not self.answers:
                answers.store = store
            progress = Progress(self.criteria, self.args.give_up_after)
            await Evaluation(
                self.rows, answers, grader, store, self.name, self.repeats, progress
            ).run()

    def report(self) -> dict:
        """Writes result.json, prints it, and returns it; it accounts for every criterion of the plan."""
        summary = Summary(Run(self.args.out), penalty=self.penalty)
        result = summary.result({who: value for who, value in self.prices.items() if value})
        result["criteria"]["not_asked"] = self.criteria - result["criteria"]["all"]
        (self.args.out / "result.json").write_text(
            json.dumps(result, indent=1) + "\n", encoding="utf-8"
        )
        print("\n".join(summary_lines(result)))
        if self.before:
            print("\n".join(comparison_lines(self.before, summary)))
        return result


def main() -> int:
    """Exit status: 0 all graded, 1 some answers stayed ungraded, 2 something to fix."""
    args, stopped = _parser().parse_args(), ""
    try:
        plan = Plan(args)
        try:
            asyncio.run(plan.run())
        except GaveUp as error:
            stopped = str(error)
        except KeyboardInterrupt:
            stopped = "interrupted; run the same command again to resume"
        result = plan.report()
    except (UserError, OSError) as error:
        print(f"error: {stopped or error}", file=sys.stderr)
        return 2
    if stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return 2
    if ungraded := result["answers"]["ungraded"]:
        causes = Counter(
            record["error"] for record in Run(args.out) if record["status"] == "ungraded"
        )
        cause, count = causes.most_common(1)[0]
        what = f"{ungraded} answers stayed ungraded and are left out, {count} of them for: {cause}"
        print(f"error: {what}; the same command asks for them again", file=sys.stderr)
    return 1 if ungraded else 0


if __name__ == "__main__":
    sys.exit(main())
