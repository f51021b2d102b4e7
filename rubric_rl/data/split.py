"""Splits raw rows into training and evaluation prompts, and reports what was left out."""

import hashlib
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.plain_text import conversation, one_line
from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.data.healthbench import (
    FULL_ROWS,
    HARD_ROWS,
    Source,
    consensus,
    fix_signs,
    raw_rows,
    to_row,
)
from rubric_rl.data.schema import Criterion, Row

RELEASED_EASY = FULL_ROWS - HARD_ROWS
NAMED = 10  # refused rows that the report names, of each reason
# Where a refused row stands, "file:line" or "file:line, prompt_id ...": a path may hold ": " too.
_PLACE = re.compile(r"^(.*?:\d+(?:, prompt_id .*?)?): ", re.DOTALL)


@dataclass(frozen=True)
class SplitOptions:
    """How rows are chosen; each field is the flag of data_preprocess.py of that name."""

    allow_subset: bool = False
    converter: Callable[[dict], dict] | None = None
    hold_out: int = 0  # prompts drawn for evaluation if there is no file of hard rows
    fix_signs: bool = False
    consensus: bool = False
    max_prompt_tokens: int | None = None  # needs a tokenizer
    tokenizer: ChatTokenizer | None = None  # of the policy: counts the tokens of prompts
    sample: int | None = None
    eval_sample: int = 128
    seed: int = 0


@dataclass
class Split:
    """Training (`easy`) and evaluation (`hard`) rows, a sample of those, and what was left out."""

    easy: list[Row] = field(default_factory=list)
    hard: list[Row] = field(default_factory=list)
    hard_sample: list[Row] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # "file:line, prompt_id ...: reason"
    left_out: Counter[str] = field(default_factory=Counter)  # rule -> rows or criteria
    seen: set[str] = field(default_factory=set)  # every prompt_id, also of refused rows
    places: dict[str, str] = field(default_factory=dict)  # prompt_id -> "file:line"
    tokens: dict[str, int] = field(default_factory=dict)  # prompt_id -> of the prompt, if counted
    subset: bool = False  # whether the counts are not those of the release


DEFAULTS = SplitOptions()


def split(source: Source, options: SplitOptions = DEFAULTS) -> Split:
    """Reads raw rows and puts those with a hard prompt_id into `hard`, all others into `easy`.

    Raises:
        DataError: for a hard prompt_id that the source lacks, when nothing is left, or (without
            `allow_subset`) for other than 4,000 and 1,000 usable rows.
    """
    result = Split()
    rows = _read_rows(source, options, result)
    hard_ids = _hard_ids(source, options, rows)
    held_out = set()  # the conversations of hard rows
    for row in rows:
        if row.prompt_id in hard_ids:
            words = conversation(row.messages)
            held_out.add(words)
            result.hard.append(row)
        else:
            result.easy.append(row)
    _check_hard_ids(source, hard_ids, result)
    tokenizer = options.tokenizer
    if tokenizer is not None:
        result.easy = _templated(result.easy, tokenizer, result)
        result.hard = _templated(result.hard, tokenizer, result)
    _check_counts(source, options, result)
    _select_rows(options, held_out, result)
    _check_not_empty(source, result)
    return result


# Reading


def _read_rows(source: Source, options: SplitOptions, result: Split) -> list[Row]:
    """All rows that can be scored, in the source's order; of equal prompt_ids the first counts."""
    rows: dict[str, Row] = {}
    refused = result.refused
    for where, raw in raw_rows(source.full, refused):
        try:
            item = _convert(raw, options, where)
            prompt_id = _prompt_id(item)
            if prompt_id is not None:
                result.seen.add(prompt_id)
            row = to_row(item, where)
        except DataError as error:
            refused.append(str(error))
            continue
        prompt_id = row.prompt_id
        if prompt_id in rows:
            place = f"{where}, prompt_id {prompt_id}"
            refused.append(f"{place}: duplicate of an earlier prompt_id")
            continue
        rows[prompt_id] = row
        result.places[prompt_id] = where
    if not rows and not refused:
        raise _error(source, "holds no rows", "name a file of raw rows")
    return list(rows.values())


def _error(source: Source, what: str, hint: str) -> DataError:
    return DataError(f"{source.full}: {what}; {hint}")


def _convert(raw, options: SplitOptions, where: str) -> object:
    if options.converter is None:
        return raw
    try:
        return options.converter(raw)
    except Exception as error:  # it is the user's code: whatever it raises is about this row
        what = f"the converter raised {type(error).__name__}"
        raise DataError(f"{where}: {what}: {one_line(str(error))}") from None


def _prompt_id(item: object) -> str | None:
    if not isinstance(item, dict):
        return None
    prompt_id = item.get("prompt_id")
    return prompt_id if isinstance(prompt_id, str) else None


# Which prompts are held out


def _hard_ids(source: Source, options: SplitOptions, rows: list[Row]) -> set[str]:
    number = options.hold_out
    path = source.hard
    if path is None:
        usable = len(rows)
        _check_hold_out(source, number, usable)
        return _drawn_ids(rows, number, options.seed)
    if number:
        what = f"{path} says what is held out"
        raise DataError(f"{what}; leave out --hold-out, or take the source without it")
    return _read_hard_ids(path, options)


def _read_hard_ids(path: Path, options: SplitOptions) -> set[str]:
    hard_ids = set()
    broken: list[str] = []
    for where, raw in raw_rows(path, broken):
        item = _convert(raw, options, where)
        prompt_id = _prompt_id(item)
        if prompt_id is None:
            broken.append(f"{where}: no prompt_id")
        else:
            hard_ids.add(prompt_id)
    if broken:  # a hard prompt that cannot be read would be trained on
        first = broken[0]
        why = "every hard row must be readable, else it would land in the training file"
        raise DataError(f"{first}; {why}")
    if not hard_ids:
        raise DataError(f"{path}: holds no rows; name the rows held out for evaluation")
    return hard_ids


def _check_hold_out(source: Source, number: int, usable: int) -> None:
    if not number:
        place = source.full
        hint = "pass --hard FILE, or --hold-out N to draw N"
        raise DataError(f"{place}: which prompts are held out for evaluation? {hint}")
    if usable and number >= usable:
        what = f"--hold-out {number} of {usable} usable prompts leaves none for training"
        raise _error(source, what, "hold out fewer")


# Checks


def _check_hard_ids(source: Source, hard_ids: set[str], result: Split) -> None:
    missing = hard_ids - result.seen
    if not missing:
        return
    number = len(missing)
    example = min(missing)
    found = f"lacks {number} prompts of {source.hard}, e.g. {example}"
    hint = "--source must hold the held-out prompts too, so take both files of one release"
    raise _error(source, found, hint)


def _check_counts(source: Source, options: SplitOptions, result: Split) -> None:
    easy = len(result.easy)
    hard = len(result.hard)
    result.subset = easy != RELEASED_EASY or hard != HARD_ROWS
    if options.allow_subset or not result.subset:
        return
    released = f"{RELEASED_EASY} and {HARD_ROWS}"
    found = f"{easy} training and {hard} hard prompts, not {released}"
    refused = result.refused
    if refused:
        number = len(refused)
        first = refused[0]
        found += f", {number} refused, the first: {first}"
    raise _error(source, found, "add --allow-subset if you mean it")


def _check_not_empty(source: Source, result: Split) -> None:
    if not result.easy:
        purpose = "training"
    elif not result.hard:
        purpose = "evaluation"
    else:
        return
    hint = "choose more prompts"
    refused = result.refused
    if refused:
        first = refused[0]
        hint = f"the first refused row: {first}"
    raise _error(source, f"nothing is left for {purpose}", hint)


def _templated(rows: list[Row], tokenizer: ChatTokenizer, result: Split) -> list[Row]:
    """The rows that the policy can be asked, their tokens counted; the others are refused."""
    kept = []
    for row in rows:
        prompt_id = row.prompt_id
        messages = list(row.messages)
        try:
            text = tokenizer.render(messages, thinking=True)
        except UserError as error:
            where = result.places[prompt_id]
            place = f"{where}, prompt_id {prompt_id}"
            result.refused.append(f"{place}: {error}")
            continue
        result.tokens[prompt_id] = tokenizer.count(text)
        kept.append(row)
    return kept


# Selection


def _select_rows(options: SplitOptions, held_out: Collection[tuple], result: Split) -> None:
    """Applies the rules in their documented order.

    Evaluation rows keep prompts and criteria as published. `held_out` are their conversations,
    those included that the policy cannot be asked.
    """
    easy = result.easy
    hard = result.hard
    left_out = result.left_out
    seed = options.seed
    if options.fix_signs:
        easy = [fix_signs(row) for row in easy]
        hard = [fix_signs(row) for row in hard]
    if options.consensus:
        easy = _with_consensus(easy, left_out)
        hard = _with_consensus(hard, left_out)
    easy = _without_repeats(easy, held_out, left_out)
    if options.max_prompt_tokens is not None:
        easy = _without_long_prompts(easy, options.max_prompt_tokens, result)
    if options.sample is not None:
        easy = _draw(easy, options.sample, seed)
        hard = _draw(hard, options.sample, seed)
    result.easy = easy
    result.hard = hard
    result.hard_sample = _draw(hard, options.eval_sample, seed)


def _with_consensus(rows: list[Row], left_out: Counter[str]) -> list[Row]:
    kept = []
    for row in rows:
        agreed = consensus(row)
        if _has_positive_points(agreed.rubric):
            kept.append(agreed)
        else:
            left_out["prompts without a positive consensus criterion"] += 1
    return kept


def _has_positive_points(rubric: Iterable[Criterion]) -> bool:
    return any(criterion.points > 0 for criterion in rubric)


def _without_repeats(
    easy: list[Row], held_out: Collection[tuple], left_out: Counter[str]
) -> list[Row]:
    """Training rows without held-out and repeated conversations, and without repeated criteria."""
    seen = set()
    kept = []
    for row in easy:
        words = conversation(row.messages)
        if words in held_out:
            left_out["training prompts whose conversation is held out"] += 1
        elif words in seen:
            left_out["repeated training conversations"] += 1
        else:
            seen.add(words)
            kept.append(_without_repeated_criteria(row, left_out))
    return kept


def _without_repeated_criteria(row: Row, left_out: Counter[str]) -> Row:
    first: dict[tuple, Criterion] = {}  # its words -> the criterion that says them first
    for criterion in row.rubric:
        words = criterion.text.split()
        first.setdefault(tuple(words), criterion)
    if not _has_positive_points(first.values()):
        # The repeats have the positive points: without them the row could not be scored.
        return row
    rubric = tuple(first.values())
    given = len(row.rubric)
    left_out["repeated criteria of training prompts"] += given - len(rubric)
    return replace(row, rubric=rubric)


def _without_long_prompts(rows: list[Row], limit: int, result: Split) -> list[Row]:
    rule = f"training prompts over {limit} tokens"
    kept = []
    for row in rows:
        tokens = result.tokens[row.prompt_id]
        if tokens <= limit:
            kept.append(row)
        else:
            result.left_out[rule] += 1
    return kept


def _draw(rows: list[Row], number: int, seed: int) -> list[Row]:
    """`number` rows, in their order."""
    drawn = _drawn_ids(rows, number, seed)
    return [row for row in rows if row.prompt_id in drawn]


def _drawn_ids(rows: list[Row], number: int, seed: int) -> set[str]:
    """The prompt_ids of `number` rows, drawn by a hash of seed and prompt_id.

    So the draw does not depend on the file's order.
    """

    def rank(prompt_id: str) -> bytes:
        key = f"{seed}:{prompt_id}"
        return hashlib.sha256(key.encode()).digest()

    prompt_ids = [row.prompt_id for row in rows]
    prompt_ids.sort(key=rank)
    return set(prompt_ids[:number])


# The report


def report(result: Split) -> str:
    """What was written and what was not, in a few lines; the same text for the same input.

    Prompt lengths are in tokens where they were counted, else in characters.
    """
    lines = []
    if result.subset:
        released = "the 4,000 and 1,000 prompts of the release"
        lines.append(f"a subset, as --allow-subset permits: not {released}")
    lines += _describe_refused(result.refused)
    for rule, number in result.left_out.items():
        if number:
            lines.append(f"left out {number} {rule}")
    parts = {
        "training": result.easy,
        "evaluation": result.hard,
        "evaluation sample": result.hard_sample,
    }
    for name, rows in parts.items():
        lines += _describe(name, rows, result.tokens)
    return "\n".join(lines) + "\n"


def _describe_refused(refused: list[str]) -> list[str]:
    """Each reason with the places of its rows, the most frequent first, then by the alphabet."""
    by_reason = defaultdict(list)
    for refusal in refused:
        _, place, complaint = _PLACE.split(refusal, maxsplit=1)
        by_reason[_reason(complaint)].append(place)

    def rank(reason: str) -> tuple[int, str]:
        return -len(by_reason[reason]), reason

    reasons = sorted(by_reason, key=rank)
    lines = []
    for reason in reasons:
        places = by_reason[reason]
        number = len(places)
        lines.append(f"refused {number} rows: {reason}")
        for place in places[:NAMED]:
            lines.append(f"  {place}")
        unnamed = number - NAMED
        if unnamed > 0:
            lines.append(f"  and {unnamed} more")
    return lines


def _reason(complaint: str) -> str:
    """The general part of a refusal: without value and next step."""
    for begins_detail in (";", ", not", " ("):
        complaint, _, _ = complaint.partition(begins_detail)
    return complaint


def _describe(name: str, rows: list[Row], tokens: dict[str, int]) -> list[str]:
    """Counts, prompt lengths, themes and axes of the rows of one file."""
    themes = [row.theme or "none" for row in rows]
    prompts = len(rows)
    criteria = negative = 0
    axes = []
    for row in rows:
        for criterion in row.rubric:
            criteria += 1
            axis = criterion.tag("axis")
            axes.append(axis or "none")
            if criterion.points < 0:
                negative += 1
    share = negative / (criteria or 1)
    lengths = _describe_lengths(rows, tokens)
    counts = f"{prompts} prompts, {criteria} criteria"
    return [
        f"{name}: {counts}, {share:.1%} negative",
        f"  {lengths}",
        "  themes: " + _counted(themes),
        "  axes: " + _counted(axes),
    ]


def _describe_lengths(rows: list[Row], tokens: dict[str, int]) -> str:
    if not rows:
        return "empty"
    unit = "characters (tokens: --tokenizer FOLDER)"
    if tokens:
        unit = "tokens"
    lengths = []
    for row in rows:
        if tokens:
            length = tokens[row.prompt_id]
        else:
            length = _count_characters(row)
        lengths.append(length)
    median = statistics.median(lengths)
    longest = max(lengths)
    total = sum(lengths)
    return f"prompt: median {median:g}, longest {longest}, in all {total} {unit}"


def _count_characters(row: Row) -> int:
    texts = [message["content"] for message in row.messages]
    return sum(map(len, texts))


def _counted(values: Iterable[str]) -> str:
    """Each value with its count, the most frequent first; equal counts in alphabetical order."""
    in_order = sorted(values)
    counts = Counter(in_order)
    parts = []
    for value, number in counts.most_common():
        parts.append(f"{value} {number}")
    return ", ".join(parts)
