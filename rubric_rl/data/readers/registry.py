"""All readers, and which of them a file's rows are for."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from rubric_rl.common.errors import DataError, UserError
from rubric_rl.data.readers.advancedif import ADVANCEDIF
from rubric_rl.data.readers.autorubric import AUTORUBRIC
from rubric_rl.data.readers.dr_tulu import DR_TULU
from rubric_rl.data.readers.healthbench import HEALTHBENCH, PREPARED
from rubric_rl.data.readers.healthbench_professional import HEALTHBENCH_PROFESSIONAL
from rubric_rl.data.readers.junkaiz import JUNKAIZ
from rubric_rl.data.readers.openrubrics import OPENRUBRICS
from rubric_rl.data.readers.plain import PLAIN, goes_on
from rubric_rl.data.readers.prbench import PRBENCH
from rubric_rl.data.readers.rar import RAR
from rubric_rl.data.readers.reader import Reader
from rubric_rl.data.readers.research_plan_gen import RESEARCH_PLAN_GEN
from rubric_rl.data.readers.research_rubrics import RESEARCH_RUBRICS
from rubric_rl.data.readers.rubrichub import RUBRICHUB, RUBRICHUB_SYNTHESIS
from rubric_rl.data.readers.tinker import TINKER
from rubric_rl.data.readers.wildchecklists import WILDCHECKLISTS

# The first that fits a row reads it: those of particular fields before those of common ones.
READERS = (
    PREPARED,
    HEALTHBENCH_PROFESSIONAL,
    HEALTHBENCH,
    RESEARCH_RUBRICS,
    RAR,
    RUBRICHUB,
    RUBRICHUB_SYNTHESIS,
    PRBENCH,
    OPENRUBRICS,
    WILDCHECKLISTS,
    ADVANCEDIF,
    RESEARCH_PLAN_GEN,
    DR_TULU,
    TINKER,
    AUTORUBRIC,
    JUNKAIZ,
    PLAIN,
)
NAMES = tuple(reader.name for reader in READERS)
LOOKED_AT = 20  # rows at a file's start that decide of which set it is


def reader_named(name: str) -> Reader:
    """The reader of that name. Raises UserError for an unknown one."""
    for reader in READERS:
        if reader.name == name:
            return reader
    known = ", ".join(NAMES)
    raise UserError(f"--format {name}: is not known; take one of {known}")


def reader_of(item: object) -> Reader | None:
    """The first reader that the fields of an item fit."""
    if not isinstance(item, dict):
        return None
    readers = (PREPARED, PLAIN) if goes_on(item) else READERS
    return next((reader for reader in readers if reader.fits(item)), None)


def recognise(
    rows: Iterable[tuple[str, object]],
) -> tuple[Reader | None, Iterator[tuple[str, object]]]:
    """The reader that fits most of the first rows, the earlier one of equals; and all rows.

    A damaged first row so decides nothing. Plain ones where no row is of a known set: that reader
    says what is missing. None without rows.
    """
    rows = iter(rows)
    start = list(islice(rows, LOOKED_AT))
    fitting = [reader_of(item) for _, item in start]
    counts = Counter(reader.name for reader in fitting if reader)
    best = counts.most_common(1)
    reader = reader_named(best[0][0]) if best else PLAIN
    if reader is PLAIN:
        reader = replace(PLAIN, read=_read_plain_alone)
    return reader if start else None, chain(start, rows)


def _read_plain_alone(item: dict) -> dict:
    """A row of a file that was taken for plain ones: not one that another reader reads otherwise.

    Raises DataError for such a row, besides those that the plain reader refuses.
    """
    reader = reader_of(item)
    if reader is None or reader is PLAIN:
        return PLAIN.read(item)
    other = reader.read(item)
    hint = "name the file's --format, or split it"
    refusal = DataError(f"is a row of {reader.name} in a file of plain ones; {hint}")
    try:
        made = PLAIN.read(item)
    except DataError:
        raise refusal from None
    if reader.mixed_signs or _worth(other) != _worth(made):
        raise refusal
    return made


def _worth(raw: dict) -> list[tuple]:
    return [(each["criterion"], each["points"]) for each in raw["rubrics"]]
