"""The tiny world's prompts without rubrics, and answers to test rubrics on.

    python -m rubric_rl.tiny.prompts_and_answers --out DIR

writes DIR/prompts.jsonl (training patients; `--held-out`: the others) and DIR/answers.jsonl, the
input of `python -m rubric_rl.generate`. A prompt carries its expert rubric, which no writer sees,
and pairs of answers of which one is better by that rubric.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from rubric_rl.common.command_line import CommandParser, count, exit_status, positive
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.schema import Row
from rubric_rl.tiny.example_answers import say
from rubric_rl.tiny.oracle import CONDITIONS, Statement, true_score
from rubric_rl.tiny.world import Pair, bad_statements, good_statements, pair_of, rows

ANSWERS = 16  # to a prompt
_TRIES = 50  # at a pair of answers that the expert's rubric tells apart


def answer_of_quality(rng: Random, pair: Pair, quality: float) -> str:
    """An answer that says each good thing with probability `quality`, each bad one less often.

    `quality` lies between 0 and 1.
    """
    cause, *advice = good_statements(pair)
    if rng.random() >= quality:
        cause = Statement("is", rng.choice(list(CONDITIONS)))
    said = [cause]
    said += [statement for statement in advice if rng.random() < quality]
    for statement in bad_statements(pair):
        if rng.random() < 0.8 * (1 - quality):
            said.append(statement)
    return " ".join(say(rng, statement) for statement in said)


def answers_to(rng: Random, pair: Pair, number: int) -> list[str]:
    """So many answers, from bad to good."""
    qualities = [(place + 0.5) / number for place in range(number)]
    return [answer_of_quality(rng, pair, quality) for quality in qualities]


def _pairs(rng: Random, row: Row, number: int) -> Iterator[dict]:
    """Pairs of answers with different true scores; fewer where chance finds none."""
    found = 0
    for _ in range(_TRIES):
        answers = [answer_of_quality(rng, pair_of(row), rng.random()) for _ in range(2)]
        worse, better = sorted(answers, key=lambda answer: true_score(row.rubric, answer))
        if true_score(row.rubric, worse) < true_score(row.rubric, better) and found < number:
            found += 1
            yield {"better": better, "worse": worse}


def prompts_and_answers(
    held_out: bool, number: int = ANSWERS, pairs: int = 2, seed: int = 0
) -> tuple[list[dict], list[dict]]:
    """The lines of both files; the same arguments always give the same ones."""
    rng = Random(seed)
    prompts, answers = [], []
    for row in rows(held_out):
        fields = row.to_json()["metadata"]
        prompts.append(fields | {"pairs": list(_pairs(rng, row, pairs))})
        for answer in answers_to(rng, pair_of(row), number):
            answers.append({"prompt_id": row.prompt_id, "answer": answer})
    return prompts, answers


def main(argv: list[str] | None = None) -> int:
    """Writes the two files."""
    parser = CommandParser("python -m rubric_rl.tiny.prompts_and_answers", __doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the two files")
    add("--held-out", action="store_true", help="the patients that are never trained on")
    add("--answers", type=positive, default=ANSWERS, help="to a prompt (default: %(default)s)")
    add("--seed", type=count, default=0)
    return exit_status(lambda: _write(parser.parse_args(argv)))


def _write(args: argparse.Namespace) -> int:
    prompts, answers = prompts_and_answers(args.held_out, args.answers, seed=args.seed)
    write_jsonl(args.out / "prompts.jsonl", prompts)
    write_jsonl(args.out / "answers.jsonl", answers)
    print(f"{args.out}: {len(prompts)} prompts, {len(answers)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
