"""What travels: a row with its rubric, a verdict on a criterion, the record of a graded answer.

The JSON form of each is known here and nowhere else.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rubric_rl.errors import DataError

REMAKE = "make the rows with data_preprocess.py"


@dataclass(frozen=True)
class Criterion:
    """One rubric item. `points` is positive for what an answer should do, negative for what not.

    It is never 0 in a row; the criteria of a meta-evaluation have no points, which is 0 here.
    """

    text: str
    points: float
    tags: tuple[str, ...] = ()

    def tag(self, kind: str) -> str:
        """The value of the first tag `kind:value`, "" when there is none.

        HealthBench's kinds are level, axis and cluster.
        """
        start = kind + ":"
        return next((tag.removeprefix(start) for tag in self.tags if tag.startswith(start)), "")

    def to_json(self) -> dict:
        """The item as it stands under `rubrics`, in rows and in records."""
        return {"criterion": self.text, "points": self.points, "tags": list(self.tags)}


@dataclass(frozen=True)
class Row:
    """One prompt with its rubric. `messages` ends with the user's turn that the policy answers."""

    prompt_id: str
    messages: tuple[dict, ...]
    rubric: tuple[Criterion, ...]
    theme: str = ""
    example_tags: tuple[str, ...] = ()
    extra: dict = field(default_factory=dict)  # canary and whatever else the source carried

    def to_json(self) -> dict:
        """The JSONL row that both trainers read.

        `prompt` is templated, `metadata` goes to the reward hook.
        """
        metadata = {
            "prompt_id": self.prompt_id,
            "messages": list(self.messages),
            "rubrics": [criterion.to_json() for criterion in self.rubric],
            "theme": self.theme,
            "example_tags": list(self.example_tags),
        }
        return {"prompt": list(self.messages), "metadata": metadata | self.extra}


def conversation(messages: Iterable[Mapping]) -> tuple:
    """What makes two conversations the same one, whatever their prompt_id and white space."""
    return tuple((message["role"], " ".join(message["content"].split())) for message in messages)


# The form of a row's `metadata` on disk. Each type says what it must be, for the message.


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


@dataclass(frozen=True)
class Verdict:
    """The grader's word on one criterion; `met` is None when its reply could not be read."""

    met: bool | None
    probability: float | None = None  # of met against not met, where it was read
    explanation: str = ""


UNREADABLE = Verdict(None)


@dataclass
class TokenCounts:
    """Tokens of requests: in the prompt, of these found in the engine's cache, and generated."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
        )


Status = Literal["graded", "no_answer", "truncated", "ungraded"]
STATUSES: tuple[Status, ...] = ("graded", "no_answer", "truncated", "ungraded")


@dataclass
class Record:
    """What became of one answer: of training, of an evaluation, of a meta-evaluation.

    `status` is graded, no_answer or truncated (both score 0 without a call) or ungraded; `score`
    is NaN when ungraded, and of no meaning in a meta-evaluation. `verdicts` has one entry per
    criterion of `rubric`, in its order, none unless graded. From a record the reward can be
    computed again without the model.
    """

    prompt_id: str
    rubric: tuple[Criterion, ...]
    status: Status
    answer: str | None
    score: float = math.nan
    verdicts: list[Verdict] = field(default_factory=list)
    messages: tuple[dict, ...] = ()  # the conversation; records of the first form lack it
    theme: str = ""
    example_tags: tuple[str, ...] = ()
    split: str = ""  # train, eval or meta
    index: int | None = None  # the sample's number in training, the repeat's in an evaluation
    weight_version: str = ""  # of the policy that answered; an evaluation's name
    grader: str = ""
    grader_versions: list[str] = field(default_factory=list)  # weight versions that graded
    first_tokens: TokenCounts = field(default_factory=TokenCounts)  # the request that warms
    rest_tokens: TokenCounts = field(default_factory=TokenCounts)  # all other requests
    policy_tokens: TokenCounts | None = None  # where the answer was asked for here
    calls: int = 0
    seconds: float = 0.0
    error: str = ""
    # In a meta-evaluation: the cluster of the criterion, and who labelled it how.
    category: str = ""
    labels: list[bool] = field(default_factory=list)
    physicians: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, row: Row, status: Status, answer: str | None, **more) -> "Record":
        """The record of an answer to a row."""
        return cls(
            prompt_id=row.prompt_id,
            rubric=row.rubric,
            status=status,
            answer=answer,
            messages=row.messages,
            theme=row.theme,
            example_tags=row.example_tags,
            **more,
        )

    @property
    def key(self) -> tuple:
        """What identifies an answer within a run."""
        return self.split, self.index, self.weight_version, self.prompt_id

    @property
    def mets(self) -> list[bool | None]:
        """The bare verdicts: met, not met, or None for unreadable."""
        return [verdict.met for verdict in self.verdicts]

    def to_json(self) -> dict:
        """The record as JSON; NaN, which JSON lacks, becomes null."""
        item = {
            "prompt_id": self.prompt_id,
            "split": self.split,
            "index": self.index,
            "weight_version": self.weight_version,
            "grader": self.grader,
            "status": self.status,
            "score": None if math.isnan(self.score) else self.score,
            "messages": list(self.messages),
            "answer": self.answer,
            "rubrics": [criterion.to_json() for criterion in self.rubric],
            "verdicts": [vars(verdict).copy() for verdict in self.verdicts],
            "theme": self.theme,
            "example_tags": list(self.example_tags),
            "grader_versions": self.grader_versions,
            "first_tokens": asdict(self.first_tokens),
            "rest_tokens": asdict(self.rest_tokens),
            "policy_tokens": asdict(self.policy_tokens) if self.policy_tokens else None,
            "calls": self.calls,
            "seconds": round(self.seconds, 4),
            "error": self.error,
        }
        if self.labels:
            item |= {
                "category": self.category,
                "labels": self.labels,
                "physicians": self.physicians,
            }
        return item

    @classmethod
    def from_json(cls, item: object) -> "Record":
        """Reads a record, also one of the first form, whose verdicts are three parallel lists.

        Raises DataError, without a place, for anything that is no record.
        """
        try:
            return _read_record(item)
        except (LookupError, TypeError, ValueError, AttributeError):
            hint = "leave the file out or grade its answers again"
            raise DataError(f"not a verdict record; {hint}") from None


def _read_record(item: Any) -> Record:
    rubric = tuple(
        Criterion(each["criterion"], each["points"], tuple(each["tags"]))
        for each in item["rubrics"]
    )
    verdicts = _read_verdicts(item)
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


def _read_verdicts(item: Mapping) -> list[Verdict]:
    found = item["verdicts"]
    if all(isinstance(each, Mapping) for each in found):
        return [Verdict(**each) for each in found]
    count = len(found)  # the first form
    probabilities = item.get("probabilities") or [None] * count
    explanations = item.get("explanations") or [""] * count
    parts = zip(found, probabilities, explanations, strict=True)
    return [Verdict(met, probability, explanation) for met, probability, explanation in parts]
