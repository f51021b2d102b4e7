"""Raw rows as rows that can be scored, a piece at a time: the part of a split for any process."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from rubric_rl.common.errors import DataError
from rubric_rl.common.plain_text import conversation, one_line
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.readers.pieces import Raw, known_id
from rubric_rl.data.readers.plain import goes_on, messages_of
from rubric_rl.data.readers.reader import Reader
from rubric_rl.data.readers.signs import refuse_negative_lists
from rubric_rl.data.schema import Row
from rubric_rl.data.stored_rows import pack

Converter = Callable[[dict], dict]
_READ_MORE = ("plain", "prepared")  # what stands beside prompt and rubric, too


class Placed(NamedTuple):
    """A raw row, where it stands, and the messages about broken lines before it."""

    where: str
    raw: object
    broken: tuple[str, ...]


class Outcome(NamedTuple):
    """What became of a raw row, and what the split must know of it without unpacking it."""

    where: str
    refusals: tuple[str, ...]  # of broken lines before it, then its own
    prompt_id: str | None = None  # also of a row that is refused, if its own can be read
    packed: bytes = b""  # the row, unless it is refused
    conversation: bytes = b""  # equal for equal conversations, 16 bytes; as the prompt_id
    repeats: bool = False  # whether a criterion says what an earlier one says
    notes: Mapping[str, int] = {}  # what its reader did -> how often
    canary: str | None = None


def placed(rows: Iterable[tuple[str, object]], broken: list[str]) -> Iterator[Placed]:
    """The rows, each with what their source has added to `broken` meanwhile, which is emptied."""
    for where, raw in rows:
        messages = tuple(broken)
        broken.clear()
        yield Placed(where, raw, messages)


def usable_rows(
    piece: Iterable[Placed], reader: Reader | None, converter: Converter | None
) -> list[Outcome]:
    """What becomes of each raw row, read by the reader or the converter, if one is given."""
    return [_outcome(each, reader, converter) for each in piece]


def _outcome(given: Placed, reader: Reader | None, converter: Converter | None) -> Outcome:
    where, raw, refusals = given
    item = raw
    try:
        item = convert(raw, where, reader, converter)
        row = _row(item, where, reader)
    except DataError as error:
        prompt_id = known_id(item, reader.id_field if reader else "") or None
        messages = (*refusals, one_line(str(error)))
        return Outcome(where, messages, prompt_id, conversation=conversation_of(item))
    canary = row.extra.get("canary")
    return Outcome(
        where,
        refusals,
        row.prompt_id,
        pack(row),
        _hash(row.messages),
        _repeats(row),
        item.notes if isinstance(item, Raw) else {},
        one_line(canary, 200) if isinstance(canary, str) else None,
    )


def _row(item: object, where: str, reader: Reader | None) -> Row:
    try:
        return to_row(item, where)
    except DataError as error:
        raise error if reader is None else DataError(f"{error} (read as {reader.name})") from None


def convert(raw: object, where: str, reader: Reader | None, converter: Converter | None) -> object:
    """The item as a raw row of HealthBench's form. Raises DataError where it is none of its set."""
    if converter is not None:
        return _converted(raw, converter, where)
    if reader is None:
        return raw
    prompt_id = known_id(raw, reader.id_field)
    place = f"{where}, prompt_id {prompt_id}" if prompt_id else where
    if not isinstance(raw, dict):
        raise DataError(f"{place}: no JSON object; leave the row out")
    try:
        if reader.name not in _READ_MORE and goes_on(raw):
            what = "has an input, a context, a history or a list of points, which this set has not"
            raise DataError(f"{what}; rows of one's own are read with --format plain")
        if reader.name != "prepared":
            refuse_negative_lists(raw)
        return reader.read(raw)
    except DataError as error:
        raise DataError(f"{place}: {error} (read as {reader.name})") from None


def _converted(raw, converter: Converter, where: str) -> object:
    try:
        return converter(raw)
    except Exception as error:  # it is the user's code: whatever it raises is about this row
        what = f"the converter raised {type(error).__name__}"
        raise DataError(f"{where}: {what}: {one_line(str(error))}") from None


def prompt_id_of(item: object) -> str | None:
    """The prompt_id of a raw row, None where it has none."""
    if not isinstance(item, dict):
        return None
    prompt_id = item.get("prompt_id")
    return prompt_id if isinstance(prompt_id, str) else None


def conversation_of(item: object) -> bytes:
    """What a raw row asks, as `_hash` gives it; b"" where no text is found that it asks."""
    try:
        messages = messages_of(item) if isinstance(item, dict) else []
    except DataError:
        return b""
    are_texts = all(isinstance(message["content"], str) for message in messages)
    return _hash(messages) if messages and are_texts else b""


def _hash(messages: Iterable[Mapping]) -> bytes:
    """What a conversation says, in a form in which equal ones are equal, as 16 bytes."""
    words = repr(conversation(messages))
    return hashlib.blake2b(words.encode(errors="replace"), digest_size=16).digest()


def _repeats(row: Row) -> bool:
    said = {_evenly_spaced(criterion.text) for criterion in row.rubric}
    return len(said) < len(row.rubric)


def _evenly_spaced(text: str) -> str:
    if text.isprintable() and "  " not in text:  # of white space it has single blanks alone
        return text.strip()
    return " ".join(text.split())
