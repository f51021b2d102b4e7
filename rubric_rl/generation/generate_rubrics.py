"""Makes rubrics for prompts that have none: written by a model, tested on answers, filtered.

    python -m rubric_rl.generate --prompts PROMPTS.jsonl --out runs/rubrics \\
        --policy-url http://127.0.0.1:30000 --policy-tokenizer MODEL
                                          (the model writes, answers and grades itself)
    python -m rubric_rl.generate --prompts PROMPTS.jsonl --out runs/rubrics \\
        --answers ANSWERS.jsonl \\
        --writer-api openai --writer-url URL --writer-model NAME --writer-api-key-env VARIABLE \\
        --grader-config configs/grader.yaml --grader-url URL --grader-tokenizer MODEL

Writes OUT/rows.jsonl to train on, OUT/result.json and OUT/report.html. If it is interrupted, run
the same command again: it resumes, and asks again only what was in flight. With other filters by
verdicts it asks nothing at all.
"""

import argparse
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from rubric_rl.common.command_line import CommandParser, count, exit_status, positive
from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.jsonl import read_jsonl_offsets, value_at, write_jsonl, write_text
from rubric_rl.data.download import digest
from rubric_rl.evaluation.answers import AnswerFile, Policy
from rubric_rl.evaluation.endpoint_flags import RETRIES, add_flags, prices_from, settings_from
from rubric_rl.evaluation.resume import CALLS, EvaluationFolder, PolicyClient, StoringClient
from rubric_rl.evaluation.run_command import (
    out_folder,
    prompt_identity,
    run_and_report,
    write_result,
    written_settings,
)
from rubric_rl.evaluation.stored import lines, run_name
from rubric_rl.evaluation.who_answers import ANSWER_TOKENS, grader_from, recorded_grader
from rubric_rl.generation.collect import AnsweringModel, Collection, Writer, model_name
from rubric_rl.generation.filtered import FilteredPrompt, filtered
from rubric_rl.generation.filters import Filters
from rubric_rl.generation.graded import GradedPrompt
from rubric_rl.generation.page import generation_page
from rubric_rl.generation.prompts import PromptFile
from rubric_rl.generation.stages import Stages
from rubric_rl.generation.summary import Summary, calls_result, summary_lines
from rubric_rl.generation.writer_prompt import writer_prompt
from rubric_rl.grading.grade import Grader
from rubric_rl.grading.settings import Grading, Scoring
from rubric_rl.serving.endpoint import Endpoint

RESULTS = "generated/prompts.jsonl"
ROWS = "rows.jsonl"
PAGE = "report.html"
WRITER_TOKENS = 4096  # limit of a draft, thoughts included
_LEAST_WORKERS = 4  # prompts at work at a time


class WriterClient(StoringClient):
    """The writer's client."""

    role = "writer"


class GenerationPlan:
    """The generation that the flags describe, checked before the first call."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.models = _models(args)  # role -> endpoint, of those that answer
        self.writer = _writer(args, self.models.get("policy"))
        policy = self.models.get("policy")
        self.grader_endpoint, self.grading, self.scoring = grader_from(args, policy or self.writer)
        self.grader_name = recorded_grader(self.grader_endpoint, policy)
        self.filters: Filters = settings_from(args, "filter", Filters, {})
        if args.least > args.most:
            raise UserError(f"--least {args.least}: is more than --most {args.most}; lower it")
        for file in (args.prompts, args.answers):
            if file and Path(file).resolve() == (args.out / ROWS).resolve():
                raise UserError(
                    f"{file}: the rows of this run would replace it; give another --out"
                )
        self.prompts = PromptFile(args.prompts, args.limit)
        self.answer_file = AnswerFile(args.answers) if args.answers else None
        self.prices = prices_from(args)
        self.readings = args.readings if self._another_says_something() else 1
        self._failures: dict[str, int] = {}

    def _another_says_something(self) -> bool:
        """Whether another reading can differ: in `direct` mode the probability says how likely."""
        return self.grading.mode != "direct" and self.grader_endpoint.temperature > 0

    def identity(self) -> dict:
        """Everything that a call depends on."""
        models = {}
        for role, endpoint in self.models.items():
            models[role] = endpoint.identity() | {"answers": self.args.candidates}
        args = self.args
        nothing = [{"role": "user", "content": ""}]
        return {
            "kind": "generate",
            "prompts": {"sha256": digest(args.prompts), "limit": args.limit},
            "answers": {"sha256": digest(args.answers) if args.answers else None},
            "models": models,
            "writer": self.writer.identity() | {"drafts": args.drafts},
            "writer_prompt": writer_prompt(nothing, "", args.least, args.most),
            "grader": self.grader_endpoint.identity() | self.grading.identity(),
            "grader_prompt": prompt_identity(self.grading, 1.0),
            "readings": self.readings,
            "filters": self.filters.identity(),
        }

    async def run(self) -> None:
        """Asks for all that is not stored yet."""
        args = self.args
        async with AsyncExitStack() as stack:
            models = []
            for role, endpoint in self.models.items():
                client = await stack.enter_async_context(PolicyClient(endpoint, prefix="policy_"))
                client.role = role
                models.append(AnsweringModel(Policy(client), model_name(endpoint), args.candidates))
            writer = await stack.enter_async_context(WriterClient(self.writer, prefix="writer_"))
            graders = []
            for reading in range(self.readings):
                seeds_of_one = self.grading.votes * (self.grading.rereads + 1)
                seed = self.grader_endpoint.seed + reading * seeds_of_one
                endpoint = self.grader_endpoint.model_copy(update={"seed": seed})
                client = await stack.enter_async_context(StoringClient(endpoint))
                graders.append(Grader(client, self.grading, self.scoring, self.grader_name))
            grader, *further_graders = graders
            store = EvaluationFolder(args.out, self.identity(), RESULTS, args.moved)
            stack.enter_context(store)
            for client in [model.policy.client for model in models] + [writer]:
                client.store = store
            for each in graders:
                each.client.store = store
            prompt_ids = set(self.prompts.prompt_ids)
            store.refuse_others(prompt_ids)
            if len(store.finished) == len(prompt_ids):
                return
            await store.check(grader)
            for each in further_graders:
                each.client.api.switch = grader.client.api.switch
            collection = Collection(
                prompts=self.prompts,
                answer_file=self.answer_file,
                models=models,
                writer=Writer(writer, args.drafts, args.least, args.most),
                grader=grader,
                further_graders=further_graders,
                filters=self.filters,
                store=store,
                stages=stack.enter_context(Stages(args.give_up_after)),
            )
            self._failures = collection.failures
            answers = len(models) * args.candidates
            workers = self.grader_endpoint.concurrency // max(1, answers)
            await collection.run(max(workers, _LEAST_WORKERS))

    def report(self) -> dict:
        """Filters, writes the rows, the result and the page; prints and returns the result."""
        out = self.args.out
        summary = Summary()
        made_by = {
            "run": run_name(self.identity()),
            "writer": model_name(self.writer),
            "grader": model_name(self.grader_endpoint),
            "readings": self.readings,
            "filters": dict(self.filters),
        }

        def rows() -> Iterator[dict]:
            for prompt in self._filtered():
                summary.add(prompt)
                if not prompt.left_out:
                    yield prompt.row(made_by).to_json()

        write_jsonl(out / ROWS, rows(), only_owner=True)
        result = summary.result(len(self.prompts.prompt_ids))
        of_others = self._answers_of_others()
        if of_others:
            result["answers"]["unused"]["of other prompts"] = of_others
        calls = (call for _, call in lines(out / CALLS))
        result |= calls_result(calls, self.prices)
        result["made_by"] = made_by
        write_result(out, result)
        shown = self.args.page_prompts
        write_text(out / PAGE, generation_page(result, self._filtered(), shown, str(out)))
        print(*summary_lines(result), sep="\n")
        print(f"wrote {out / ROWS}, {out / PAGE} and {out / 'result.json'}")
        if result["prompts"]["left_out"] and not summary.rows:
            _, why = next(iter(summary.left_out.items()))
            what = f"no prompt got a rubric (see {out / PAGE}), the first because {why}"
            raise DataError(f"{what}; {summary.cure}")
        return result

    def _answers_of_others(self) -> int:
        """How many answers of the file are to prompts that get no rubric here."""
        if self.answer_file is None:
            return 0
        own = set(self.prompts.prompt_ids)
        counts = self.answer_file.counts
        return sum(count for prompt_id, count in counts.items() if prompt_id not in own)

    def complaint(self, result: dict) -> str:
        """Which prompts are not finished."""
        unfinished = result["prompts"]["unfinished"]
        if not unfinished:
            return ""
        return f"{unfinished} prompts are unfinished, most for: {self._most_frequent_failure()}"

    def _most_frequent_failure(self) -> str:
        return max(self._failures, key=lambda error: self._failures[error], default="not asked")

    def _filtered(self) -> Iterator[FilteredPrompt]:
        """The finished prompts in the order of their file, one in memory at a time."""
        path = self.args.out / RESULTS
        offsets = {}
        if path.exists():
            for _, offset, item in read_jsonl_offsets(path, skip_partial=True):
                offsets[item["key"]] = offset
        if not offsets:
            what = f"nothing is finished yet, most for: {self._most_frequent_failure()}"
            raise DataError(f"{path}: {what}; mend that and run the same command again")
        with open(path, "rb") as file:
            for prompt_id in self.prompts.prompt_ids:
                if prompt_id in offsets:
                    graded = GradedPrompt.from_json(value_at(file, offsets[prompt_id]))
                    yield filtered(graded, self.filters)


def _models(args: argparse.Namespace) -> dict[str, Endpoint]:
    """Role -> endpoint of each model that answers: the policy, and those of --candidate-config.

    Raises UserError where there are neither models nor answers.
    """
    defaults = {"retries": RETRIES, "max_tokens": ANSWER_TOKENS}
    endpoints = []
    policy: Endpoint = settings_from(args, "policy", Endpoint, defaults)
    if policy.url:
        endpoints.append(policy)
    for file in args.candidate_config:
        other = Endpoint.of(defaults | written_settings(file))
        if not other.url:
            raise UserError(f"{file}: grader_url is missing; name the endpoint that answers")
        endpoints.append(other)
    if not endpoints and not args.answers:
        hint = "give --policy-url for a model that answers, or --answers FILE"
        raise UserError(f"no answers to test criteria on: {hint}")
    models = {}
    for number, endpoint in enumerate(endpoints, 1):
        role = "policy" if endpoint is policy else f"answers {number}"
        models[role] = endpoint
    return models


def _writer(args: argparse.Namespace, policy: Endpoint | None) -> Endpoint:
    """Who writes: --writer-url, or else the policy."""
    defaults: dict = {"retries": RETRIES, "max_tokens": WRITER_TOKENS}
    if policy and not args.writer_url:
        for name in ("url", "api", "model", "tokenizer", "api_key_env"):
            defaults[name] = getattr(policy, name)
    writer: Endpoint = settings_from(args, "writer", Endpoint, defaults)
    if not writer.url:
        hint = "give --writer-url, or --policy-url for a policy that writes its own rubrics"
        raise UserError(f"nobody writes: {hint}")
    return writer


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("python -m rubric_rl.generate", __doc__)
    add = parser.add_argument
    add("--prompts", required=True, help="JSONL of prompts: rows, or lines with `prompt`")
    add("--out", required=True, type=out_folder, help="folder of this run; it is resumed")
    add("--limit", type=count, default=0, help="only the first so many prompts")
    add("--answers", help="JSONL of prompt_id and answer, or records: answers to test on")
    add(
        "--candidate-config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML of grader_* endpoint keys: one more model that answers (repeatable)",
    )
    add("--candidates", type=positive, default=8, help="answers of each model (default: 8)")
    add("--drafts", type=positive, default=1, help="rubrics written for a prompt (default: 1)")
    add("--least", type=positive, default=6, help="criteria asked for, at least (default: 6)")
    add("--most", type=positive, default=16, help="criteria asked for, at most (default: 16)")
    add(
        "--readings",
        type=positive,
        default=2,
        help="how often the grader reads each answer, each time with another seed (default: 2)",
    )
    add("--grader-config", default="", help="YAML file of grader_* keys; flags win over it")
    add("--page-prompts", type=count, default=200, help="prompts on the page (default: 200)")
    add("--moved", action="store_true", help="resume although an endpoint has another URL now")
    add(
        "--give-up-after",
        type=count,
        default=50,
        help="stop after this many prompts in a row without a usable criterion; 0: never",
    )
    for who in ("writer", "policy", "grader"):
        add(f"--{who}-price", help="price per million tokens: prompt,cached,completion")
    add_flags(parser, "writer", "writer (url empty: the policy writes)", Endpoint)
    add_flags(parser, "policy", "policy: a model that answers", Endpoint)
    grader = "grader (url empty: the policy, or without one the writer, grades)"
    add_flags(parser, "grader", grader, Endpoint, Grading, Scoring)
    parser.set_defaults(reference=False)  # no published score is made here
    add_flags(parser, "filter", "filters", Filters)
    return parser


def main() -> int:
    """Exit status: 0 all done, 1 prompts are unfinished, 2 something to fix."""
    return exit_status(lambda: run_and_report(GenerationPlan(_parser().parse_args())))
