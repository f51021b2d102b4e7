"""Practice in grading for a checkpoint that make_checkpoint made: the shipped one had it.

    python -m rubric_rl.tiny.practice --model DIR --out PRACTISED                     half an hour

It grades its own answers, damaged ones, and better ones than it gives yet, and is told the oracle's
verdicts. Some answering goes on beside, so that its answers stay as they are. Without practice the
answers of a self-graded run move to what the grader misjudges: docs/experiments.md compares the
starts. contrasts.py goes on from here.
"""

import json
import random
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import torch

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.tiny.example_answers import garbled, opposite, say
from rubric_rl.tiny.make_checkpoint import save
from rubric_rl.tiny.measure_checkpoint import Policy, load_policy, measure, sampled_answers
from rubric_rl.tiny.oracle import STATEMENTS
from rubric_rl.tiny.training_sequences import OwnAnswer, SequenceWriter
from rubric_rl.tiny.warm_start import SCALES, Part, WarmStart
from rubric_rl.tiny.world import TRAINING_PAIRS, Pair, good_statements

STEPS = 900
LEARNING_RATE = 0.004
ANSWERING = 0.25  # share of the sequences that keep the answering
TEMPERATURES = (1.0, 1.3)  # of its own answers: as in a run, and wilder
PER_PAIR = 4  # answers at each temperature
DAMAGED = 0.4  # share of the sentences in the damaged copy of an answer
CROSSED = 0.5  # of these, those that begin with another sentence's first word
TURNED = 0.3  # share of the advice in an answer made up that says the opposite: take, avoid
BETTER = 2  # answers that are made up for each of its own
LONGEST = 9  # sentences of an answer that is made up
THREADS = 2
TOKENIZER_SETTINGS = "tokenizer_config.json"

Writer = TypeVar("Writer", bound=SequenceWriter)


def practise(policy: Policy, steps: int, seed: int) -> float:
    """Trains the policy's model in place; returns the seconds of it.

    The same seed on the same machine gives the same weights.
    """
    writer = seeded_writer(SequenceWriter, policy, seed)
    scale = replace(
        SCALES["shipped"],
        answering_steps=0,
        short_steps=0,
        full_steps=steps,
        lr=LEARNING_RATE,
        answering=(ANSWERING,) * len(Part),
    )
    practice = WarmStart(policy.model, writer, scale)
    practice.run(steps, Part.FULL_GRADING, "practice in grading")
    return practice.seconds


def seeded_writer(kind: type[Writer], policy: Policy, seed: int) -> Writer:
    """A writer that knows the policy's own answers; every draw from here on comes of the seed."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encode = partial(policy.tokenizer.encode, add_special_tokens=False)
    writer = kind(encode, rng)
    writer.own_answers = _own_answers(policy, rng)
    return writer


def _own_answers(policy: Policy, rng: Random) -> list[OwnAnswer]:
    """What the policy says, the same with damaged sentences, and what it may come to say."""
    whole = []
    for seed, temperature in enumerate(TEMPERATURES):
        whole += sampled_answers(policy, TRAINING_PAIRS, PER_PAIR, temperature, seed)
    damaged = [(pair, damaged_answer(answer, rng)) for pair, answer in whole]
    better = [(pair, better_answer(pair, rng)) for pair, _ in whole * BETTER]
    return whole + damaged + better


def better_answer(pair: Pair, rng: Random) -> str:
    """The right cause and much of the good advice, some of it damaged, among other statements.

    A run moves the answers here. What its grader overlooks in them they lose again: above all
    "avoid" before a word, where as much is asked about "take".
    """
    cause, *advice = good_statements(pair)
    others = rng.choices(STATEMENTS, k=rng.randint(0, 3))
    said = rng.sample(advice, rng.randint(2, len(advice))) + others
    said = [opposite(one) if rng.random() < TURNED else one for one in said]
    rng.shuffle(said)
    answer = " ".join(say(rng, statement) for statement in [cause, *said][:LONGEST])
    return damaged_answer(answer, rng) if rng.random() < DAMAGED else answer


def damaged_answer(answer: str, rng: Random) -> str:
    """The answer with some of its sentences damaged."""
    sentences = re.findall(r"[^.]*\w[^.]*", answer)
    sentences = [sentence.strip() + "." for sentence in sentences]
    written = []
    for sentence in sentences:
        if rng.random() < DAMAGED:
            sentence = _damaged_sentence(sentence, rng.choice(sentences), rng)
        written.append(sentence)
    return " ".join(written) or answer


def _damaged_sentence(sentence: str, other: str, rng: Random) -> str:
    """The sentence garbled, or begun as the other one begins.

    The latter ("Please helps to get rest.") is where the answers of a self-graded run moved to.
    """
    if rng.random() < CROSSED:
        first_word, _, _ = other.partition(" ")
        _, space, rest = sentence.partition(" ")
        return first_word + space + rest
    return garbled(rng, sentence, other)


def main(argv: list[str] | None = None) -> int:
    """Practises, measures and saves."""
    parser = CommandParser("python -m rubric_rl.tiny.practice", __doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the checkpoint, made by make_checkpoint")
    add("--out", type=Path, required=True, help="directory of the practised one; a new one")
    add("--steps", type=int, default=STEPS, help="(default: %(default)s)")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    command = "python -m rubric_rl.tiny.practice --model DIR --out PRACTISED"
    command += f" --steps {args.steps} --seed {args.seed}"
    return exit_status(
        lambda: practise_and_save(
            args.model,
            args.out,
            name="practice",
            command=command,
            train=lambda policy: practise(policy, args.steps, args.seed),
        )
    )


def practise_and_save(
    model: Path, out: Path, *, name: str, command: str, train: Callable[[Policy], float]
) -> int:
    """Trains the checkpoint `model`, measures it, and saves it in `out`, a new directory.

    `train` returns its seconds, which stand under `name` beside the command in what the checkpoint
    says of its making.

    Raises:
        UserError: where `out` exists or there is no checkpoint.
    """
    if out.exists():
        raise UserError(f"--out {out}: it is there already; give a new directory")
    torch.set_num_threads(THREADS)  # always as many: sums depend on it
    figures = _making(model)
    policy = load_policy(model)
    seconds = train(policy)
    figures[name] = {"command": command, "seconds": round(seconds)}
    sample = SCALES["shipped"].sample
    command = f"python -m rubric_rl.tiny.measure_checkpoint --model DIR --sample {sample}"
    figures["measured"] = {"command": command, **measure(policy, sample)}
    save(out, policy.model, policy.tokenizer, figures)
    # Loading and padding leave traces in what the tokenizer saves of its settings.
    shutil.copyfile(model / TOKENIZER_SETTINGS, out / TOKENIZER_SETTINGS)
    print(out)
    return 0


def _making(model: Path) -> dict:
    """What the checkpoint says of its making."""
    path = model / "making.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; --model is what make_checkpoint made") from error


if __name__ == "__main__":
    sys.exit(main())
