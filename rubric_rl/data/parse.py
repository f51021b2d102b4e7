"""Reads what travels from JSON: rows and records, each checked once, where it comes in."""

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes no other one in Python 3.11

from rubric_rl.common.errors import DataError
from rubric_rl.common.jsonl import json_text
from rubric_rl.common.plain_text import shows_something
from rubric_rl.data.schema import Anchored, Criterion, Record, Row, Status, TokenCounts, Verdict

REMAKE = "make the rows with data_preprocess.py"
LEAVE_OUT = "leave the row out"
NOT_THE_USERS = "it must be the user's"  # said of a last turn; a check counts such rows by it
_NO_TAGS = "must be a list of strings; --format plain reads other forms"
LEAST_POINTS = 1e-6  # sizes of a criterion's points
MOST_POINTS = 1e6


def _finite_size(points: float) -> float:
    # The bounds keep every score finite; neither 0 nor NaN nor infinity lies within them.
    if not LEAST_POINTS <= abs(points) <= MOST_POINTS:
        raise ValueError
    return points


def _not_empty(text: str) -> str:
    # pydantic's own min_length would refuse a lone surrogate.
    if not text:
        raise ValueError
    return text


def _not_blank(text: str) -> str:
    if not shows_something(text):
        raise ValueError
    return text


_Tags = list[str] | tuple[str, ...] | None


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


# Of what rows have many, a checked dict is made in half the time of an object.
@with_config(_Form.model_config)
class _MessageForm(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@with_config(_Form.model_config)
class _CriterionForm(TypedDict):
    criterion: Annotated[str, AfterValidator(_not_blank)]
    points: Annotated[int | float, AfterValidator(_finite_size)]
    tags: NotRequired[_Tags]


class _RowForm(_Form):
    model_config = ConfigDict(strict=True, extra="allow")

    prompt_id: Annotated[str, AfterValidator(_not_empty)]
    messages: Annotated[list[_MessageForm], Field(min_length=1)]
    rubrics: Annotated[list[_CriterionForm], Field(min_length=1)]
    theme: Any = None
    example_tags: _Tags = None


def row_from_metadata(metadata: object, where: str = "metadata") -> Row:
    """Builds a Row from a row's `metadata` object.

    Raises:
        DataError: naming `where`, the prompt_id and the field, for anything that could not be
            scored: no question of the user at the end, an empty criterion, points that are zero
            or not finite, no positive points.
    """
    if not isinstance(metadata, dict):
        found = type(metadata).__name__
        raise DataError(f"{where}: metadata is {found}, not an object; {REMAKE}")
    prompt_id = metadata.get("prompt_id")
    if prompt_id and isinstance(prompt_id, str):
        where = f"{where}, prompt_id {prompt_id}"
    try:
        form = _RowForm.model_validate(metadata)
    except ValidationError as error:
        complaint = _complaint(error)
        raise DataError(f"{where}{complaint}") from None
    last = form.messages[-1]
    if last["role"] != "user":
        what = f"the last message is from the {last['role']}"
        raise DataError(f"{where}: {what}; {NOT_THE_USERS}")
    if not shows_something(last["content"]):
        raise DataError(f"{where}: the last message is empty, so nothing is asked; {LEAVE_OUT}")
    rubric = _rubric(form.rubrics)
    if not any(criterion.points > 0 for criterion in rubric):
        what = "no criterion has positive points, so no score is defined"
        raise DataError(f"{where}: {what}; {LEAVE_OUT}")
    return Row(
        prompt_id=form.prompt_id,
        messages=_messages(form.messages),
        rubric=rubric,
        theme=str(form.theme or ""),
        example_tags=tuple(form.example_tags or ()),
        extra=dict(form.model_extra or {}),
    )


def _messages(forms: Iterable[Mapping]) -> tuple[dict, ...]:
    """The messages of a row's or a record's form."""
    return tuple({"role": form["role"], "content": form["content"]} for form in forms)


def _rubric(forms: Iterable[Mapping]) -> tuple[Criterion, ...]:
    """The criteria of a row's or a record's form."""
    return tuple(
        [
            Criterion(form["criterion"], form["points"], tuple(form.get("tags") or ()))
            for form in forms
        ]
    )


def check_json(item: object, where: str) -> None:
    """Raises DataError for a row that a JSONL file cannot hold: Python reads more than JSON has."""
    try:
        json_text(item).encode()
        return
    except UnicodeEncodeError:
        what = "a lone surrogate, which no tokenizer reads"
    except TypeError as error:  # from a converter, or from a data set's own types
        what = str(error)
    except RecursionError:
        what = "it is nested too deeply"
    except ValueError:
        what = "a number that is not finite, which JSON lacks"
    place = where.encode(errors="replace").decode()
    raise DataError(f"{place}: {what}; {LEAVE_OUT}")


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong with a row, as the rest of a line that names its place."""
    first = error.errors()[0]
    name, *inner = first["loc"]
    if name == "prompt_id":
        return f": prompt_id is missing; {REMAKE}"
    if name == "example_tags":
        return f": example_tags {_NO_TAGS}"
    if name == "messages" and not inner:
        return ": messages is not a list of chat messages"
    if name == "messages":
        return ": each message needs a role of system, user, assistant and a text content"
    if not inner:
        return ": rubrics is not a list of criteria"
    index, *fields = inner
    number = int(index) + 1
    place = f", criterion {number}"
    field_name = fields[0] if fields else "criterion"
    if field_name == "points":
        is_missing = first["type"] == "missing"
        given = None if is_missing else first["input"]
        return f"{place}: points must be a number of size 1e-6 to 1e6, not {given!r:.40}"
    if field_name == "tags":
        return f"{place}: tags {_NO_TAGS}"
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
        seen = copy.deepcopy(fields)
        self._rows[row.prompt_id] = (seen, row)
        return row


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


_Finite = Annotated[int | float, AfterValidator(_finite)]


@with_config(_Form.model_config)
class _RecordedMessage(TypedDict):
    role: str
    content: str


@with_config(_Form.model_config)
class _RecordedCriterion(TypedDict):
    criterion: str
    points: _Finite  # 0 in a meta-evaluation
    tags: list[str]


class _RecordedVerdict(_Form):
    model_config = ConfigDict(strict=True, extra="forbid")

    met: bool | None
    probability: _Finite | None = None
    explanation: str = ""
    mass: _Finite | None = None
    finished: bool = False


def _verdicts(forms: list[_RecordedVerdict]) -> list[Verdict]:
    return [Verdict(**vars(form)) for form in forms]


class _RecordedTokens(_Form):
    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def counts(self) -> TokenCounts:
        return TokenCounts(self.prompt, self.cached, self.completion)


class _AnchoredForm(_Form):
    grader: str
    verdicts: list[_RecordedVerdict]
    score: _Finite | None
    tokens: _RecordedTokens
    delay: _Finite
    error: str

    def anchored(self) -> Anchored:
        return Anchored(
            grader=self.grader,
            verdicts=_verdicts(self.verdicts),
            score=math.nan if self.score is None else self.score,
            tokens=self.tokens.counts(),
            delay=self.delay,
            error=self.error,
        )


class _RecordForm(_Form):
    prompt_id: str
    split: str
    index: int | None
    group: int | None = None
    weight_version: str
    run: str = ""
    rollout: int | None = None
    time: Annotated[int | float, Field(ge=0, lt=1e11)] = 0.0
    status: Status
    score: _Finite | None
    rubrics: list[_RecordedCriterion]
    verdicts: list[_RecordedVerdict]
    answer: str | None = None
    messages: list[_RecordedMessage] = []
    theme: str = ""
    example_tags: list[str] = []
    grader: str = ""
    template: str = ""
    grader_versions: list[str] = []
    first_tokens: _RecordedTokens = _RecordedTokens()
    rest_tokens: _RecordedTokens = _RecordedTokens()
    policy_tokens: _RecordedTokens | None = None
    calls: int = 0
    seconds: _Finite = 0.0
    error: str = ""
    unreadable_causes: dict[str, int] = {}
    anchored: _AnchoredForm | None = None
    rule: dict[str, Any] = {}
    category: str = ""
    labels: list[bool] = []
    physicians: list[str] = []


def record_from_json(item: object) -> Record:
    """Reads a record, also one of the first form, whose verdicts are three parallel lists.

    Raises DataError, without a place, for anything that is no record.
    """
    try:
        present = _in_present_form(item)
        form = _RecordForm.model_validate(present)
        _check_status(form)
    except (LookupError, TypeError, ValueError, OverflowError):
        hint = "leave the file out or grade its answers again"
        raise DataError(f"not a verdict record; {hint}") from None
    policy_tokens = None
    if form.policy_tokens:
        policy_tokens = form.policy_tokens.counts()
    return Record(
        prompt_id=form.prompt_id,
        rubric=_rubric(form.rubrics),
        status=form.status,
        answer=form.answer,
        score=math.nan if form.score is None else form.score,
        verdicts=_verdicts(form.verdicts),
        messages=_messages(form.messages),
        theme=form.theme,
        example_tags=tuple(form.example_tags),
        split=form.split,
        index=form.index,
        group=form.group,
        weight_version=form.weight_version,
        run=form.run,
        rollout=form.rollout,
        time=form.time,
        grader=form.grader,
        template=form.template,
        grader_versions=form.grader_versions,
        first_tokens=form.first_tokens.counts(),
        rest_tokens=form.rest_tokens.counts(),
        policy_tokens=policy_tokens,
        calls=form.calls,
        seconds=form.seconds,
        error=form.error,
        unreadable_causes=form.unreadable_causes,
        anchored=form.anchored.anchored() if form.anchored else None,
        rule=form.rule,
        category=form.category,
        labels=form.labels,
        physicians=form.physicians,
    )


def _check_status(form: _RecordForm) -> None:
    """Raises ValueError for verdicts or a score that do not go with the status.

    A graded answer has a verdict per criterion, any other has none. All but an ungraded one have a
    score; in a meta-evaluation, where there are labels, it may lack.
    """
    expected = len(form.rubrics) if form.status == "graded" else 0
    if len(form.verdicts) != expected:
        raise ValueError
    if form.anchored and len(form.anchored.verdicts) not in (0, len(form.rubrics)):
        raise ValueError
    has_score = form.score is not None
    if form.status == "ungraded":
        fits = not has_score
    else:
        fits = has_score or form.labels
    if not fits:
        raise ValueError


def _in_present_form(item: Any) -> Any:
    """A record of the first form in the present one; anything else as it is."""
    if not isinstance(item, dict):
        return item
    item = dict(item)
    if "weight_versions" in item:
        item["grader_versions"] = item["weight_versions"]
    found = item["verdicts"]
    if all(isinstance(each, Mapping) for each in found):
        return item
    count = len(found)
    probabilities = item.get("probabilities") or [None] * count
    explanations = item.get("explanations") or [""] * count
    item["verdicts"] = [
        {"met": met, "probability": probability, "explanation": explanation}
        for met, probability, explanation in zip(found, probabilities, explanations, strict=True)
    ]
    return item
