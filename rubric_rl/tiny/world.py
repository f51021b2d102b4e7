"""Patients of the tiny world and their rubrics, as raw rows in HealthBench's schema (stage 1, prompt).

python -m rubric_rl.tiny.world --out DIR    writes DIR/tiny_all.jsonl and DIR/tiny_hard.jsonl (held-out patients)
"""

import argparse
import random
import sys
from pathlib import Path

from rubric_rl.data.parse import row_from_metadata
from rubric_rl.data.schema import Row
from rubric_rl.errors import UserError
from rubric_rl.jsonl import write_jsonl
from rubric_rl.tiny.knowledge import CONDITIONS, MODIFIERS, PATIENTS, Statement, criteria

CANARY = "rubric-rl tiny world: made by rule, no patient is real"
Pair = tuple[str, str]  # condition, modifier
PAIRS: tuple[Pair, ...] = tuple(
    (condition, modifier) for condition in CONDITIONS for modifier in MODIFIERS
)
# Each condition is held out with one modifier and each modifier with four conditions: both are known, the pair is not.
HELD_OUT = frozenset((c, tuple(MODIFIERS)[i % len(MODIFIERS)]) for i, c in enumerate(CONDITIONS))


def good_statements(pair: Pair) -> list[Statement]:
    """What the best answer to such a patient says."""
    condition, modifier = pair
    return [("is", condition), *CONDITIONS[condition].good, *MODIFIERS[modifier].good]


def bad_statements(pair: Pair) -> list[Statement]:
    """What an answer to such a patient must not say (a wrong cause is bad as well, and not listed)."""
    condition, modifier = pair
    return [*CONDITIONS[condition].bad, *MODIFIERS[modifier].bad]


def messages(pair: Pair, wording: int) -> list[dict]:
    """The conversation of patient `wording` (0 to 3) of this pair; it ends with the user's turn."""
    condition, modifier = pair
    fields = {
        "symptom": CONDITIONS[condition].symptoms[wording % 2],
        "modifier": MODIFIERS[modifier].wordings[wording // 2],
    }
    turns = [text.format(**fields) for text in PATIENTS[wording]]
    return [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(turns)
    ]


def _item(rng: random.Random, statement: Statement, points: int, axis: str) -> dict:
    return {
        "criterion": rng.choice(criteria(statement)),
        "points": points,
        "tags": ["level:example", f"axis:{axis}"],
    }


def _rubric(rng: random.Random, pair: Pair, wording: int) -> list[dict]:
    """2 to 6 items, about a third of them negative; points are larger where more hangs on it, as in HealthBench."""
    condition, modifier = pair
    completeness = rng.sample(CONDITIONS[condition].good, rng.randint(1, 2))
    items = [_item(rng, statement, rng.randint(3, 8), "completeness") for statement in completeness]
    if rng.random() < 0.5:
        items.append(_item(rng, ("is", condition), rng.randint(4, 8), "accuracy"))
    if rng.random() < 0.6:
        items.append(
            _item(
                rng, rng.choice(MODIFIERS[modifier].good), rng.randint(5, 10), "context_awareness"
            )
        )
    if wording == 1 and rng.random() < 0.5:  # this patient asks whom to see
        items.append(
            _item(rng, MODIFIERS[modifier].good[0], rng.randint(4, 7), "instruction_following")
        )
    if rng.random() < 0.15:
        items.append(_item(rng, ("wish", "well"), rng.randint(1, 3), "communication_quality"))
    wrong = rng.choice([name for name in CONDITIONS if name != condition])
    bad = [(s, "accuracy") for s in CONDITIONS[condition].bad]
    bad += [(s, "context_awareness") for s in MODIFIERS[modifier].bad] + [
        (("is", wrong), "accuracy")
    ]
    for statement, axis in rng.sample(bad, rng.choice((1, 1, 2))):
        items.append(_item(rng, statement, -rng.randint(3, 9), axis))
    unique = list({item["criterion"]: item for item in items}.values())[:6]
    rng.shuffle(unique)
    return unique


def raw_row(pair: Pair, wording: int) -> dict:
    """One row in HealthBench's raw schema; a pure function of its arguments."""
    condition, modifier = pair
    prompt_id = f"tiny-{condition}-{modifier}-{wording}"
    rng = random.Random(prompt_id)
    theme = "theme:emergency_referrals" if condition == "infarction" else "theme:context_seeking"
    if modifier == "adult" and condition != "infarction":
        theme = "theme:communication"
    return {
        "prompt_id": prompt_id,
        "prompt": messages(pair, wording),
        "rubrics": _rubric(rng, pair, wording),
        "example_tags": [theme],
        "ideal_completions_data": None,
        "canary": CANARY,
    }


def raw_rows(held_out: bool | None = None) -> list[dict]:
    """All rows (None), the held-out ones (True) or the training ones (False), in a fixed order."""
    pairs = [pair for pair in PAIRS if held_out is None or (pair in HELD_OUT) == held_out]
    return [raw_row(pair, wording) for pair in pairs for wording in range(len(PATIENTS))]


def rows(held_out: bool) -> list[Row]:
    """The same rows as the grading library reads them."""
    return [_row(raw) for raw in raw_rows(held_out)]


def _row(raw: dict) -> Row:
    theme = raw["example_tags"][0].removeprefix("theme:")
    return row_from_metadata(raw | {"messages": raw["prompt"], "theme": theme})


def pair_of(row: Row) -> Pair:
    """The patient's pair, from the prompt_id.

    Raises:
        UserError: for a row of another world.
    """
    parts = row.prompt_id.split("-")
    if len(parts) != 4 or (parts[1], parts[2]) not in PAIRS:
        hint = "make its rows with python -m rubric_rl.tiny.world"
        raise UserError(f"prompt_id {row.prompt_id} is not of the tiny world; {hint}")
    return parts[1], parts[2]


def main(argv: list[str] | None = None) -> int:
    """Writes the two raw files; data_preprocess.py makes the rows of a run from them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="directory for tiny_all.jsonl and tiny_hard.jsonl"
    )
    out = parser.parse_args(argv).out
    try:
        total = write_jsonl(out / "tiny_all.jsonl", raw_rows())
        hard = write_jsonl(out / "tiny_hard.jsonl", raw_rows(held_out=True))
    except OSError as error:
        print(f"error: {out}: {error.strerror or error}; choose another --out", file=sys.stderr)
        return 2
    print(f"{out}: {total} rows, {hard} of them held out ({len(HELD_OUT)} of {len(PAIRS)} pairs)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
