"""Reads what travels from JSON: rows and records, each checked once, where it comes in."""

import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rubric_rl.data.schema import STATUSES, Criterion, Record, Row, TokenCounts, Verdict
from rubric_rl.errors import DataError

REMAKE = "make the rows with data_preprocess.py"


def _finite_size(points: float) -> float:
    # The bounds keep every score finite; neither 0 nor NaN nor infinity lies within them.
    if not 1e-6 <= abs(points) <= 1e6:
        raise ValueError
    return points


def _not_empty(text: str) -> str:
    # pydantic's own min_length would refuse a lone surrogate.
    if not text:
        raise ValueError
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _MessageForm(_Form):
    role: Literal["system", "user", "assistant"]
    content: str


class _CriterionForm(_Form):
    criterion: Annotated[str, AfterValidator(_not_blank)]
    points: Annotated[int | float, AfterValidator(_finite_size)]
    tags: list[str] | tuple[str, ...] | None = None


class _RowForm(_Form):
    model_config = ConfigDict(strict=True, extra="allow")

    prompt_id: Annotated[str, AfterValidator(_not_empty)]
    messages: Annotated[list[_MessageForm], Field(min_length=1)]
    rubrics: Annotated[list[_CriterionForm], Field(min_length=1)]
    theme: Any = None
    example_tags: list[str] | tuple[str, ...] | None = None


def row_from_metadata(metadata: object, where: str = "metadata") -> Row:
    """Builds a Row from a row's `metadata` object.

    Raises:
        DataError: naming `where`, the prompt_id and the field, for anything that could not be
            scored: no user turn at the end, an empty criterion, points that are zero or not
            finite, no positive points.
    """
    if not isinstance(metadata, dict):
        found = type(metadata).__name__
        raise DataError(f"{where}: metadata is {found}, not an object; {REMAKE}")
    if metadata.get("prompt_id") and isinstance(metadata["prompt_id"], str):
        where = f"{where}, prompt_id {metadata['prompt_id']}"
    try:
        form = _RowForm.model_validate(metadata)
    except ValidationError as error:
        raise DataError(f"{where}{_complaint(error)}") from None
    if form.messages[-1].role != "user":
        last = form.messages[-1].role
        raise DataError(f"{where}: the last message is from the {last}; it must be the user's")
    rubric = tuple(Criterion(c.criterion, c.points, tuple(c.tags or ())) for c in form.rubrics)
    if not any(criterion.points > 0 for criterion in rubric):
        hint = "so no score is defined; leave the row out"
        raise DataError(f"{where}: no criterion has positive points, {hint}")
    return Row(
        prompt_id=form.prompt_id,
        messages=tuple({"role": m.role, "content": m.content} for m in form.messages),
        rubric=rubric,
        theme=str(form.theme or ""),
        example_tags=tuple(form.example_tags or ()),
        extra=dict(form.model_extra or {}),
    )


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong with a row, as the rest of a line that names its place."""
    first = error.errors()[0]
    name, *inner = first["loc"]
    if name == "prompt_id":
        return f": prompt_id is missing; {REMAKE}"
    if name == "example_tags":
        return ": tags must be a list of strings"
    if name == "messages" and not inner:
        return ": messages is not a list of chat messages"
    if name == "messages":
        return ": each message needs a role of system, user, assistant and a text content"
    if not inner:
        return ": rubrics is not a list of criteria"
    place = f", criterion {int(inner[0]) + 1}"
    field_name = inner[1] if len(inner) > 1 else "criterion"
    if field_name == "points":
        given = first["input"] if len(inner) > 1 and first["type"] != "missing" else None
        return f"{place}: points must be a number of size 1e-6 to 1e6, not {given!r:.40}"
    if field_name == "tags":
        return f"{place}: tags must be a list of strings"
    return f"{place}: its text is empty or missing"


class RowCache:
    """Rows by prompt: the answers of a group, and of later epochs, share the Row parsed first."""

    def __init__(self):
        # prompt_id -> the fields that it came from, Row
        self._rows: dict[str, tuple[dict, Row]] = {}

    def row(self, metadata: dict, where: str) -> Row:
        """The Row of a sample's `metadata`. Raises DataError as `row_from_metadata`."""
        fields = {name: metadata.get(name) for name in _RowForm.model_fields}
        prompt_id = fields["prompt_id"]
        if isinstance(prompt_id, str) and prompt_id in self._rows:
            seen, row = self._rows[prompt_id]
            # Two data sets may know one prompt by different rubrics.
            if fields == seen:
                return row
        row = row_from_metadata(metadata, where)
        # A copy: who changes the metadata later gets another row.
        self._rows[row.prompt_id] = (copy.deepcopy(fields), row)
        return row


def record_from_json(item: object) -> Record:
    """Reads a record, also one of the first form, whose verdicts are three parallel lists.

    Raises DataError, without a place, for anything that is no record.
    """
    try:
        record = _record(item)
        _check_types(record)
        return record
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        hint = "leave the file out or grade its answers again"
        raise DataError(f"not a verdict record; {hint}") from None


def _record(item: Any) -> Record:
    rubric = tuple(
        Criterion(each["criterion"], each["points"], tuple(each["tags"]))
        for each in item["rubrics"]
    )
    verdicts = _verdicts(item)
    status, score = item["status"], item["score"]
    graded = status == "graded"
    if status not in STATUSES or (graded and len(verdicts) != len(rubric)):
        raise ValueError
    if isinstance(score, bool) or not isinstance(score, (int, float, type(None))):
        raise TypeError
    labels = item.get("labels") or []
    if graded and score is None and not labels:
        raise ValueError
    policy_tokens = item.get("policy_tokens")
    return Record(
        prompt_id=item["prompt_id"],
        rubric=rubric,
        status=status,
        answer=item.get("answer"),
        score=math.nan if score is None else score,
        verdicts=verdicts,
        messages=tuple(item.get("messages") or ()),
        theme=item.get("theme") or "",
        example_tags=tuple(item.get("example_tags") or ()),
        split=item["split"],
        index=item["index"],
        weight_version=item["weight_version"],
        grader=item.get("grader") or "",
        grader_versions=item.get("grader_versions") or item.get("weight_versions") or [],
        first_tokens=TokenCounts(**item.get("first_tokens") or {}),
        rest_tokens=TokenCounts(**item.get("rest_tokens") or {}),
        policy_tokens=TokenCounts(**policy_tokens) if policy_tokens else None,
        calls=item.get("calls") or 0,
        seconds=item.get("seconds") or 0.0,
        error=item.get("error") or "",
        category=item.get("category") or "",
        labels=labels,
        physicians=item.get("physicians") or [],
    )


def _check_types(record: Record) -> None:
    """Raises TypeError for a field of another type than it has, ValueError for NaN and infinity."""
    texts = [
        record.prompt_id,
        record.split,
        record.weight_version,
        record.theme,
        record.grader,
        record.error,
        record.category,
        *record.example_tags,
        *record.grader_versions,
        *record.physicians,
    ]
    numbers = [record.seconds, record.calls]
    if record.answer is not None:
        texts.append(record.answer)
    if record.index is not None:
        numbers.append(record.index)
    for message in record.messages:
        texts += [message["role"], message["content"]]
    for criterion in record.rubric:
        texts += [criterion.text, *criterion.tags]
        numbers.append(criterion.points)
    for verdict in record.verdicts:
        texts.append(verdict.explanation)
        if verdict.probability is not None:
            numbers.append(verdict.probability)
    for tokens in (record.first_tokens, record.rest_tokens, record.policy_tokens):
        if tokens:
            numbers += [tokens.prompt, tokens.cached, tokens.completion]
    bools = [verdict.met for verdict in record.verdicts if verdict.met is not None]
    bools += record.labels
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    if not all(isinstance(met, bool) for met in bools):
        raise TypeError
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError
        if not math.isfinite(number):
            raise ValueError


def _verdicts(item: Mapping) -> list[Verdict]:
    found = item["verdicts"]
    if all(isinstance(each, Mapping) for each in found):
        return [Verdict(**each) for each in found]
    count = len(found)  # the first form
    probabilities = item.get("probabilities") or [None] * count
    explanations = item.get("explanations") or [""] * count
    parts = zip(found, probabilities, explanations, strict=True)
    return [Verdict(met, probability, explanation) for met, probability, explanation in parts]
