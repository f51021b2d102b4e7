"""Grades answers to a rubric file with any grader and prints the HealthBench score.

    python -m rubric_rl.evaluate --rows data/healthbench_hard.jsonl --out runs/eval \\
        --policy-url http://127.0.0.1:30000 --policy-tokenizer MODEL
                                                    (the model answers and grades itself)
    python -m rubric_rl.evaluate --rows ROWS.jsonl --out runs/eval --answers ANSWERS.jsonl \\
        --grader-config configs/grader.yaml --grader-api openai --grader-url URL \\
        --grader-model NAME --grader-api-key-env VARIABLE

If it is interrupted, run the same command again: it resumes, and asks again only what was in
flight.
"""

import argparse
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from rubric_rl.common.command_line import CommandParser, count, exit_status
from rubric_rl.common.progress import CriteriaBar, work_through
from rubric_rl.data.download import digest
from rubric_rl.data.row_file import RowFile
from rubric_rl.data.schema import Record, Row
from rubric_rl.evaluation.answers import AnswerFile, Policy
from rubric_rl.evaluation.comparable import comparison_with_published
from rubric_rl.evaluation.endpoint_flags import add_flags, prices_from
from rubric_rl.evaluation.judge import two_judges
from rubric_rl.evaluation.read_run import Run, print_notes, result_key, stored_results
from rubric_rl.evaluation.resume import RESULTS, EvaluationFolder, PolicyClient, StoringClient
from rubric_rl.evaluation.run_command import (
    Results,
    add_run_flags,
    complaint_about,
    prompt_identity,
    run_and_report,
    write_result,
)
from rubric_rl.evaluation.scoring_rule import penalty_from
from rubric_rl.evaluation.summary import Summary
from rubric_rl.evaluation.tables import comparison_lines, summary_lines
from rubric_rl.evaluation.who_answers import (
    answers_name,
    grader_from,
    policy_from,
    recorded_grader,
    repeats_of,
)
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.grading.settings import Grading, Scoring
from rubric_rl.serving.endpoint import Endpoint
from rubric_rl.serving.question import Unavailable


@dataclass
class Evaluation:
    """What is graded, by whom and how often."""

    rows: RowFile
    source: AnswerFile | Policy  # of the answers
    grader: Grader
    store: EvaluationFolder
    name: str
    repeats: dict[str, int]  # prompt_id -> number of its answers
    progress: CriteriaBar

    def __post_init__(self):
        self.results = Results(self.store, self.progress, self.grader.grading.most_unreadable)

    async def run(self) -> None:
        """Grades every answer that has no result yet."""
        try:
            workers = self.grader.client.endpoint.concurrency
            await work_through(self._jobs(), self._grade, workers)
        finally:
            self.results.end(lambda: stored_results(self.store.folder))

    def _jobs(self) -> Iterator[tuple[Row, int, str]]:
        for row in self.rows:
            for repeat in range(self.repeats[row.prompt_id]):
                key = result_key(row.prompt_id, repeat)
                if key in self.store.finished:
                    self.progress.skip(len(row.rubric))
                else:
                    yield row, repeat, key

    async def _grade(self, job: tuple[Row, int, str]) -> None:
        row, repeat, key = job
        try:
            answer = await self.source.get(row, repeat, key)
        except Unavailable as error:
            record = Record.of(row, "ungraded", None, error=f"policy: {error}")
        else:
            record = await grade(
                self.grader, row, answer.response, truncated=answer.truncated, routing_key=key
            )
            record.policy_tokens = answer.tokens
        record.split = "eval"
        record.index = repeat
        record.weight_version = self.name
        self.results.add(key, record)


class EvaluationPlan:
    """The evaluation that the flags describe, checked before the first call."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.policy_endpoint = policy_from(args)
        self.grader_endpoint, self.grading, self.scoring = grader_from(args, self.policy_endpoint)
        self.grader_name = recorded_grader(self.grader_endpoint, self.policy_endpoint)
        self.rows = RowFile(args.rows, args.limit)
        self.answer_file = AnswerFile(args.answers) if args.answers else None
        self.repeats = repeats_of(args, self.rows, self.answer_file)
        self.criteria = sum(
            self.repeats[prompt_id] * criteria for prompt_id, criteria in self.rows.criteria.items()
        )
        self.prices = prices_from(args)
        self.penalty = penalty_from(args.length_penalty)
        self.against = self.before = None
        if args.against:
            self.against = Run(args.against)
            self.before = Summary(self.against, penalty=self.penalty)
        self.name = answers_name(args)

    def keys(self) -> set[str]:
        """The keys of all answers in the folder --out."""
        return {
            result_key(prompt_id, repeat)
            for prompt_id, repeats in self.repeats.items()
            for repeat in range(repeats)
        }

    def identity(self) -> dict:
        """Everything that a result depends on."""
        if self.policy_endpoint:
            source = {"policy": self.policy_endpoint.identity()}
        else:
            source = {"sha256": digest(self.args.answers)}
        grader = self.grader_endpoint.identity() | self.grading.identity()
        return {
            "kind": "evaluate",
            "name": self.name,
            "rows": {"sha256": digest(self.args.rows), "limit": self.args.limit},
            "answers": source,
            "repeats": self.args.repeats,
            "grader": grader | self.scoring.identity(),
            **prompt_identity(self.grading, 1.0),
        }

    async def run(self) -> None:
        """Asks and grades, and leaves one record per answer in the folder --out."""
        args = self.args
        source = self.answer_file
        async with AsyncExitStack() as stack:
            # The policy first: what is wrong with it must not be called the grader's, which has
            # the same endpoint when the policy grades itself.
            if self.policy_endpoint:
                policy_client = PolicyClient(self.policy_endpoint, prefix="policy_")
                source = Policy(await stack.enter_async_context(policy_client))
                source.warn_of_refused(self.rows)
            assert source is not None
            client = await stack.enter_async_context(StoringClient(self.grader_endpoint))
            name = self.grader_name
            grader = Grader(client, self.grading, self.scoring, name, name == "policy")
            most_unreadable = self.grading.most_unreadable
            asked = self.identity()
            store = EvaluationFolder(args.out, asked, RESULTS, args.moved, most_unreadable)
            client.store = stack.enter_context(store)
            if isinstance(source, Policy):
                source.client.store = store
            keys = self.keys()
            store.refuse_others(keys)
            if len(store.finished) < len(keys):
                await store.check(grader)
            bar = CriteriaBar(self.criteria, args.give_up_after)
            work = Evaluation(self.rows, source, grader, store, self.name, self.repeats, bar)
            await work.run()

    def report(self) -> dict:
        """Writes result.json, prints it and returns it; it accounts for every criterion."""
        run = Run(self.args.out)
        summary = Summary(run, penalty=self.penalty)
        result = summary.result(self.prices)
        result["published"] = comparison_with_published(run, summary)
        criteria = result["criteria"]
        criteria["not_asked"] = self.criteria - criteria["all"]
        write_result(self.args.out, result)
        print(*summary_lines(result), sep="\n")
        if self.against and self.before:
            print_notes(self.against)
            judges = two_judges(self.against, self.before, run, summary)
            print(*judges, *comparison_lines(self.before, summary), sep="\n")
        return result

    def complaint(self, result: dict) -> str:
        """What is wrong with the result: answers without a score, or without verdicts."""
        if not result["answers"]["ungraded"] and not result["criteria"]["unreadable"]:
            return ""
        results = self.args.out / RESULTS
        return complaint_about(results, self.grading.most_unreadable, "answers")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("python -m rubric_rl.evaluate", __doc__)
    add_run_flags(parser, "answers")
    add = parser.add_argument
    add("--rows", required=True, help="raw HealthBench rows, or those of data_preprocess.py")
    add("--answers", help="JSONL of prompt_id and answer, or records; else the policy answers")
    add("--allow-missing", action="store_true", help="leave out prompts without an answer")
    add("--repeats", type=count, default=0, help="answers per prompt (default: 1, or the file's)")
    add("--name", default="", help="name in tables (default: policy's model or answers file)")
    add(
        "--length-penalty",
        default="hard",
        help="for the length-adjusted score: full, hard, consensus or a number",
    )
    add("--reference", action="store_true", help="grade as published scores are; flags win")
    add("--grader-price", help="price per million tokens: prompt,cached,completion")
    add("--policy-price", help="the same for the policy")
    grader = "grader (url empty: the policy grades itself)"
    add_flags(parser, "grader", grader, Endpoint, Grading, Scoring)
    add_flags(parser, "policy", "policy", Endpoint)
    return parser


def main() -> int:
    """Exit status: 0 all graded, 1 answers without readable verdicts, 2 something to fix."""
    return exit_status(lambda: run_and_report(EvaluationPlan(_parser().parse_args())))
