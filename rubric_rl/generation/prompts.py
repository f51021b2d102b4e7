"""The prompts that get a rubric, with what is known of good answers to them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import AnyPath, read_jsonl
from rubric_rl.common.plain_text import shows_something
from rubric_rl.data.healthbench import KEPT_FIELDS, with_theme
from rubric_rl.data.parse import check_json, row_from_metadata
from rubric_rl.data.readers import plain
from rubric_rl.data.readers.pieces import hashed, known_id
from rubric_rl.data.readers.signs import refuse_negative_lists
from rubric_rl.data.schema import Row

GIVE_PROMPTS = "give --prompts a JSONL file of prompts"
# A row is checked with a rubric; a prompt that has none gets this one meanwhile.
NO_RUBRIC_YET = [{"criterion": "None yet", "points": 1}]
_REFERENCES = ("reference", "reference_answer", "ideal_completion")
_EXPERTS = ("rubrics", "rubric")
_NOTHING = (None, "", [], {})


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what its line carries besides."""

    row: Row  # its rubric is an expert's, which the writer never sees; empty where there is none
    reference: str = ""  # a good answer; the writer sees it
    pairs: tuple[tuple[str, str], ...] = ()  # (better, worse) answers: known truth, for measuring

    @property
    def prompt_id(self) -> str:
        return self.row.prompt_id


def read_prompt(item: object, where: str) -> Prompt:
    """A prompt from a line: a row of any form of this repository, or `prompt` alone.

    `prompt` or `messages` is a text or chat messages, which are read as by data_preprocess.py, with
    a `system` text before them and the `input` of an `instruction` behind.
    Known besides are prompt_id (by default the beginning of the prompt's hash), `rubrics` or
    `rubric` (an expert's, in the forms of `plain`), `reference`, and pairs of answers: `pairs` of
    {"better", "worse"}, or `chosen` and `rejected`. Raises DataError naming `where`.
    """
    if not isinstance(item, dict):
        raise DataError(f"{where}: not a JSON object; {GIVE_PROMPTS}")
    prepared = item.get("metadata")
    fields = dict(item)
    if isinstance(prepared, dict):
        fields |= prepared
        fields["prompt"] = prepared.get("messages") or fields.get("prompt")
    check_json(fields, where)
    if not any(fields.get(key) for key in plain.PROMPT_KEYS):
        raise DataError(f"{where}: no prompt; each line needs `prompt`, a text or messages")
    try:
        messages = plain.messages_of(fields)
        rubrics = _expert_rubric(fields)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    metadata = {name: fields[name] for name in KEPT_FIELDS if name in fields}
    metadata["messages"] = messages
    metadata["rubrics"] = rubrics or NO_RUBRIC_YET
    metadata["prompt_id"] = known_id(fields) or hashed(messages)
    try:
        row = row_from_metadata(metadata, where)
    except DataError as error:
        step = "" if "; " in str(error) else "; mend the line, or leave that out"
        raise DataError(f"{error}{step}") from None
    if not rubrics:
        row = replace(row, rubric=())
    place = f"{where}, prompt_id {row.prompt_id}"
    return Prompt(with_theme(row), _reference(fields, place), tuple(_pairs(fields, place)))


def _expert_rubric(fields: Mapping) -> list[dict]:
    """The rubric that a line has, read as data_preprocess.py reads one; empty without one."""
    given = [fields[name] for name in _EXPERTS if fields.get(name) not in _NOTHING]
    if not given:
        return []
    refuse_negative_lists(fields)
    beside = {name: fields[name] for name in plain.POINTS_LISTS if name in fields}
    rubric = plain.read(beside | {"prompt": "of this line", "rubrics": given[0]})["rubrics"]
    if not rubric:
        raise DataError("its rubric has no criterion with points; mend the line, or leave that out")
    return rubric


def _reference(fields: Mapping, where: str) -> str:
    """The first text under one of the names in use; HealthBench has it in an object of its own."""
    places = [fields, fields.get("ideal_completions_data")]
    for place in places:
        if not isinstance(place, dict):
            continue
        for name in _REFERENCES:
            text = place.get(name)
            if text in _NOTHING:
                continue
            if not isinstance(text, str):
                what = f"{name} is {text!r:.40}, no text"
                raise DataError(f"{where}: {what}; write one good answer, or leave it out")
            if shows_something(text):
                return text
    return ""


def _pairs(fields: Mapping, where: str) -> Iterator[tuple[str, str]]:
    pairs = fields.get("pairs")
    chosen = fields.get("chosen")
    rejected = fields.get("rejected")
    if pairs is None and (chosen, rejected) != (None, None):
        pairs = [{"better": chosen, "worse": rejected}]
    if pairs is None:
        return
    if not isinstance(pairs, list):
        raise DataError(f"{where}: pairs is no list; write [{{'better': ..., 'worse': ...}}]")
    for pair in pairs:
        texts = []
        if isinstance(pair, dict):
            texts = [pair.get("better"), pair.get("worse")]
        match texts:
            case [str(better), str(worse)] if shows_something(better) and shows_something(worse):
                yield better, worse
            case _:
                what = "a pair of answers needs two texts, better and worse (or chosen, rejected)"
                raise DataError(f"{where}: {what}; fix it, or leave the pair out")


class PromptFile:
    """A file of prompts: checked as a whole at the start, then read prompt by prompt."""

    def __init__(self, path: AnyPath, limit: int = 0):
        """With `limit`, only the first so many.

        Raises DataError for a line that is no prompt, a repeated prompt_id, or no prompt at all.
        """
        self.path = path
        self._limit = limit
        self.prompt_ids: list[str] = []
        seen = set()
        for where, prompt in self._prompts():
            prompt_id = prompt.prompt_id
            if prompt_id in seen:
                place = f"{where}, prompt_id {prompt_id}"
                raise DataError(f"{place}: duplicate of an earlier line; leave one of them out")
            seen.add(prompt_id)
            self.prompt_ids.append(prompt_id)
        if not self.prompt_ids:
            raise DataError(f"{path}: holds no prompts; {GIVE_PROMPTS}")

    def __iter__(self) -> Iterator[Prompt]:
        for _, prompt in self._prompts():
            yield prompt

    def _prompts(self) -> Iterator[tuple[str, Prompt]]:
        lines = read_jsonl(self.path)
        for number, item in islice(lines, self._limit or None):
            where = f"{self.path}:{number}"
            yield where, read_prompt(item, where)
