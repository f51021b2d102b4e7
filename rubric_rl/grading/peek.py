"""Grades one answer and prints every step: prompt, reply, verdict, points (stages 3 and 4, grading and reward)."""

import argparse
import asyncio
import sys
from dataclasses import replace

from rubric_rl.data.schema import Row, read_rows
from rubric_rl.errors import UserError
from rubric_rl.grading.client import GraderClient
from rubric_rl.grading.endpoints import Reply
from rubric_rl.grading.grade import Grading, grade
from rubric_rl.grading.score import is_met
from rubric_rl.grading.settings import GraderSettings, load_settings

_LINE = "-" * 100


class _PrintingClient(GraderClient):
    """Prints each request with its reply."""

    async def ask(self, content: str, schema: dict, seed: int, routing_key: str = "") -> Reply:
        reply = await super().ask(content, schema, seed, routing_key)
        print(f"{_LINE}\nPROMPT (seed {seed})\n{content}\n")
        print(f"REPLY ({'complete' if reply.complete else 'cut at the token limit'})\n{reply.text}")
        if reply.probability is not None:
            print(f"probability of true against false: {reply.probability:.3f}")
        prompt = f"{reply.prompt_tokens} in the prompt, {reply.cached_tokens} of them cached"
        print(f"tokens: {prompt}, {reply.completion_tokens} decoded")
        return reply


def show(row: Row, grading: Grading) -> str:
    """The verdict on each criterion, with its points, and the score that they add up to."""
    lines = [_LINE, f"prompt_id {row.prompt_id}: {grading.status}"]
    for criterion, verdict in zip(row.rubric, grading.verdicts):
        word = {True: "met", False: "not met", None: "UNREADABLE"}[verdict]
        points = criterion.points if is_met(criterion, verdict) else 0
        lines.append(
            f"{word:>10} {points:+6g} of {criterion.points:+g}  {' '.join(criterion.text.split())}"
        )
    if grading.status == "ungraded":
        return "\n".join([*lines, f"no score: {grading.error}"])
    possible = sum(criterion.points for criterion in row.rubric if criterion.points > 0)
    lines.append(f"score {grading.score:.4f} = {grading.score * possible:g} of {possible:g} points")
    return "\n".join(lines)


def choose(rows: list[Row], prompt_id: str | None) -> Row:
    """The row with that prompt_id, or the first one; raises UserError when there is no such row."""
    for row in rows:
        if prompt_id in (None, row.prompt_id):
            return row
    raise UserError(f"no row has prompt_id {prompt_id}; the first one is {rows[0].prompt_id}")


async def _peek(settings: GraderSettings, row: Row, response: str) -> Grading:
    async with _PrintingClient(
        replace(settings, concurrency=1)
    ) as client:  # one in flight: they must not mix
        return await grade(client, row, response)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rubric_rl.peek", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rows", required=True, help="a file written by data_preprocess.py")
    parser.add_argument("--prompt-id", help="which row; default: the first")
    parser.add_argument(
        "--answer", required=True, help="the answer to grade, or - to read it from standard input"
    )
    parser.add_argument(
        "--config", default="configs/grader.yaml", help="grader settings (default: %(default)s)"
    )
    parser.add_argument(
        "--url", required=True, help="the grader's base URL, e.g. http://127.0.0.1:30000"
    )
    parser.add_argument(
        "--tokenizer",
        default="",
        help="the grader's model folder (not needed for grader_api openai)",
    )
    args = parser.parse_args()
    try:
        settings = load_settings(args.config)
        settings = replace(settings, url=args.url, tokenizer=args.tokenizer or settings.tokenizer)
        row = choose(read_rows(args.rows), args.prompt_id)
        response = sys.stdin.read() if args.answer == "-" else args.answer
        grading = asyncio.run(_peek(settings, row, response))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(show(row, grading))
    return 0 if grading.status != "ungraded" else 1


if __name__ == "__main__":
    sys.exit(main())
