"""Grades answers to a rubric file with any grader and prints the HealthBench score.

    python -m rubric_rl.evaluate --rows data/healthbench_hard.jsonl --out runs/eval \\
        --policy-url http://127.0.0.1:30000 --policy-tokenizer MODEL
                                                    (the model answers and grades itself)
    python -m rubric_rl.evaluate --rows ROWS.jsonl --out runs/eval --answers ANSWERS.jsonl \\
        --grader-config configs/grader.yaml --grader-api openai --grader-url URL \\
        --grader-model NAME --grader-api-key-env VARIABLE

If it is interrupted, run the same command again: it resumes, and asks nothing twice.
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
from rubric_rl.evaluation.endpoint_flags import add_flags, prices_from
from rubric_rl.evaluation.judge import two_judges
from rubric_rl.evaluation.read_run import Run, print_notes, stored_results
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
    grader_name,
    policy_from,
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
    answers: AnswerFile | Policy
    grader: Grader
    store: EvaluationFolder
    name: str
    repeats: dict[str, int]  # prompt_id -> number of its answers
    progress: CriteriaBar

    def __post_init__(self):
        grading = self.grader.grading
        self.results = Results(self.store, self.progress, grading.most_unreadable)

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
        self.policy = policy_from(args)
        self.grader, self.grading, self.scoring = grader_from(args, self.policy)
        self.grader_name = grader_name(self.grader, self.policy)
        self.rows = RowFile(args.rows, args.limit)
        self.answers = AnswerFile(args.answers) if args.answers else None
        self.repeats = repeats_of(args, self.rows, self.answers)
        self.criteria = 0
        for prompt_id, criteria in self.rows.criteria.items():
            self.criteria += self.repeats[prompt_id] * criteria
        self.prices = prices_from(args)
        self.penalty = penalty_from(args.length_penalty)
        self.against = self.before = None
        if args.against:
            self.against = Run(args.against)
            self.before = Summary(self.against, penalty=self.penalty)
        self.name = answers_name(args)

    def keys(self) -> set[str]:
        """The keys of all answers in the folder --out."""
        keys = set()
        for prompt_id, answers in self.repeats.items():
            keys |= {f"{prompt_id}#{number}" for number in range(answers)}
        return keys

    def identity(self) -> dict:
        """Everything that a result depends on."""
        if self.policy:
            answers = {"policy": self.policy.identity()}
        else:
            answers = {"sha256": digest(self.args.answers)}
        grader = self.grader.identity() | self.grading.identity()
        return {
            "kind": "evaluate",
            "name": self.name,
            "rows": {"sha256": digest(self.args.rows), "limit": self.args.limit},
            "answers": answers,
            "repeats": self.args.repeats,
            "grader": grader | self.scoring.identity(),
            "grader_prompt": prompt_identity(self.grading, 1.0),
        }

    async def run(self) -> None:
        """Asks and grades, and leaves one record per answer in the folder --out."""
        async with AsyncExitStack() as stack:
            answers: AnswerFile | Policy
            # The policy first: what is wrong with it must not be called the grader's, which has
            # the same endpoint when the policy grades itself.
            if self.policy:
                own = PolicyClient(self.policy, prefix="policy_")
                answers = Policy(await stack.enter_async_context(own))
                answers.warn_of_refused(self.rows)
            else:
                assert self.answers is not None
                answers = self.answers
            client = await stack.enter_async_context(StoringClient(self.grader))
            name = self.grader_name
            grader = Grader(client, self.grading, self.scoring, name, name == "policy")
            limit = self.grading.most_unreadable
            asked = self.identity()
            folder = EvaluationFolder(self.args.out, asked, RESULTS, self.args.moved, limit)
            client.store = stack.enter_context(folder)
            if isinstance(answers, Policy):
                answers.client.store = folder
            keys = self.keys()
            folder.refuse_others(keys)
            if len(folder.finished) < len(keys):
                await folder.check(grader)
            bar = CriteriaBar(self.criteria, self.args.give_up_after)
            work = Evaluation(self.rows, answers, grader, folder, self.name, self.repeats, bar)
            await work.run()

    def report(self) -> dict:
        """Writes result.json, prints it and returns it; it accounts for every criterion."""
        own = Run(self.args.out)
        summary = Summary(own, penalty=self.penalty)
        result = summary.result(self.prices)
        criteria = result["criteria"]
        criteria["not_asked"] = self.criteria - criteria["all"]
        write_result(self.args.out, result)
        print(*summary_lines(result), sep="\n")
        if self.against and self.before:
            print_notes(self.against)
            judges = two_judges(self.against, self.before.graders, own, summary.graders)
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
    add("--grader-price", help="price per million tokens: prompt,cached,completion")
    add("--policy-price", help="the same for the policy")
    grader = "grader (url empty: the policy grades itself)"
    add_flags(parser, "grader", grader, Endpoint, Grading, Scoring)
    add_flags(parser, "policy", "policy", Endpoint)
    return parser


def main() -> int:
    """Exit status: 0 all graded, 1 some answers stayed ungraded, 2 something to fix."""
    return exit_status(lambda: run_and_report(EvaluationPlan(_parser().parse_args())))
