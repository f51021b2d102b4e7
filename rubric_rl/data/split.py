"""Splits raw rows into training and evaluation prompts, and counts what is left out."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.common.in_processes import in_order, in_pieces
from rubric_rl.common.plain_text import one_line
from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.data.healthbench import FULL_ROWS, HARD_ROWS, consensus, fix_signs
from rubric_rl.data.raw_rows import raw_rows
from rubric_rl.data.readers.pieces import hashed
from rubric_rl.data.readers.reader import Reader
from rubric_rl.data.readers.registry import recognise
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.data.source import Source
from rubric_rl.data.stored_rows import StoredRows, unpack
from rubric_rl.data.usable_rows import (
    Converter,
    Outcome,
    conversation_of,
    convert,
    placed,
    prompt_id_of,
    usable_rows,
)

RELEASED_EASY = FULL_ROWS - HARD_ROWS
SHOWN_CANARIES = 3
# Rules by which criteria of training prompts are left out.
REPEATED_CRITERIA = "repeated criteria of training prompts"
CONTRADICTED_CRITERIA = "criteria that an equal one before them gives the other sign"
WITHHELD_IDS = "training prompts whose prompt_id is held out"
MUST_BE_READABLE = "every held-out row must be readable, else it could be trained on"
PIECE = 250  # raw rows that go to a process at a time


@dataclass(frozen=True)
class SplitOptions:
    """How rows are chosen; each field is the flag of data_preprocess.py of that name."""

    allow_subset: bool = False
    converter: Converter | None = None
    reader: Reader | None = None  # without it and a converter, the rows' fields choose one
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

    easy: StoredRows = field(default_factory=StoredRows)
    hard: StoredRows = field(default_factory=StoredRows)
    hard_sample: StoredRows = field(default_factory=StoredRows)
    refused: list[str] = field(default_factory=list)  # "file:line, prompt_id ...: reason"
    left_out: Counter[str] = field(default_factory=Counter)  # rule -> rows or criteria
    noted: Counter[str] = field(default_factory=Counter)  # what a reader did -> how often
    reader: Reader | None = None  # of the set; none with a converter, or for unknown rows
    recognised: bool = False  # whether the rows' fields chose it
    canaries: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)  # every prompt_id, also of refused rows
    places: dict[str, str] = field(default_factory=dict)  # prompt_id -> "file:line"
    conversations: dict[str, bytes] = field(default_factory=dict)  # prompt_id -> hash
    withheld: set[bytes] = field(default_factory=set)  # conversations that are not trained on
    repeating: set[str] = field(default_factory=set)  # prompt_ids with a repeated criterion
    tokens: dict[str, int] = field(default_factory=dict)  # prompt_id -> of the prompt, if counted
    subset: bool = False  # whether the counts are not those of the release


DEFAULTS = SplitOptions()


def split(source: Source, options: SplitOptions = DEFAULTS) -> Split:
    """Reads raw rows and splits them: the held-out ones into `hard`, all others into `easy`.

    Held out are those with a prompt_id of the hard file, the published split, or N drawn ones.
    Neither their prompt_ids nor their conversations are trained on, refused rows included.

    Raises:
        DataError: for a hard prompt_id that the source lacks, for a held-out row of which the
            conversation cannot be read, when nothing is left, or (for
            HealthBench, without `allow_subset`) for other than 4,000 and 1,000 usable rows.
    """
    result = Split(reader=options.reader)
    if source.held_out_split:
        result.hard = _read_rows(source, source.held_out_split, options, result, held_out=True)
        hard_ids = set(result.seen)
        rows = _read_rows(source, source.train_split, options, result)
        result.left_out[WITHHELD_IDS] += len(hard_ids.intersection(rows.prompt_ids))
    else:
        rows = _read_rows(source, "", options, result)
        hard_ids = _hard_ids(source, options, rows, result)
        result.hard = rows.named(hard_ids)
    result.easy = rows.named(hard_ids, others=True)
    for prompt_id in hard_ids.intersection(result.conversations):
        result.withheld.add(result.conversations[prompt_id])
    _check_hard_ids(source, hard_ids, result)
    tokenizer = options.tokenizer
    if tokenizer is not None:
        result.easy = _templated(result.easy, tokenizer, result)
        result.hard = _templated(result.hard, tokenizer, result)
    _check_counts(source, options, result)
    _select_rows(options, result)
    _check_not_empty(source, result)
    return result


# Reading


def _read_rows(
    source: Source, part: str, options: SplitOptions, result: Split, held_out: bool = False
) -> StoredRows:
    """All rows that can be scored, in the source's order; of equal prompt_ids the first counts.

    What `held_out` rows ask is withheld from training, also where they are refused.
    """
    rows = StoredRows(like=result.easy)
    refused = result.refused
    before = len(refused)
    for outcome in _outcomes(source, part, options, result):
        prompt_id = outcome.prompt_id
        refused += outcome.refusals
        if held_out:
            _check_readable(outcome)
            result.withheld.add(outcome.conversation)
        if prompt_id is not None:
            result.seen.add(prompt_id)
            result.conversations.setdefault(prompt_id, outcome.conversation)
        if prompt_id is None or not outcome.packed:
            continue
        if outcome.canary is not None and len(result.canaries) < SHOWN_CANARIES:
            result.canaries.add(outcome.canary)
        if prompt_id in result.places:
            refused.append(_repeated(outcome))
            continue
        result.noted.update(outcome.notes)
        rows.append_packed(prompt_id, outcome.packed)
        result.places[prompt_id] = outcome.where
        result.conversations[prompt_id] = outcome.conversation
        if outcome.repeats:
            result.repeating.add(prompt_id)
    if not rows:
        raise _nothing_usable(source, refused[before:])
    return rows


def _check_readable(outcome: Outcome) -> None:
    """Raises DataError for a held-out line of which nobody knows what it asks."""
    unread = outcome.refusals
    if not outcome.packed and outcome.conversation:
        unread = unread[:-1]  # the last tells why the row is refused
    if unread:
        raise DataError(f"{unread[0]}; {MUST_BE_READABLE}")


def _nothing_usable(source: Source, refused: Sequence[str]) -> DataError:
    if not refused:
        return _error(source, "holds no rows", "name a file of raw rows")
    number = len(refused)
    return _error(source, f"none of its {number} rows can be used", f"the first: {refused[0]}")


def _outcomes(source: Source, part: str, options: SplitOptions, result: Split) -> Iterator[Outcome]:
    """What becomes of each raw row of the source, in its order.

    The reader is set in the result, unless it is or a converter stands for it.
    """
    broken: list[str] = []
    found = raw_rows(source.full, broken, part, source.hard)
    converter = options.converter
    if result.reader is None and converter is None:
        result.reader, found = recognise(found)
        result.recognised = result.reader is not None
    work = partial(usable_rows, reader=result.reader, converter=converter)
    pieces = in_pieces(placed(found, broken), PIECE)
    # Neither a user's code nor the values of a set on the Hub, such as pictures, need be picklable.
    may_travel = converter is None and isinstance(source.full, Path)
    try:
        for outcomes in in_order(work, pieces) if may_travel else map(work, pieces):
            yield from outcomes
    except RecursionError:  # on its way to another process
        hint = "leave that row out, or the field that nobody needs"
        raise _error(source, "holds a row that is nested hundreds of times", hint) from None
    if broken:  # the last lines
        yield Outcome("", tuple(broken))


def _repeated(outcome: Outcome) -> str:
    """Why the row is refused, whose prompt_id an earlier row has."""
    messages = unpack(outcome.packed).messages
    what = "duplicate of an earlier prompt_id"
    if outcome.prompt_id == hashed(messages):  # two rows that brought no id along
        what = "the same conversation as an earlier row"
    return one_line(f"{outcome.where}, prompt_id {outcome.prompt_id}: {what}")


def _error(source: Source, what: str, hint: str) -> DataError:
    return DataError(f"{source.full}: {what}; {hint}")


# Which prompts are held out


def _hard_ids(source: Source, options: SplitOptions, rows: StoredRows, result: Split) -> set[str]:
    number = options.hold_out
    path = source.hard
    if path is None:
        usable = len(rows)
        _check_hold_out(source, number, usable, result.refused)
        return _drawn_ids(rows, number, options.seed)
    if number:
        what = f"{path} says what is held out"
        raise DataError(f"{what}; leave out --hold-out, or take the source without it")
    return _read_hard_ids(path, options, result)


def _read_hard_ids(path: Path, options: SplitOptions, result: Split) -> set[str]:
    hard_ids = set()
    broken: list[str] = []
    for where, raw in raw_rows(path, broken):
        try:
            item = convert(raw, where, result.reader, options.converter)
        except DataError as error:
            broken.append(str(error))
            continue
        prompt_id = prompt_id_of(item)
        if prompt_id is None:
            broken.append(f"{where}: no prompt_id")
        else:
            hard_ids.add(prompt_id)
            result.withheld.add(conversation_of(item))  # it may differ from the source's
    if broken:
        raise DataError(f"{broken[0]}; {MUST_BE_READABLE}")
    if not hard_ids:
        raise DataError(f"{path}: holds no rows; name the rows held out for evaluation")
    return hard_ids


def _check_hold_out(source: Source, number: int, usable: int, refused: Sequence[str]) -> None:
    if not number:
        place = source.full
        hint = "pass --hard FILE, --hold-out-split SPLIT, or --hold-out N to draw N"
        raise DataError(f"{place}: which prompts are held out for evaluation? {hint}")
    if usable and number >= usable:
        what = f"--hold-out {number} of {usable} usable prompts leaves none for training"
        if refused:
            what += f", {len(refused)} rows were refused, the first: {refused[0]}"
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
    reader = result.reader
    other_set = reader is not None and reader.name != "healthbench"
    if other_set or options.converter is not None or source.held_out_split:
        return  # only HealthBench's release is known by its counts
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
    causes = [f"left out {number} {rule}" for rule, number in result.left_out.items() if number]
    if result.refused:
        causes.append(f"the first refused row: {result.refused[0]}")
    if not causes and not result.easy:
        causes.append("all prompts are held out")
    hint = ", ".join(causes) or "choose more prompts"
    raise _error(source, f"nothing is left for {purpose}", hint)


def _templated(rows: StoredRows, tokenizer: ChatTokenizer, result: Split) -> StoredRows:
    """The rows that the policy can be asked, their tokens counted; the others are refused."""
    kept = StoredRows(like=rows)
    for row in rows:
        prompt_id = row.prompt_id
        messages = list(row.messages)
        try:
            text = tokenizer.render(messages, thinking=True)
        except UserError as error:
            where = result.places[prompt_id]
            place = f"{where}, prompt_id {prompt_id}"
            result.refused.append(one_line(f"{place}: {error}"))
            continue
        result.tokens[prompt_id] = tokenizer.count(text)
        kept.append(row)
    return kept


# Selection


def _select_rows(options: SplitOptions, result: Split) -> None:
    """Applies the rules in their documented order.

    Evaluation rows keep prompts and criteria as published.
    """
    easy = result.easy
    hard = result.hard
    left_out = result.left_out
    seed = options.seed
    if options.fix_signs:
        easy = StoredRows(map(fix_signs, easy), like=easy)
        hard = StoredRows(map(fix_signs, hard), like=hard)
    if options.consensus:
        easy = _with_consensus(easy, left_out)
        hard = _with_consensus(hard, left_out)
    easy = _without_repeats(easy, result)
    if options.max_prompt_tokens is not None:
        easy = _without_long_prompts(easy, options.max_prompt_tokens, result)
    if options.sample is not None:
        easy = _draw(easy, options.sample, seed)
        hard = _draw(hard, options.sample, seed)
    result.easy = easy
    result.hard = hard
    result.hard_sample = _draw(hard, options.eval_sample, seed)


def _with_consensus(rows: StoredRows, left_out: Counter[str]) -> StoredRows:
    kept = StoredRows(like=rows)
    for row in rows:
        agreed = consensus(row)
        if _has_positive_points(agreed.rubric):
            kept.append(agreed)
        else:
            left_out["prompts without a positive consensus criterion"] += 1
    return kept


def _has_positive_points(rubric: Iterable[Criterion]) -> bool:
    return any(criterion.points > 0 for criterion in rubric)


def _without_repeats(easy: StoredRows, result: Split) -> StoredRows:
    """Training rows without held-out and repeated conversations, and without repeated criteria."""
    left_out = result.left_out
    seen = set()
    kept = StoredRows(like=easy)
    for index, prompt_id in enumerate(easy.prompt_ids):
        words = result.conversations[prompt_id]
        if words in result.withheld:
            left_out["training prompts whose conversation is held out"] += 1
        elif words in seen:
            left_out["repeated training conversations"] += 1
        else:
            seen.add(words)
            if prompt_id in result.repeating:
                kept.append(_without_repeated_criteria(easy[index], left_out))
            else:
                kept.append_from(easy, index)
    return kept


def _without_repeated_criteria(row: Row, left_out: Counter[str]) -> Row:
    """The row with the first of equal criteria; the others are counted.

    Where only the repeats have positive points, the row stays as it is.
    """
    first: dict[tuple, Criterion] = {}  # its words -> the criterion that says them first
    for criterion in row.rubric:
        words = criterion.text.split()
        first.setdefault(tuple(words), criterion)
    if not _has_positive_points(first.values()):
        # The repeats have the positive points: without them the row could not be scored.
        return row
    rubric = tuple(first.values())
    given = len(row.rubric)
    if len(rubric) == given:
        return row
    contradicted = 0
    for criterion in row.rubric:
        kept = first[tuple(criterion.text.split())]
        contradicted += (kept.points > 0) is not (criterion.points > 0)
    counts = {
        REPEATED_CRITERIA: given - len(rubric) - contradicted,
        CONTRADICTED_CRITERIA: contradicted,
    }
    left_out.update({rule: count for rule, count in counts.items() if count})
    return replace(row, rubric=rubric)


def _without_long_prompts(rows: StoredRows, limit: int, result: Split) -> StoredRows:
    rule = f"training prompts over {limit} tokens"
    kept = StoredRows(like=rows)
    for row in rows:
        tokens = result.tokens[row.prompt_id]
        if tokens <= limit:
            kept.append(row)
        else:
            result.left_out[rule] += 1
    return kept


def _draw(rows: StoredRows, number: int, seed: int) -> StoredRows:
    """`number` rows, in their order."""
    drawn = _drawn_ids(rows, number, seed)
    return rows.named(drawn)


def _drawn_ids(rows: StoredRows, number: int, seed: int) -> set[str]:
    """The prompt_ids of `number` rows, drawn by a hash of seed and prompt_id.

    So the draw does not depend on the file's order.
    """

    def rank(prompt_id: str) -> bytes:
        key = f"{seed}:{prompt_id}"
        return hashlib.sha256(key.encode()).digest()

    prompt_ids = sorted(rows.prompt_ids, key=rank)
    return set(prompt_ids[:number])
