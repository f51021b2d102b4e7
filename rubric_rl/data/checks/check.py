"""Looks through rows for what is suspect, and says it in the report."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from rubric_rl.common.errors import DataError
from rubric_rl.common.in_processes import in_order, in_pieces
from rubric_rl.common.plain_text import conversation, one_line
from rubric_rl.data.checks.compound import parts
from rubric_rl.data.checks.duplicates import ManyTexts, near_duplicates, words_of
from rubric_rl.data.checks.polarity import Polarity, polarity
from rubric_rl.data.checks.unmeetable import unmeetable
from rubric_rl.data.checks.wording import rewards_presence, script
from rubric_rl.data.parse import NOT_THE_USERS
from rubric_rl.data.schema import Criterion, Row
from rubric_rl.data.stored_rows import PIECE, packed_rows, unpack

NAMED = 5  # rows that the report names, of each kind
# What the checks find -> how the report calls it. These are also the words of --strict.
KINDS = {
    "polarity": "criteria whose points contradict their wording",
    "compound": "compound criteria",
    "unmeetable": "criteria that every answer meets, or none",
    "duplicates": "criteria that repeat another one of their rubric, nearly or exactly",
    "prompts": "prompts that repeat another one, nearly or exactly, or begin as a held-out one",
    "language": "prompts or rubrics in another script than most",
    "points": "criteria with more points than all others of their rubric together",
    "last-turn": "rows refused since their last turn is not the user's",
}
Judge = Callable[[str], Polarity]
# Whether points are positive -> what the wording says that contradicts them.
_AGAINST = {True: Polarity.BAD, False: Polarity.GOOD}


class _Prompt(NamedTuple):
    """What the checks across rows need of each."""

    prompt_id: str
    is_training: bool
    words: str  # of its conversation, one a line: a set of them takes long to travel
    beginnings: tuple[int, ...]  # what its turns say up to each of the user's, the last of them all
    asked: str  # the script of its question, ...
    graded: str  # ... and of its rubric


@dataclass
class Findings:
    """What was found, and the figures beside it."""

    counts: Counter[str] = field(default_factory=Counter)  # kind -> how often
    places: dict[str, list[str]] = field(default_factory=dict)  # kind -> where, the first NAMED
    polarities: Counter[tuple[bool, Polarity]] = field(default_factory=Counter)  # positive points?
    points: float = 0.0  # positive ones of all training criteria, ...
    for_presence: float = 0.0  # ... and of those that reward what is said

    def add(self, kind: str, prompt_id: str, what: str, criterion: int | None = None) -> None:
        """Notes a row, and the criterion by its number from 1."""
        where = f"prompt_id {one_line(prompt_id)}"
        if criterion is not None:
            where += f", criterion {criterion + 1}"
        self.add_place(kind, f"{where}: {what}")

    def add_all(self, others: "Findings") -> None:
        """Adds what was found in later rows."""
        for kind, places in others.places.items():
            room = NAMED - len(self.places.setdefault(kind, []))
            self.places[kind] += places[:room]
        self.counts.update(others.counts)
        self.polarities.update(others.polarities)
        self.points += others.points
        self.for_presence += others.for_presence

    def add_place(self, kind: str, place: str) -> None:
        """Notes a place."""
        self.counts[kind] += 1
        if self.counts[kind] <= NAMED:
            self.places.setdefault(kind, []).append(place)


def contradicts(criterion: Criterion, judge: Judge = polarity) -> bool:
    """Whether the criterion's wording is plain, and its points have the other sign."""
    return judge(criterion.text) is _AGAINST[criterion.points > 0]


def check(
    training: Iterable[Row],
    held_out: Iterable[Row],
    refused: Iterable[str] = (),
    judge: Judge = polarity,
) -> Findings:
    """Everything suspect in the rows; `refused` are the messages about rows that were not read.

    Each row is read once.
    """
    found = Findings()
    prompts = _Prompts()
    of_training = ((packed, True) for packed in packed_rows(training))
    of_evaluation = ((packed, False) for packed in packed_rows(held_out))
    pieces = in_pieces(chain(of_training, of_evaluation), PIECE)
    work = partial(_check_piece, judge=judge)
    # What a model said of a million criteria is not sent to other processes.
    checked = in_order(work, pieces) if judge is polarity else map(work, pieces)
    for of_piece, of_prompts in checked:
        found.add_all(of_piece)
        prompts.add_all(of_prompts)
    _check_prompts(prompts, prompts.training, found)
    _check_language(prompts.scripts, found)
    for message in refused:
        if NOT_THE_USERS in message:
            found.add_place("last-turn", message)
    return found


class _Prompts:
    """What the checks across rows remember of each."""

    def __init__(self):
        self.training = 0  # so many of them are of training, the first
        self.ids: list[str] = []
        self.conversations = ManyTexts()
        self.beginnings: list[tuple[int, ...]] = []
        self.scripts: list[tuple[str, str, str]] = []  # prompt_id, of the prompt, of the rubric

    def add_all(self, prompts: Iterable[_Prompt]) -> None:
        """Remembers the prompts of later rows."""
        for prompt_id, is_training, words, beginnings, asked, graded in prompts:
            self.training += is_training
            self.ids.append(prompt_id)
            self.conversations.add(words.split("\n"))
            self.beginnings.append(beginnings)
            self.scripts.append((prompt_id, asked, graded))


def _check_piece(
    rows: Iterable[tuple[bytes, bool]], judge: Judge
) -> tuple[Findings, list[_Prompt]]:
    """What is suspect in each rubric alone, and what the checks across rows need.

    The rows are packed, and beside each stands whether it is of training.
    """
    found = Findings()
    prompts = []
    for packed, is_training in rows:
        row = unpack(packed)
        prompts.append(_prompt(row, is_training))
        _check_criteria(row, judge, found)
        if is_training:  # held-out ones stand as published, compound and repeated ones too
            _count_points(row, found)
            _check_rubric(row, found)
    return found, prompts


def _prompt(row: Row, is_training: bool) -> _Prompt:
    says = " ".join(message["content"] for message in row.messages)
    graded = " ".join(criterion.text for criterion in row.rubric[:3])
    asked = row.messages[-1]["content"]
    return _Prompt(
        row.prompt_id,
        is_training,
        "\n".join(words_of(says)),
        _beginnings(row.messages),
        script(asked),
        script(graded),
    )


def _beginnings(messages: Iterable[dict]) -> tuple[int, ...]:
    """The conversation without system messages up to each turn of the user, each as a hash."""
    turns = conversation(message for message in messages if message["role"] != "system")
    said = hashlib.blake2b(digest_size=8)
    found = []
    for turn in turns:
        said.update(repr(turn).encode(errors="replace"))
        if turn[0] == "user":
            found.append(int.from_bytes(said.digest(), "big"))
    return tuple(found)


def _count_points(row: Row, found: Findings) -> None:
    for criterion in row.rubric:
        if criterion.points > 0:
            found.points += criterion.points
            if rewards_presence(criterion.text):
                found.for_presence += criterion.points


def _check_criteria(row: Row, judge: Judge, found: Findings) -> None:
    for number, criterion in enumerate(row.rubric):
        text = criterion.text
        meaning = judge(text)
        positive = criterion.points > 0
        found.polarities[positive, meaning] += 1
        if meaning is _AGAINST[positive]:
            found.add(
                "polarity",
                row.prompt_id,
                f"{criterion.points:g} points, worded as {meaning}",
                number,
            )
        reason = unmeetable(text)
        if reason:
            found.add("unmeetable", row.prompt_id, reason, number)


def _check_rubric(row: Row, found: Findings) -> None:
    texts = [criterion.text for criterion in row.rubric]
    for number, text in enumerate(texts):
        conditions = len(parts(text))
        if conditions > 1:
            found.add("compound", row.prompt_id, f"{conditions} conditions", number)
    for later, earlier in _first_repeated(near_duplicates(texts)):
        found.add("duplicates", row.prompt_id, f"as criterion {earlier + 1}", later)
    sizes = [abs(criterion.points) for criterion in row.rubric]
    largest = max(sizes)
    if len(sizes) > 2 and largest > sum(sizes) - largest:
        share = largest / sum(sizes)
        found.add("points", row.prompt_id, f"{share:.0%} of all points", sizes.index(largest))


def _first_repeated(pairs: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Each text that repeats others, with the first of those."""
    first: dict[int, int] = {}
    for earlier, later in pairs:
        first.setdefault(later, earlier)
    return first.items()


def _check_prompts(prompts: _Prompts, training: int, found: Findings) -> None:
    """The conversations of the first `training` prompts against each other and the held-out ones.

    A held-out prompt stands as published: it is the training one that repeats it, or begins so.
    """
    of_training: dict[int, int] = {}  # a prompt -> the first that it repeats
    of_held_out: dict[int, int] = {}
    for earlier, later in prompts.conversations.near_duplicates():
        if later < training:
            of_training.setdefault(later, earlier)
        elif earlier < training:
            of_held_out.setdefault(earlier, later)
    begin_so = _beginning_as_held_out(prompts.beginnings, training)
    for place, other in sorted((of_training | begin_so | of_held_out).items()):
        says = "as training"
        if place in of_held_out:
            says = "as held-out"
        elif place in begin_so:
            says = "begins as held-out"
        found.add("prompts", prompts.ids[place], f"{says} prompt {prompts.ids[other]}")


def _beginning_as_held_out(beginnings: Sequence[tuple[int, ...]], training: int) -> dict[int, int]:
    """The training prompts that begin with all turns of a held-out one, and which one that is."""
    held_out: dict[int, int] = {}
    for place in range(training, len(beginnings)):
        for whole in beginnings[place][-1:]:
            held_out.setdefault(whole, place)
    found = {}
    for place in range(training):
        for beginning in beginnings[place]:
            if beginning in held_out:
                found.setdefault(place, held_out[beginning])
    return found


def _check_language(scripts: Sequence[tuple[str, str, str]], found: Findings) -> None:
    counts = Counter(asked for _, asked, _ in scripts if asked)
    most = max(counts, key=lambda name: counts[name], default="")
    for prompt_id, asked, graded in scripts:
        if asked and graded and asked != graded:
            found.add("language", prompt_id, f"asked in {asked}, graded in {graded}")
        elif asked and asked != most:
            found.add("language", prompt_id, f"{asked}, most are {most}")


def report_lines(found: Findings, model: str = "") -> list[str]:
    """The report's section: counts and the first places of each kind.

    `model` is the name of the one that was asked about polarity, if one was.
    """
    means = f"wording and what {one_line(model)} says of it" if model else "wording alone"
    lines = [f"checks, by {means} (--strict makes them errors):"]
    for positive, name in ((True, "positive"), (False, "negative")):
        counts = [f"{found.polarities[positive, word]} {word}" for word in Polarity]
        lines.append(f"  {name} points, worded as: " + ", ".join(counts))
    if found.points:
        share = found.for_presence / found.points
        lines.append(f"  {share:.1%} of positive training points reward what is said")
    for kind, title in KINDS.items():
        count = found.counts[kind]
        if count:
            lines.append(f"  {kind}: {count} {title}")
            lines += [f"    {place}" for place in found.places[kind]]
            more = count - NAMED
            if more > 0:
                lines.append(f"    and {more} more")
    return lines


def refuse(found: Findings, kinds: Iterable[str]) -> None:
    """Raises DataError that names the first rows of each of the kinds with findings."""
    complaints = []
    for kind in kinds:
        count = found.counts[kind]
        if count:
            named = "; ".join(found.places[kind])
            complaints.append(f"{kind}: {count} ({named})")
    if complaints:
        hint = "mend the rows, or name fewer checks with --strict"
        raise DataError(f"--strict: {', '.join(complaints)}; {hint}")
