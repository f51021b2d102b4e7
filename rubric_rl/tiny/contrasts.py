"""A second practice in grading, which makes the shipped checkpoint: what is said of which word.

    python -m rubric_rl.tiny.contrasts --model PRACTISED --out DIR                   half an hour

"Please avoid codeine. You should take honey." After the first practice the grader takes this for
advice to take codeine: it looks for the verb and for the key word, each anywhere. So here answers
say to take one thing and to avoid another, and both are asked of each. That alone taught nothing
in 200 steps (tried by hand); with a low layer that learns which token stands before each
(`looking_back`), the verdicts turned right between steps 250 and 400, in each of two runs.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.tiny.example_answers import opposite, say
from rubric_rl.tiny.measure_checkpoint import Policy
from rubric_rl.tiny.oracle import ADVICE, Statement, statements_of
from rubric_rl.tiny.practice import damaged_answer, practise_and_save, seeded_writer
from rubric_rl.tiny.training_sequences import MAX_CRITERIA, SequenceWriter
from rubric_rl.tiny.warm_start import SCALES, Part, Scale, WarmStart
from rubric_rl.tiny.world import Pair, good_statements

LOOKING_BACK = 0.3  # weight of that loss
MOST = 3  # verbs in an answer with contrasts, and things that each of them takes
DAMAGED = 0.2  # share of these answers that are damaged
SEED = 1

_SHIPPED = SCALES["shipped"]
# Contrasts alone, in short sequences, until they are told apart; then among all else.
ALONE = replace(
    _SHIPPED,
    answering_steps=0,
    short_steps=500,
    full_steps=0,
    batch=3,
    length=800,
    lr=0.006,
    answering=(0.05,) * len(Part),
)
AMONG_OTHERS = replace(
    _SHIPPED,
    answering_steps=0,
    short_steps=0,
    full_steps=500,
    lr=0.004,
    answering=(0.25,) * len(Part),
)
ALONE_SHARE = 0.9  # of the graded answers that hold contrasts
AMONG_OTHERS_SHARE = 0.35


def _keys_by_verb() -> dict[str, list[str]]:
    keys = defaultdict(list)
    for key, phrase in ADVICE.items():
        verb, _ = phrase.split()
        keys[verb].append(key)
    return {verb: found for verb, found in keys.items() if len(found) > 1}


_KEYS = _keys_by_verb()


def contrasting_answer(rng: Random, pair: Pair) -> str:
    """Says of several things that have a verb in common, each by itself, to take or avoid it."""
    said = []
    for verb in rng.sample(list(_KEYS), rng.randint(1, MOST)):
        keys = _KEYS[verb]
        for key in rng.sample(keys, rng.randint(2, min(MOST, len(keys)))):
            said.append(Statement(rng.choice(("do", "not")), key))
    cause, *advice = good_statements(pair)
    said += rng.sample(advice, rng.randint(0, 2))
    rng.shuffle(said)
    if rng.random() < 0.7:
        said.insert(0, cause)
    answer = " ".join(say(rng, statement) for statement in said)
    return damaged_answer(answer, rng) if rng.random() < DAMAGED else answer


class ContrastWriter(SequenceWriter):
    """A writer of whose graded answers a share holds contrasts."""

    share = ALONE_SHARE

    def asked_answer(self) -> tuple[list[dict], str, list[Statement]]:
        """About a contrasting answer what it says and the opposite are asked, as often."""
        if self.rng.random() >= self.share:
            return super().asked_answer()
        pair, conversation = self.patient()
        answer = contrasting_answer(self.rng, pair)
        said = [one for one in statements_of(answer) if opposite(one) != one]
        if not said:  # all of it is damaged
            return super().asked_answer()
        both = said + [opposite(one) for one in said]
        return conversation, answer, self.rng.choices(both, k=MAX_CRITERIA)


def practise_contrasts(
    policy: Policy, seed: int, alone: Scale = ALONE, among_others: Scale = AMONG_OTHERS
) -> float:
    """Trains the policy's model in place; returns the seconds of it.

    The same seed on the same machine gives the same weights.
    """
    writer = seeded_writer(ContrastWriter, policy, seed)
    first = WarmStart(policy.model, writer, alone, LOOKING_BACK)
    first.run(alone.short_steps, Part.SHORT_GRADING, "contrasts alone")
    writer.share = AMONG_OTHERS_SHARE
    second = WarmStart(policy.model, writer, among_others, LOOKING_BACK)
    second.run(among_others.full_steps, Part.FULL_GRADING, "contrasts among others")
    return first.seconds + second.seconds


def main(argv: list[str] | None = None) -> int:
    """Practises, measures and saves."""
    parser = CommandParser("python -m rubric_rl.tiny.contrasts", __doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="the checkpoint, practised once")
    add("--out", type=Path, required=True, help="directory of the one that comes out; a new one")
    add("--seed", type=int, default=SEED, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    return exit_status(
        lambda: practise_and_save(
            args.model,
            args.out,
            name="contrasts",
            command=f"python -m rubric_rl.tiny.contrasts --model DIR --out OUT --seed {args.seed}",
            train=lambda policy: practise_contrasts(policy, args.seed),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
