"""The patients of the tiny world and their rubrics, as raw rows in HealthBench's schema.

    python -m rubric_rl.tiny.world --out DIR

writes DIR/tiny_all.jsonl and DIR/tiny_hard.jsonl (the held-out patients alone).

A patient has a condition ("gout") and a modifier ("pregnant"), and tells of this pair in one of
four ways: 100 pairs, 400 patients, a row each. 20 of the pairs are held out.
"""

import re
import sys
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path
from random import Random
from typing import NamedTuple

from rubric_rl.common.command_line import CommandParser, exit_status
from rubric_rl.common.errors import UserError
from rubric_rl.common.jsonl import write_jsonl
from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.schema import Row
from rubric_rl.tiny.oracle import (
    CONDITIONS,
    MODIFIERS,
    WISH,
    Condition,
    Modifier,
    Statement,
    criteria,
)

PROMPT_ID = re.compile(r"tiny-(\w+)-(\w+)-([0-3])")  # condition, modifier, patient
CANARY = "rubric-rl tiny world: made by rule, no patient is real"


class Pair(NamedTuple):
    """A condition and a modifier, by their names: what decides which answers are good."""

    condition: str
    modifier: str

    def parts(self) -> tuple[Condition, Modifier]:
        """What the names stand for."""
        condition = CONDITIONS[self.condition]
        modifier = MODIFIERS[self.modifier]
        return condition, modifier


# The ways to tell of a pair: one patient each. Several texts alternate between user and assistant.
PATIENTS = (
    ("I have {symptom}. {modifier} What should I do?",),
    ("{modifier} Since yesterday I have {symptom}. Tell me whom to see.",),
    ("Please help me with {symptom}. {modifier}",),
    ("Hello, I need advice.", "What is wrong?", "It is {symptom}. {modifier}"),
)
_ASKS_WHOM_TO_SEE = 1  # the patient who does so


def _all_pairs() -> Iterator[Pair]:
    for condition in CONDITIONS:
        for modifier in MODIFIERS:
            yield Pair(condition, modifier)


def _held_out_pairs() -> Iterator[Pair]:
    """Each condition with one modifier, each modifier with four conditions.

    So training shows every condition and every modifier, but never these pairs.
    """
    modifiers = cycle(MODIFIERS)
    for condition, modifier in zip(CONDITIONS, modifiers, strict=False):
        yield Pair(condition, modifier)


def _training_pairs() -> Iterator[Pair]:
    for pair in PAIRS:
        if pair not in HELD_OUT_PAIRS:
            yield pair


PAIRS = tuple(_all_pairs())
HELD_OUT_PAIRS = frozenset(_held_out_pairs())
TRAINING_PAIRS = tuple(_training_pairs())


def good_statements(pair: Pair) -> list[Statement]:
    """What the best answer to such a patient says, the cause first."""
    condition, modifier = pair.parts()
    cause = Statement("is", pair.condition)
    advice = [*condition.good, *modifier.good]
    return [cause, *advice]


def bad_statements(pair: Pair) -> list[Statement]:
    """What an answer to such a patient must not say; a wrong cause is bad too, and not listed."""
    condition, modifier = pair.parts()
    return [*condition.bad, *modifier.bad]


def messages(pair: Pair, patient: int) -> list[dict]:
    """The conversation of patient 0 to 3 of this pair; it ends with the user's turn."""
    condition, modifier = pair.parts()
    symptom = condition.symptoms[patient % 2]
    wording = modifier.wordings[patient // 2]
    texts = PATIENTS[patient]
    roles = cycle(["user", "assistant"])
    turns = []
    for role, text in zip(roles, texts, strict=False):
        content = text.format(symptom=symptom, modifier=wording)
        turns.append({"role": role, "content": content})
    return turns


def _item(
    rng: Random, statement: Statement, lowest: int, highest: int, axis: str, sign: int = 1
) -> dict:
    """A rubric item that asks for `statement`; its points lie between the two."""
    size = rng.randint(lowest, highest)
    wordings = criteria(statement)
    return {
        "criterion": rng.choice(wordings),
        "points": sign * size,
        "tags": ["level:example", f"axis:{axis}"],
    }


def _wanted(rng: Random, pair: Pair, patient: int) -> Iterator[dict]:
    """Items with positive points: larger ones where more hangs on it, as in HealthBench."""
    condition, modifier = pair.parts()
    count = rng.randint(1, 2)
    advised = rng.sample(condition.good, count)
    for advice in advised:
        yield _item(rng, advice, 3, 8, axis="completeness")
    if rng.random() < 0.5:
        cause = Statement("is", pair.condition)
        yield _item(rng, cause, 4, 8, axis="accuracy")
    if rng.random() < 0.6:
        advice = rng.choice(modifier.good)
        yield _item(rng, advice, 5, 10, axis="context_awareness")
    asks_whom_to_see = patient == _ASKS_WHOM_TO_SEE
    if asks_whom_to_see and rng.random() < 0.5:
        whom_to_see = modifier.good[0]
        yield _item(rng, whom_to_see, 4, 7, axis="instruction_following")
    if rng.random() < 0.15:
        yield _item(rng, WISH, 1, 3, axis="communication_quality")


def _unwanted(rng: Random, pair: Pair) -> Iterator[dict]:
    """One or two items with negative points."""
    condition, modifier = pair.parts()
    other_conditions = list(CONDITIONS)
    other_conditions.remove(pair.condition)
    wrong_name = rng.choice(other_conditions)
    wrong_cause = Statement("is", wrong_name)
    mistakes = []
    for advice in condition.bad:
        mistakes.append((advice, "accuracy"))
    for advice in modifier.bad:
        mistakes.append((advice, "context_awareness"))
    mistakes.append((wrong_cause, "accuracy"))
    count = rng.choice((1, 1, 2))
    for mistake, axis in rng.sample(mistakes, count):
        yield _item(rng, mistake, 3, 9, axis, sign=-1)


def _rubric(rng: Random, pair: Pair, patient: int) -> list[dict]:
    """2 to 6 items in random order, about a third of them negative; no criterion twice."""
    wanted = _wanted(rng, pair, patient)
    unwanted = _unwanted(rng, pair)
    by_text = {}
    for item in chain(wanted, unwanted):  # drawn in this order
        text = item["criterion"]
        by_text[text] = item
    items = list(by_text.values())
    rubric = items[:6]
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
    condition, modifier = pair
    prompt_id = f"tiny-{condition}-{modifier}-{patient}"
    rng = Random(prompt_id)
    theme = _theme(pair)
    return {
        "prompt_id": prompt_id,
        "prompt": messages(pair, patient),
        "rubrics": _rubric(rng, pair, patient),
        "example_tags": [f"theme:{theme}"],
        "ideal_completions_data": None,
        "canary": CANARY,
    }


def raw_rows(held_out: bool | None = None) -> list[dict]:
    """All rows (None), the held-out ones (True) or the training ones (False), in a fixed order."""
    raw = []
    for pair in PAIRS:
        is_held_out = pair in HELD_OUT_PAIRS
        if held_out in (None, is_held_out):
            raw += [raw_row(pair, patient) for patient in range(len(PATIENTS))]
    return raw


def rows(held_out: bool) -> list[Row]:
    """The same rows as the grading library reads them."""
    read = []
    for raw in raw_rows(held_out):
        (tag,) = raw["example_tags"]
        raw["theme"] = tag.removeprefix("theme:")
        raw["messages"] = raw["prompt"]
        read.append(row_from_metadata(raw))
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
    match = PROMPT_ID.fullmatch(prompt_id)
    if match is not None:
        condition, modifier, patient = match.groups()
        pair = Pair(condition, modifier)
        if pair in PAIRS:
            return pair, int(patient)
    wrong = f"prompt_id {prompt_id} is not of the tiny world"
    raise UserError(f"{wrong}; make its rows with python -m rubric_rl.tiny.world")


def main(argv: list[str] | None = None) -> int:
    """Writes the two raw files; data_preprocess.py makes the rows of a run from them."""
    parser = CommandParser("python -m rubric_rl.tiny.world", __doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="directory for tiny_all.jsonl and tiny_hard.jsonl"
    )
    return exit_status(lambda: _write(parser.parse_args(argv).out))


def _write(out: Path) -> int:
    all_file = out / "tiny_all.jsonl"
    hard_file = out / "tiny_hard.jsonl"
    all_rows = raw_rows()
    hard_rows = raw_rows(held_out=True)
    total = write_jsonl(all_file, all_rows)
    hard = write_jsonl(hard_file, hard_rows)
    held_out = len(HELD_OUT_PAIRS)
    all_pairs = len(PAIRS)
    pairs = f"{held_out} of {all_pairs} pairs"
    written = f"{total} rows, {hard} of them held out"
    print(f"{out}: {written} ({pairs})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
