"""Splits raw rows into training and evaluation prompts, and reports what was refused or left out (stage 1, prompt)."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from rubric_rl.data.healthbench import (
    FULL_ROWS,
    HARD_ROWS,
    Source,
    consensus,
    fix_signs,
    raw_rows,
    to_row,
)
from rubric_rl.data.schema import Criterion, Row, conversation
from rubric_rl.errors import DataError
from rubric_rl.tokenizer import ChatTokenizer


@dataclass(frozen=True)
class Options:
    """How rows are chosen; each field is the flag of data_preprocess.py of that name."""

    allow_subset: bool = False
    converter: Callable[[dict], dict] | None = None
    hold_out: int = 0  # prompts drawn for evaluation if there is no file of hard rows
    fix_signs: bool = False
    consensus: bool = False
    max_prompt_tokens: int | None = None
    template: ChatTokenizer | None = None  # counts the tokens of prompts
    sample: int | None = None
    eval_sample: int = 128
    seed: int = 0


@dataclass
class Split:
    """Training (`easy`) and evaluation (`hard`) rows, a fixed sample of the latter, and what was left out."""

    easy: list[Row] = field(default_factory=list)
    hard: list[Row] = field(default_factory=list)
    hard_sample: list[Row] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # "file:line, prompt_id ...: reason"
    left_out: Counter = field(default_factory=Counter)  # rule -> rows or criteria
    seen: set[str] = field(
        default_factory=set
    )  # every prompt_id of the source, also of refused rows
    subset: bool = False  # whether the counts are not those of the release


def split(source: Source, options: Options = Options()) -> Split:
    """Reads raw rows and puts those with a hard prompt_id into `hard`, all others into `easy`.

    Raises:
        DataError: for a hard prompt_id that the source lacks, when nothing is left, or (without `allow_subset`) for
            other than 4,000 and 1,000 usable rows.
    """
    result = Split()
    rows = _read(source, options, result)
    hard_ids = _hard_ids(source, options, rows)
    for row in rows:
        (result.hard if row.prompt_id in hard_ids else result.easy).append(row)
    _check_counts(source, hard_ids, options, result)
    _choose(options, result)
    for rows, purpose in ((result.easy, "training"), (result.hard, "evaluation")):
        if not rows:
            hint = (
                f"the first refused row: {result.refused[0]}"
                if result.refused
                else "choose more prompts"
            )
            raise DataError(f"{source.full}: nothing is left for {purpose}; {hint}")
    return result


def _read(source: Source, options: Options, result: Split) -> list[Row]:
    """All rows that can be scored, in the source's order; of rows with one prompt_id the first counts."""
    rows: dict[str, Row] = {}
    for where, item in raw_rows(source.full, result.refused):
        try:
            item = _convert(item, options, where)
            if (prompt_id := _prompt_id(item)) is not None:
                result.seen.add(prompt_id)
            row = to_row(item, where)
        except DataError as error:
            result.refused.append(str(error))
            continue
        if row.prompt_id in rows:
            result.refused.append(
                f"{where}, prompt_id {row.prompt_id}: duplicate of an earlier prompt_id"
            )
        else:
            rows[row.prompt_id] = row
    return list(rows.values())


def _prompt_id(item) -> str | None:
    prompt_id = item.get("prompt_id") if isinstance(item, dict) else None
    return prompt_id if isinstance(prompt_id, str) else None


def _convert(item: dict, options: Options, where: str) -> dict:
    if options.converter is None:
        return item
    try:
        return options.converter(item)
    except Exception as error:  # it is the user's code: whatever it raises is about this row
        raise DataError(f"{where}: the converter raised {type(error).__name__}: {error}") from None


def _hard_ids(source: Source, options: Options, rows: list[Row]) -> set[str]:
    if source.hard is None:
        if not options.hold_out:
            hint = "pass --hard FILE, or --hold-out N to draw N"
            raise DataError(f"{source.full}: which prompts are held out for evaluation? {hint}")
        if rows and options.hold_out >= len(rows):
            what = f"--hold-out {options.hold_out} of {len(rows)} usable prompts leaves none for training"
            raise DataError(f"{source.full}: {what}; hold out fewer")
        return {row.prompt_id for row in _draw(rows, options.hold_out, options.seed)}
    if options.hold_out:
        raise DataError(
            f"{source.hard} says what is held out; leave out --hold-out, or take the source without it"
        )
    broken: list[str] = []
    ids = set()
    for where, item in raw_rows(source.hard, broken):
        prompt_id = _prompt_id(_convert(item, options, where))
        if prompt_id is None:
            broken.append(f"{where}: no prompt_id")
        else:
            ids.add(prompt_id)
    if broken:  # a hard prompt that cannot be read would be trained on
        raise DataError(
            f"{broken[0]}; every hard row must be readable, else it would land in the training file"
        )
    return ids


def _check_counts(source: Source, hard_ids: set[str], options: Options, result: Split) -> None:
    if missing := hard_ids - result.seen:
        found = f"lacks {len(missing)} prompts of {source.hard}, e.g. {min(missing)}"
        hint = "--source must hold the held-out prompts too, so take both files of one release"
        raise DataError(f"{source.full}: {found}; {hint}")
    counts, released = (len(result.easy), len(result.hard)), (FULL_ROWS - HARD_ROWS, HARD_ROWS)
    result.subset = counts != released
    if result.subset and not options.allow_subset:
        found = f"{counts[0]} training and {counts[1]} hard prompts, not {released[0]} and {released[1]}"
        why = (
            f", {len(result.refused)} refused, the first: {result.refused[0]}"
            if result.refused
            else ""
        )
        raise DataError(f"{source.full}: {found}{why}; add --allow-subset if you mean it")


def _choose(options: Options, result: Split) -> None:
    """Applies the rules in their documented order; evaluation rows keep prompts and criteria as published."""
    if options.fix_signs:
        result.easy, result.hard = (
            [fix_signs(row) for row in result.easy],
            [fix_signs(row) for row in result.hard],
        )
    if options.consensus:
        result.easy, result.hard = _consensus(result.easy, result), _consensus(result.hard, result)
    result.easy = _without_repeats(result.easy, result.hard, result)
    if options.max_prompt_tokens is not None:
        fitting = [row for row in result.easy if _tokens(row, options) <= options.max_prompt_tokens]
        result.left_out[f"training prompts over {options.max_prompt_tokens} tokens"] += len(
            result.easy
        ) - len(fitting)
        result.easy = fitting
    if options.sample is not None:
        result.easy, result.hard = (
            _draw(rows, options.sample, options.seed) for rows in (result.easy, result.hard)
        )
    result.hard_sample = _draw(result.hard, options.eval_sample, options.seed)


def _consensus(rows: list[Row], result: Split) -> list[Row]:
    rows = [consensus(row) for row in rows]
    kept = [row for row in rows if any(criterion.points > 0 for criterion in row.rubric)]
    result.left_out["prompts without a positive consensus criterion"] += len(rows) - len(kept)
    return kept


def _without_repeats(easy: list[Row], hard: list[Row], result: Split) -> list[Row]:
    """Training rows without conversations that are held out, repeated conversations, and repeated criteria of a row."""
    held_out, seen, kept = {conversation(row.messages) for row in hard}, set(), []
    for row in easy:
        key = conversation(row.messages)
        if key in held_out:
            result.left_out["training prompts whose conversation is held out"] += 1
        elif key in seen:
            result.left_out["repeated training conversations"] += 1
        else:
            seen.add(key)
            kept.append(_without_repeated_criteria(row, result))
    return kept


def _without_repeated_criteria(row: Row, result: Split) -> Row:
    rubric: dict[str, Criterion] = {}
    for criterion in row.rubric:
        rubric.setdefault(" ".join(criterion.text.split()), criterion)
    if not any(criterion.points > 0 for criterion in rubric.values()):
        return row  # the repeats have the positive points: without them the row could not be scored
    result.left_out["repeated criteria of training prompts"] += len(row.rubric) - len(rubric)
    return replace(row, rubric=tuple(rubric.values()))


def _draw(rows: list[Row], number: int, seed: int) -> list[Row]:
    """`number` rows in their order, drawn by a hash of seed and prompt_id: independent of the file's order."""

    def rank(row: Row) -> bytes:
        return hashlib.sha256(f"{seed}:{row.prompt_id}".encode()).digest()

    drawn = {row.prompt_id for row in sorted(rows, key=rank)[:number]}
    return [row for row in rows if row.prompt_id in drawn]


def _tokens(row: Row, options: Options) -> int:
    """Tokens of the prompt as the policy gets it."""
    return options.template.count(options.template.render(list(row.messages), thinking=True))


def report(result: Split, options: Options) -> str:
    """What was written and what was not, in a few lines; the same text for the same input."""
    lines = []
    if result.subset:
        lines.append(
            "a subset, as --allow-subset permits: not the 4,000 and 1,000 prompts of the release"
        )
    reasons = _most_common(_reason(line) for line in result.refused)
    lines += [f"refused {number} rows: {reason}" for reason, number in reasons]
    lines += [f"left out {number} {rule}" for rule, number in result.left_out.items() if number]
    lines += _part_lines("training", result.easy, options)
    lines += _part_lines("evaluation", result.hard, options)
    lines += _part_lines("evaluation sample", result.hard_sample, options)
    return "\n".join(lines) + "\n"


def _part_lines(name: str, rows: list[Row], options: Options) -> list[str]:
    """Counts, prompt lengths, themes and axes of the rows of one file."""
    criteria = [criterion for row in rows for criterion in row.rubric]
    negative = sum(criterion.points < 0 for criterion in criteria) / max(len(criteria), 1)
    themes = _most_common(row.theme or "none" for row in rows)
    axes = _most_common(criterion.tag("axis") or "none" for criterion in criteria)
    return [
        f"{name}: {len(rows)} prompts, {len(criteria)} criteria, {negative:.1%} negative",
        f"  {_lengths(rows, options)}",
        "  themes: " + ", ".join(f"{theme} {number}" for theme, number in themes),
        "  axes: " + ", ".join(f"{axis} {number}" for axis, number in axes),
    ]


def _lengths(rows: list[Row], options: Options) -> str:
    if not rows:
        return "empty"
    if options.template is None:
        sizes = [sum(len(message["content"]) for message in row.messages) for row in rows]
        unit = "characters (tokens: --tokenizer FOLDER)"
    else:
        sizes, unit = [_tokens(row, options) for row in rows], "tokens"
    return f"prompt: median {statistics.median(sizes):g}, longest {max(sizes)}, in all {sum(sizes)} {unit}"


def _reason(line: str) -> str:
    """The general part of a refusal: without place, value and next step."""
    return line.split(": ", 1)[-1].split(";")[0].split(", not")[0].split(" (")[0]


def _most_common(values: Iterable[str]) -> list[tuple[str, int]]:
    """(value, count), the most frequent first; equal counts in alphabetical order."""
    return sorted(Counter(values).items(), key=lambda entry: (-entry[1], entry[0]))
