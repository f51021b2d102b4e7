"""Writes rubrics for the tiny world's patients by rule: good criteria, and faults of every kind.

    python -m rubric_rl.tiny.writer --serve 30002      until Ctrl-C; 0 takes any free port

An OpenAI-compatible writer for `python -m rubric_rl.generate`: the tiny checkpoint cannot write
rubrics. It answers the writer's prompts of this repository and nothing else. Its settings:

    --writer-api openai --writer-url http://127.0.0.1:30002 --writer-model tiny-writer

The seed of a request decides which faults a rubric has, and the oracle can judge each criterion.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.generation.writer_prompt import writer_prompt
from rubric_rl.tiny.chat_server import (
    add_serve_flags,
    chat_choice,
    chat_completion,
    messages_of,
    run_server,
    seed_of,
)
from rubric_rl.tiny.oracle import (
    ALWAYS_MET,
    AND,
    CONDITIONS,
    MODIFIERS,
    NEVER_MET,
    VAGUE,
    Statement,
    criteria,
    failing,
)
from rubric_rl.tiny.world import Pair, bad_statements, good_statements

MODEL = "tiny-writer"  # any other name is answered too
GOOD = "good"
# A fault -> the filter that is made for it.
FAULTS = {
    "compound": "split",
    "against its wording": "polarity",
    "repeated": "duplicates",
    "vague": "unsteady",
    "met by all": "always_met",
    "unmeetable": "never_met",
    "wrong sign": "disagreeing",
}
FAULT_SHARE = 0.5  # how likely a rubric has a fault of each kind

_PROMPT = re.compile(
    r".*- Write (?P<least>\d+) to (?P<most>\d+) criteria.*?"
    r"<conversation (?P<first>[0-9a-f]{6})>\n(?P<conversation>.*?)\n</conversation (?P=first)>\n"
    r"(?:\n[^\n]*\n<reference (?P<second>[0-9a-f]{6})>\n(?P<reference>.*?)\n"
    r"</reference (?P=second)>\n)?",
    re.DOTALL,
)


class Written(NamedTuple):
    """A criterion that the writer writes, and what it is: GOOD, or one of FAULTS."""

    text: str
    points: int
    kind: str


def written_rubric(conversation: str, seed: int, fault_share: float = FAULT_SHARE) -> list[Written]:
    """The rubric for the patient who speaks here; the same arguments always give the same one.

    Raises UserError for a conversation that is none of this world.
    """
    pair = pair_told_in(conversation)
    rng = Random(f"{seed} {conversation}")
    faults = {fault for fault in FAULTS if rng.random() < fault_share}
    rubric = list(_criteria(rng, pair, faults))
    if "repeated" in faults:
        rubric.append(_repeated(rng, rubric))
    rng.shuffle(rubric)
    return rubric


def _criteria(rng: Random, pair: Pair, faults: set[str]) -> Iterator[Written]:
    """Each thing that such a patient's answer should say or not is asked for once, well or ill."""
    cause, *advice = good_statements(pair)
    rng.shuffle(advice)
    yield _written(rng, cause, 1)
    if "compound" in faults:
        first, second = (_text(rng, advice.pop()) for _ in range(2))
        joined = first + AND + second[0].lower() + second[1:]
        yield Written(joined, rng.randint(6, 10), "compound")
    if "against its wording" in faults:
        text = failing(_text(rng, advice.pop()))
        yield Written(text, rng.randint(3, 8), "against its wording")
    mistakes = bad_statements(pair)
    rng.shuffle(mistakes)
    if "wrong sign" in faults:
        text = _text(rng, mistakes.pop())
        yield Written(text, rng.randint(3, 8), "wrong sign")
    for statement in advice:
        yield _written(rng, statement, 1)
    for statement in mistakes:
        yield _written(rng, statement, -1)
    if "vague" in faults:
        yield Written(rng.choice(VAGUE), rng.randint(3, 8), "vague")
    if "met by all" in faults:
        yield Written(ALWAYS_MET, rng.randint(3, 8), "met by all")
    if "unmeetable" in faults:
        yield Written(NEVER_MET, rng.randint(3, 8), "unmeetable")


def _written(rng: Random, statement: Statement, sign: int) -> Written:
    return Written(_text(rng, statement), sign * rng.randint(3, 9), GOOD)


def _text(rng: Random, statement: Statement) -> str:
    return rng.choice(criteria(statement))


def _repeated(rng: Random, rubric: list[Written]) -> Written:
    """One of the good criteria once more, lighter and in another spelling."""
    again = rng.choice([written for written in rubric if written.kind == GOOD])
    spellings = (again.text.upper(), f"{again.text}.", again.text.replace(" ", "  "), again.text)
    lighter = again.points - 1 if again.points > 0 else again.points + 1
    return Written(rng.choice(spellings), lighter, "repeated")


def pair_told_in(conversation: str) -> Pair:
    """The pair of the patient who speaks here. Raises UserError where it is none of this world."""
    for name, condition in CONDITIONS.items():
        for modifier_name, modifier in MODIFIERS.items():
            tells_condition = any(symptom in conversation for symptom in condition.symptoms)
            if tells_condition and any(told in conversation for told in modifier.wordings):
                return Pair(name, modifier_name)
    raise UserError("the conversation is none of the tiny world")


def completion(body: Any, fault_share: float = FAULT_SHARE) -> dict:
    """The chat completion that answers the body of a request.

    Raises:
        UserError: for a request that is no writer's prompt about a patient of this world.
    """
    match messages_of(body):
        case [("user", str(content))]:
            conversation = _conversation(content)
        case _:
            raise UserError("a writer's prompt is one user message of text")
    rubric = written_rubric(conversation, seed_of(body), fault_share)
    items = [{"criterion": written.text, "points": written.points} for written in rubric]
    choice = chat_choice(json.dumps({"criteria": items}), "stop")
    return chat_completion(body.get("model", MODEL), choice)


def _conversation(content: str) -> str:
    """The conversation in a writer's prompt, which is read back to the letter."""
    found = _PROMPT.fullmatch(content)
    if found is None:
        raise UserError("the message is no writer's prompt of rubric_rl/generation")
    conversation = found["conversation"]
    role, _, text = conversation.partition(": ")
    # However many turns there are, the text is that of one.
    messages = [{"role": role, "content": text}]
    least, most = int(found["least"]), int(found["most"])
    if writer_prompt(messages, found["reference"] or "", least, most) != content:
        raise UserError("the message is a writer's prompt of another version")
    return conversation


def main(argv: list[str] | None = None) -> int:
    """Serves the writer. Exit status: 0 after Ctrl-C or SIGTERM, 2 for something to fix."""
    parser = CommandParser("python -m rubric_rl.tiny.writer", __doc__)
    add_serve_flags(parser)
    parser.add_argument(
        "--fault-share",
        type=float,
        default=FAULT_SHARE,
        help="how likely a rubric has a fault of each kind (default: %(default)s)",
    )
    return exit_status(lambda: _serve(parser.parse_args(argv)))


def _serve(args: argparse.Namespace) -> int:
    def complete(body: Any) -> dict:
        return completion(body, args.fault_share)

    return run_server(complete, MODEL, "writer", args)


if __name__ == "__main__":
    sys.exit(main())
