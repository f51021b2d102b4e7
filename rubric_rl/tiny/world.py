"""The patients of the tiny world and their rubrics, as raw rows in HealthBench's schema.

    python -m rubric_rl.tiny.world --out DIR

writes DIR/tiny_all.jsonl and DIR/tiny_hard.jsonl (the held-out patients alone).

A patient has a condition ("gout") and a modifier ("pregnant"), and tells of this pair in one of
four ways: 100 pairs, 400 patients, a row each. 20 of the pairs are held out.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.schema import Row
from rubric_rl.tiny.oracle import CONDITIONS, MODIFIERS, WISH, Statement, criteria

CANARY = "rubric-rl tiny world: made by rule, no patient is real"


class Pair(NamedTuple):
    """A condition and a modifier, by their names: what decides which answers are good."""

    condition: str
    modifier: str


# The ways to tell of a pair: one patient each. Several texts alternate between user and assistant.
PATIENTS = (
    ("I have {symptom}. {modifier} What should I do?",),
    ("{modifier} Since yesterday I have {symptom}. Tell me whom to see.",),
    ("Please help me with {symptom}. {modifier}",),
    ("Hello, I need advice.", "What is wrong?", "It is {symptom}. {modifier}"),
)
_ASKS_WHOM_TO_SEE = 1  # the patient who does so


def _all_pairs() -> tuple[Pair, ...]:
    pairs = []
    for condition in CONDITIONS:
        for modifier in MODIFIERS:
            pairs.append(Pair(condition, modifier))
    return tuple(pairs)


def _held_out_pairs() -> frozenset[Pair]:
    """Each condition with one modifier, each modifier with four conditions.

    So training shows every condition and every modifier, but never these pairs.
    """
    modifiers = list(MODIFIERS)
    pairs = set()
    for number, condition in enumerate(CONDITIONS):
        modifier = modifiers[number % len(modifiers)]
        pairs.add(Pair(condition, modifier))
    return frozenset(pairs)


PAIRS = _all_pairs()
HELD_OUT_PAIRS = _held_out_pairs()
TRAINING_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)


def good_statements(pair: Pair) -> list[Statement]:
    """What the best answer to such a patient says, the cause first."""
    condition = CONDITIONS[pair.condition]
    modifier = MODIFIERS[pair.modifier]
    cause = Statement("is", pair.condition)
    return [cause, *condition.good, *modifier.good]


def bad_statements(pair: Pair) -> list[Statement]:
    """What an answer to such a patient must not say; a wrong cause is bad too, and not listed."""
    condition = CONDITIONS[pair.condition]
    modifier = MODIFIERS[pair.modifier]
    return [*condition.bad, *modifier.bad]


def messages(pair: Pair, patient: int) -> list[dict]:
    """The conversation of patient 0 to 3 of this pair; it ends with the user's turn."""
    symptom = CONDITIONS[pair.condition].symptoms[patient % 2]
    modifier = MODIFIERS[pair.modifier].wordings[patient // 2]
    turns = []
    for number, text in enumerate(PATIENTS[patient]):
        role = "assistant" if number % 2 else "user"
        content = text.format(symptom=symptom, modifier=modifier)
        turns.append({"role": role, "content": content})
    return turns


def _item(
    rng: Random, statement: Statement, points: tuple[int, int], axis: str, sign: int = 1
) -> dict:
    """A rubric item that asks for `statement`; its points lie between the two of `points`."""
    lowest, highest = points
    size = rng.randint(lowest, highest)
    return {
        "criterion": rng.choice(criteria(statement)),
        "points": sign * size,
        "tags": ["level:example", f"axis:{axis}"],
    }


def _wanted(rng: Random, pair: Pair, patient: int) -> Iterator[dict]:
    """Items with positive points: larger ones where more hangs on it, as in HealthBench."""
    condition = CONDITIONS[pair.condition]
    modifier = MODIFIERS[pair.modifier]
    count = rng.randint(1, 2)
    for advice in rng.sample(condition.good, count):
        yield _item(rng, advice, points=(3, 8), axis="completeness")
    if rng.random() < 0.5:
        cause = Statement("is", pair.condition)
        yield _item(rng, cause, points=(4, 8), axis="accuracy")
    if rng.random() < 0.6:
        advice = rng.choice(modifier.good)
        yield _item(rng, advice, points=(5, 10), axis="context_awareness")
    if patient == _ASKS_WHOM_TO_SEE and rng.random() < 0.5:
        whom_to_see = modifier.good[0]
        yield _item(rng, whom_to_see, points=(4, 7), axis="instruction_following")
    if rng.random() < 0.15:
        yield _item(rng, WISH, points=(1, 3), axis="communication_quality")


def _unwanted(rng: Random, pair: Pair) -> Iterator[dict]:
    """One or two items with negative points."""
    other_conditions = [name for name in CONDITIONS if name != pair.condition]
    wrong_cause = rng.choice(other_conditions)
    mistakes = []
    for advice in CONDITIONS[pair.condition].bad:
        mistakes.append((advice, "accuracy"))
    for advice in MODIFIERS[pair.modifier].bad:
        mistakes.append((advice, "context_awareness"))
    mistakes.append((Statement("is", wrong_cause), "accuracy"))
    count = rng.choice((1, 1, 2))
    for mistake, axis in rng.sample(mistakes, count):
        yield _item(rng, mistake, points=(3, 9), axis=axis, sign=-1)


def _rubric(rng: Random, pair: Pair, patient: int) -> list[dict]:
    """2 to 6 items in random order, about a third of them negative; no criterion twice."""
    by_text = {}
    for item in _wanted(rng, pair, patient):
        by_text[item["criterion"]] = item
    for item in _unwanted(rng, pair):
        by_text[item["criterion"]] = item
    rubric = list(by_text.values())[:6]
    rng.shuffle(rubric)
    return rubric


def _theme(pair: Pair) -> str:
    if pair.condition == "infarction":
        return "emergency_referrals"
    if pair.modifier == "adult":
        return "communication"
    return "context_seeking"


def raw_row(pair: Pair, patient: int) -> dict:
    """One row in HealthBench's raw schema; the same arguments always give the same row."""
    prompt_id = f"tiny-{pair.condition}-{pair.modifier}-{patient}"
    rng = Random(prompt_id)
    return {
        "prompt_id": prompt_id,
        "prompt": messages(pair, patient),
        "rubrics": _rubric(rng, pair, patient),
        "example_tags": [f"theme:{_theme(pair)}"],
        "ideal_completions_data": None,
        "canary": CANARY,
    }


def raw_rows(held_out: bool | None = None) -> list[dict]:
    """All rows (None), the held-out ones (True) or the training ones (False), in a fixed order."""
    raw = []
    for pair in PAIRS:
        is_held_out = pair in HELD_OUT_PAIRS
        if held_out is None or held_out == is_held_out:
            for patient in range(len(PATIENTS)):
                raw.append(raw_row(pair, patient))
    return raw


def rows(held_out: bool) -> list[Row]:
    """The same rows as the grading library reads them."""
    read = []
    for raw in raw_rows(held_out):
        theme = raw["example_tags"][0].removeprefix("theme:")
        metadata = raw | {"messages": raw["prompt"], "theme": theme}
        read.append(row_from_metadata(metadata))
    return read


def pair_of(row: Row) -> Pair:
    """The patient's pair, from the prompt_id.

    Raises:
        UserError: for a row of another world.
    """
    pair, _ = patient_of(row.prompt_id)
    return pair


def patient_of(prompt_id: str) -> tuple[Pair, int]:
    """The pair and the number of its patient (0 to 3) that a prompt_id names.

    Raises:
        UserError: for a prompt_id of another world.
    """
    match = re.fullmatch(r"tiny-(\w+)-(\w+)-([0-3])", prompt_id)
    if match is not None:
        condition, modifier, patient = match.groups()
        pair = Pair(condition, modifier)
        if pair in PAIRS:
            return pair, int(patient)
    hint = "make its rows with python -m rubric_rl.tiny.world"
    raise UserError(f"prompt_id {prompt_id} is not of the tiny world; {hint}")


def main(argv: list[str] | None = None) -> int:
    """Writes the two raw files; data_preprocess.py makes the rows of a run from them."""
    parser = CommandParser("python -m rubric_rl.tiny.world", __doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="directory for tiny_all.jsonl and tiny_hard.jsonl"
    )
    return exit_status(lambda: _write(parser.parse_args(argv).out))


def _write(out: Path) -> int:
    total = write_jsonl(out / "tiny_all.jsonl", raw_rows())
    hard = write_jsonl(out / "tiny_hard.jsonl", raw_rows(held_out=True))
    pairs = f"{len(HELD_OUT_PAIRS)} of {len(PAIRS)} pairs"
    print(f"{out}: {total} rows, {hard} of them held out ({pairs})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
