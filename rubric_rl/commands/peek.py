"""Grades one answer and prints every step: prompt, reply, verdict, points."""

import argparse
import asyncio
import sys
from urllib.parse import urlsplit

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import without_secrets
from rubric_rl.common.plain_text import one_line
from rubric_rl.data.row_file import read_rows
from rubric_rl.data.schema import Record, Row
from rubric_rl.grading.grade import Grader, grade
from rubric_rl.grading.score import is_met, possible_points
from rubric_rl.grading.settings import GraderSettings
from rubric_rl.serving.client import Client
from rubric_rl.serving.question import Question, Reply

_LINE = "-" * 100
_TOKENS = "tokens: {} in the prompt, {} of them cached, {} decoded"
_VERDICT = "{word:>10} {points:+6g} of {possible:+g}  {text}"
_SCORE = "score {score:.4f} = {points:g} of {possible:g} points"
_WORDS = {
    True: "met",
    False: "not met",
    None: "UNREADABLE",
}


class _PrintingClient(Client):
    """Prints each question with its reply, also where several are asked in one request."""

    async def _replies(self, questions: list[Question], received=None) -> list[Reply]:
        replies = await super()._replies(questions, received)
        for question, reply in zip(questions, replies, strict=True):
            _print_step(question, reply)
        return replies


def _print_step(question: Question, reply: Reply) -> None:
    ending = "complete" if reply.complete else "cut at the token limit"
    if question.only_read:
        ending = "none: the prompt is only read, into the cache"
    print(_LINE)
    print(f"PROMPT (seed {question.seed})")
    print(question.messages[-1]["content"])
    print()
    if question.opening:
        print("THE REPLY BEGINS")
        print(question.opening)
    print(f"REPLY ({ending})")
    print(without_secrets(reply.text))
    if reply.probability is not None:
        print(f"probability of true against false: {reply.probability:.3f}")
    print(_TOKENS.format(*reply.counts))


def show(record: Record) -> str:
    """The verdict on each criterion, with its points, and the score that they add up to."""
    lines = [
        _LINE,
        f"prompt_id {record.prompt_id}: {record.status}",
    ]
    for criterion, verdict in zip(record.rubric, record.verdicts, strict=False):
        line = _VERDICT.format(
            word=_WORDS[verdict.met],
            points=criterion.points if is_met(criterion, verdict) else 0,
            possible=criterion.points,
            text=one_line(criterion.text),
        )
        lines.append(line)
    if record.status == "ungraded":
        lines.append(f"no score: {record.error}")
    else:
        possible = possible_points(record.rubric)
        line = _SCORE.format(
            score=record.score,
            points=record.score * possible,
            possible=possible,
        )
        lines.append(line)
    return "\n".join(lines)


def choose(rows: list[Row], prompt_id: str | None) -> Row:
    """The row with that prompt_id, or the first one. Raises UserError without such a row."""
    for row in rows:
        if prompt_id in (None, row.prompt_id):
            return row
    first = rows[0].prompt_id
    raise UserError(f"no row has prompt_id {prompt_id}; the first one is {first}")


async def _peek(settings: GraderSettings, url: str, tokenizer: str, row: Row, text: str) -> Record:
    changes = {"url": url, "concurrency": 1}  # one in flight: the prints must not mix
    if tokenizer:
        changes["tokenizer"] = tokenizer
    endpoint = settings.endpoint.model_copy(update=changes)
    if endpoint.api == "sglang" and not endpoint.tokenizer:
        raise UserError("--tokenizer is missing; name the folder of the model at --url")
    async with _PrintingClient(endpoint) as client:
        grader = Grader(client, settings.grading, settings.scoring)
        return await grade(grader, row, text)


def main() -> int:
    """Exit status: 0 graded, 1 the grader gave no verdicts, 2 something to fix."""
    parser = CommandParser("python -m rubric_rl.peek", __doc__)
    add = parser.add_argument
    add("--rows", required=True, help="a file written by data_preprocess.py")
    add("--prompt-id", help="which row; default: the first")
    add("--answer", required=True, help="the answer to grade, or - to read standard input")
    add("--config", default="configs/grader.yaml", help="grader settings (default: %(default)s)")
    add("--url", required=True, help="the grader's base URL, e.g. http://127.0.0.1:30000")
    add("--tokenizer", default="", help="its model folder (not needed for grader_api openai)")
    return exit_status(lambda: _run(parser.parse_args()))


def _run(args: argparse.Namespace) -> int:
    try:
        _ = urlsplit(args.url).port
    except ValueError as error:
        hint = "write it as http://HOST:PORT"
        raise UserError(f"--url {args.url}: {error}; {hint}") from None
    settings = GraderSettings.load(args.config)
    rows = read_rows(args.rows)
    row = choose(rows, args.prompt_id)
    answer = args.answer
    if answer == "-":
        answer = sys.stdin.read()
    peek = _peek(settings, args.url, args.tokenizer, row, answer)
    record = asyncio.run(peek)
    print(show(record))
    return 1 if record.status == "ungraded" else 0


if __name__ == "__main__":
    sys.exit(main())
