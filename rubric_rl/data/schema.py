"""What travels: a row with its rubric, a verdict on a criterion, the record of a graded answer.

Their JSON forms are written here and read in parse.py.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple


class Criterion(NamedTuple):  # a million of them are made several times over: the cheapest to make
    """One rubric item. `points` is positive for what an answer should do, negative for what not.

    It is never 0 in a row; the criteria of a meta-evaluation have no points, which is 0 here: they
    are read as positive ones, as most are.
    """

    text: str
    points: float
    tags: tuple[str, ...] = ()

    def tag(self, kind: str) -> str:
        """The value of the first tag `kind:value`, "" when there is none.

        HealthBench's kinds are level, axis and cluster.
        """
        start = kind + ":"
        for tag in self.tags:
            if tag.startswith(start):
                return tag.removeprefix(start)
        return ""

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


@dataclass(frozen=True)
class Verdict:
    """The grader's word on one criterion; `met` is None when its reply could not be read."""

    met: bool | None
    probability: float | None = None  # of met against not met, where it was read
    explanation: str = ""
    mass: float | None = None  # of both together; the rest is that of other words
    finished: bool = False  # its reply gave none, and was continued up to the two words

    @property
    def of_words(self) -> tuple[float, float]:
        """The probabilities of "met" and of "not met"; the rest is that of other words.

        A reply that had to be finished gives no part to the word that is not its verdict.
        """
        if self.probability is None:
            return 0.0, 0.0
        mass = 1.0 if self.mass is None else self.mass
        met = self.probability * mass
        not_met = (1 - self.probability) * mass
        if self.finished:
            return met * (self.met is True), not_met * (self.met is False)
        return met, not_met


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


@dataclass
class Anchored:
    """Another grader's word on the same answer; it earns no reward.

    `verdicts` has one entry per criterion, none where `error` says why. `delay`: the seconds that
    the answer waited for it.
    """

    grader: str
    verdicts: list[Verdict] = field(default_factory=list)
    score: float = math.nan
    tokens: TokenCounts = field(default_factory=TokenCounts)
    delay: float = 0.0
    error: str = ""

    def to_json(self) -> dict:
        """As JSON; NaN, which JSON lacks, becomes null."""
        return asdict(self) | {"score": None if math.isnan(self.score) else self.score}


def answer_key(
    split: str, index: int | None, prompt_id: str, run: str, weight_version: str
) -> tuple:
    """What identifies an answer: of two records with the same key the later one counts.

    In training that is the sample's number. slime counts on after a resume, so a rollout that is
    made again has the numbers of the lost one, whatever the version of its weights. In an
    evaluation the numbers begin anew: there the weights belong to it, and their run. Records of
    older forms name no run.
    """
    if not run:
        return split, index, weight_version, prompt_id
    if split == "train":
        return split, index, "", prompt_id
    return split, index, f"{run} {weight_version}", prompt_id


Status = Literal["graded", "no_answer", "truncated", "too_long", "ungraded"]
AT_ZERO: tuple[Status, ...] = ("no_answer", "truncated", "too_long")  # score 0 unread
STATUSES: tuple[Status, ...] = ("graded", *AT_ZERO, "ungraded")


@dataclass
class Record:
    """What became of one answer: of training, of an evaluation, of a meta-evaluation.

    `status` is graded, ungraded, or one that scores 0 unread: no_answer, truncated, or too_long to
    be graded by the policy that wrote it. `score` is NaN when ungraded, and of no meaning in a
    meta-evaluation. `verdicts` has one entry per criterion of `rubric`, in its order, none unless
    graded. From a record the reward can be computed again without the model.
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
    group: int | None = None  # in training the number of the sample's group; None in older records
    weight_version: str = ""  # of the policy that answered; an evaluation's name
    run: str = ""  # slime counts weight versions anew in each; older records have none
    rollout: int | None = None  # the trainer's number of the rollout, where it is known
    time: float = 0.0  # when it was written, in seconds since 1970; 0 in older records
    grader: str = ""
    template: str = ""  # the label of a grader_template; "" for our own prompt
    grader_versions: list[str] = field(default_factory=list)  # weight versions that graded
    first_tokens: TokenCounts = field(default_factory=TokenCounts)  # the request that warms
    rest_tokens: TokenCounts = field(default_factory=TokenCounts)  # all other requests
    policy_tokens: TokenCounts | None = None  # where the answer was asked for here
    anchored: Anchored | None = None
    rule: dict = field(default_factory=dict)  # of the reward, where it is not the plain score
    calls: int = 0
    seconds: float = 0.0
    error: str = ""
    # Why verdicts could not be read -> how many; see serving/defects.py.
    unreadable_causes: dict[str, int] = field(default_factory=dict)
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
        """What identifies the answer, as `answer_key` says."""
        return answer_key(self.split, self.index, self.prompt_id, self.run, self.weight_version)

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
            "group": self.group,
            "weight_version": self.weight_version,
            "run": self.run,
            "rollout": self.rollout,
            "time": self.time,
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
            "unreadable_causes": self.unreadable_causes,
            "anchored": self.anchored.to_json() if self.anchored else None,
            "rule": self.rule,
        }
        if self.template:
            item["template"] = self.template
        if self.labels:
            item |= {
                "category": self.category,
                "labels": self.labels,
                "physicians": self.physicians,
            }
        return item
